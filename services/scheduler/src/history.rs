//! Ended runs, read back from the store when somebody asks, and kept for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_ids::RunId;
use windlass_pipeline::ResolvedPipeline;

use crate::definition::RunDefinition;
use crate::errors::LookupError;
use crate::read_model::{RunEntry, RunMeta, RunRecord};
use crate::store::{DefinitionKind, HistoryError, MAX_HISTORY, RunHeader, Store};

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    bound: Bound,
    /// Least recently used first.
    kept: Mutex<VecDeque<Arc<RunEntry>>>,
}

/// Bounds of what is kept (I11).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Most runs.
    pub(crate) runs: usize,
    /// Most steps of all of them together; one run may have more.
    pub(crate) steps: usize,
}

impl Default for Bound {
    fn default() -> Self {
        Self {
            runs: 256,
            steps: 200_000,
        }
    }
}

impl History {
    pub(crate) fn new(bound: Bound) -> Self {
        Self {
            bound,
            kept: Mutex::default(),
        }
    }

    /// Keeps a run that has just ended.
    pub(crate) fn remember(&self, entry: &Arc<RunEntry>) {
        let mut kept = self.lock();
        kept.retain(|known| known.meta().header.id != entry.meta().header.id);
        kept.push_back(Arc::clone(entry));
        let steps =
            |kept: &VecDeque<Arc<RunEntry>>| kept.iter().map(|entry| entry.meta().definition.len()).sum::<usize>();
        while kept.len() > 1 && (kept.len() > self.bound.runs || steps(&kept) > self.bound.steps) {
            kept.pop_front();
        }
    }

    /// A run that is kept.
    pub(crate) fn get(&self, run: RunId) -> Option<Arc<RunEntry>> {
        self.lock().iter().find(|entry| entry.meta().header.id == run).cloned()
    }

    /// Forgets a run that was deleted.
    pub(crate) fn forget(&self, run: RunId) {
        self.lock().retain(|known| known.meta().header.id != run);
    }

    /// An ended run with all its steps.
    ///
    /// # Errors
    /// When its history is kept no longer, or cannot be read.
    pub(crate) async fn load(&self, store: &dyn Store, header: &RunHeader) -> Result<Arc<RunEntry>, LookupError> {
        let entry = match self.get(header.id) {
            Some(entry) => entry,
            None => Arc::new(replay(store, header, u64::MAX).await?),
        };
        self.remember(&entry);
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<RunEntry>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run as it was after its change number `until`, or after the last one.
///
/// # Errors
/// As for [`History::load`].
pub(crate) async fn replay(store: &dyn Store, header: &RunHeader, until: u64) -> Result<RunEntry, LookupError> {
    let meta = RunMeta {
        header: header.clone(),
        definition: Arc::new(definition(store, header).await?),
    };
    let mut record = RunRecord::new(meta.definition.len(), header.created);
    loop {
        let from = record.last_sequence + 1;
        if from > until {
            break;
        }
        let changes = store
            .history(header.id, from, MAX_HISTORY)
            .await
            .map_err(|error| lookup_error(error, header))?;
        for change in changes.iter().take_while(|change| change.sequence <= until) {
            record.apply(change);
        }
        if changes.len() < MAX_HISTORY {
            break;
        }
    }
    Ok(RunEntry::new(meta, record))
}

async fn definition(store: &dyn Store, header: &RunHeader) -> Result<RunDefinition, LookupError> {
    let gone = || LookupError::HistoryGone {
        run: header.name.clone(),
    };
    let bytes = store
        .definition(header.id, DefinitionKind::Resolved)
        .await
        .map_err(|error| failed(&error))?
        .ok_or_else(gone);
    let bytes = match bytes {
        Err(_) if store.run(header.id).await.is_ok_and(|header| header.is_none()) => {
            return Err(lookup_error(HistoryError::NotFound, header));
        }
        bytes => bytes?,
    };
    let (run, namespace) = (header.id, header.namespace.clone());
    let built = tokio::task::spawn_blocking(move || {
        let resolved: ResolvedPipeline = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        RunDefinition::build(run, &namespace, resolved).map_err(|error| error.to_string())
    });
    match built.await {
        Ok(Ok(definition)) => Ok(definition),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// What a reader is told when a history cannot be read.
pub(crate) fn lookup_error(error: HistoryError, header: &RunHeader) -> LookupError {
    match error {
        HistoryError::NotFound => LookupError::UnknownRun {
            namespace: header.namespace.clone(),
            run: header.id.to_string(),
        },
        HistoryError::TooOld { .. } => LookupError::HistoryGone {
            run: header.name.clone(),
        },
        HistoryError::Store(error) => failed(&error),
    }
}

/// Logs what happened, since the client is only told that the store failed.
pub(crate) fn failed(error: &impl std::fmt::Display) -> LookupError {
    tracing::error!(%error, "store could not be read");
    LookupError::StoreFailed
}
