//! What the threads of one store share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::gate::Gate;
use super::options::SqliteOptions;
use super::rows::RowError;
use super::tail::Tail;
use crate::store::StoreError;
use crate::store::folder::Space;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) options: SqliteOptions,
    pub(super) gate: Gate,
    pub(super) space: Space,
    tail: Mutex<Tail>,
    poison: OnceLock<Arc<StoreError>>,
    closing: AtomicBool,
    /// Whether deleted runs may have left something behind.
    unswept: AtomicBool,
}

impl Shared {
    pub(super) fn new(path: PathBuf, options: SqliteOptions) -> Self {
        let space = Space {
            path: path.clone(),
            reserve: options.reserve_bytes,
            quota: options.max_bytes,
            reusable: Arc::new(AtomicU64::new(0)),
        };
        Self {
            path,
            options,
            space,
            gate: Gate::default(),
            tail: Mutex::default(),
            poison: OnceLock::new(),
            closing: AtomicBool::new(false),
            unswept: AtomicBool::new(true),
        }
    }

    /// Held for moments only: nobody reads or writes the database under it.
    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fold leaves the rest to the next start.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Runs were deleted, and the fold has to look after the rest.
    pub(super) fn set_unswept(&self, unswept: bool) {
        self.unswept.store(unswept, Ordering::Relaxed);
    }

    pub(super) fn is_unswept(&self) -> bool {
        self.unswept.load(Ordering::Relaxed)
    }

    /// All later commits fail.
    pub(super) fn poison(&self, error: &StoreError) {
        self.poison.get_or_init(|| Arc::new(error.clone()));
    }

    pub(super) fn check_poison(&self) -> Result<(), StoreError> {
        self.poison.get().map_or(Ok(()), |cause| {
            Err(StoreError::Poisoned {
                cause: Arc::clone(cause),
            })
        })
    }

    pub(super) fn row_error(&self, action: &'static str) -> impl Fn(RowError) -> StoreError + '_ {
        move |error| error.at(&self.path, action)
    }
}

pub(super) fn corrupt(path: &Path, what: String) -> StoreError {
    StoreError::Corrupt {
        path: path.to_owned(),
        what,
    }
}
