//! Where the secrets of runs and schedules may be. Their values are in no store (I8).

use std::collections::{BTreeMap, BTreeSet};

use windlass_ids::{ClusterAlias, ClusterUid, Namespace, RunId, ScheduleId, ScheduleSecretId};

/// A Secret that a run or schedule has, or may have, in a cluster: until it is known to be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSecret {
    /// Whose it is.
    pub owner: SecretOwner,
    /// Name of the run or schedule.
    pub owner_name: String,
    /// The cluster.
    pub cluster: ClusterUid,
    /// What the cluster was called.
    pub alias: ClusterAlias,
    /// Namespace of the run or schedule.
    pub namespace: Namespace,
}

/// Whose a Secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretOwner {
    /// A run's own.
    Run(RunId),
    /// A schedule's, which its runs share.
    Schedule {
        /// The values: other ones have another Secret.
        secret: ScheduleSecretId,
        /// The schedule.
        schedule: ScheduleId,
    },
}

/// What becomes of the record of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunSecretWrite {
    /// It is about to be made: for a run of the same commit, or for a schedule of a later one.
    Put(RunSecret),
    /// It is gone, and will not come any more.
    Delete {
        /// Whose it was.
        owner: SecretOwner,
        /// The cluster.
        cluster: ClusterUid,
    },
}

/// The secrets that a schedule has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSecret {
    /// Id of the values.
    pub id: ScheduleSecretId,
    /// Their keys.
    pub keys: BTreeSet<String>,
    /// The clusters that they are in.
    pub clusters: BTreeMap<ClusterUid, ClusterAlias>,
}

/// The secrets of a schedule that a run uses in place of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecret {
    /// Id of the values.
    pub id: ScheduleSecretId,
    /// The schedule.
    pub schedule: ScheduleId,
    /// Its name.
    pub schedule_name: String,
}
