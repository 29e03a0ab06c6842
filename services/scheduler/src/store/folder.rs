//! The data folder: one holder at a time, and enough space.

use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_service::{Lock, LockFile};

use super::StoreError;

const LOCK_FILE: &str = "lock";

/// Holds the data folder until it is dropped, or until the process dies.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: LockFile,
}

impl FolderLock {
    /// Takes the folder, which is made when it is not there, or says who holds it.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, StoreError> {
        // For its owner alone: parameters of runs are in it.
        let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|error| io("create data folder", folder, error))?;
        let path = folder.join(LOCK_FILE);
        match LockFile::acquire(&path).map_err(|error| io("lock", &path, error))? {
            Lock::Ours(mut file) => {
                write_pid(&mut file).map_err(|error| io("write", &path, error))?;
                Ok(Self { _file: file })
            }
            Lock::Elsewhere(mut file) => Err(StoreError::Held {
                path: folder.to_owned(),
                pid: read_pid(&mut file),
            }),
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    if source.kind() == std::io::ErrorKind::StorageFull {
        return StoreError::Full { path: path.to_owned() };
    }
    StoreError::Io {
        action,
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

/// Free space of the file system that holds the database, and of its quota, against a reserve.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) path: PathBuf,
    pub(crate) reserve: u64,
    pub(crate) quota: Option<u64>,
    /// Bytes of the database that nothing uses, as it was last looked at: they are used before it grows.
    pub(crate) reusable: Arc<AtomicU64>,
}

impl Space {
    /// Bytes that an ordinary process may still write.
    pub(crate) fn free(&self) -> Result<u64, StoreError> {
        let folder = self.path.parent().unwrap_or(&self.path);
        let free = fs4::available_space(folder).map_err(|error| io("read the free space of", folder, error))?;
        let Some(quota) = self.quota else {
            return Ok(free);
        };
        let file = std::fs::metadata(&self.path).map_err(|error| io("read the size of", &self.path, error))?;
        let used = file.len().saturating_sub(self.reusable.load(Ordering::Relaxed));
        Ok(free.min(quota.saturating_sub(used)))
    }

    /// Refuses when less than the reserve is free.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let free = self.free()?;
        if free < self.reserve {
            return Err(StoreError::LowSpace {
                path: self.path.clone(),
                free,
                reserve: self.reserve,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = FolderLock::acquire(folder.path()).expect("free");
        let error = FolderLock::acquire(folder.path()).expect_err("held");
        assert!(
            matches!(error, StoreError::Held { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        drop(held);
        FolderLock::acquire(folder.path()).expect("free again");
    }

    #[test]
    fn below_the_reserve_is_said_with_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("windlass.db");
        std::fs::write(&path, [0; 1000]).expect("writes");
        let space = |reserve, quota| Space {
            path: path.clone(),
            reserve,
            quota,
            reusable: Arc::default(),
        };
        space(0, None).check().expect("nothing is reserved");
        space(500, Some(1500))
            .check()
            .expect("just enough of the quota is left");
        let error = space(501, Some(1500)).check().expect_err("one byte less");
        assert!(
            matches!(
                error,
                StoreError::LowSpace {
                    free: 500,
                    reserve: 501,
                    ..
                }
            ),
            "{error}"
        );
        let none = space(u64::MAX, None);
        assert!(matches!(
            none.check(),
            Err(StoreError::LowSpace { reserve: u64::MAX, .. })
        ));
    }
}
