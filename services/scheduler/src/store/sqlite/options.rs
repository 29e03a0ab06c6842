//! Settings of the embedded store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass_ids::InstallationId;

use crate::store::Snapshots;

/// Settings of [`super::SqliteStore`].
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The data folder, held by one process at a time; made when it is not there.
    pub folder: PathBuf,
    /// Identity of a database that is new; an existing one keeps its own.
    pub installation: InstallationId,
    /// Free bytes of the file system below which submissions are refused.
    pub reserve_bytes: u64,
    /// Most bytes of the database file, the write-ahead log not counted; as much as there is when `None`.
    pub max_bytes: Option<u64>,
    /// Batches that may wait for the committer.
    pub queue_depth: usize,
    /// Connections for reads.
    pub readers: usize,
    /// Bytes of the journal from which the fold works although commits go on. It bounds what recovery has to replay, and what it
    /// keeps in memory; the journal itself stays far below 64 MiB.
    pub fold_bytes: usize,
    /// How long nothing was committed before the fold takes the rest.
    pub fold_idle: Duration,
    /// Changes of an active run after which it gets a new snapshot.
    pub snapshot_changes: u64,
    /// Makes the snapshots; without it recovery replays whole histories.
    pub snapshots: Option<Arc<dyn Snapshots>>,
}

impl SqliteOptions {
    /// The defaults, in a folder.
    pub fn new(folder: impl Into<PathBuf>, installation: InstallationId) -> Self {
        Self {
            folder: folder.into(),
            installation,
            reserve_bytes: 256 * 1024 * 1024,
            max_bytes: None,
            queue_depth: 64,
            readers: 4,
            fold_bytes: 2 * 1024 * 1024,
            fold_idle: Duration::from_secs(1),
            snapshot_changes: 50_000,
            snapshots: None,
        }
    }
}
