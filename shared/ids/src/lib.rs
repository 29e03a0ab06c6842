//! Identifiers of runs, steps, attempts, executors and clusters, and the time type of the core.
//!
//! Newtypes without behaviour: they are made at the edge (from a clock and a random source) and passed in.

mod attempt;
mod text;
mod time;
mod uuid_like;

pub use attempt::{AttemptId, Shard, StepIndex};
pub use text::{ClusterAlias, ClusterUid, Namespace, RequestId, RunName};
pub use time::Timestamp;
pub use uuid_like::{Incarnation, InstallationId, ParseIdError, PodUid, RelayId, RunId, ScheduleId, ScheduleSecretId};
