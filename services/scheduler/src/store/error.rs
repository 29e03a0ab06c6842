//! What can go wrong in the store.

use std::path::PathBuf;
use std::sync::Arc;

/// A failure of the store. Cheap to clone, since one failed commit answers everybody who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the configured quota is full; nothing of the commit was stored.
    #[error("no space is left for {path}")]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// Free space is below the reserve: submissions are refused, running work goes on.
    #[error("{free} bytes are free for {path}, {reserve} are reserved for runs that were accepted")]
    LowSpace {
        /// The database file.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes reserved.
        reserve: u64,
    },
    /// Another scheduler took the partition over.
    #[error("fenced: epoch {epoch} of the partition is over")]
    Fenced {
        /// The epoch that this handle holds.
        epoch: u64,
    },
    /// The database was written by a newer program.
    #[error("database {path} is of version {found}, this program reads up to {supported}")]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version that this program reads.
        supported: u32,
    },
    /// Another process uses the data folder.
    #[error("data folder {path} is held by {}", holder(*.pid))]
    Held {
        /// The folder.
        path: PathBuf,
        /// The process, when it could be read.
        pid: Option<u32>,
    },
    /// What was read cannot have been written by this program.
    #[error("database {path} is damaged: {what}")]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A row that has to be unique exists: a run's id or name, or a request id.
    #[error("commit refused: {what}")]
    Conflict {
        /// What exists.
        what: String,
    },
    /// An earlier commit failed; the store has to be opened and recovered again.
    #[error("an earlier commit failed")]
    Poisoned {
        /// That failure.
        #[source]
        cause: Arc<StoreError>,
    },
    /// Commits need [`super::Store::recover`] first.
    #[error("the store was not recovered yet")]
    NotRecovered,
    /// [`super::Store::recover`] was called a second time on one handle.
    #[error("the store was recovered already")]
    AlreadyRecovered,
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// The operating system or the database failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether trying again, after opening and recovering the store, may help without anybody doing something first.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full { .. } | Self::LowSpace { .. } | Self::NotRecovered | Self::Closed | Self::Io { .. } => true,
            // As transient as what it comes from: one that was fenced must not take a new epoch from the one who fenced it.
            Self::Poisoned { cause } => cause.is_transient(),
            Self::Fenced { .. }
            | Self::NewerSchema { .. }
            | Self::Held { .. }
            | Self::Corrupt { .. }
            | Self::Conflict { .. }
            | Self::AlreadyRecovered => false,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Why a part of a run's history cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HistoryError {
    /// No such run.
    #[error("no such run")]
    NotFound,
    /// The history before `oldest` was deleted.
    #[error("history before sequence number {oldest} was deleted")]
    TooOld {
        /// The first sequence number that is kept.
        oldest: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_failure_is_as_final_as_the_failure() {
        let poisoned = |cause: StoreError| StoreError::Poisoned { cause: Arc::new(cause) };
        assert!(!poisoned(StoreError::Fenced { epoch: 3 }).is_transient());
        assert!(!poisoned(poisoned(StoreError::Fenced { epoch: 3 })).is_transient());
        let full = StoreError::Full {
            path: "/data/windlass.db".into(),
        };
        assert!(poisoned(full).is_transient());
    }

    #[test]
    fn errors_that_people_meet_are_one_clear_line() {
        let newer = StoreError::NewerSchema {
            path: "/data/windlass.db".into(),
            found: 7,
            supported: 1,
        };
        assert_eq!(
            newer.to_string(),
            "database /data/windlass.db is of version 7, this program reads up to 1"
        );
        let held = |pid| StoreError::Held {
            path: "/data".into(),
            pid,
        };
        assert_eq!(held(Some(12)).to_string(), "data folder /data is held by process 12");
        assert_eq!(held(None).to_string(), "data folder /data is held by another process");
    }
}
