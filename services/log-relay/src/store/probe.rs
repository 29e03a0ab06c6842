//! Whether the store of an archive can be used, found out when a relay starts: a wrong key or bucket should not show at the first sealing.

use object_store::path::Path;
use object_store::{Error, PutMode};

use super::archive::{Archive, ArchiveError};
use super::remote::is_refusal;

/// Says that a prefix holds an archive, and in which form.
const MARKER: &str = "windlass-archive.json";
const CONTENT: &[u8] = b"{\"version\":1}\n";

impl Archive {
    /// Asks the store of an archive for what sealing needs: to put an object unless it is there. False when it cannot be reached now,
    /// which says nothing about later.
    ///
    /// # Errors
    /// When the store refuses, or puts an object that is there.
    pub(crate) async fn is_usable(&self) -> Result<bool, ArchiveError> {
        if !self.is_remote() {
            return Ok(true);
        }
        // The first relay puts the marker; what it is told then is not enough.
        for _ in 0..2 {
            match self.put_marker().await {
                Ok(true) => {}
                Ok(false) => return Ok(true),
                Err(ArchiveError::Store(error)) if !is_refusal(&error) => {
                    let error = crate::error::chain(&error);
                    tracing::error!(
                        archive = self.place,
                        error,
                        "archive cannot be reached; logs stay in the data folder until it can"
                    );
                    return Ok(false);
                }
                Err(ArchiveError::Store(error)) => return Err(self.refused(problem(&error), Some(&error))),
                Err(error) => return Err(error),
            }
        }
        Err(self.refused(
            "the store writes over an object that is to be put only where there is none",
            None,
        ))
    }

    /// Puts the marker; false when it is there.
    async fn put_marker(&self) -> Result<bool, ArchiveError> {
        let (marker, content) = (Path::from(MARKER), CONTENT.to_vec().into());
        let put = self.store.put_opts(&marker, content, PutMode::Create.into());
        match self.asked("put", put.await) {
            Ok(_) => Ok(true),
            Err(ArchiveError::Store(Error::AlreadyExists { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn refused(&self, problem: &'static str, error: Option<&Error>) -> ArchiveError {
        let said = error.map(|error| format!(" ({})", error.to_string().replace('\n', " ")));
        ArchiveError::Refused {
            place: self.place.clone(),
            problem,
            said: said.unwrap_or_default(),
        }
    }
}

fn problem(error: &Error) -> &'static str {
    match error {
        Error::NotFound { source, .. } => match source.to_string() {
            said if said.contains("NoSuchBucket") || said.contains("ContainerNotFound") => "there is no such bucket",
            _ => "the store does not know the bucket or the key",
        },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "the store does not accept the credentials of the environment, or they may not write there"
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            "objects must be put only where there is none, and the store or its settings do not allow that"
        }
        _ => "the store refuses the request",
    }
}
