//! What a run's header will say once the changes that are being committed are durable.
//!
//! The read model follows the store, and the header goes into the same commit as the changes, so it is made from the core and from
//! the little that only changes tell: failed steps and who cancelled.

use windlass_ids::StepIndex;
use windlass_scheduling::{AfterFailure, AttemptEnd, Change, ChangeKind, RunView, StepState};

use crate::definition::RunDefinition;
use crate::read_model::{Cancel, MAX_FAILED_STEPS, RunSummary, end_message, end_reason};
use crate::store::{FailedStep, RunProgress};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    cancel: Option<Cancel>,
    preparing: bool,
    failed: Vec<FailedStep>,
}

impl Ahead {
    /// Takes note of a change; true when the header has to follow it in the same commit.
    pub(crate) fn note(&mut self, change: &Change, definition: &RunDefinition) -> bool {
        match &change.kind {
            ChangeKind::RunPreparing => {
                self.preparing = true;
                false
            }
            // Else the header says so from its beginning.
            ChangeKind::RunAccepted => std::mem::take(&mut self.preparing),
            ChangeKind::RunStarted | ChangeKind::RunEnded { .. } => true,
            ChangeKind::CancelRequested(request) => {
                self.cancel = Some(Cancel {
                    reason: request.reason.clone(),
                    by: request.by.clone(),
                });
                true
            }
            ChangeKind::AttemptFailed { step, number, failure } => {
                if failure.next == AfterFailure::Failed {
                    self.fail(definition, *step, *number, Some(&failure.end));
                }
                false
            }
            ChangeKind::StepFailed { step, number, .. } => {
                self.fail(definition, *step, *number, None);
                false
            }
            ChangeKind::StepReady { .. }
            | ChangeKind::StepSkipped { .. }
            | ChangeKind::StepCached { .. }
            | ChangeKind::StepCancelled { .. }
            | ChangeKind::AttemptLaunched { .. }
            | ChangeKind::AttemptRegranted { .. }
            | ChangeKind::AttemptCreated { .. }
            | ChangeKind::AttemptProgressed { .. }
            | ChangeKind::AttemptRunning { .. }
            | ChangeKind::StopRequested { .. }
            | ChangeKind::ContactLost { .. }
            | ChangeKind::ContactRegained { .. }
            | ChangeKind::AttemptSucceeded { .. }
            | ChangeKind::DeathProven { .. } => false,
        }
    }

    fn fail(&mut self, definition: &RunDefinition, step: StepIndex, number: u32, end: Option<&AttemptEnd>) {
        if self.failed.len() >= MAX_FAILED_STEPS {
            return;
        }
        let class = end.and_then(|end| end.class);
        let exit_code = end.and_then(|end| end.exit_code);
        let detail = end.and_then(|end| end.detail.as_deref());
        self.failed.push(FailedStep {
            step: definition.step_name(step),
            class,
            reason: end_reason(class, detail),
            message: end_message(class, exit_code, detail),
            exit_code,
            attempt: number,
        });
    }

    /// The progress for the header.
    pub(crate) fn progress(&self, view: &RunView) -> RunProgress {
        let summary = RunSummary {
            state: view.state,
            reason: view.reason,
            cancel: self.cancel.as_ref(),
            failed: self.failed.iter().map(|step| step.step.clone()).collect(),
            failed_count: view.count(StepState::Failed),
        };
        let counts = StepState::ALL.iter().map(|state| (*state, view.count(*state)));
        RunProgress {
            state: view.state,
            started: view.started_at,
            ended: view.ended_at,
            counts: counts.filter(|(_, count)| *count > 0).collect(),
            reason: view.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            message: summary.message(),
            failed_steps: self.failed.clone(),
            last_sequence: view.last_sequence,
        }
    }
}
