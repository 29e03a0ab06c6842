//! The bounded history of changes and the cursors that read it.
//!
//! A watcher has no queue of its own: it remembers a version and reads on from there, so that a slow one costs nothing
//! and learns with 410 that it fell out of the history.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::Store;
use super::object::Change;
use crate::error::ApiError;
use crate::resources::Resource;

#[derive(Debug)]
pub(super) struct History {
    /// Everything after this version is here.
    floor: u64,
    limit: usize,
    changes: VecDeque<Arc<Change>>,
}

impl History {
    pub(super) fn new(floor: u64, limit: usize) -> Self {
        Self {
            floor,
            limit,
            changes: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        if self.changes.len() >= self.limit
            && let Some(oldest) = self.changes.pop_front()
        {
            self.floor = oldest.version;
        }
        self.changes.push_back(change);
    }

    /// Forgets everything up to `version`, so that older watchers get 410.
    pub(super) fn forget(&mut self, version: u64) {
        while self.changes.front().is_some_and(|c| c.version <= version) {
            self.changes.pop_front();
        }
        self.floor = self.floor.max(version);
    }

    fn after(&self, version: u64, until: u64, most: usize) -> Result<Vec<Arc<Change>>, ApiError> {
        if version < self.floor {
            return Err(ApiError::expired(format!(
                "too old resource version: {version} ({})",
                self.floor
            )));
        }
        let from = self.changes.partition_point(|c| c.version <= version);
        Ok(self
            .changes
            .range(from..)
            .take_while(|c| c.version <= until)
            .take(most)
            .cloned()
            .collect())
    }
}

impl Store {
    /// Drops the whole history: every watch that is behind gets 410.
    pub(crate) fn forget_history(&self) {
        let mut state = self.lock();
        let version = state.version;
        for history in &mut state.history {
            history.forget(version);
        }
    }
}

/// A place in the changes of one kind.
#[derive(Debug)]
pub(crate) struct Cursor {
    store: Store,
    resource: &'static Resource,
    position: u64,
    committed: watch::Receiver<u64>,
}

impl Cursor {
    pub(super) fn new(
        store: Store,
        resource: &'static Resource,
        position: u64,
        committed: watch::Receiver<u64>,
    ) -> Self {
        Self {
            store,
            resource,
            position,
            committed,
        }
    }

    /// Everything up to this version was handed out.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next changes, at most `most`; waits until there are some. Fails with 410 when the history does not reach
    /// back to the position. Safe to cancel.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Vec<Arc<Change>>, ApiError> {
        loop {
            let until = *self.committed.borrow_and_update();
            let changes = self.store.lock().history[self.resource.index].after(self.position, until, most)?;
            self.position = match changes.last() {
                Some(last) if changes.len() == most => last.version,
                _ => until.max(self.position),
            };
            if !changes.is_empty() {
                return Ok(changes);
            }
            if self.committed.changed().await.is_err() {
                return Err(ApiError::internal("the store has ended"));
            }
        }
    }
}
