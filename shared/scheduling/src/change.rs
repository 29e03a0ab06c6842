//! What was decided: the durable output of the core, applied again at recovery and shown to watchers.

use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, PodUid, RunId, StepIndex, Timestamp};

use crate::state::{
    AttemptPhase, Budget, FailureClass, LostCause, RunReason, RunState, SkipReason, StepFailure, StopCause,
};

/// A durable change of a run: one numbered event for watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The run.
    pub run: RunId,
    /// Number in the run, from 1 without gaps.
    pub sequence: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What changed.
    pub kind: ChangeKind,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The run is known, and its secrets are being made: `PREPARING`, all steps `WAITING`. `RunAccepted` follows once they are there.
    RunPreparing,
    /// The run was accepted: `QUEUED`, all steps `WAITING`. `StepCached` of every reused step follows at once.
    RunAccepted,
    /// The first step was launched: `RUNNING`.
    RunStarted,
    /// The run is to stop: `CANCELLING`. May come again with a shorter grace.
    CancelRequested(Box<CancelRequest>),
    /// The run ended. No change of it follows.
    RunEnded {
        /// Terminal state.
        state: RunState,
        /// Why.
        reason: RunReason,
    },
    /// The step may start: `READY`; first, or again after `RETRY_WAIT`.
    StepReady {
        /// The step.
        step: StepIndex,
    },
    /// The step does not run: `SKIPPED`.
    StepSkipped {
        /// The step.
        step: StepIndex,
        /// Why.
        reason: SkipReason,
    },
    /// The step does not run, since an earlier run has done its work: `CACHED`.
    StepCached {
        /// The step.
        step: StepIndex,
        /// The successful attempt of the same step in an earlier run. Never one of this run.
        source: AttemptId,
    },
    /// A step without a live attempt was cancelled: `CANCELLED`.
    StepCancelled {
        /// The step.
        step: StepIndex,
        /// Why.
        cause: StopCause,
    },
    /// A step that waited for its first or another attempt failed for good: `FAILED`.
    StepFailed {
        /// The step.
        step: StepIndex,
        /// Its last attempt; 0 when there was none.
        number: u32,
        /// Why.
        reason: StepFailure,
    },
    /// A new attempt was given to an executor: `STARTING`. Its grant is 1.
    AttemptLaunched {
        /// The step.
        step: StepIndex,
        /// Number of the attempt, from 1.
        number: u32,
        /// The executor.
        executor: Arc<ExecutorIdentity>,
    },
    /// The attempt was given to an executor again (or to another one) because its pod was missing. State and attempt stay.
    AttemptRegranted {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// Number of the grant, from 2.
        grant: u32,
        /// The executor.
        executor: Arc<ExecutorIdentity>,
    },
    /// The pod exists.
    AttemptCreated {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// Uid of the pod.
        pod: PodUid,
    },
    /// The attempt is in another phase before `Running`, or in the same one with another reason or node.
    AttemptProgressed {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// `Refused`, `Created`, `Scheduled`, `Pulling` or `Initialising`.
        phase: AttemptPhase,
        /// Node and reason, when there is one.
        detail: Option<Box<PhaseDetail>>,
    },
    /// The main container runs: `RUNNING`.
    AttemptRunning {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// When it started, by the cluster's clock.
        started_at: Timestamp,
        /// Node, when it was not said before.
        node: Option<Box<str>>,
    },
    /// The attempt is to be stopped. Its state stays until its end is seen.
    StopRequested {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// Why.
        cause: StopCause,
        /// Time between SIGTERM and SIGKILL, in milliseconds.
        grace_ms: u32,
    },
    /// Nobody can say whether the pod lives: `LOST_CONTACT`.
    ContactLost {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// Why.
        cause: LostCause,
        /// Node and reason, when there is one.
        detail: Option<Box<PhaseDetail>>,
    },
    /// The pod answers again; the state is as before.
    ContactRegained {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// `STARTING`, `RUNNING` or, for an attempt that had ended, `RETRY_WAIT`.
        state: crate::state::StepState,
    },
    /// The attempt succeeded with exit code 0, and so did the step: `SUCCEEDED`.
    AttemptSucceeded {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// When its main container ended, by the cluster's clock.
        ended_at: Timestamp,
        /// Texts, when there is one.
        detail: Option<Box<EndDetail>>,
    },
    /// The attempt failed or was stopped; `failure.next` says what became of the step.
    AttemptFailed {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// How, and what follows.
        failure: Box<AttemptFailure>,
    },
    /// It is known now that nothing of a failed attempt lives: a replacement may start.
    DeathProven {
        /// The step.
        step: StepIndex,
        /// Number of the attempt.
        number: u32,
        /// Who vouched for it; absent when it was seen.
        confirmed_by: Option<Box<str>>,
    },
}

/// An executor as changes name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecutorIdentity {
    /// Its process.
    pub incarnation: Incarnation,
    /// Uid of its cluster.
    pub cluster: ClusterUid,
    /// Alias of its cluster.
    pub alias: ClusterAlias,
}

/// Why and how a run is to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// `RunCancelled` or `RunTimeout`.
    pub cause: StopCause,
    /// Grace for what runs; each step's own when absent.
    pub grace: Option<Duration>,
    /// Why, for people.
    pub reason: Box<str>,
    /// Who; empty for the scheduler itself.
    pub by: Box<str>,
}

/// Where an attempt is and why it waits there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhaseDetail {
    /// Node, once scheduled.
    pub node: Option<Box<str>>,
    /// Kubernetes' word; empty when there is none.
    pub reason: Box<str>,
    /// For people; empty when there is none.
    pub message: Box<str>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Why it failed; absent when its main container ended with success.
    pub class: Option<FailureClass>,
    /// Exit code of the main container, when it has one.
    pub exit_code: Option<i32>,
    /// When it ended, by the cluster's clock.
    pub ended_at: Timestamp,
    /// Whether nothing of it lives, so that a replacement may start.
    pub proof_of_death: bool,
    /// Texts, when there is one.
    pub detail: Option<Box<EndDetail>>,
}

impl AttemptEnd {
    /// An end with success and with all containers terminated.
    pub fn success(ended_at: Timestamp) -> Self {
        Self {
            class: None,
            exit_code: Some(0),
            ended_at,
            proof_of_death: true,
            detail: None,
        }
    }

    /// A failure with proof of death and without texts.
    pub fn failure(class: FailureClass, exit_code: Option<i32>, ended_at: Timestamp) -> Self {
        Self {
            class: Some(class),
            exit_code,
            ended_at,
            proof_of_death: true,
            detail: None,
        }
    }
}

/// Texts of an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndDetail {
    /// Machine-readable reason, Kubernetes' word where there is one.
    pub reason: Box<str>,
    /// For people.
    pub message: Box<str>,
    /// What was seen.
    pub evidence: Vec<Box<str>>,
    /// Termination message of the main container.
    pub termination_message: Box<str>,
}

/// How an attempt failed, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailure {
    /// How; its class is what the core made of it (`DEADLINE` for an attempt stopped by its timeout) and may be absent for a cancelled one.
    pub end: AttemptEnd,
    /// What became of the step.
    pub next: AfterFailure,
}

/// What became of a step after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// `FAILED`.
    Failed,
    /// `CANCELLED`: it was stopped.
    Cancelled(StopCause),
    /// `RETRY_WAIT`.
    Retry {
        /// When the next attempt may start, given proof of death.
        until: Timestamp,
        /// The budget that pays.
        budget: Budget,
        /// Charged failures of that budget so far, this one included.
        charged: u32,
        /// What the budget allows.
        allowed: u32,
    },
}
