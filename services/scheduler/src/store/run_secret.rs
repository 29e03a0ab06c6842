//! Where the secrets of a run may be. Their values are in no store (I8).

use windlass_ids::{ClusterAlias, ClusterUid, Namespace, RunId, RunName};

/// A Secret that a run has, or may have, in a cluster: until it is known to be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSecret {
    /// The run.
    pub run: RunId,
    /// The cluster.
    pub cluster: ClusterUid,
    /// What the cluster was called.
    pub alias: ClusterAlias,
    /// The run's namespace.
    pub namespace: Namespace,
    /// The run's name.
    pub run_name: RunName,
}

/// What becomes of the record of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunSecretWrite {
    /// It is about to be made, for a run of the same commit.
    Put(RunSecret),
    /// It is gone, and will not come any more.
    Delete {
        /// The run.
        run: RunId,
        /// The cluster.
        cluster: ClusterUid,
    },
}
