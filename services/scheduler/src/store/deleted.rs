//! Runs that are gone, and why.

use std::time::Duration;

use windlass_ids::{Namespace, RunId, RunName, Timestamp};

/// How long it is remembered that a run was deleted: so long may a log relay be away and still hear of it.
pub const DELETED_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An ended run that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The run.
    pub run: RunId,
    /// Why.
    pub cause: DeletionCause,
}

/// Why a run is gone. The numbers are stored: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DeletionCause {
    /// Somebody asked for it.
    Requested = 1,
    /// Its time was over.
    Expired = 2,
}

impl DeletionCause {
    pub(crate) fn from_stored(number: u8) -> Option<Self> {
        [Self::Requested, Self::Expired]
            .into_iter()
            .find(|cause| *cause as u8 == number)
    }

    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Expired => "expired",
        }
    }
}

/// A run that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRun {
    /// Its id.
    pub id: RunId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name, which another run may have by now.
    pub name: RunName,
    /// When it was deleted.
    pub time: Timestamp,
    /// Why.
    pub cause: DeletionCause,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRun {
    /// When it ended.
    pub ended: Timestamp,
    /// Its id.
    pub id: RunId,
}
