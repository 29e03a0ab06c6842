//! Kubernetes manifests, names and labels as pure functions.
//!
//! The executor creates what this crate makes, and the scheduler makes the same manifests at admission, so that a pipeline whose pods
//! could not be built is refused before it runs. Nothing here knows a client, a clock or a random source: a manifest is a function of
//! the run, the step and the attempt (I2), and the inputs are never changed (behaviours E39).

mod context;
mod cron_job;
mod cron_pattern;
mod error;
mod labels;
mod merge;
mod names;
mod owner;
mod pod;
mod resolved;
mod secret;
mod step;
mod volumes;

pub use context::{File, Run, RunContext, Settings, Workspace, WorkspaceDefault, script_key};
pub use cron_job::{ClientSecret, TOKEN_KEY, Trigger, cron_job};
pub use cron_pattern::cron_job_pattern;
pub use error::ManifestError;
pub use labels::{Annotation, Identity, Label, is_reserved_label, label_value};
pub use merge::strategic_merge;
pub use names::{MAX_CRON_JOB_NAME, MAX_NAME, cron_job_name, owner_name, pod_name, schedule_secret_name, secret_name};
pub use owner::{OwnerRef, owner};
pub use pod::pod;
pub use resolved::{context, step};
pub use secret::{SecretOf, SecretOwner};
pub use step::{Attempt, PodSettings, StepSpec};

/// Finalizer that keeps a pod until its end is stored (I4).
pub const FINALIZER: &str = "windlass.dev/observed";
/// Name of the container that is the step.
pub const MAIN_CONTAINER: &str = "main";
/// Where files and scripts are mounted; the working directory unless the step sets one.
pub const FILES_PATH: &str = "/windlass/files";
/// Where the workspace is mounted unless the pipeline says otherwise.
pub const WORKSPACE_PATH: &str = "/windlass/workspace";
/// Kubernetes' bound on the values of one ConfigMap, in bytes; the metadata does not count.
pub const MAX_OWNER_BYTES: usize = windlass_pipeline::Limits::FILE_BYTES;
