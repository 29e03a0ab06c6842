//! The limits of namespaces: who holds their slots, and who waits for one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use crate::lanes::Entry;
use crate::run::Run;
use crate::scheduler::Scheduler;

/// Live steps of a namespace, and who waits for its limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceLoad {
    pub(crate) limit: Option<u32>,
    pub(crate) live: u32,
    pub(crate) waiting: BTreeMap<Reverse<i32>, VecDeque<Entry>>,
}

impl NamespaceLoad {
    /// Whether a step may start.
    pub(crate) fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.live < limit)
    }

    /// How many steps may start.
    fn room(&self) -> u32 {
        self.limit.map_or(u32::MAX, |limit| limit.saturating_sub(self.live))
    }

    /// Has an entry wait for room.
    pub(crate) fn hold(&mut self, priority: i32, entry: Entry) {
        self.waiting.entry(Reverse(priority)).or_default().push_back(entry);
    }

    /// The entry that has waited longest among those of the highest priority.
    fn next(&mut self) -> Option<Entry> {
        let mut first = self.waiting.first_entry()?;
        let entry = first.get_mut().pop_front();
        if first.get().is_empty() {
            first.remove();
        }
        entry
    }
}

impl Scheduler {
    /// Index of a run's namespace.
    pub(crate) fn namespace(&mut self, run: &Run) -> u32 {
        let name = &run.spec.parameters().namespace;
        if let Some(known) = self.namespace_ids.get(name) {
            return *known;
        }
        let index = u32::try_from(self.namespaces.len()).unwrap_or(u32::MAX);
        self.namespaces.push(NamespaceLoad {
            limit: self.config.limit_of(name),
            ..NamespaceLoad::default()
        });
        self.namespace_ids.insert(name.clone(), index);
        index
    }

    /// The number of live steps of a run has changed.
    pub(crate) fn load_changed(&mut self, slot: u32, before: u32, after: u32) {
        let Some(run) = self.run_at(slot) else { return };
        let namespace = run.queues.namespace;
        let load = &mut self.namespaces[namespace as usize];
        load.live = load.live - before + after;
        if after >= before {
            return;
        }
        if !load.waiting.is_empty() {
            self.roomy.push(namespace);
        }
        self.requeue(slot);
    }

    /// Puts back what waits for namespaces that have room, as many entries as there are free slots. A namespace stays in `roomy` while it
    /// has room and somebody waits, so that the caller can offer what those do not take to others.
    pub(crate) fn wake_waiting(&mut self) {
        for namespace in std::mem::take(&mut self.roomy) {
            for _ in 0..self.namespaces[namespace as usize].room() {
                let Some(entry) = self.namespaces[namespace as usize].next() else {
                    break;
                };
                if let Some(lane) = self.lane_of(entry) {
                    self.put_back(lane, entry);
                }
            }
            let load = &self.namespaces[namespace as usize];
            if load.has_room() && !load.waiting.is_empty() {
                self.roomy.push(namespace);
            }
        }
    }

    /// Looks at every limit again, as if each had changed: what a missed wake-up left behind is found here (I6).
    pub(crate) fn recheck_limits(&mut self) {
        self.roomy = (0..u32::try_from(self.namespaces.len()).unwrap_or(u32::MAX)).collect();
        for slot in 0..u32::try_from(self.runs.len()).unwrap_or(u32::MAX) {
            if self.run_at(slot).is_some() {
                self.requeue(slot);
            }
        }
        self.requeue_credit();
    }

    fn lane_of(&self, (slot, index): Entry) -> Option<usize> {
        let lane = self.run_at(slot)?.queues.lanes.get(index as usize)?;
        Some(lane.lane as usize)
    }
}
