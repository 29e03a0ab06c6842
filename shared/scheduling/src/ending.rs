//! The end of attempts: what it means for the step, who pays, and stopping.

use std::time::Duration;

use windlass_ids::{AttemptId, StepIndex, Timestamp};

use crate::change::{AfterFailure, AttemptEnd, AttemptFailure, ChangeKind, EndDetail};
use crate::effect::Effect;
use crate::policy::FailureMode;
use crate::rejection::Rejection;
use crate::retry;
use crate::run::Run;
use crate::scheduler::{Scheduler, Turn};
use crate::state::{Budget, FailureClass, RunState, StepFailure, StepState, StopCause};
use crate::stopped;

impl Scheduler {
    /// An attempt has ended: records how, and decides about the step. Its pod may go, unless a replacement waits for proof that it is dead: what
    /// is let go of is not seen any more.
    ///
    /// `terminating`: a deletion was seen before the end, so the end may be the work of a stop.
    pub(crate) fn end_attempt(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        step: StepIndex,
        mut end: AttemptEnd,
        terminating: bool,
    ) {
        let Some(finished) = self.finished(turn.now, slot, step) else {
            return;
        };
        let Some(run) = self.run_at(slot) else { return };
        let number = run.number(step);
        if end.ended_at == Timestamp::default() {
            // Of a pod that was turned away, or whose node is off, nobody says when.
            end.ended_at = turn.now;
        }
        end.class = classify(run, step, &end);
        if end.class.is_none() {
            let (ended_at, detail) = (end.ended_at, end.detail);
            self.emit(
                turn,
                slot,
                ChangeKind::AttemptSucceeded {
                    step,
                    number,
                    ended_at,
                    detail,
                },
            );
        } else {
            let failure = verdict(turn, run, step, end, terminating);
            let (next, proven) = (failure.next, failure.end.proof_of_death);
            // Such as an image that could still come: what has failed must not start after all. Where the main container has ended, what is left
            // of a pod that nothing replaces goes with its release, once the log is kept.
            let may_start = !proven && failure.end.exit_code.is_none();
            let is_awaited = !proven && matches!(next, AfterFailure::Retry { .. });
            let stop = self.stop_of(slot, step).filter(|_| may_start || is_awaited);
            let failure = Box::new(failure);
            self.emit(turn, slot, ChangeKind::AttemptFailed { step, number, failure });
            turn.out.effects.extend(stop);
            match next {
                AfterFailure::Failed => self.halt(turn, slot),
                AfterFailure::Cancelled(_) => {}
                AfterFailure::Retry { .. } => {
                    self.arm(turn.now, slot, step);
                    if is_awaited {
                        return;
                    }
                }
            }
        }
        turn.effect(finished);
    }

    /// What lets the pod of a step's attempt go.
    fn finished(&self, now: Timestamp, slot: u32, step: StepIndex) -> Option<Effect> {
        let run = self.run_at(slot)?;
        let attempt = run.attempt(step)?;
        Some(Effect::AttemptFinished {
            attempt: run.attempt_id(step),
            pod: attempt.pod,
            cluster: attempt.executor.cluster.clone(),
            keep_until: attempt.fence_until().filter(|until| *until > now),
        })
    }

    /// Ends a step whose last attempt has already ended, if there was one; a pod that was kept for its proof of death may go.
    pub(crate) fn end_step(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, end: ChangeKind) {
        let is_kept = self
            .attempt_at(slot, step)
            .is_some_and(|attempt| !attempt.is_proven_dead());
        let finished = self.finished(turn.now, slot, step).filter(|_| is_kept);
        self.emit(turn, slot, end);
        turn.out.effects.extend(finished);
    }

    /// Asks for an attempt to be stopped. A stop of the whole run outranks one of the attempt; a repeated one counts when it is sooner.
    pub(crate) fn stop(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        step: StepIndex,
        cause: StopCause,
        grace: Option<Duration>,
    ) {
        let Some(run) = self.run_at(slot) else { return };
        let number = run.number(step);
        let Some(attempt) = run.attempt(step).filter(|attempt| !attempt.has_ended()) else {
            return;
        };
        let grace = grace.unwrap_or(run.spec.policy(step).termination_grace);
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        if let Some(earlier) = attempt.stopping()
            && (!cause.is_run_wide() || earlier.cause.is_run_wide() && earlier.grace_ms <= grace_ms)
        {
            return;
        }
        self.emit(
            turn,
            slot,
            ChangeKind::StopRequested {
                step,
                number,
                cause,
                grace_ms,
            },
        );
        if self
            .attempt_at(slot, step)
            .is_some_and(|attempt| attempt.lost().is_none())
        {
            self.arm(turn.now, slot, step);
        }
        self.send_stop(turn, slot, step);
    }

    /// Orders the stop that is wanted, again and again until the end is seen.
    pub(crate) fn send_stop(&self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) {
        turn.out.effects.extend(self.stop_of(slot, step));
    }

    fn stop_of(&self, slot: u32, step: StepIndex) -> Option<Effect> {
        let to = self.owner_of(slot, step)?;
        let run = self.run_at(slot)?;
        let attempt = run.attempt(step)?;
        let (cause, grace) = match attempt.stopping() {
            Some(stop) => (stop.cause, Duration::from_millis(u64::from(stop.grace_ms))),
            None => (StopCause::Ended, run.spec.policy(step).termination_grace),
        };
        Some(Effect::Stop {
            to,
            attempt: run.attempt_id(step),
            grant: attempt.grant,
            pod: attempt.pod,
            grace,
            cause,
        })
    }

    /// Contact has stayed lost for too long: the step fails, and nothing replaces the pod.
    pub(crate) fn give_up(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) {
        let Some(attempt) = self.attempt_at(slot, step) else {
            return;
        };
        if !attempt.has_ended() {
            let cause = attempt.lost().map(|lost| lost.cause.as_str().into());
            let mut end = AttemptEnd::failure(FailureClass::NodeLost, None, turn.now);
            end.proof_of_death = false;
            end.detail = Some(Box::new(EndDetail {
                reason: "LOST_CONTACT".into(),
                evidence: cause.into_iter().collect(),
                ..EndDetail::default()
            }));
            self.end_attempt(turn, slot, step, end, false);
            return;
        }
        let Some(number) = self.run_at(slot).map(|run| run.number(step)) else {
            return;
        };
        let reason = StepFailure::NoProofOfDeath;
        self.end_step(turn, slot, step, ChangeKind::StepFailed { step, number, reason });
        self.halt(turn, slot);
    }

    /// A person vouches for the death of a pod that lost contact.
    pub(crate) fn confirm_dead(&mut self, turn: &mut Turn<'_>, id: AttemptId, by: Box<str>) -> Result<(), Rejection> {
        self.slot_of(id.run)?;
        let Some((slot, step)) = self.current(id) else {
            return Err(Rejection::NotCurrent { attempt: id });
        };
        let Some(attempt) = self.attempt_at(slot, step).filter(|attempt| attempt.lost().is_some()) else {
            return Err(Rejection::NotLost { attempt: id });
        };
        if attempt.has_ended() {
            self.prove_death(turn, slot, step, Some(by));
            return Ok(());
        }
        let mut end = AttemptEnd::failure(FailureClass::NodeLost, None, turn.now);
        end.detail = Some(Box::new(EndDetail {
            reason: "CONFIRMED_DEAD".into(),
            evidence: vec![format!("confirmed by {by}").into()],
            ..EndDetail::default()
        }));
        self.end_attempt(turn, slot, step, end, false);
        Ok(())
    }

    /// Nothing of a failed attempt lives any more.
    pub(crate) fn prove_death(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        step: StepIndex,
        confirmed_by: Option<Box<str>>,
    ) {
        if self
            .attempt_at(slot, step)
            .is_none_or(|attempt| attempt.is_proven_dead())
        {
            return;
        }
        let Some(number) = self.run_at(slot).map(|run| run.number(step)) else {
            return;
        };
        self.emit(
            turn,
            slot,
            ChangeKind::DeathProven {
                step,
                number,
                confirmed_by,
            },
        );
        turn.out.effects.extend(self.finished(turn.now, slot, step));
        self.arm(turn.now, slot, step);
    }

    /// The delay of a retry has passed, and the last attempt is dead.
    pub(crate) fn retry(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) {
        let Some(run) = self.run_at(slot) else { return };
        if run.state_of(step) != StepState::RetryWait {
            return;
        }
        if let Some(cause) = no_more_attempts(run, step) {
            return self.cancel_step(turn, slot, step, cause);
        }
        self.emit(turn, slot, ChangeKind::StepReady { step });
        self.enqueue(slot, step);
    }

    /// Cancels a step that has no live attempt.
    pub(crate) fn cancel_step(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, cause: StopCause) {
        self.end_step(turn, slot, step, ChangeKind::StepCancelled { step, cause });
    }
}

/// The class of an end; none for success. An exit code of 0 after a termination is success only where the step says so (behaviours X14).
fn classify(run: &Run, step: StepIndex, end: &AttemptEnd) -> Option<FailureClass> {
    match (end.class, end.exit_code) {
        (Some(class), Some(0)) if class.is_termination() && run.spec.policy(step).accept_exit_zero_when_terminated => {
            None
        }
        (None, Some(code)) if code != 0 => Some(FailureClass::UserError),
        (class, _) => class,
    }
}

/// What a failed end means, given that the attempt may have been told to stop.
fn verdict(turn: &Turn<'_>, run: &Run, step: StepIndex, mut end: AttemptEnd, terminating: bool) -> AttemptFailure {
    let cause = run
        .attempt(step)
        .and_then(|attempt| attempt.stopping())
        .map(|stop| stop.cause);
    let is_termination = end.class.is_some_and(FailureClass::is_termination);
    if let Some(cause) = cause {
        if cause.is_run_wide() && (is_termination || terminating) {
            let next = AfterFailure::Cancelled(cause);
            return AttemptFailure { end, next };
        }
        // A stop shows as a deletion; an eviction or a lost node meanwhile stays what it is.
        if terminating && !is_termination || end.class == Some(FailureClass::PodDeleted) {
            if let (Some(class), Some(attempt)) = (stopped::class_of(cause), run.attempt(step)) {
                end.class = Some(class);
                stopped::tell(&mut end, cause, run.spec.policy(step), attempt);
            } else {
                end.class = Some(end.class.unwrap_or(FailureClass::PodDeleted));
            }
        }
    }
    let next = after_failure(turn, run, step, &end);
    AttemptFailure { end, next }
}

fn after_failure(turn: &Turn<'_>, run: &Run, step: StepIndex, end: &AttemptEnd) -> AfterFailure {
    let Some(class) = end.class else {
        return AfterFailure::Failed;
    };
    let policy = run.spec.policy(step);
    let (budget, definition) = match class.budget() {
        Some(Budget::User) => (Budget::User, &policy.user),
        Some(Budget::Infrastructure) => (Budget::Infrastructure, &policy.infrastructure),
        None => return AfterFailure::Failed,
    };
    if let Some(cause) = no_more_attempts(run, step) {
        return match budget {
            Budget::User => AfterFailure::Failed,
            Budget::Infrastructure => AfterFailure::Cancelled(cause),
        };
    }
    let charged = run.charged(step)[usize::from(budget == Budget::Infrastructure)] + 1;
    let is_retried = match (class, end.exit_code) {
        (FailureClass::NodeLost, _) => end.proof_of_death,
        (FailureClass::UserError, Some(code)) if !definition.exit_codes.is_empty() => {
            definition.exit_codes.contains(&code)
        }
        _ => true,
    };
    if !is_retried || charged >= definition.attempts {
        return AfterFailure::Failed;
    }
    let seed = run.spec.parameters().seed;
    AfterFailure::Retry {
        until: turn
            .now
            .saturating_add(retry::delay(definition, charged, seed, run.attempt_id(step))),
        budget,
        charged,
        allowed: definition.attempts,
    }
}

/// Why a step gets no further attempt although its budgets may allow one.
fn no_more_attempts(run: &Run, step: StepIndex) -> Option<StopCause> {
    if run.state == RunState::Cancelling {
        return run.cancel.as_ref().map(|cancel| cancel.cause);
    }
    let fails_fast = run.spec.parameters().failure_mode == FailureMode::FailFast && run.is_halted();
    let is_stopped = run.spec.policy(step).run_if == crate::policy::RunIf::Succeeded;
    (fails_fast && is_stopped).then_some(StopCause::FailFast)
}
