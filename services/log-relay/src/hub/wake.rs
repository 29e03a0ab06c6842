//! How a reader learns that some of its sources have more: a bounded queue of source numbers and one wake-up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The sources of one reader that have something new. Each is queued once at most.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<usize>,
    queued: Vec<bool>,
}

impl Wake {
    /// Says that a source has something new.
    pub(crate) fn raise(&self, slot: usize) {
        if self.push(slot, false) {
            self.notify.notify_one();
        }
    }

    /// Puts a source first: the one that is being read goes on.
    pub(crate) fn raise_first(&self, slot: usize) {
        if self.push(slot, true) {
            self.notify.notify_one();
        }
    }

    fn push(&self, slot: usize, first: bool) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.queued.len() <= slot {
            queue.queued.resize(slot + 1, false);
        }
        if std::mem::replace(&mut queue.queued[slot], true) {
            return false;
        }
        if first {
            queue.ready.push_front(slot);
        } else {
            queue.ready.push_back(slot);
        }
        true
    }

    /// The next source with something new. Its further news are told again.
    pub(crate) fn take(&self) -> Option<usize> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = queue.ready.pop_front()?;
        queue.queued[slot] = false;
        Some(slot)
    }

    /// Whether no source has something new.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ready
            .is_empty()
    }

    /// Waits until a source has something new.
    pub(crate) async fn ready(&self) {
        while self.is_idle() {
            self.notify.notified().await;
        }
    }
}

/// A reader's interest in one source.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// The reader.
    pub(crate) wake: Arc<Wake>,
    /// Number of the source with that reader.
    pub(crate) slot: usize,
}

impl Listener {
    /// Tells the reader.
    pub(crate) fn raise(&self) {
        self.wake.raise(self.slot);
    }

    /// Whether both are the same reader's.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wake, &other.wake) && self.slot == other.slot
    }
}
