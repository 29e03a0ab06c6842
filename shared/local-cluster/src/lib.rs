//! A Kubernetes API in the process whose pods are local processes.
//!
//! It serves what Windlass and `kubectl` use of a cluster, over HTTP with TLS and a bearer token, and refuses the rest
//! with a Kubernetes `Status`. Its objects survive a `kill -9` of the process, and so do its containers: each runs
//! under a small process of its own (see [`shim_main`]) that keeps its log and records its end.
//!
//! # What differs from a real cluster
//!
//! - Images, and requests and limits of CPU and memory, are not used. A container needs a `command`.
//! - Processes share the machine's file system, so nothing is mounted. A mount path (and the path of the termination
//!   message) is replaced by the volume's folder wherever it appears as a whole path in `command`, `args`,
//!   `env[].value` and `workingDir`. Texts inside files are not changed; `WINDLASS_TERMINATION_LOG` names the file for
//!   the termination message.
//! - A container sees `PATH`, `HOME`, `LANG` and `TMPDIR` of this machine and the pod's environment, nothing else.
//! - There is one node, [`NODE_NAME`], and no network of pods: `status.podIP` stays empty.
//! - Bodies are JSON. The few `kubectl` commands that send protobuf (`create secret`, `auth can-i`) are refused;
//!   `kubectl create -f` is not one of them.
//! - Jobs and persistent volume claims cannot be created, cron jobs are stored and never fire.
//! - `SIGTERM` goes to the container's whole process group, not to its first process alone.

mod api;
mod clock;
mod cluster;
mod config;
mod credentials;
mod error;
mod faults;
mod gc;
mod names;
mod node;
mod objects;
mod patch;
mod pods;
mod resources;
mod runtime;
mod selectors;
mod server;
mod shim;
mod standalone;
mod store;
mod typed;

pub use cluster::{Handle, LocalCluster, StartError};
pub use config::{Completion, Config, OnStop};
pub use credentials::CredentialsError;
pub use error::{ApiError, Cause};
pub use faults::{Action, BadImage, FaultConfig, Faults, RefusalReason, Rule, Verdict};
pub use node::NODE_NAME;
pub use resources::Resource;
pub use shim::{SHIM_ARGUMENT, shim_main};
pub use standalone::{FaultFileError, run_standalone};
pub use store::StoreError;
