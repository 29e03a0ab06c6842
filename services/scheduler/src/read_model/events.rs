//! Events for watchers from durable changes.

use windlass_api::convert::timestamp_to_proto;
use windlass_api::run::v1::RunEvent;
use windlass_ids::StepIndex;
use windlass_scheduling::{AfterFailure, Change, ChangeKind};

use super::meta::RunMeta;
use super::record::RunRecord;
use super::render::{self, StepDetail};
use super::texts;

/// Whether an event carries the run beside the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithRun {
    /// It does: it is the last one of its commit, so that counts are sent once for many changes.
    Yes,
    /// Only when the run itself changed.
    IfChanged,
}

/// The event of a change that was just applied to `record`.
pub(crate) fn event(meta: &RunMeta, record: &RunRecord, change: &Change, with_run: WithRun) -> RunEvent {
    let step = step_of(&change.kind).and_then(|index| record.step(index));
    let show_run = step.is_none() || with_run == WithRun::Yes;
    let message = match &step {
        Some(step) => texts::step_reason(meta, record, step).1,
        None => texts::run_message(meta, record),
    };
    RunEvent {
        sequence: change.sequence,
        time: Some(timestamp_to_proto(change.at)),
        r#type: kind(&change.kind).to_owned(),
        message,
        run: show_run.then(|| render::run(meta, record)),
        step: step.map(|step| render::step(meta, record, &step, StepDetail::Newest)),
    }
}

/// The stable name of a change.
fn kind(kind: &ChangeKind) -> &'static str {
    match kind {
        ChangeKind::RunPreparing => "RUN_PREPARING",
        ChangeKind::RunAccepted => "RUN_ACCEPTED",
        ChangeKind::RunStarted => "RUN_STARTED",
        ChangeKind::CancelRequested(_) => "CANCEL_REQUESTED",
        ChangeKind::RunEnded { .. } => "RUN_ENDED",
        ChangeKind::StepReady { .. } => "STEP_READY",
        ChangeKind::StepSkipped { .. } => "STEP_SKIPPED",
        ChangeKind::StepCached { .. } => "STEP_CACHED",
        ChangeKind::StepCancelled { .. } => "STEP_CANCELLED",
        ChangeKind::StepFailed { .. } => "STEP_FAILED",
        ChangeKind::AttemptLaunched { .. } => "STEP_STARTING",
        ChangeKind::AttemptRegranted { .. } => "ATTEMPT_REGRANTED",
        ChangeKind::AttemptCreated { .. } => "ATTEMPT_CREATED",
        ChangeKind::AttemptProgressed { .. } => "ATTEMPT_PROGRESSED",
        ChangeKind::AttemptRunning { .. } => "STEP_STARTED",
        ChangeKind::StopRequested { .. } => "STOP_REQUESTED",
        ChangeKind::ContactLost { .. } => "CONTACT_LOST",
        ChangeKind::ContactRegained { .. } => "CONTACT_REGAINED",
        ChangeKind::AttemptSucceeded { .. } => "STEP_SUCCEEDED",
        ChangeKind::AttemptFailed { failure, .. } => match failure.next {
            AfterFailure::Failed => "STEP_FAILED",
            AfterFailure::Cancelled(_) => "STEP_CANCELLED",
            AfterFailure::Retry { .. } => "STEP_RETRYING",
        },
        ChangeKind::DeathProven { .. } => "DEATH_PROVEN",
    }
}

/// The step that a change is about.
pub(crate) fn step_of(kind: &ChangeKind) -> Option<StepIndex> {
    match kind {
        ChangeKind::RunPreparing
        | ChangeKind::RunAccepted
        | ChangeKind::RunStarted
        | ChangeKind::CancelRequested(_)
        | ChangeKind::RunEnded { .. } => None,
        ChangeKind::StepReady { step }
        | ChangeKind::StepSkipped { step, .. }
        | ChangeKind::StepCached { step, .. }
        | ChangeKind::StepCancelled { step, .. }
        | ChangeKind::StepFailed { step, .. }
        | ChangeKind::AttemptLaunched { step, .. }
        | ChangeKind::AttemptRegranted { step, .. }
        | ChangeKind::AttemptCreated { step, .. }
        | ChangeKind::AttemptProgressed { step, .. }
        | ChangeKind::AttemptRunning { step, .. }
        | ChangeKind::StopRequested { step, .. }
        | ChangeKind::ContactLost { step, .. }
        | ChangeKind::ContactRegained { step, .. }
        | ChangeKind::AttemptSucceeded { step, .. }
        | ChangeKind::AttemptFailed { step, .. }
        | ChangeKind::DeathProven { step, .. } => Some(*step),
    }
}
