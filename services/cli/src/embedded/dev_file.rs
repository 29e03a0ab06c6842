//! `dev.json`: where the server of a data folder listens. Its token stands in the file `token` beside it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::errors::{CliError, Result};

/// What a client needs to know of a running `windlass dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DevFile {
    /// Address of the scheduler.
    pub(crate) scheduler: String,
    /// Address of the log relay.
    pub(crate) relay: String,
    /// Address of the local cluster.
    pub(crate) cluster: String,
    /// Process that serves.
    pub(crate) pid: u32,
    /// Version that serves.
    pub(crate) version: String,
    /// Token of all three.
    #[serde(skip)]
    pub(crate) token: String,
}

impl DevFile {
    fn path(folder: &Path) -> PathBuf {
        folder.join("dev.json")
    }

    /// Reads it and the token; `None` when nothing was ever started on the folder, or all was ended in order.
    ///
    /// # Errors
    /// When they are there and cannot be read: they are the user's alone.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = Self::path(folder);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(CliError::bad_input(format!("cannot read {}: {error}", path.display()))
                    .hint("it belongs to who started `windlass dev`; --data-dir names another folder"));
            }
        };
        let mut file: Self = serde_json::from_slice(&bytes).map_err(|error| {
            CliError::bad_input(format!("{} is damaged: {error}", path.display())).hint("start `windlass dev` again")
        })?;
        let token = folder.join("token");
        file.token = std::fs::read_to_string(&token)
            .map_err(|error| CliError::bad_input(format!("cannot read {}: {error}", token.display())))?
            .trim()
            .to_owned();
        Ok(Some(file))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = Self::path(folder);
        let text = serde_json::to_vec_pretty(self).map_err(|error| CliError::failed(error.to_string()))?;
        write_private(&path, &text)
    }

    /// Removes it, so that clients do not try an address where nobody is.
    pub(crate) fn remove(folder: &Path) {
        std::fs::remove_file(Self::path(folder)).unwrap_or_default();
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_private_and_gone_after_an_orderly_end() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(DevFile::read(folder.path()).expect("absent"), None);
        let file = DevFile {
            scheduler: "http://127.0.0.1:1".to_owned(),
            relay: "http://127.0.0.1:2".to_owned(),
            cluster: "http://127.0.0.1:3".to_owned(),
            pid: 7,
            version: "0.1.0".to_owned(),
            token: "s3cret".to_owned(),
        };
        write_private(&folder.path().join("token"), b"s3cret\n").expect("written");
        file.write(folder.path()).expect("written");
        let mode = |name: &str| {
            let metadata = std::fs::metadata(folder.path().join(name)).expect("there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("dev.json"), mode("token")), (0o600, 0o600));
        let text = std::fs::read_to_string(folder.path().join("dev.json")).expect("read");
        assert!(!text.contains("s3cret"), "the token has one place");
        assert_eq!(DevFile::read(folder.path()).expect("read"), Some(file));
        DevFile::remove(folder.path());
        assert_eq!(DevFile::read(folder.path()).expect("absent"), None);
    }
}
