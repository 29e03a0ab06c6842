//! When something is to be looked at again: one entry for each attempt that has a deadline, and one for each run.
//!
//! Entries are never removed. One that comes due is compared with what its owner has filed, and forgotten when that is another time; an owner files
//! anew only when its deadline comes nearer. So a step costs one entry of eight bytes as a rule, and no search.

use std::collections::BTreeMap;

use windlass_ids::{StepIndex, Timestamp};

/// Whose timer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A run, by its slot.
    Run(u32),
    /// An attempt, by the slot of its run and its step.
    Step(u32, StepIndex),
}

const RUN: u32 = u32::MAX;

/// All timers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<Timestamp, Vec<(u32, u32)>>,
}

impl Timers {
    /// Files an entry.
    pub(crate) fn file(&mut self, at: Timestamp, owner: Owner) {
        let entry = match owner {
            Owner::Run(slot) => (slot, RUN),
            Owner::Step(slot, step) => (slot, step.0),
        };
        self.due.entry(at).or_default().push(entry);
    }

    /// The earliest entry.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|(at, _)| *at)
    }

    /// Takes all entries of the earliest time, when that has come.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, impl Iterator<Item = Owner> + use<>)> {
        let first = self.due.first_entry()?;
        if *first.key() > now {
            return None;
        }
        let (at, entries) = first.remove_entry();
        let owners = entries.into_iter().map(|(slot, step)| match step {
            RUN => Owner::Run(slot),
            step => Owner::Step(slot, StepIndex(step)),
        });
        Some((at, owners))
    }

    /// Bytes on the heap.
    pub(crate) fn memory_usage(&self) -> usize {
        self.due
            .values()
            .map(|entries| size_of::<(Timestamp, Vec<(u32, u32)>)>() + entries.capacity() * size_of::<(u32, u32)>())
            .sum()
    }
}
