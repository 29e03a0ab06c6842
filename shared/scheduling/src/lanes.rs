//! Queues of ready work: by cluster (a lane), by priority, round-robin between runs, in order of readiness within a run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use windlass_ids::{ClusterAlias, StepIndex, Timestamp};

/// A run's part in a lane: slot of the run, index into its queues.
pub(crate) type Entry = (u32, u32);

/// Ready steps of one run, by lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunQueues {
    pub(crate) lanes: Vec<RunLane>,
    /// Lane of each policy, as index into `lanes`.
    pub(crate) by_policy: Vec<u32>,
    /// Volatile: index of the namespace.
    pub(crate) namespace: u32,
    /// Volatile: when the run's timer is filed.
    pub(crate) filed: Timestamp,
}

/// Ready steps of one run in one lane. Entries are not removed when a step leaves `READY` in another way than by its launch.
#[derive(Clone, Debug)]
pub(crate) struct RunLane {
    /// Index of the lane.
    pub(crate) lane: u32,
    /// Steps in order of readiness.
    pub(crate) ready: VecDeque<StepIndex>,
    /// Whether something holds an entry of it: a ring, or a list of what waits for a limit.
    pub(crate) queued: bool,
}

impl RunQueues {
    pub(crate) fn memory_usage(&self) -> usize {
        self.lanes
            .iter()
            .map(|lane| lane.ready.capacity() * size_of::<StepIndex>())
            .sum()
    }
}

/// All runs with ready steps for one cluster, or for any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    /// The alias that the steps name; none for any cluster.
    pub(crate) alias: Option<ClusterAlias>,
    rings: BTreeMap<Reverse<i32>, VecDeque<Entry>>,
    /// What waits for credit of a certain executor.
    pub(crate) awaiting_credit: Vec<Entry>,
    /// When it was served last, for fairness between lanes.
    pub(crate) served: u64,
    /// Since when no executor serves the cluster.
    pub(crate) unserved_since: Option<Timestamp>,
}

impl Lane {
    /// Puts an entry last among those of its priority.
    pub(crate) fn push(&mut self, priority: i32, entry: Entry) {
        self.rings.entry(Reverse(priority)).or_default().push_back(entry);
    }

    /// The highest priority that has an entry. Rings stay when they empty, since the same few priorities come again.
    pub(crate) fn top(&self) -> Option<i32> {
        let mut rings = self.rings.iter();
        rings
            .find(|(_, ring)| !ring.is_empty())
            .map(|(Reverse(priority), _)| *priority)
    }

    /// Takes the first entry of the highest priority.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.rings.values_mut().find_map(VecDeque::pop_front)
    }
}

/// All lanes; index 0 is for any cluster.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    pub(crate) all: Vec<Lane>,
    by_alias: BTreeMap<ClusterAlias, u32>,
    pub(crate) turn: u64,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            all: vec![Lane::default()],
            by_alias: BTreeMap::new(),
            turn: 0,
        }
    }
}

impl Lanes {
    /// Index of the lane of an alias.
    pub(crate) fn of(&mut self, alias: Option<&ClusterAlias>) -> u32 {
        let Some(alias) = alias else { return 0 };
        if let Some(lane) = self.by_alias.get(alias) {
            return *lane;
        }
        let lane = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(Lane {
            alias: Some(alias.clone()),
            ..Lane::default()
        });
        self.by_alias.insert(alias.clone(), lane);
        lane
    }

    /// Takes a run out, whose slot will be used again.
    pub(crate) fn remove(&mut self, slot: u32) {
        for lane in &mut self.all {
            lane.rings
                .values_mut()
                .for_each(|ring| ring.retain(|entry| entry.0 != slot));
            lane.awaiting_credit.retain(|entry| entry.0 != slot);
        }
    }
}
