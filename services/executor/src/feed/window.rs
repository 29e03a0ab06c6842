//! How much may be sent before the relay gives more room.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use windlass_api::feed::v1::FeedLine;

/// The room of one stream.
#[derive(Debug)]
pub(crate) struct Window {
    room: AtomicI64,
    more: Notify,
}

impl Window {
    /// With this much room.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            room: AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX)),
            more: Notify::new(),
        }
    }

    /// The relay gives more room.
    pub(crate) fn add(&self, bytes: u64) {
        self.room
            .fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX / 2), Ordering::AcqRel);
        self.more.notify_one();
    }

    /// Waits until any room is left.
    pub(crate) async fn open(&self) {
        while self.room.load(Ordering::Acquire) <= 0 {
            self.more.notified().await;
        }
    }

    /// Takes the room of lines; it may go below zero.
    pub(crate) fn take(&self, lines: &[FeedLine]) {
        let bytes: usize = lines.iter().map(cost).sum();
        self.room
            .fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
    }
}

/// What a line costs: its content and one more.
pub(crate) fn cost(line: &FeedLine) -> usize {
    line.content.len() + 1
}
