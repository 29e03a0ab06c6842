//! Life of a run: submission, readiness, what a failure means for the rest, cancellation and the end.

use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{RunId, StepIndex};

use crate::change::{CancelRequest, ChangeKind};
use crate::effect::Effect;
use crate::event::Reused;
use crate::policy::{FailureMode, RunIf};
use crate::rejection::Rejection;
use crate::run::{Run, UPSTREAM_FAILED, UPSTREAM_UNSUCCESSFUL};
use crate::scheduler::{Scheduler, Turn};
use crate::spec::RunSpec;
use crate::state::{RunReason, RunState, SkipReason, StepState, StopCause};

/// What is known about a waiting step.
enum Readiness {
    Undecided,
    Ready,
    Skipped(SkipReason),
}

impl Scheduler {
    pub(crate) fn submit(
        &mut self,
        turn: &mut Turn<'_>,
        spec: Arc<RunSpec>,
        reused: &[Reused],
        first: ChangeKind,
    ) -> Result<(), Rejection> {
        let run = spec.run();
        if self.by_id.contains_key(&run) {
            return Err(Rejection::RunExists { run });
        }
        check_reused(&spec, reused)?;
        let slot = self.insert(Run::new(spec));
        self.emit(turn, slot, first);
        for Reused { step, source } in reused.iter().copied() {
            self.emit(turn, slot, ChangeKind::StepCached { step, source });
        }
        self.file_run(slot);
        Ok(())
    }

    /// The secrets of a run are there: it is queued.
    pub(crate) fn prepared(&mut self, turn: &mut Turn<'_>, run: RunId) -> Result<(), Rejection> {
        let slot = self.slot_of(run)?;
        let state = self.run_at(slot).map_or(RunState::Cancelled, |run| run.state);
        match state {
            RunState::Preparing => {
                self.emit(turn, slot, ChangeKind::RunAccepted);
                self.file_run(slot);
                Ok(())
            }
            RunState::Queued | RunState::Running => Ok(()),
            state => Err(Rejection::RunEnded { run, state }),
        }
    }

    /// Decides about the steps that the last changes touched, and whether the run has ended.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>, slot: u32) {
        // What was touched stays touched until the run is queued, or cancelled.
        if self.run_at(slot).is_some_and(|run| run.state == RunState::Preparing) {
            return;
        }
        while let Some(step) = self.run_at_mut(slot).and_then(|run| run.touched.pop_front()) {
            self.decide(turn, slot, step);
        }
        self.end_if_done(turn, slot);
    }

    fn decide(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) {
        let Some(run) = self.run_at(slot) else { return };
        if run.state_of(step) != StepState::Waiting || run.state.is_terminal() {
            return;
        }
        if run.state == RunState::Cancelling {
            let cause = run
                .cancel
                .as_ref()
                .map_or(StopCause::RunCancelled, |cancel| cancel.cause);
            self.emit(turn, slot, ChangeKind::StepCancelled { step, cause });
            return;
        }
        match readiness(run, step) {
            Readiness::Undecided => {}
            Readiness::Skipped(reason) => self.emit(turn, slot, ChangeKind::StepSkipped { step, reason }),
            Readiness::Ready => {
                self.emit(turn, slot, ChangeKind::StepReady { step });
                self.enqueue(slot, step);
            }
        }
    }

    /// A step has failed for good: what the failure mode makes of the others.
    ///
    /// Steps with `runIf: ALWAYS` or `FAILED` are there for this case: they go on under every mode.
    pub(crate) fn halt(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(run) = self.run_at(slot) else { return };
        let mode = run.spec.parameters().failure_mode;
        let is_active = matches!(run.state, RunState::Queued | RunState::Running);
        if mode == FailureMode::ContinueOnFailure || !is_active || run.count(StepState::Failed) != 1 {
            return;
        }
        for step in run.spec.graph().indices() {
            let Some(run) = self.run_at(slot) else { return };
            if run.spec.policy(step).run_if != RunIf::Succeeded {
                continue;
            }
            let state = run.state_of(step);
            let is_new = run.number(step) == 0;
            match (mode, state) {
                (_, StepState::Waiting) | (_, StepState::Ready) if is_new => {
                    let reason = SkipReason::FailureMode;
                    self.emit(turn, slot, ChangeKind::StepSkipped { step, reason });
                }
                (FailureMode::FailFast, state) if state != StepState::Waiting => {
                    self.stop_step(turn, slot, step, StopCause::FailFast, None);
                }
                _ => {}
            }
        }
    }

    /// Stops a step, whatever its state: a live attempt is told to stop, and a step without one is cancelled at once.
    ///
    /// One whose failed attempt is not proven dead is let go of: nothing will replace it, so nobody waits for the proof.
    fn stop_step(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        step: StepIndex,
        cause: StopCause,
        grace: Option<Duration>,
    ) {
        let Some(run) = self.run_at(slot) else { return };
        let is_live = run.attempt(step).is_some_and(|attempt| !attempt.has_ended());
        if run.state_of(step).is_terminal() {
            return;
        }
        if is_live {
            self.stop(turn, slot, step, cause, grace);
        } else {
            self.cancel_step(turn, slot, step, cause);
        }
    }

    /// A client cancels a run: what has not started or waits for a retry is cancelled at once, what lives is stopped.
    /// Nothing new starts, clean-up steps included.
    pub(crate) fn cancel(
        &mut self,
        turn: &mut Turn<'_>,
        run: RunId,
        grace: Option<Duration>,
        reason: Box<str>,
        by: Box<str>,
    ) -> Result<(), Rejection> {
        let slot = self.slot_of(run)?;
        let state = self.run_at(slot).map_or(RunState::Cancelled, |run| run.state);
        if state.is_terminal() {
            return Err(Rejection::RunEnded { run, state });
        }
        let request = CancelRequest {
            cause: StopCause::RunCancelled,
            grace,
            reason,
            by,
        };
        self.stop_run(turn, slot, request);
        Ok(())
    }

    /// Stops a run for the reason given; asked again, it does so only when that is sooner.
    pub(crate) fn stop_run(&mut self, turn: &mut Turn<'_>, slot: u32, request: CancelRequest) {
        let Some(run) = self.run_at(slot) else { return };
        if let Some(earlier) = &run.cancel {
            let sooner = match (request.grace, earlier.grace) {
                (Some(new), Some(old)) => new < old,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if !sooner {
                return;
            }
        }
        let (cause, grace) = (
            run.cancel.as_ref().map_or(request.cause, |earlier| earlier.cause),
            request.grace,
        );
        let steps = run.spec.graph().indices();
        self.emit(
            turn,
            slot,
            ChangeKind::CancelRequested(Box::new(CancelRequest { cause, ..request })),
        );
        for step in steps {
            self.stop_step(turn, slot, step, cause, grace);
        }
        self.mark_dirty(slot);
    }

    fn end_if_done(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(run) = self.run_at(slot) else { return };
        if run.open > 0 || run.state.is_terminal() {
            return;
        }
        let id = run.id();
        let (state, reason) = outcome(run);
        self.emit(turn, slot, ChangeKind::RunEnded { state, reason });
        turn.effect(Effect::RunFinished { run: id });
    }
}

/// A reused step has done its work before this run began, and so have all steps before it.
fn check_reused(spec: &RunSpec, reused: &[Reused]) -> Result<(), Rejection> {
    let refuse = |step, problem| {
        Err(Rejection::BadReuse {
            run: spec.run(),
            step,
            problem,
        })
    };
    let mut is_reused = vec![false; if reused.is_empty() { 0 } else { spec.steps() }];
    for Reused { step, source } in reused {
        match is_reused.get_mut(step.as_usize()) {
            None => return refuse(*step, "it does not exist"),
            Some(true) => return refuse(*step, "it is named twice"),
            Some(_) if source.run == spec.run() => return refuse(*step, "its attempt is of the same run"),
            Some(known) => *known = true,
        }
    }
    let is_whole = |step: StepIndex| spec.graph().upstream(step).iter().all(|up| is_reused[up.as_usize()]);
    match reused.iter().find(|reused| !is_whole(reused.step)) {
        Some(reused) => refuse(reused.step, "an upstream step of it runs again"),
        None => Ok(()),
    }
}

/// The outcome of a run all of whose steps have ended. A cancellation that came too late to cancel anything is not one.
fn outcome(run: &Run) -> (RunState, RunReason) {
    let cancelled = run.cancel.as_ref().filter(|_| run.count(StepState::Cancelled) > 0);
    match cancelled.map(|cancel| cancel.cause) {
        Some(StopCause::RunTimeout) => (RunState::Failed, RunReason::RunTimeout),
        Some(StopCause::NotPrepared) => (RunState::Failed, RunReason::NotPrepared),
        Some(_) => (RunState::Cancelled, RunReason::CancelledByClient),
        None if run.count(StepState::Failed) > 0 => (RunState::Failed, RunReason::StepFailed),
        None => (RunState::Succeeded, RunReason::Completed),
    }
}

fn readiness(run: &Run, step: StepIndex) -> Readiness {
    let run_if = run.spec.policy(step).run_if;
    if run_if == RunIf::Succeeded {
        if run.has_flag(step, UPSTREAM_UNSUCCESSFUL) {
            return Readiness::Skipped(SkipReason::UpstreamNotSucceeded);
        }
        if run.is_halted() {
            return Readiness::Skipped(SkipReason::FailureMode);
        }
    }
    if run.remaining(step) > 0 {
        return Readiness::Undecided;
    }
    if run_if == RunIf::Failed && !run.has_flag(step, UPSTREAM_FAILED) {
        return Readiness::Skipped(SkipReason::NoUpstreamFailed);
    }
    Readiness::Ready
}
