//! The pipeline model: a file or an API message becomes one validated, resolved form.
//!
//! - [`model`] is what a user wrote, with presence: a [`Pipeline`] can be printed and submitted again.
//! - [`source`] reads YAML or JSON text into it and finds every problem at once, with line and column.
//! - [`resolve`](resolve::resolve) merges defaults, expands matrix steps and checks everything; its [`ResolvedPipeline`] is what a
//!   run executes, stored once and small also for 100,000 steps.
//! - [`render`] prints the canonical file, [`hash`] identifies a submission's content, [`fields`] describes the format, [`schema`]
//!   as JSON Schema.
//!
//! The crate never does input or output, knows no clock and no protocol buffers: `shared/api` converts messages to [`Pipeline`].

mod check;
pub mod duration;
pub mod fields;
pub mod fragment;
pub mod hash;
mod kubernetes;
mod merge;
pub mod model;
mod path;
pub mod provenance;
mod quantity;
pub mod render;
mod resolve;
pub mod resolved;
pub mod scalar;
pub mod schema;
mod secret_reference;
pub mod source;
mod strict;
mod substitute;
mod texts;
pub mod violation;

pub use check::{is_data_key, is_dns_subdomain};
pub use duration::Millis;
pub use fragment::Fragment;
pub use hash::{ContentHash, content_hash, content_hash_hex};
pub use kubernetes::FREE_MAPS;
pub use model::{
    EnvVar, EnvVarSource, FailureMode, File, KeySelector, LogFollow, LostContactAction, MatrixAxis, Parameter,
    ParameterType, Pipeline, PodSettings, Quantity, Resources, RetryBudget, RunIf, Step, StepTemplate, Workspace,
};
pub use resolve::{
    DefaultRequests, Environment, Limits, ParameterValues, WorkspaceDefault, parse_default_requests, parse_parameters,
    resolve,
};
pub use resolved::{Policy, ResolvedPipeline, ResolvedTemplate, ResolvedWorkspace, RetryPolicy, StepOverlay, StepSpec};
pub use scalar::Scalar;
pub use violation::{Code, Location, Violation, Violations};
