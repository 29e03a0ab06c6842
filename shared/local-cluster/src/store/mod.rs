//! The objects: one map in memory under one short lock, one resource version for all, a bounded history for watches,
//! and a committer that makes changes durable in groups.
//!
//! Nobody outside ever sees a change that is not durable: replies and reads wait for the commit of what they saw, and
//! watches end at the last committed version.

mod committer;
mod disk;
mod history;
mod object;
mod pages;
mod state;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::error::ApiError;
use crate::resources::Resource;
use crate::selectors::{FieldSelector, LabelSelector};
use state::State;

pub use disk::StoreError;
pub(crate) use history::Cursor;
pub(crate) use object::{Change, Key, Object};
pub(crate) use pages::ListPage;

const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
const UPDATE_ATTEMPTS: usize = 64;

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: std::sync::Condvar,
    committed: watch::Sender<u64>,
    garbage: Notify,
}

/// What becomes of an object after a change was worked out.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Store the changed object.
    Keep,
    /// Remove it for good.
    Remove,
}

impl Store {
    /// Opens the file, loads every object and starts the committer, which ends with the last clone of the store.
    pub(crate) fn open(path: &Path, history: usize) -> Result<Self, StoreError> {
        let disk = disk::Disk::open(path)?;
        let (objects, version) = disk.load()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::recover(objects, version, history)),
            work: std::sync::Condvar::new(),
            committed: watch::Sender::new(version),
            garbage: Notify::new(),
        });
        committer::spawn(Arc::downgrade(&shared), disk);
        Ok(Self(shared))
    }

    /// The object, once what was seen of it is durable.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Arc<Object>>, ApiError> {
        let found = self.lock().get(key);
        if let Some(object) = &found {
            self.durable(object.version).await?;
        }
        Ok(found)
    }

    /// The object as it is in memory, perhaps ahead of the disk. For decisions whose effects go through the store.
    pub(crate) fn peek(&self, key: &Key) -> Option<Arc<Object>> {
        self.lock().get(key)
    }

    /// The object with this uid.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<Arc<Object>> {
        self.lock().by_uid(uid)
    }

    /// Every object of a kind as it is in memory, in a namespace or in all.
    pub(crate) fn peek_all(&self, resource: &'static Resource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.lock().list(resource, namespace)
    }

    /// Stores a new object whose metadata is complete but for the resource version.
    pub(crate) async fn create(&self, resource: &'static Resource, body: Value) -> Result<Arc<Object>, ApiError> {
        let object = self.lock().create(resource, body)?;
        self.changed(&object).await
    }

    /// Reads, lets `change` work on a copy, and stores the result; begins again when somebody else was faster.
    /// A change that changes nothing stores nothing.
    pub(crate) async fn update<F>(&self, key: &Key, mut change: F) -> Result<Arc<Object>, ApiError>
    where
        F: FnMut(&Object, &mut Value) -> Result<Outcome, ApiError>,
    {
        for _ in 0..UPDATE_ATTEMPTS {
            let Some(old) = self.peek(key) else {
                return Err(ApiError::not_found(key.resource, &key.name));
            };
            let before = old.value();
            let mut after = before.clone();
            let outcome = change(&old, &mut after)?;
            let stored = match outcome {
                Outcome::Keep if after == before => {
                    self.durable(old.version).await?;
                    return Ok(old);
                }
                Outcome::Keep => self.lock().replace(&old, after)?,
                Outcome::Remove => self.lock().remove(&old, after)?,
            };
            if let Some(stored) = stored {
                return self.changed(&stored).await;
            }
        }
        Err(ApiError::modified(key.resource, &key.name))
    }

    /// One page of a consistent list.
    pub(crate) async fn list(&self, request: &ListRequest<'_>) -> Result<ListPage, ApiError> {
        let page = pages::list(&mut self.lock(), request)?;
        self.durable(page.version).await?;
        Ok(page)
    }

    /// A cursor over the changes of one kind after `version`.
    pub(crate) fn cursor(&self, resource: &'static Resource, version: u64) -> Cursor {
        Cursor::new(self.clone(), resource, version, self.0.committed.subscribe())
    }

    /// The last durable version.
    pub(crate) fn committed(&self) -> u64 {
        *self.0.committed.borrow()
    }

    /// Uids whose dependents have to be looked at; waits until there are some.
    pub(crate) async fn garbage(&self) -> Vec<String> {
        loop {
            let waiting = self.0.garbage.notified();
            let found = self.lock().take_garbage();
            if !found.is_empty() {
                return found;
            }
            waiting.await;
        }
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Arc<Object>> {
        self.lock().dependents(uid)
    }

    /// Waits until everything up to `version` is on disk.
    pub(crate) async fn durable(&self, version: u64) -> Result<(), ApiError> {
        let mut committed = self.0.committed.subscribe();
        let wait = committed.wait_for(|v| *v >= version);
        match tokio::time::timeout(COMMIT_TIMEOUT, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ApiError::internal("the change could not be made durable in time")),
        }
    }

    async fn changed(&self, object: &Arc<Object>) -> Result<Arc<Object>, ApiError> {
        self.0.work.notify_one();
        self.0.garbage.notify_one();
        self.durable(object.version).await?;
        Ok(object.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a list asks for.
#[derive(Debug)]
pub(crate) struct ListRequest<'a> {
    /// The kind.
    pub resource: &'static Resource,
    /// One namespace, or all.
    pub namespace: Option<&'a str>,
    /// Label selector.
    pub labels: &'a LabelSelector,
    /// Field selector.
    pub fields: &'a FieldSelector,
    /// Page size, 0 for everything.
    pub limit: usize,
    /// Token of the previous page, empty for the first.
    pub token: &'a str,
}

#[cfg(test)]
mod tests;
