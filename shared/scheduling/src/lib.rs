//! The scheduling core: run, step and attempt state as a value, without input or output.
//!
//! Time, ids and seeds come in through arguments, and no hash order decides anything, so the same calls give the same decisions. A driver feeds
//! [`Event`]s in, commits the [`Change`]s that come out, and then carries the [`Effect`]s out:
//!
//! ```text
//! Scheduler::new(config)
//! handle(now, event, &mut decision) -> Result<(), Rejection>     a refused event changes nothing
//! handle_timeout(now, &mut decision)                             early calls change nothing
//! poll_timeout() -> Option<Timestamp>
//!
//! load(spec), restore(spec, snapshot), apply(&change), recovered(now, &mut decision)      recovery, in this order
//! snapshot(run), forget(run)
//! run(run), step(run, step), executors(), explain(now, run, step), memory_usage()         views
//! ```
//!
//! [`Change`]s are explicit about everything that was decided, so recovery applies them and never decides again.

mod absence;
mod admission;
mod apply;
mod attempt;
mod change;
mod config;
mod deadlines;
mod dispatch;
mod effect;
mod ending;
mod event;
mod executors;
mod explain;
mod graph;
mod invariants;
mod inventory;
mod lanes;
mod lifecycle;
mod namespaces;
mod observe;
mod policy;
mod read;
mod recovery;
mod rejection;
mod retry;
mod run;
mod scheduler;
mod sessions;
mod sight;
mod snapshot;
mod spec;
mod state;
mod stopped;
mod timers;
mod view;

pub use apply::ReplayError;
pub use change::{
    AfterFailure, AttemptEnd, AttemptFailure, CancelRequest, Change, ChangeKind, EndDetail, ExecutorIdentity,
    PhaseDetail,
};
pub use config::Config;
pub use effect::{Decision, Effect, Launch};
pub use event::{Event, Inventory, Observation, Reused, ShardSet};
pub use graph::{Graph, GraphError};
pub use policy::{Deadlines, FailureMode, LostContact, LostContactAction, RetryBudget, RunIf, StepPolicy};
pub use rejection::Rejection;
pub use scheduler::Scheduler;
pub use snapshot::{AttemptSnapshot, RunSnapshot, StepSnapshot};
pub use spec::{RunParameters, RunSpec, SpecError, StepSpec};
pub use state::{
    AttemptPhase, Budget, FailureClass, LostCause, RunReason, RunState, SkipReason, StepFailure, StepState, StopCause,
};
pub use view::{AttemptView, Blocker, Consequence, ExecutorView, Explanation, RunView, StepView};
