//! A file that one process at a time holds.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

/// A locked file; others may lock it once this is dropped, or once the process has died.
#[derive(Debug)]
pub struct LockFile(File);

/// Who holds the lock.
#[derive(Debug)]
pub enum Lock {
    /// This value, from now on.
    Ours(LockFile),
    /// Another holder; the file can be read for what it wrote there.
    Elsewhere(File),
}

impl LockFile {
    /// Makes the file when it is not there and locks it, without waiting and without touching what it holds.
    ///
    /// # Errors
    /// When it cannot be made, opened or locked; that another holder has it is no error.
    pub fn acquire(path: &Path) -> io::Result<Lock> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock::Ours(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(Lock::Elsewhere(file)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing is not enough: a process that was just forked has the file open too, until it runs its own program.
        self.0.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_a_copy_of_its_descriptor_does_not_keep_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let Lock::Ours(ours) = LockFile::acquire(&path).expect("locked") else {
            panic!("the file is new");
        };
        assert!(matches!(LockFile::acquire(&path).expect("tried"), Lock::Elsewhere(_)));
        // What a process has that was forked and did not run its program yet.
        let inherited = ours.try_clone().expect("a copy");
        drop(ours);
        assert!(matches!(LockFile::acquire(&path).expect("tried"), Lock::Ours(_)));
        drop(inherited);
    }
}
