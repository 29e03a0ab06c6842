//! Schedules in the driver: a fire's run and the schedule that it advances are in one commit.

use std::sync::Arc;

use windlass_ids::{RunId, RunName, ScheduleId};
use windlass_scheduling::{Event, Scheduler};

use super::batch::{Batch, Live};
use super::command::{ScheduleChange, ScheduleOrder, ScheduleRefusal};
use super::held::Answer;
use super::reservations::Reservation;
use crate::admission::Made;
use crate::errors::SubmitError;
use crate::metric;
use crate::schedules::{Changed, FireOrder, Fired, Plan, RETRY, actor};
use crate::store::{
    FireOutcome, FireRecord, Overlap, PackedDefinition, RunSchedule, Schedule, ScheduleProgress, ScheduleWrite,
};

impl Batch {
    /// Takes what is due to be prepared once everything before it is durable.
    pub(super) fn take_due(&mut self, live: &mut Live) {
        let Live { core, schedules, .. } = live;
        let jobs = schedules.take_due(self.now, |run| is_running(core, run));
        self.held.jobs.extend(jobs);
    }

    pub(super) fn schedule(&mut self, live: &mut Live, order: ScheduleOrder) {
        let ScheduleOrder {
            change,
            request,
            reservation,
            reply,
        } = order;
        let secret = change.secret();
        let answer = self.change_schedule(live, change);
        match &answer {
            Ok(_) => self.remember(request, reservation),
            Err(_) => {
                let abandoned = secret.and_then(|secret| live.secrets.abandon(secret));
                self.held.abandoned_secrets.extend(abandoned);
            }
        }
        self.held
            .answers
            .push(Answer::Schedule(reply, answer.map_err(ScheduleRefusal::Refused)));
    }

    fn change_schedule(&mut self, live: &mut Live, change: ScheduleChange) -> Result<Arc<Schedule>, Changed> {
        match change {
            ScheduleChange::Create { schedule, definition } => {
                live.schedules.admit(&schedule)?;
                has_secret(live, &schedule)?;
                Ok(self.put(live, *schedule, Some(definition)))
            }
            ScheduleChange::Update {
                schedule: asked,
                definition,
                retimed,
            } => {
                let current = live.schedules.get(asked.id).ok_or(Changed::Meanwhile)?;
                if current.generation + 1 != asked.generation {
                    return Err(Changed::Meanwhile);
                }
                has_secret(live, &asked)?;
                let left = current.secret.as_ref().map(|secret| secret.id);
                let left = left.filter(|left| asked.secret.as_ref().is_none_or(|kept| kept.id != *left));
                self.held.left_secrets.extend(left);
                let before = current.progress.clone();
                let changed = Schedule {
                    version: current.version + 1,
                    progress: if retimed {
                        ScheduleProgress {
                            position: asked.progress.position.max(before.position),
                            next: asked.progress.next,
                            ..before
                        }
                    } else {
                        before
                    },
                    ..*asked
                };
                Ok(self.put(live, changed, definition))
            }
            ScheduleChange::Delete { id } => {
                let gone = live.schedules.remove(id).ok_or(Changed::Meanwhile)?;
                self.commit.schedules.push(ScheduleWrite::Delete { schedule: id });
                self.held
                    .left_secrets
                    .extend(gone.secret.as_ref().map(|secret| secret.id));
                self.held
                    .schedules
                    .push(((gone.namespace.clone(), gone.name.clone()), None));
                Ok(gone)
            }
        }
    }

    fn put(&mut self, live: &mut Live, schedule: Schedule, definition: Option<PackedDefinition>) -> Arc<Schedule> {
        let schedule = Arc::new(schedule);
        if let Some(secret) = &schedule.secret {
            live.secrets.schedule_has(secret, schedule.id);
        }
        live.schedules.put(Arc::clone(&schedule));
        let key = (schedule.namespace.clone(), schedule.name.clone());
        self.held.schedules.push((key, Some(Arc::clone(&schedule))));
        self.commit.schedules.push(ScheduleWrite::Put {
            schedule: Arc::clone(&schedule),
            definition,
        });
        schedule
    }

    /// What has to end for a triggered run that obeys the overlap policy of its schedule.
    ///
    /// # Errors
    /// When the policy forbids it, which is recorded.
    pub(super) fn make_way(&mut self, live: &mut Live, of: &RunSchedule) -> Result<Vec<RunId>, SubmitError> {
        let Some(schedule) = live.schedules.get(of.id) else {
            return Ok(Vec::new());
        };
        let (overlap, running) = (schedule.settings.overlap, running(live, of.id));
        match (overlap, running.first()) {
            (Overlap::Skip, Some(run)) => {
                self.note(live, of.id, FireOutcome::Overlapped, None);
                Err(SubmitError::Overlapped { run: *run })
            }
            (Overlap::Replace, _) => Ok(running),
            (Overlap::Allow, _) | (Overlap::Skip, None) => Ok(Vec::new()),
        }
    }

    /// A person has asked for a run of a schedule, and it is accepted.
    pub(super) fn triggered(&mut self, live: &mut Live, of: &RunSchedule, run: (RunId, RunName)) {
        self.note(live, of.id, FireOutcome::Triggered, Some(run));
    }

    /// Records what was made of a trigger.
    fn note(&mut self, live: &mut Live, id: ScheduleId, outcome: FireOutcome, run: Option<(RunId, RunName)>) {
        let Some(mut schedule) = live.schedules.next_version(id) else {
            return;
        };
        schedule.progress.record(FireRecord {
            time: self.now,
            last: self.now,
            count: 1,
            outcome,
            run,
            message: String::new(),
            recorded: self.now,
        });
        count(outcome, 1);
        self.put(live, schedule, None);
    }

    /// A fire was prepared. It comes to nothing when its schedule has changed meanwhile: it is looked at again then.
    pub(super) fn fire(&mut self, live: &mut Live, order: FireOrder) {
        let FireOrder {
            schedule: id,
            version,
            fired,
        } = order;
        if !live.schedules.is_current(id, version) {
            return;
        }
        let Some(schedule) = live.schedules.next_version(id) else {
            return;
        };
        match fired {
            Fired::Later => live.schedules.postpone(id, self.now.saturating_add(RETRY)),
            Fired::Skipped(plan) => self.settle(live, schedule, &plan, FireOutcome::Missed, String::new()),
            Fired::Overlapped(plan) => self.settle(live, schedule, &plan, FireOutcome::Overlapped, String::new()),
            Fired::Refused(plan, message) => {
                tracing::warn!(schedule_id = %id, %message, "the pipeline of a schedule was refused");
                self.settle(live, schedule, &plan, FireOutcome::Refused, message);
            }
            Fired::Ready(plan, made) => self.start(live, schedule, &plan, *made),
        }
    }

    /// Starts the run of a fire, unless a run that has begun meanwhile forbids it.
    fn start(&mut self, live: &mut Live, mut schedule: Schedule, plan: &Plan, made: (Made, Reservation)) {
        let (made, reservation) = made;
        let running = running(live, schedule.id);
        if schedule.settings.overlap == Overlap::Skip && !running.is_empty() {
            return self.settle(live, schedule, plan, FireOutcome::Overlapped, String::new());
        }
        let run = (made.header.id, made.header.name.clone());
        let Made {
            header,
            definition,
            packed,
            reused,
        } = made;
        if let Err(rejection) = self.accept(live, header, (Arc::new(definition), packed), (reused, false), None) {
            // Ids are random: this is another one of them.
            tracing::warn!(schedule_id = %schedule.id, %rejection, "the run of a fire was refused by the core");
            return live.schedules.postpone(schedule.id, self.now.saturating_add(RETRY));
        }
        self.held.reservations.push(reservation);
        if schedule.settings.overlap == Overlap::Replace {
            self.replace(live, &schedule.name, running);
        }
        count(FireOutcome::Started, 1);
        if let Some(time) = plan.start {
            metrics::histogram!(metric::FIRE_DELAY_SECONDS).record(self.now.since(time).as_secs_f64());
        }
        count_skipped(plan);
        schedule.settle(plan, self.now, FireOutcome::Started, Some(run), String::new());
        self.put(live, schedule, None);
    }

    pub(super) fn replace(&mut self, live: &mut Live, schedule: &str, running: Vec<RunId>) {
        for run in running {
            let event = Event::RunCancelled {
                run,
                grace: None,
                reason: format!("replaced by the next run of schedule {schedule}").into(),
                by: actor(schedule).into(),
            };
            // One that has ended meanwhile needs no end.
            live.core.handle(self.now, event, &mut self.decision).ok();
        }
    }

    fn settle(&mut self, live: &mut Live, mut schedule: Schedule, plan: &Plan, outcome: FireOutcome, message: String) {
        count_skipped(plan);
        if plan.start.is_some() {
            count(outcome, 1);
        }
        schedule.settle(plan, self.now, outcome, None, message);
        self.put(live, schedule, None);
    }
}

/// Whether the secrets that a schedule is to have are kept. They are not when making them has taken too long.
fn has_secret(live: &Live, schedule: &Schedule) -> Result<(), Changed> {
    match &schedule.secret {
        Some(secret) if !live.secrets.has(secret.id) => Err(Changed::SecretGone),
        _ => Ok(()),
    }
}

/// The runs of a schedule that have not ended.
fn running(live: &Live, schedule: ScheduleId) -> Vec<RunId> {
    let runs = live.schedules.active_runs(schedule);
    runs.filter(|run| is_running(&live.core, *run)).collect()
}

fn is_running(core: &Scheduler, run: RunId) -> bool {
    core.run(run).is_some_and(|view| !view.state.is_terminal())
}

fn count_skipped(plan: &Plan) {
    if let Some(skipped) = plan.skipped {
        count(FireOutcome::Missed, skipped.count);
    }
}

fn count(outcome: FireOutcome, fires: u64) {
    let outcome = match outcome {
        FireOutcome::Started => "started",
        FireOutcome::Triggered => "triggered",
        FireOutcome::Missed => "missed",
        FireOutcome::Overlapped => "overlapped",
        FireOutcome::Refused => "refused",
    };
    metrics::counter!(metric::FIRES, "outcome" => outcome).increment(fires);
}
