//! The durable state of one run as plain data, for stores.

use std::sync::Arc;

use windlass_ids::{PodUid, RunId, StepIndex, Timestamp};

use crate::change::{CancelRequest, ExecutorIdentity, PhaseDetail};
use crate::state::{AttemptPhase, FailureClass, LostCause, RunReason, RunState, StepState, StopCause};

/// The durable state of one run. Together with its `RunSpec` and the changes after `last_sequence` it is the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSnapshot {
    /// The run.
    pub run: RunId,
    /// State.
    pub state: RunState,
    /// Why it ended, once it has.
    pub reason: Option<RunReason>,
    /// Number of its newest change.
    pub last_sequence: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When its first step was launched.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When a step was last launched, for the pacing.
    pub last_launch_at: Option<Timestamp>,
    /// How it is to stop.
    pub cancel: Option<CancelRequest>,
    /// One for each step.
    pub steps: Vec<StepSnapshot>,
    /// Attempts that live or are awaited, by step.
    pub attempts: Vec<AttemptSnapshot>,
}

/// The durable state of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSnapshot {
    /// State.
    pub state: StepState,
    /// When it was entered.
    pub since: Timestamp,
    /// Number of its newest attempt.
    pub number: u32,
    /// Failures charged to the user budget.
    pub charged_user: u32,
    /// Failures charged to the infrastructure budget.
    pub charged_infrastructure: u32,
}

/// The durable state of the newest attempt of a step that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptSnapshot {
    /// The step.
    pub step: StepIndex,
    /// How far it is.
    pub phase: AttemptPhase,
    /// When that was seen.
    pub phase_at: Timestamp,
    /// Current grant.
    pub grant: u32,
    /// Executor of the current grant.
    pub executor: Arc<ExecutorIdentity>,
    /// Whether more than one executor was ever told to create its pod.
    pub shared: bool,
    /// Uid of the pod, once created.
    pub pod: Option<PodUid>,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// When its main container started.
    pub started_at: Option<Timestamp>,
    /// Why, since when and with which grace (ms) it is being stopped.
    pub stopping: Option<(StopCause, Timestamp, u32)>,
    /// Why and since when contact is lost.
    pub lost: Option<(LostCause, Timestamp)>,
    /// When the next attempt may start: it has failed and is to be retried.
    pub retry_until: Option<Timestamp>,
    /// Class of that failure.
    pub failed_with: Option<FailureClass>,
    /// Whether nothing of it lives.
    pub proof_of_death: bool,
    /// Node and reason of its phase.
    pub detail: Option<Box<PhaseDetail>>,
}
