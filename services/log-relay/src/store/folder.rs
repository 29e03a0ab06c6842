//! The data folder: one process at a time.

use std::path::{Path, PathBuf};

use windlass_ids::RelayId;
use windlass_service::{Lock, LockFile};

/// A data folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made or opened.
    #[error("the data folder {path} cannot be used")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("the data folder {path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// A locked data folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: LockFile,
}

impl DataFolder {
    /// Makes the folder when it is missing, and locks it until the value is dropped or the process ends.
    pub(crate) fn open(root: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io {
            path: root.to_owned(),
            source,
        };
        std::fs::create_dir_all(root.join("live")).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        match LockFile::acquire(&root.join("lock")).map_err(failed)? {
            Lock::Ours(lock) => Ok(Self { root, _lock: lock }),
            Lock::Elsewhere(_) => Err(FolderError::InUse { path: root }),
        }
    }

    /// The relay's id, made at the first start: the scheduler knows a relay again that was started anew.
    pub(crate) fn relay_id(&self) -> Result<RelayId, FolderError> {
        let path = self.root.join("relay-id");
        let failed = |source| FolderError::Io {
            path: path.clone(),
            source,
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        // A file that a crash left empty is written again.
        if let Ok(relay) = text.trim().parse() {
            return Ok(relay);
        }
        let relay = RelayId::from_bytes(uuid::Uuid::new_v4().into_bytes());
        std::fs::write(&path, format!("{relay}\n")).map_err(failed)?;
        Ok(relay)
    }

    /// Below it lie the live logs.
    pub(crate) fn live(&self) -> PathBuf {
        self.root.join("live")
    }

    /// Where the archive lies by default.
    pub(crate) fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_in_one_clear_line() {
        let folder = tempfile::tempdir().expect("folder");
        let held = DataFolder::open(folder.path()).expect("first");
        let error = DataFolder::open(folder.path()).expect_err("second");
        assert!(error.to_string().ends_with("is in use by another process"), "{error}");
        let relay = held.relay_id().expect("an id");
        drop(held);
        let again = DataFolder::open(folder.path()).expect("free again");
        assert_eq!(again.relay_id().expect("an id"), relay, "kept over restarts");
    }
}
