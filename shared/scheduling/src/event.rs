//! What happened: the input of the core.

use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, PodUid, RunId, Shard, StepIndex, Timestamp};

use crate::change::AttemptEnd;
use crate::spec::RunSpec;
use crate::state::AttemptPhase;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client submitted a run; its spec is already validated and built.
    RunSubmitted {
        /// The run.
        spec: Arc<RunSpec>,
    },
    /// A client retries an ended run: a run of its own, which reuses what the earlier one has done.
    RunRetried {
        /// The new run.
        spec: Arc<RunSpec>,
        /// Steps that do not run again. A step is among them only with all of its upstream steps.
        reused: Vec<Reused>,
    },
    /// As `RunSubmitted` or, with a lineage, `RunRetried`, of a run whose secrets are to be made first: nothing of it starts before
    /// `RunPrepared`, and without that it ends in time.
    RunPreparing {
        /// The run.
        spec: Arc<RunSpec>,
        /// Steps that do not run again.
        reused: Vec<Reused>,
    },
    /// The secrets of a run are there. Once it is queued, this says nothing new.
    RunPrepared {
        /// The run.
        run: RunId,
    },
    /// A client wants a run to stop.
    ///
    /// A cancelled run starts nothing new, clean-up steps (`runIf: ALWAYS`) included. Repeating it with a shorter grace shortens the stops.
    RunCancelled {
        /// The run.
        run: RunId,
        /// Grace for what runs; each step's own when absent.
        grace: Option<Duration>,
        /// Why, for people.
        reason: Box<str>,
        /// Who.
        by: Box<str>,
    },
    /// A person vouches that the pod of an attempt that lost contact is dead.
    DeadConfirmed {
        /// The attempt.
        attempt: AttemptId,
        /// Who.
        by: Box<str>,
    },
    /// An executor opened a session, or resumed one.
    ExecutorConnected {
        /// Its process.
        incarnation: Incarnation,
        /// Uid of its cluster.
        cluster: ClusterUid,
        /// Alias of its cluster.
        alias: ClusterAlias,
        /// Launches that it takes before they are acknowledged.
        credit: u32,
        /// Whether the session goes on where it was: everything sent is still known to it. Refused when the session has ended.
        resumed: bool,
    },
    /// An executor's stream broke. This is no loss: its lease goes on until it expires.
    ExecutorDisconnected {
        /// Its process.
        incarnation: Incarnation,
    },
    /// Any frame came from an executor: its lease starts anew. All other events of executors do the same.
    ExecutorHeard {
        /// Its process.
        incarnation: Incarnation,
    },
    /// An executor wants to give up its shards and takes no more launches.
    ExecutorDraining {
        /// Its process.
        incarnation: Incarnation,
    },
    /// An executor's room for launches changed.
    CreditChanged {
        /// Its process.
        incarnation: Incarnation,
        /// Launches that it takes before they are acknowledged.
        credit: u32,
    },
    /// An executor took over launches.
    LaunchesAcknowledged {
        /// Its process.
        incarnation: Incarnation,
        /// All launches with `Launch::order` up to here were taken over.
        up_to: u64,
    },
    /// An executor sees its cluster's API server, or no longer does.
    ClusterSightChanged {
        /// Its process.
        incarnation: Incarnation,
        /// Whether it does.
        visible: bool,
    },
    /// An executor saw something of an attempt.
    AttemptObserved {
        /// Its process.
        by: Incarnation,
        /// What it saw.
        observation: Observation,
    },
    /// An executor listed shards, consistently.
    InventoryReported {
        /// Its process.
        by: Incarnation,
        /// The list.
        inventory: Box<Inventory>,
    },
}

/// A step whose work an earlier run has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused {
    /// The step, in the new run.
    pub step: StepIndex,
    /// The successful attempt in the earlier run.
    pub source: AttemptId,
}

/// What an executor saw of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The attempt.
    pub attempt: AttemptId,
    /// Grant under which the executor acts; 0 when it has none.
    pub grant: u32,
    /// Uid of the pod, when there is one.
    pub pod: Option<PodUid>,
    /// How far it is.
    pub phase: AttemptPhase,
    /// Node, once scheduled.
    pub node: Option<Box<str>>,
    /// When the main container started.
    pub started_at: Option<Timestamp>,
    /// Reason of the waiting state, Kubernetes' word; empty when there is none.
    pub reason: Box<str>,
    /// The same for people.
    pub message: Box<str>,
    /// How it ended; with `AttemptPhase::Ended`, and only then.
    pub end: Option<AttemptEnd>,
    /// Whether a deletionTimestamp was seen.
    pub terminating: bool,
}

impl Observation {
    /// An observation without details.
    pub fn new(attempt: AttemptId, grant: u32, pod: Option<PodUid>, phase: AttemptPhase) -> Self {
        Self {
            attempt,
            grant,
            pod,
            phase,
            node: None,
            started_at: None,
            reason: Box::default(),
            message: Box::default(),
            end: None,
            terminating: false,
        }
    }
}

/// A consistent list of an executor's shards, all chunks joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The shards that it speaks of.
    pub shards: ShardSet,
    /// The highest `Launch::order` of this executor that was sent in or before the message that the list reflects; nothing is inferred about
    /// later launches. 0 when none was.
    pub reflects: u64,
    /// Pods and their state.
    pub observations: Vec<Observation>,
    /// Creates that are queued or in flight.
    pub in_flight: Vec<AttemptId>,
}

/// A set of shards, in the form of the wire: a bit for each, lowest bit first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    /// All shards.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// From 32 bytes, lowest bit of the first byte first.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut set = Self::default();
        for (index, byte) in bytes.iter().enumerate() {
            set.0[index / 8] |= u64::from(*byte) << (index % 8 * 8);
        }
        set
    }

    /// To 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.0[index / 8].to_le_bytes()[index % 8];
        }
        bytes
    }

    /// Puts a shard in.
    pub fn insert(&mut self, shard: Shard) {
        self.0[usize::from(shard.0) / 64] |= 1 << (shard.0 % 64);
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: Shard) {
        self.0[usize::from(shard.0) / 64] &= !(1 << (shard.0 % 64));
    }

    /// Whether a shard is in it.
    pub fn contains(&self, shard: Shard) -> bool {
        self.0[usize::from(shard.0) / 64] >> (shard.0 % 64) & 1 == 1
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The shards in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = Shard> + '_ {
        (0..=u8::MAX).map(Shard).filter(|shard| self.contains(*shard))
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = Self::default();
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}
