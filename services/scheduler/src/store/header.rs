//! Headers of runs: what lists show, without steps.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_ids::{Namespace, RequestId, RunId, RunName, ScheduleId, Timestamp};
use windlass_scheduling::{FailureClass, RunState, StepState};

use super::SharedSecret;

/// A run as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHeader {
    /// Id; sorts by time.
    pub id: RunId,
    /// Namespace of its pods.
    pub namespace: Namespace,
    /// Readable name, unique in the namespace.
    pub name: RunName,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Who submitted it.
    pub submitted_by: String,
    /// When it was accepted.
    pub created: Timestamp,
    /// What never changes and is not searched.
    pub fixed: RunFixed,
    /// What changes while it runs.
    pub progress: RunProgress,
}

/// The part of a header that never changes and that only labels are searched in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFixed {
    /// Priority.
    pub priority: i32,
    /// Alias of the cluster, empty when the pipeline names none.
    pub cluster: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Effective parameters.
    pub parameters: BTreeMap<String, Value>,
    /// W3C trace context of the submission, empty when there was none.
    pub traceparent: String,
    /// Where a retried run comes from.
    pub lineage: Option<Lineage>,
    /// The schedule that it is a run of.
    pub schedule: Option<RunSchedule>,
    /// The secrets of a schedule that it uses in place of its own.
    pub secret: Option<SharedSecret>,
}

/// Where a retried run comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The run that it retries.
    pub retry_of: (RunId, RunName),
    /// The run whose workspace it uses: the first one of its line.
    pub workspace: RunId,
    /// Names of the runs whose attempts it reuses.
    pub sources: BTreeMap<RunId, RunName>,
}

/// The schedule that a run is one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSchedule {
    /// Id of the schedule.
    pub id: ScheduleId,
    /// Its name.
    pub name: String,
    /// When the fire was due; none when it was triggered. A schedule has one run of a time.
    pub time: Option<Timestamp>,
}

/// The part of a header that changes while the run runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunProgress {
    /// State.
    pub state: RunState,
    /// When its first step started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Steps in each state; states without steps are left out.
    pub counts: Vec<(StepState, u32)>,
    /// Machine-readable reason of its end.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// The first failed steps.
    pub failed_steps: Vec<FailedStep>,
    /// Sequence number of its newest change.
    pub last_sequence: u64,
}

impl RunProgress {
    /// Of a run that was just accepted.
    pub fn new(state: RunState, last_sequence: u64) -> Self {
        Self {
            state,
            started: None,
            ended: None,
            counts: Vec::new(),
            reason: String::new(),
            message: String::new(),
            failed_steps: Vec::new(),
            last_sequence,
        }
    }
}

/// A failed step in short.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedStep {
    /// Name of the step.
    pub step: String,
    /// Class of its last failure, when it has one.
    pub class: Option<FailureClass>,
    /// Machine-readable reason.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Exit code of the main container, when it has one.
    pub exit_code: Option<i32>,
    /// Its last attempt.
    pub attempt: u32,
}

/// What a request with a client-made id did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Namespace of the request.
    pub namespace: Namespace,
    /// The client's id, unique in the namespace over all operations.
    pub request_id: RequestId,
    /// Which operation it was.
    pub operation: Operation,
    /// SHA-256 of the request's canonical content: the same id with another digest is a client's mistake.
    pub digest: [u8; 32],
    /// The run that it is about.
    pub run: Option<RunId>,
    /// What the operation wants to remember for a repeated answer; at most a few bytes.
    pub outcome: Vec<u8>,
    /// When it was carried out.
    pub created: Timestamp,
}

/// Mutations that carry a request id. The numbers are stored: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// SubmitRun.
    Submit = 1,
    /// CancelRun.
    Cancel = 2,
    /// DeleteRun.
    Delete = 3,
    /// ConfirmDead.
    ConfirmDead = 4,
    /// RetryRun.
    Retry = 16,
    /// A change of a schedule, its making and its deletion included.
    ChangeSchedule = 24,
    /// TriggerSchedule.
    TriggerSchedule = 25,
}

impl Operation {
    pub(crate) fn from_stored(number: u8) -> Option<Self> {
        [
            Self::Submit,
            Self::Cancel,
            Self::Delete,
            Self::ConfirmDead,
            Self::Retry,
            Self::ChangeSchedule,
            Self::TriggerSchedule,
        ]
        .into_iter()
        .find(|operation| *operation as u8 == number)
    }
}
