//! The driver's schedules: which are due when, which are being prepared, and which of their runs have not ended.
//!
//! It is discarded with the core when a commit fails, and read back from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{Namespace, RunId, RunName, ScheduleId, Timestamp};

use super::fire::FireJob;
use super::model::ScheduleKey;
use super::{MAX_SCHEDULES, Plan};
use crate::store::{FireOutcome, FireRecord, Overlap, Schedule};

/// Most fires that are prepared at a time.
pub(crate) const MAX_IN_FLIGHT: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    schedules: BTreeMap<ScheduleId, Arc<Schedule>>,
    names: BTreeMap<ScheduleKey, ScheduleId>,
    counts: BTreeMap<Namespace, usize>,
    /// When each has to be looked at; those that are being prepared are not in it.
    queue: BTreeSet<(Timestamp, ScheduleId)>,
    queued: BTreeMap<ScheduleId, Timestamp>,
    in_flight: BTreeSet<ScheduleId>,
    active: BTreeMap<ScheduleId, BTreeSet<RunId>>,
    of_run: BTreeMap<RunId, ScheduleId>,
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// There is one of this name.
    NameTaken,
    /// Its namespace has too many.
    TooMany,
    /// It is gone, or somebody else changed it first.
    Meanwhile,
    /// The secrets that were made for it are gone again.
    SecretGone,
}

impl Book {
    /// A schedule as it is now, durable or not.
    pub(crate) fn get(&self, id: ScheduleId) -> Option<&Arc<Schedule>> {
        self.schedules.get(&id)
    }

    /// Whether a new schedule may be added.
    pub(crate) fn admit(&self, schedule: &Schedule) -> Result<(), Changed> {
        if self.names.contains_key(&key(schedule)) {
            return Err(Changed::NameTaken);
        }
        let count = self.counts.get(&schedule.namespace).copied().unwrap_or(0);
        if count >= MAX_SCHEDULES {
            Err(Changed::TooMany)
        } else {
            Ok(())
        }
    }

    /// Adds a schedule, or puts a newer version in its place.
    pub(crate) fn put(&mut self, schedule: Arc<Schedule>) {
        let id = schedule.id;
        if self.names.insert(key(&schedule), id).is_none() {
            *self.counts.entry(schedule.namespace.clone()).or_default() += 1;
        }
        // What is being prepared is for an older version, and comes to nothing.
        self.in_flight.remove(&id);
        let due = schedule.progress.next.filter(|_| !schedule.paused);
        self.schedules.insert(id, schedule);
        self.enqueue(id, due);
    }

    /// Removes a schedule.
    pub(crate) fn remove(&mut self, id: ScheduleId) -> Option<Arc<Schedule>> {
        let schedule = self.schedules.remove(&id)?;
        self.names.remove(&key(&schedule));
        if let Some(count) = self.counts.get_mut(&schedule.namespace) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&schedule.namespace);
            }
        }
        self.in_flight.remove(&id);
        self.enqueue(id, None);
        for run in self.active.remove(&id).unwrap_or_default() {
            self.of_run.remove(&run);
        }
        Some(schedule)
    }

    fn enqueue(&mut self, id: ScheduleId, due: Option<Timestamp>) {
        if let Some(before) = self.queued.remove(&id) {
            self.queue.remove(&(before, id));
        }
        if let Some(due) = due {
            self.queued.insert(id, due);
            self.queue.insert((due, id));
        }
    }

    /// When the next one is due; none while as many as possible are being prepared: they come back first.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes what is due to be prepared.
    pub(crate) fn take_due(&mut self, now: Timestamp, is_running: impl Fn(RunId) -> bool) -> Vec<FireJob> {
        let mut jobs = Vec::new();
        while self.in_flight.len() < MAX_IN_FLIGHT
            && let Some((due, id)) = self.queue.first().copied()
            && due <= now
        {
            self.enqueue(id, None);
            if let Some(schedule) = self.schedules.get(&id) {
                let overlaps = schedule.settings.overlap == Overlap::Skip && self.active_runs(id).any(&is_running);
                jobs.push(FireJob {
                    schedule: Arc::clone(schedule),
                    now,
                    overlaps,
                });
                self.in_flight.insert(id);
            }
        }
        jobs
    }

    /// Something prepared came back. Whether it is for the present version of its schedule.
    pub(crate) fn is_current(&self, id: ScheduleId, version: u64) -> bool {
        self.in_flight.contains(&id)
            && self
                .schedules
                .get(&id)
                .is_some_and(|schedule| schedule.version == version)
    }

    /// What was due could not be prepared: it is looked at again after a while.
    pub(crate) fn postpone(&mut self, id: ScheduleId, until: Timestamp) {
        if self.in_flight.remove(&id) {
            self.enqueue(id, Some(until));
        }
    }

    /// The runs of a schedule that may not have ended.
    pub(crate) fn active_runs(&self, id: ScheduleId) -> impl Iterator<Item = RunId> + '_ {
        self.active.get(&id).into_iter().flatten().copied()
    }

    /// A run of a schedule was accepted, or read back.
    pub(crate) fn run_began(&mut self, schedule: ScheduleId, run: RunId) {
        if self.schedules.contains_key(&schedule) {
            self.active.entry(schedule).or_default().insert(run);
            self.of_run.insert(run, schedule);
        }
    }

    /// A run has left the core.
    pub(crate) fn run_finished(&mut self, run: RunId) {
        let Some(schedule) = self.of_run.remove(&run) else {
            return;
        };
        if let Some(runs) = self.active.get_mut(&schedule) {
            runs.remove(&run);
            if runs.is_empty() {
                self.active.remove(&schedule);
            }
        }
    }

    /// The next version of a schedule.
    pub(crate) fn next_version(&self, id: ScheduleId) -> Option<Schedule> {
        let mut schedule = Schedule::clone(self.schedules.get(&id)?);
        schedule.version += 1;
        Some(schedule)
    }
}

impl Schedule {
    /// Takes note of what a plan did, and of what became of the fire that it starts.
    pub(crate) fn settle(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        outcome: FireOutcome,
        run: Option<(RunId, RunName)>,
        message: String,
    ) {
        if let Some(skipped) = plan.skipped {
            self.progress.record(FireRecord {
                time: skipped.first,
                last: skipped.last,
                count: skipped.count,
                outcome: FireOutcome::Missed,
                run: None,
                message: String::new(),
                recorded: now,
            });
        }
        if let Some(time) = plan.start {
            self.progress.record(FireRecord {
                time,
                last: time,
                count: 1,
                outcome,
                run,
                message,
                recorded: now,
            });
        }
        self.progress.position = plan.position;
        self.progress.next = plan.next;
    }
}

fn key(schedule: &Schedule) -> ScheduleKey {
    (schedule.namespace.clone(), schedule.name.clone())
}

/// How long a fire waits when it could not be prepared.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedules::testing::settings;
    use crate::store::{ScheduleProgress, Timing};

    fn id(number: usize) -> ScheduleId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        ScheduleId::from_bytes(bytes)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn due_at(number: usize, due: i64) -> Schedule {
        Schedule {
            id: id(number),
            namespace: Namespace::from("ml"),
            name: format!("s-{number}"),
            version: 1,
            generation: 1,
            created: at(0),
            created_by: String::new(),
            updated: at(0),
            updated_by: String::new(),
            pipeline: String::new(),
            paused: false,
            secret: None,
            settings: settings(Timing::Once(at(due))),
            progress: ScheduleProgress::new(at(0), Some(at(due))),
        }
    }

    #[test]
    fn i11_so_many_are_prepared_at_a_time_and_the_others_wait_without_a_deadline() {
        let mut book = Book::default();
        for number in 0..100 {
            book.put(Arc::new(due_at(number, 5)));
        }
        assert_eq!(book.poll_timeout(), Some(at(5)));
        assert!(book.take_due(at(4), |_| false).is_empty());
        assert_eq!(book.take_due(at(5), |_| false).len(), MAX_IN_FLIGHT);
        assert_eq!(book.poll_timeout(), None, "who comes back wakes the others");
        assert!(book.take_due(at(5), |_| false).is_empty());
        book.postpone(id(0), at(9));
        assert_eq!(book.poll_timeout(), Some(at(5)));
        assert_eq!(book.take_due(at(5), |_| false).len(), 1);
    }

    #[test]
    fn what_was_prepared_for_an_older_version_is_not_current() {
        let mut book = Book::default();
        book.put(Arc::new(due_at(1, 5)));
        assert!(!book.is_current(id(1), 1), "nobody asked for it");
        assert_eq!(book.take_due(at(5), |_| false).len(), 1);
        assert!(book.is_current(id(1), 1));
        let next = book.next_version(id(1)).expect("there");
        book.put(Arc::new(next));
        assert!(!book.is_current(id(1), 1) && !book.is_current(id(1), 2));
        // It is due still, and asked for anew.
        assert_eq!(book.take_due(at(5), |_| false).len(), 1);
        assert!(book.is_current(id(1), 2));
        book.remove(id(1));
        assert!(!book.is_current(id(1), 2));
        assert_eq!(book.poll_timeout(), None);
    }

    #[test]
    fn a_run_that_has_ended_overlaps_nothing() {
        let mut book = Book::default();
        book.put(Arc::new(due_at(1, 5)));
        let run = RunId::from_bytes([1; 16]);
        book.run_began(id(1), run);
        assert!(book.take_due(at(5), |_| true)[0].overlaps);
        book.postpone(id(1), at(6));
        assert!(!book.take_due(at(6), |_| false)[0].overlaps, "the core knows better");
        book.postpone(id(1), at(7));
        book.run_finished(run);
        assert!(!book.take_due(at(7), |_| true)[0].overlaps);
    }
}
