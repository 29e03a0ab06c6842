//! What is to be done: the volatile output of the core, carried out after the changes are durable.

use std::time::Duration;

use windlass_ids::{AttemptId, ClusterUid, Incarnation, PodUid, RunId, Timestamp};

use crate::change::Change;
use crate::event::ShardSet;
use crate::state::StopCause;

/// Everything that one or more calls decided. The driver owns it and reuses its buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be committed, in this order.
    pub changes: Vec<Change>,
    /// To be done once the changes are durable. Doing one twice is harmless.
    pub effects: Vec<Effect>,
}

impl Decision {
    /// Forgets everything and keeps the buffers.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.effects.clear();
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.effects.is_empty()
    }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Create the attempt's pod.
    Launch(Launch),
    /// Stop the attempt's pod. Desired state: repeated until the end is seen; the newest order for an attempt counts.
    Stop {
        /// The executor.
        to: Incarnation,
        /// The attempt.
        attempt: AttemptId,
        /// Current grant: an executor without the pod answers `Absent` under it.
        grant: u32,
        /// Uid of the pod, when known.
        pod: Option<PodUid>,
        /// Time between SIGTERM and SIGKILL.
        grace: Duration,
        /// Why.
        cause: StopCause,
    },
    /// Read the attempt's pod by name and uid (quorum) and observe it, as `Absent` when there is none: a list did not show it.
    Probe {
        /// The executor.
        to: Incarnation,
        /// The attempt.
        attempt: AttemptId,
        /// Current grant.
        grant: u32,
        /// Uid of the pod, when known.
        pod: Option<PodUid>,
    },
    /// The executor leases exactly these shards from now on. The newest order counts.
    LeaseShards {
        /// The executor.
        to: Incarnation,
        /// The whole set.
        shards: ShardSet,
    },
    /// The executor was given up: its lease has ended and it has no shards. It has to connect anew; nothing of its session goes on.
    SessionEnded {
        /// The executor.
        incarnation: Incarnation,
    },
    /// List all leased shards.
    RequestInventory {
        /// The executor.
        to: Incarnation,
    },
    /// The attempt has ended and this is durable: seal its logs, then release its pod. Repeated when the pod is seen again.
    AttemptFinished {
        /// The attempt.
        attempt: AttemptId,
        /// Uid of the pod; absent when none was ever seen.
        pod: Option<PodUid>,
        /// Uid of the cluster.
        cluster: ClusterUid,
        /// Not before this the pod may go: two executors were told to create it, and the older one might still do so (its name must stay taken).
        keep_until: Option<Timestamp>,
    },
    /// A pod was seen that no known attempt explains: a run that left the core, or another uid under an attempt's name.
    /// The driver releases it when the run is in its history, and stops it otherwise.
    PodUnexplained {
        /// Who saw it.
        by: Incarnation,
        /// The attempt that its labels name.
        attempt: AttemptId,
        /// Its uid.
        pod: PodUid,
        /// Whether it has ended.
        ended: bool,
    },
    /// The run has ended and this is durable: it may be forgotten.
    RunFinished {
        /// The run.
        run: RunId,
    },
}

/// An order to create a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The executor.
    pub to: Incarnation,
    /// The attempt.
    pub attempt: AttemptId,
    /// Grant under which the pod is created.
    pub grant: u32,
    /// Number of this launch in the executor's session, from 1: what acknowledgements and inventories refer to.
    pub order: u64,
    /// Template of the step's policy.
    pub template: u32,
}
