//! Request ids and run names that are being used right now.
//!
//! A key is checked against the store and then committed. Between the two nobody else may do the same, or the store would refuse
//! the commit of a whole batch. A reservation is therefore kept from before the check until the commit is durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use windlass_ids::Namespace;

/// What is reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ReservedKey {
    /// A client's request id.
    Request(Namespace, String),
    /// A run's name.
    Name(Namespace, String),
}

/// All reservations of the process; see the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations(Arc<Mutex<BTreeMap<ReservedKey, watch::Sender<()>>>>);

/// One reservation; dropping it gives the key back.
#[derive(Debug)]
pub(crate) struct Reservation {
    of: Reservations,
    key: ReservedKey,
}

impl Reservations {
    /// Reserves a key, after waiting for whoever has it.
    pub(crate) async fn reserve(&self, key: ReservedKey) -> Reservation {
        loop {
            let mut taken = match self.try_reserve(key.clone()) {
                Ok(reservation) => return reservation,
                Err(taken) => taken,
            };
            // An error means that the holder is gone, which is what is waited for.
            taken.changed().await.ok();
        }
    }

    /// Reserves a key unless somebody has it.
    pub(crate) fn try_reserve(&self, key: ReservedKey) -> Result<Reservation, watch::Receiver<()>> {
        let mut keys = self.lock();
        if let Some(holder) = keys.get(&key) {
            return Err(holder.subscribe());
        }
        keys.insert(key.clone(), watch::channel(()).0);
        drop(keys);
        Ok(Reservation { of: self.clone(), key })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReservedKey, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ReservedKey {
        ReservedKey::Request("ml".into(), "a".to_owned())
    }

    #[tokio::test]
    async fn a_key_has_one_holder_at_a_time() {
        let reservations = Reservations::default();
        let first = reservations.reserve(key()).await;
        assert!(reservations.try_reserve(key()).is_err());
        let name = ReservedKey::Name("ml".into(), "a".to_owned());
        assert!(reservations.try_reserve(name).is_ok(), "another key");
        let waiting = tokio::spawn({
            let reservations = reservations.clone();
            async move { reservations.reserve(key()).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.expect("no panic");
        assert!(reservations.try_reserve(key()).is_err());
        drop(second);
        assert!(reservations.try_reserve(key()).is_ok());
    }
}
