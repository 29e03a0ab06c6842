//! What comes due for an attempt: one clock at a time, by what it waits for (I10).

use std::time::Duration;

use windlass_ids::{StepIndex, Timestamp};

use crate::attempt::{Attempt, NEVER};
use crate::change::CancelRequest;
use crate::dispatch::paced_until;
use crate::policy::{LostContactAction, StepPolicy};
use crate::run::Run;
use crate::scheduler::{Scheduler, Turn};
use crate::state::{AttemptPhase, LostCause, RunState, StepState, StopCause};
use crate::timers::Owner;

/// What is to be done when a clock has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Stop the attempt.
    Stop(StopCause),
    /// It counts as out of contact.
    LoseContact,
    /// Contact stays lost: the step fails.
    GiveUp,
    /// The next attempt may start.
    Retry,
    /// Look for its pod again.
    Recheck,
}

/// A clock that runs for an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) base: Timestamp,
    pub(crate) duration: Duration,
    /// Whether it stands still while the executor that answers for it does not see the cluster (I3).
    pub(crate) needs_sight: bool,
    pub(crate) due: Due,
}

/// Words of Kubernetes that say that pulling an image failed, as opposed to taking long.
const FAILED_PULLS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// The clock that runs for an attempt; none when it may take for ever, such as a running step without timeout.
pub(crate) fn clock(policy: &StepPolicy, attempt: &Attempt) -> Option<Clock> {
    let sighted = |base, duration, due| {
        Some(Clock {
            base,
            duration,
            needs_sight: true,
            due,
        })
    };
    let deadlines = &policy.deadlines;
    if let Some(lost) = attempt.lost() {
        return match policy.lost_contact.then {
            LostContactAction::Fail => sighted(lost.since, policy.lost_contact.deadline, Due::GiveUp),
            LostContactAction::Wait => None,
        };
    }
    if attempt.has_ended() {
        if !attempt.is_proven_dead() {
            let patience = policy.termination_grace.saturating_add(deadlines.terminating);
            return sighted(attempt.phase_at, patience, Due::LoseContact);
        }
        return attempt.retry_until().map(|until| Clock {
            base: until,
            duration: Duration::ZERO,
            needs_sight: false,
            due: Due::Retry,
        });
    }
    if let Some(stop) = attempt.stopping() {
        let grace = Duration::from_millis(u64::from(stop.grace_ms));
        return sighted(
            stop.since,
            grace.saturating_add(deadlines.terminating),
            Due::LoseContact,
        );
    }
    let stop = |duration, cause| sighted(attempt.phase_at, duration, Due::Stop(cause));
    match attempt.phase {
        AttemptPhase::Launched | AttemptPhase::Refused => {
            sighted(attempt.launched_at, deadlines.created, Due::Stop(StopCause::NotCreated))
        }
        AttemptPhase::Created => stop(deadlines.scheduled, StopCause::NotScheduled),
        AttemptPhase::Scheduled | AttemptPhase::Pulling => stop(deadlines.pulling, pull_cause(attempt)),
        AttemptPhase::Initialising => stop(deadlines.initialising, StopCause::NotInitialised),
        _ => policy.timeout.map(|timeout| Clock {
            base: attempt.started_at.min(attempt.phase_at).max(attempt.launched_at),
            duration: timeout,
            needs_sight: false,
            due: Due::Stop(StopCause::Timeout),
        }),
    }
}

fn pull_cause(attempt: &Attempt) -> StopCause {
    let detail = attempt.detail.as_ref();
    if detail.is_some_and(|detail| FAILED_PULLS.contains(&&*detail.reason)) {
        StopCause::ImagePull
    } else {
        StopCause::NotPulled
    }
}

impl Scheduler {
    /// Starts the clock of an attempt, after what it waits for has changed, and files its timer.
    pub(crate) fn arm(&mut self, now: Timestamp, slot: u32, step: StepIndex) {
        self.start_clock(now, slot, step, |clock| {
            (now.as_millis() - clock.base.as_millis()).max(0)
        });
    }

    /// Goes on with the clock of an attempt that has run since its base, and files its timer.
    pub(crate) fn resume_clock(&mut self, now: Timestamp, slot: u32, step: StepIndex) {
        self.start_clock(now, slot, step, |_| 0);
    }

    /// `forgiven`: how much of what passed since its base (ms) does not count.
    fn start_clock(&mut self, now: Timestamp, slot: u32, step: StepIndex, forgiven: impl Fn(Clock) -> i64) {
        let Some(run) = self.runs[slot as usize].as_deref_mut() else {
            return;
        };
        let (spec, id) = (run.spec.clone(), run.attempt_id(step));
        let Some(attempt) = run.attempt_mut(step) else { return };
        let blind = self
            .executors
            .cluster(attempt.cluster)
            .map_or(0, |cluster| cluster.sight(id).blind(now));
        attempt.blind_mark = blind - clock(spec.policy(step), attempt).map_or(0, forgiven);
        self.file(now, slot, step);
    }

    /// Files the timer of an attempt, when its deadline is nearer than what is filed.
    pub(crate) fn file(&mut self, now: Timestamp, slot: u32, step: StepIndex) {
        let Some(run) = self.run_at(slot) else { return };
        let Some(attempt) = run.attempt(step) else { return };
        let Some((at, _)) = self.wake(now, run, attempt) else {
            return;
        };
        if at >= attempt.filed {
            return;
        }
        self.timers.file(at, Owner::Step(slot, step));
        if let Some(attempt) = self.attempt_at_mut(slot, step) {
            attempt.filed = at;
        }
    }

    /// When an attempt is to be looked at, and what is then to be done. None while its clock stands still.
    pub(crate) fn wake(&self, now: Timestamp, run: &Run, attempt: &Attempt) -> Option<(Timestamp, Due)> {
        let recheck = attempt
            .trouble
            .as_ref()
            .filter(|trouble| trouble.recheck)
            .and_then(|trouble| Some((trouble.fence_until?, Due::Recheck)));
        let clock = clock(run.spec.policy(attempt.step), attempt)
            .and_then(|clock| Some((self.clock_end(now, run, attempt, clock)?, clock.due)));
        match (recheck, clock) {
            (Some(recheck), Some(clock)) if clock.0 < recheck.0 => Some(clock),
            (Some(recheck), _) => Some(recheck),
            (None, clock) => clock,
        }
    }

    fn clock_end(&self, now: Timestamp, run: &Run, attempt: &Attempt, clock: Clock) -> Option<Timestamp> {
        let end = clock.base.saturating_add(clock.duration);
        if !clock.needs_sight {
            return Some(end);
        }
        let cluster = self.executors.cluster(attempt.cluster)?;
        let sight = cluster.sight(run.attempt_id(attempt.step));
        let blind = u64::try_from(sight.blind(now) - attempt.blind_mark).unwrap_or(0);
        sight
            .is_visible()
            .then(|| end.saturating_add(Duration::from_millis(blind)))
    }

    /// Files the timer of a run: its timeout, and the next start that its pacing allows.
    pub(crate) fn file_run(&mut self, slot: u32) {
        let Some(run) = self.run_at(slot) else { return };
        if run.state.is_terminal() {
            return;
        }
        let timeout = run_deadline(run).filter(|_| run.cancel.is_none());
        let preparing = self.preparing_deadline(run);
        let pacing = paced_until(run).filter(|_| run.count(StepState::Ready) > 0);
        let admission = self.unserved(run).map(|(_, due)| due).min();
        let pacing = pacing.filter(|at| *at > self.now);
        if let Some(at) = timeout
            .into_iter()
            .chain(preparing)
            .chain(pacing)
            .chain(admission)
            .min()
        {
            self.file_run_at(slot, at);
        }
    }

    /// Files the timer of a run, when that is nearer than what is filed.
    pub(crate) fn file_run_at(&mut self, slot: u32, at: Timestamp) {
        if self.run_at(slot).is_none_or(|run| at >= run.queues.filed) {
            return;
        }
        self.timers.file(at, Owner::Run(slot));
        if let Some(run) = self.run_at_mut(slot) {
            run.queues.filed = at;
        }
    }

    /// Does what timers say that have come due.
    pub(crate) fn fire_timers(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, owners)) = self.timers.pop(turn.now) {
            for owner in owners {
                match owner {
                    Owner::Run(slot) => self.fire_run(turn, slot, at),
                    Owner::Step(slot, step) => self.fire_step(turn, slot, step, at),
                }
            }
        }
    }

    fn fire_run(&mut self, turn: &mut Turn<'_>, slot: u32, at: Timestamp) {
        let Some(run) = self.run_at_mut(slot) else { return };
        if run.queues.filed != at {
            return;
        }
        run.queues.filed = NEVER;
        self.expire_preparing(turn, slot);
        let Some(run) = self.run_at(slot) else { return };
        let is_over = run_deadline(run).is_some_and(|deadline| deadline <= turn.now);
        if is_over && run.cancel.is_none() && matches!(run.state, RunState::Queued | RunState::Running) {
            let request = CancelRequest {
                cause: StopCause::RunTimeout,
                grace: None,
                reason: "the run took longer than its timeout".into(),
                by: Box::default(),
            };
            self.stop_run(turn, slot, request);
        }
        self.fail_unserved(turn, slot);
        self.requeue(slot);
        self.file_run(slot);
    }

    /// When a run whose secrets are being made ends without them.
    pub(crate) fn preparing_deadline(&self, run: &Run) -> Option<Timestamp> {
        (run.state == RunState::Preparing).then(|| run.accepted_at.saturating_add(self.config.preparing))
    }

    fn expire_preparing(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let deadline = self.run_at(slot).and_then(|run| self.preparing_deadline(run));
        if deadline.is_some_and(|deadline| deadline <= turn.now) {
            let request = CancelRequest {
                cause: StopCause::NotPrepared,
                grace: None,
                reason: "its secrets were not made in time, since nobody repeated the submission".into(),
                by: Box::default(),
            };
            self.stop_run(turn, slot, request);
        }
    }

    fn fire_step(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, at: Timestamp) {
        let Some(attempt) = self.attempt_at_mut(slot, step) else {
            return;
        };
        if attempt.filed != at {
            return;
        }
        attempt.filed = NEVER;
        let Some(run) = self.run_at(slot) else { return };
        let Some(attempt) = run.attempt(step) else { return };
        match self.wake(turn.now, run, attempt) {
            Some((due_at, due)) if due_at <= turn.now => self.fall_due(turn, slot, step, due),
            _ => {}
        }
        self.file(turn.now, slot, step);
    }

    fn fall_due(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, due: Due) {
        match due {
            Due::Stop(cause) => self.stop(turn, slot, step, cause, None),
            Due::LoseContact => self.lose_contact(turn, slot, step, LostCause::StopNotObeyed, None),
            Due::GiveUp => self.give_up(turn, slot, step),
            Due::Retry => self.retry(turn, slot, step),
            Due::Recheck => self.recheck(turn, slot, step),
        }
    }
}

/// When the timeout of a run passes; it counts from when the run is queued.
pub(crate) fn run_deadline(run: &Run) -> Option<Timestamp> {
    let timeout = run
        .spec
        .parameters()
        .timeout
        .filter(|_| run.state != RunState::Preparing)?;
    Some(run.accepted_at.saturating_add(timeout))
}
