//! Values that are made of files and made again when these change, as cert-manager and Kubernetes change them.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

/// How soon a change is seen. Contents are compared, not times: mounted Secrets are swapped by symbolic links.
const INTERVAL: Duration = Duration::from_secs(2);

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    std::fs::read(path).map_err(|source| ReadError {
        path: path.to_owned(),
        source,
    })
}

/// The latest good value.
pub(crate) struct Reloaded<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reloaded")
    }
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Makes the value of the files' contents, now and whenever they have changed, until it is dropped. A new version that cannot be
    /// used is logged as an error, and the old one stays.
    ///
    /// # Errors
    /// When a file cannot be read or used at the start.
    pub(crate) fn open<E>(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + 'static,
    ) -> Result<Self, E>
    where
        E: Error + From<ReadError> + Send + 'static,
    {
        let contents = read_all(&paths)?;
        let value = Arc::new(RwLock::new(Arc::new(make(&contents)?)));
        let weak = Arc::downgrade(&value);
        tokio::spawn(follow(what, paths, contents, make, weak));
        Ok(Self(value))
    }

    /// The value now.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, ReadError> {
    paths.iter().map(|path| read(path)).collect()
}

async fn follow<T, E: Error + From<ReadError>>(
    what: &'static str,
    paths: Vec<PathBuf>,
    mut seen: Vec<Vec<u8>>,
    make: impl Fn(&[Vec<u8>]) -> Result<T, E>,
    value: Weak<RwLock<Arc<T>>>,
) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(value) = value.upgrade() else { return };
        let made = match read_all(&paths) {
            Ok(contents) if contents == seen => continue,
            Ok(contents) => make(&contents).inspect(|_| seen = contents),
            Err(error) => Err(error.into()),
        };
        match made {
            Ok(made) => {
                *value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                told.clear();
                tracing::info!(what, "changed files are in use");
            }
            // Said once for each problem. Half a pair of files is repaired by the next look.
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    tracing::error!(what, error, "changed files are refused; those from before stay in use");
                    told = error;
                }
            }
        }
    }
}
