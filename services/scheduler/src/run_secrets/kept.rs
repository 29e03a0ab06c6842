//! The driver's secrets of schedules: which of them something may still need.
//!
//! A schedule has one at a time. Its runs keep the one that they began with, and so do their retries, so that an older one may be needed
//! for a while. Once nothing needs one, nothing can begin to: it is to be deleted.
//!
//! It is discarded with the core when a commit fails, and read back from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use windlass_ids::{RunId, ScheduleId, ScheduleSecretId, Timestamp};

use crate::store::{ScheduleSecret, SecretOwner, SharedSecret};

/// How long one is made at most until its schedule has it.
const MAKING: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    secrets: BTreeMap<ScheduleSecretId, Uses>,
    of_run: BTreeMap<RunId, ScheduleSecretId>,
}

/// What needs one.
#[derive(Debug)]
struct Uses {
    schedule: ScheduleId,
    /// It is being made for a change of the schedule that is to come before this time.
    made_until: Option<Timestamp>,
    /// The schedule has it.
    by_schedule: bool,
    runs: BTreeSet<RunId>,
}

impl Uses {
    fn of(schedule: ScheduleId) -> Self {
        Self {
            schedule,
            made_until: None,
            by_schedule: false,
            runs: BTreeSet::new(),
        }
    }
}

impl Kept {
    /// One is about to be made.
    pub(crate) fn begin(&mut self, id: ScheduleSecretId, schedule: ScheduleId, now: Timestamp) {
        let uses = self.secrets.entry(id).or_insert_with(|| Uses::of(schedule));
        uses.made_until = Some(now.saturating_add(MAKING));
    }

    /// Whether it is kept, so that something may begin to need it.
    pub(crate) fn has(&self, id: ScheduleSecretId) -> bool {
        self.secrets.contains_key(&id)
    }

    /// Its schedule will never have it; returned when it was being made, and nothing needs it.
    pub(crate) fn abandon(&mut self, id: ScheduleSecretId) -> Option<SecretOwner> {
        self.secrets.get(&id).filter(|uses| uses.made_until.is_some())?;
        self.let_go(id)
    }

    /// A schedule has it from now on.
    pub(crate) fn schedule_has(&mut self, secret: &ScheduleSecret, schedule: ScheduleId) {
        let uses = self.secrets.entry(secret.id).or_insert_with(|| Uses::of(schedule));
        uses.made_until = None;
        uses.by_schedule = true;
    }

    /// A run uses it until it is finished.
    pub(crate) fn run_uses(&mut self, secret: &SharedSecret, run: RunId) {
        let uses = self.secrets.entry(secret.id);
        uses.or_insert_with(|| Uses::of(secret.schedule)).runs.insert(run);
        self.of_run.insert(run, secret.id);
    }

    /// Its schedule has it no more, which is durable; returned when nothing needs it.
    pub(crate) fn let_go(&mut self, id: ScheduleSecretId) -> Option<SecretOwner> {
        let uses = self.secrets.get_mut(&id)?;
        uses.made_until = None;
        uses.by_schedule = false;
        self.unneeded(id)
    }

    /// A run can start no pod any more; its secret is returned when nothing else needs it.
    pub(crate) fn run_finished(&mut self, run: RunId) -> Option<SecretOwner> {
        let id = self.of_run.remove(&run)?;
        self.secrets.get_mut(&id)?.runs.remove(&run);
        self.unneeded(id)
    }

    /// Lets those go that were not made in time: nobody is at it any more.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<SecretOwner> {
        let late = self.secrets.iter();
        let late = late.filter(|(_, uses)| uses.made_until.is_some_and(|until| until <= now));
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        late.into_iter().filter_map(|id| self.let_go(id)).collect()
    }

    fn unneeded(&mut self, id: ScheduleSecretId) -> Option<SecretOwner> {
        let uses = self.secrets.get(&id)?;
        if uses.made_until.is_some() || uses.by_schedule || !uses.runs.is_empty() {
            return None;
        }
        let schedule = uses.schedule;
        self.secrets.remove(&id);
        Some(SecretOwner::Schedule { secret: id, schedule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: ScheduleId = ScheduleId::from_bytes([1; 16]);
    const ID: ScheduleSecretId = ScheduleSecretId::from_bytes([2; 16]);

    fn owner() -> SecretOwner {
        SecretOwner::Schedule {
            secret: ID,
            schedule: SCHEDULE,
        }
    }

    fn of_schedule() -> ScheduleSecret {
        ScheduleSecret {
            id: ID,
            keys: BTreeSet::new(),
            clusters: BTreeMap::new(),
        }
    }

    fn of_run() -> SharedSecret {
        SharedSecret {
            id: ID,
            schedule: SCHEDULE,
            schedule_name: "nightly".to_owned(),
        }
    }

    /// behaviours M12, E31
    #[test]
    fn i8_it_goes_with_the_last_of_schedule_and_runs_and_nothing_begins_to_need_it_then() {
        let (one, two) = (RunId::from_bytes([3; 16]), RunId::from_bytes([4; 16]));
        let mut kept = Kept::default();
        kept.begin(ID, SCHEDULE, Timestamp::default());
        assert_eq!(kept.abandon(ID), Some(owner()));
        kept.begin(ID, SCHEDULE, Timestamp::default());
        kept.schedule_has(&of_schedule(), SCHEDULE);
        assert_eq!(kept.abandon(ID), None, "it is made");
        kept.run_uses(&of_run(), one);
        assert_eq!(kept.run_finished(one), None, "the schedule has it");
        kept.run_uses(&of_run(), two);
        assert_eq!(kept.let_go(ID), None, "a run uses it");
        kept.run_uses(&of_run(), one);
        assert_eq!(kept.run_finished(two), None, "and its retry");
        assert!(kept.has(ID));
        assert_eq!(kept.run_finished(one), Some(owner()));
        assert!(!kept.has(ID));
        assert_eq!((kept.run_finished(one), kept.let_go(ID)), (None, None), "said once");
    }

    #[test]
    fn i10_one_that_nobody_makes_any_more_goes_after_a_while() {
        let mut kept = Kept::default();
        let begun = Timestamp::from_millis(5_000);
        kept.begin(ID, SCHEDULE, begun);
        assert_eq!(kept.expire(begun.saturating_add(MAKING - Duration::from_millis(1))), []);
        assert_eq!(kept.expire(begun.saturating_add(MAKING)), [owner()]);
        kept.begin(ID, SCHEDULE, begun);
        kept.schedule_has(&of_schedule(), SCHEDULE);
        assert_eq!(kept.expire(begun.saturating_add(2 * MAKING)), [], "its schedule has it");
    }
}
