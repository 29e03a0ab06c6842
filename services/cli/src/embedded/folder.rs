//! The data folder: one process at a time, and what it keeps there.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rand::RngCore as _;
use windlass_service::{Lock, LockFile};

use super::dev_file::write_private;
use crate::client::display_path;
use crate::errors::{CliError, Result};

/// A data folder that this process holds; dropped, others may take it.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: LockFile,
}

/// Who holds a folder.
#[derive(Debug)]
pub(crate) enum Held {
    /// This process, from now on.
    Ours(DataFolder),
    /// Another process.
    Elsewhere,
}

impl DataFolder {
    /// Takes the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub(crate) fn take(path: &Path) -> Result<Held> {
        let cannot = |error: std::io::Error| {
            CliError::bad_input(format!("cannot use the data folder {}: {error}", display_path(path)))
                .hint("--data-dir or WINDLASS_DATA_DIR names another one")
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(cannot)?;
        let path = path.canonicalize().map_err(cannot)?;
        match LockFile::acquire(&path.join("lock")).map_err(cannot)? {
            Lock::Ours(lock) => Ok(Held::Ours(Self { path, _lock: lock })),
            Lock::Elsewhere(_) => Ok(Held::Elsewhere),
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The token that every port wants; made at the first start.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn token(&self) -> Result<String> {
        let path = self.path.join("token");
        match std::fs::read_to_string(&path) {
            Ok(token) if !token.trim().is_empty() => {
                keep_private(&path)?;
                Ok(token.trim().to_owned())
            }
            Ok(_) => self.new_token(&path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.new_token(&path),
            Err(error) => Err(CliError::bad_input(format!("cannot read {}: {error}", path.display()))),
        }
    }

    fn new_token(&self, path: &Path) -> Result<String> {
        let mut bytes = [0_u8; 24];
        rand::rng().fill_bytes(&mut bytes);
        let token = hex::encode(bytes);
        write_private(path, format!("{token}\n").as_bytes())?;
        Ok(token)
    }

    /// A folder inside it.
    pub(crate) fn sub(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Takes a secret file away from others who may have been given it, such as by a copy.
fn keep_private(path: &Path) -> Result<()> {
    let private = || {
        let mode = std::fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(())
    };
    private().map_err(|error: std::io::Error| {
        CliError::bad_input(format!("{} can be read by others: {error}", display_path(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_folder_and_its_token_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/data");
        let Held::Ours(ours) = DataFolder::take(&path).expect("taken") else {
            panic!("the folder is new");
        };
        assert!(matches!(DataFolder::take(&path).expect("tried"), Held::Elsewhere));
        let token = ours.token().expect("made");
        assert_eq!(token.len(), 48);
        std::fs::set_permissions(path.join("token"), std::fs::Permissions::from_mode(0o644)).expect("widened");
        drop(ours);
        let Held::Ours(again) = DataFolder::take(&path).expect("taken") else {
            panic!("nobody holds it");
        };
        assert_eq!(again.token().expect("kept"), token);
        let mode = std::fs::metadata(path.join("token"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
