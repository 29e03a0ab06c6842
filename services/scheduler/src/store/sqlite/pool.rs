//! Connections for reads.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connection::{Purpose, open};
use super::shared::Shared;
use crate::store::StoreError;

/// A bounded number of connections, made when they are first needed and used on threads that may block.
#[derive(Debug)]
pub(super) struct ReadPool {
    shared: Arc<Shared>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl ReadPool {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let permits = Arc::new(Semaphore::new(shared.options.readers.max(1)));
        Self {
            shared,
            idle: Arc::default(),
            permits,
        }
    }

    /// Waits for a connection and reads with it.
    pub(super) async fn read<T, E>(
        &self,
        read: impl FnOnce(&Connection, &Shared) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Closed)?;
        let (shared, idle) = (Arc::clone(&self.shared), Arc::clone(&self.idle));
        let work = tokio::task::spawn_blocking(move || {
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = taken.map_or_else(|| open(&shared.path, Purpose::Read, None), Ok)?;
            let outcome = read(&connection, &shared);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(permit);
            outcome
        });
        work.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }
}
