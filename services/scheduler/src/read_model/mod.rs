//! What readers see: the durable state of active runs, kept beside the core and never ahead of the store.
//!
//! The driver applies changes once they are durable; everybody else reads. Ended runs are read from the store's history.

mod entry;
mod events;
mod frame;
mod hub;
mod meta;
mod record;
pub(crate) mod render;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use windlass_ids::{RunId, ScheduleId};

pub(crate) use entry::{Applied, RunEntry};
pub(crate) use events::{WithRun, event, step_of};
pub(crate) use frame::{event_frame, frame, resume_sequence, resume_token};
pub(crate) use hub::{HubPhase, More, Watching};
pub(crate) use meta::RunMeta;
pub(crate) use record::{AttemptRef, Cancel, MAX_FAILED_STEPS, RunRecord};
pub(crate) use texts::{RunSummary, end_message, end_reason, list, run_message, step_reason, stopped};

/// The active runs; see the module.
#[derive(Debug, Default)]
pub(crate) struct ReadModel {
    active: RwLock<BTreeMap<RunId, Arc<RunEntry>>>,
    /// Those of schedules.
    scheduled: Mutex<BTreeSet<(ScheduleId, RunId)>>,
}

impl ReadModel {
    /// An active run.
    pub(crate) fn get(&self, run: RunId) -> Option<Arc<RunEntry>> {
        self.active
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&run)
            .cloned()
    }

    /// Adds a run that is durable.
    pub(crate) fn insert(&self, entry: Arc<RunEntry>) {
        let run = entry.meta().header.id;
        if let Some(of) = &entry.meta().header.fixed.schedule {
            self.scheduled().insert((of.id, run));
        }
        self.active
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(run, entry);
    }

    /// Takes out a run that has ended.
    pub(crate) fn remove(&self, run: RunId) -> Option<Arc<RunEntry>> {
        let removed = self.active.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
        if let Some(of) = removed
            .as_ref()
            .and_then(|entry| entry.meta().header.fixed.schedule.as_ref())
        {
            self.scheduled().remove(&(of.id, run));
        }
        removed
    }

    /// The active runs of a schedule, oldest first, at most `most`.
    pub(crate) fn of_schedule(&self, schedule: ScheduleId, most: usize) -> Vec<Arc<RunEntry>> {
        let first = (schedule, RunId::from_bytes([0; 16]));
        let last = (schedule, RunId::from_bytes([u8::MAX; 16]));
        let runs: Vec<RunId> = self
            .scheduled()
            .range(first..=last)
            .take(most)
            .map(|(_, run)| *run)
            .collect();
        runs.into_iter().filter_map(|run| self.get(run)).collect()
    }

    fn scheduled(&self) -> MutexGuard<'_, BTreeSet<(ScheduleId, RunId)>> {
        self.scheduled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out everything and sends watchers away, because the state is read back from the store.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut *self.active.write().unwrap_or_else(PoisonError::into_inner));
        self.scheduled().clear();
        for entry in entries.values() {
            entry.close();
        }
    }
}
