//! What each change does to the durable state of a run. Nothing is decided here: recovery comes through here, too.

use windlass_ids::{RunId, StepIndex, Timestamp};

use crate::attempt::{Attempt, Lost, Stopping};
use crate::change::{AfterFailure, AttemptFailure, Change, ChangeKind};
use crate::run::Run;
use crate::state::{AttemptPhase, Budget, RunState, StepState};

/// Changes that do not fit the state, when a store is replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Neither a spec nor a snapshot of the run was loaded.
    #[error("a change of run {run}, which was not loaded")]
    UnknownRun {
        /// The run.
        run: RunId,
    },
    /// The run was loaded twice.
    #[error("run {run} was loaded twice")]
    LoadedTwice {
        /// The run.
        run: RunId,
    },
    /// A change is missing.
    #[error("run {run} has change {found} after {last}")]
    Gap {
        /// The run.
        run: RunId,
        /// The last change applied.
        last: u64,
        /// The one that came.
        found: u64,
    },
    /// A change names a step that the run does not have.
    #[error("change {sequence} of run {run} names step {step}, which does not exist")]
    UnknownStep {
        /// The run.
        run: RunId,
        /// The change.
        sequence: u64,
        /// The step.
        step: StepIndex,
    },
    /// A change is about an attempt that is not there.
    #[error("change {sequence} of run {run} is about an attempt of step {step} that is not there")]
    UnknownAttempt {
        /// The run.
        run: RunId,
        /// The change.
        sequence: u64,
        /// The step.
        step: StepIndex,
    },
    /// A snapshot that belongs to another spec.
    #[error("the snapshot of run {run} does not fit its spec")]
    SnapshotDiffers {
        /// The run.
        run: RunId,
    },
}

/// The attempt that a change is about is not there.
pub(crate) struct NoAttempt;

impl Change {
    /// The step that it is about.
    pub fn step(&self) -> Option<StepIndex> {
        match &self.kind {
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
}

impl Run {
    /// Applies a change that was read from a store, after checking that it fits.
    pub(crate) fn replay(&mut self, change: &Change) -> Result<(), ReplayError> {
        let (run, sequence) = (change.run, change.sequence);
        if sequence != self.sequence + 1 {
            return Err(ReplayError::Gap {
                run,
                last: self.sequence,
                found: sequence,
            });
        }
        let step = change.step();
        if let Some(step) = step.filter(|step| step.as_usize() >= self.step_count()) {
            return Err(ReplayError::UnknownStep { run, sequence, step });
        }
        self.apply(change).map_err(|NoAttempt| ReplayError::UnknownAttempt {
            run,
            sequence,
            step: step.unwrap_or_default(),
        })
    }

    /// Applies a change. The only way in which durable state changes.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), NoAttempt> {
        let Some(step) = change.step() else {
            return self.apply_kind(change);
        };
        let held_slot = self.holds_slot(step);
        let applied = self.apply_kind(change);
        self.count_slot(step, held_slot);
        applied
    }

    fn apply_kind(&mut self, change: &Change) -> Result<(), NoAttempt> {
        self.sequence = change.sequence;
        let at = change.at;
        match &change.kind {
            ChangeKind::RunPreparing => {
                self.state = RunState::Preparing;
                self.accepted_at = at;
            }
            ChangeKind::RunAccepted => {
                self.state = RunState::Queued;
                self.accepted_at = at;
            }
            ChangeKind::RunStarted => {
                self.state = RunState::Running;
                self.started_at = Some(at);
            }
            ChangeKind::CancelRequested(request) => {
                self.state = RunState::Cancelling;
                self.cancel = Some((**request).clone());
            }
            ChangeKind::RunEnded { state, reason } => {
                self.state = *state;
                self.reason = Some(*reason);
                self.ended_at = Some(at);
            }
            ChangeKind::StepReady { step } => {
                self.remove_attempt(*step);
                self.set_state(*step, StepState::Ready, at);
            }
            ChangeKind::StepSkipped { step, .. } => self.set_state(*step, StepState::Skipped, at),
            ChangeKind::StepCached { step, .. } => self.set_state(*step, StepState::Cached, at),
            ChangeKind::StepCancelled { step, .. } => self.set_state(*step, StepState::Cancelled, at),
            ChangeKind::StepFailed { step, .. } => self.set_state(*step, StepState::Failed, at),
            _ => return self.apply_to_attempt(&change.kind, at),
        }
        Ok(())
    }

    fn apply_to_attempt(&mut self, kind: &ChangeKind, at: Timestamp) -> Result<(), NoAttempt> {
        match kind {
            ChangeKind::AttemptLaunched { step, number, executor } => {
                self.set_number(*step, *number);
                self.last_launch_at = Some(at);
                self.set_state(*step, StepState::Starting, at);
                self.insert_attempt(Attempt::launched(*step, executor.clone(), at));
            }
            ChangeKind::AttemptRegranted {
                step, grant, executor, ..
            } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.shared |= attempt.executor.incarnation != executor.incarnation;
                attempt.grant = *grant;
                attempt.executor = executor.clone();
            }
            ChangeKind::AttemptCreated { step, pod, .. } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.pod = Some(*pod);
                if attempt.phase < AttemptPhase::Created {
                    attempt.phase = AttemptPhase::Created;
                    attempt.phase_at = at;
                    attempt.set_detail(None);
                }
            }
            ChangeKind::AttemptProgressed {
                step, phase, detail, ..
            } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                if attempt.phase != *phase {
                    attempt.phase = *phase;
                    attempt.phase_at = at;
                }
                attempt.set_detail(detail.clone());
            }
            ChangeKind::AttemptRunning {
                step, started_at, node, ..
            } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.phase = AttemptPhase::Running;
                attempt.phase_at = at;
                attempt.started_at = *started_at;
                attempt.set_detail(node.as_ref().map(|node| {
                    Box::new(crate::change::PhaseDetail {
                        node: Some(node.clone()),
                        ..Default::default()
                    })
                }));
                self.set_state(*step, StepState::Running, at);
            }
            ChangeKind::AttemptSucceeded { step, .. } => {
                self.attempt_mut(*step).ok_or(NoAttempt)?;
                self.set_state(*step, StepState::Succeeded, at);
            }
            ChangeKind::AttemptFailed { step, failure, .. } => self.apply_failure(*step, failure, at)?,
            _ => self.apply_to_trouble(kind, at)?,
        }
        Ok(())
    }

    fn apply_to_trouble(&mut self, kind: &ChangeKind, at: Timestamp) -> Result<(), NoAttempt> {
        match kind {
            ChangeKind::StopRequested {
                step, cause, grace_ms, ..
            } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.trouble().stopping = Some(Stopping {
                    cause: *cause,
                    since: at,
                    grace_ms: *grace_ms,
                });
            }
            ChangeKind::ContactLost {
                step, cause, detail, ..
            } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.trouble().lost = Some(Lost {
                    cause: *cause,
                    since: at,
                });
                if detail.is_some() {
                    attempt.set_detail(detail.clone());
                }
                self.set_state(*step, StepState::LostContact, at);
            }
            ChangeKind::ContactRegained { step, state, .. } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.trouble().lost = None;
                self.set_state(*step, *state, at);
            }
            ChangeKind::DeathProven { step, .. } => {
                let attempt = self.attempt_mut(*step).ok_or(NoAttempt)?;
                attempt.trouble().lost = None;
                attempt.trouble().proof_of_death = true;
                self.set_state(*step, StepState::RetryWait, at);
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_failure(&mut self, step: StepIndex, failure: &AttemptFailure, at: Timestamp) -> Result<(), NoAttempt> {
        if let Some(budget) = failure.end.class.and_then(|class| class.budget())
            && !matches!(failure.next, AfterFailure::Cancelled(_))
        {
            let mut charged = self.charged(step);
            charged[usize::from(budget == Budget::Infrastructure)] += 1;
            self.set_charged(step, charged);
        }
        let attempt = self.attempt_mut(step).ok_or(NoAttempt)?;
        match failure.next {
            AfterFailure::Failed => self.set_state(step, StepState::Failed, at),
            AfterFailure::Cancelled(_) => self.set_state(step, StepState::Cancelled, at),
            AfterFailure::Retry { until, .. } => {
                attempt.phase = AttemptPhase::Ended;
                attempt.phase_at = at;
                let trouble = attempt.trouble();
                trouble.stopping = None;
                trouble.lost = None;
                trouble.retry_until = Some(until);
                trouble.failed_with = failure.end.class;
                trouble.proof_of_death = failure.end.proof_of_death;
                self.set_state(step, StepState::RetryWait, at);
            }
        }
        Ok(())
    }
}
