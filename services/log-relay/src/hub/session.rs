//! One executor's Feed session: what is to be said to it, kept as coalesced state so that writing never holds up reading.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use windlass_api::feed::v1::feed_response::Message;
use windlass_api::feed::v1::{FeedClose, FeedOpen, FeedWindow};

use super::container::Container;

/// One executor's Feed session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Number of the session in this process.
    pub(crate) id: u64,
    /// Incarnation of the executor.
    pub(crate) incarnation: String,
    /// Cancelled when the session is over.
    pub(crate) closed: CancellationToken,
    next_stream: AtomicU64,
    out: Mutex<Out>,
    notify: Notify,
    streams: Mutex<HashMap<u64, Arc<Container>>>,
}

#[derive(Debug, Default)]
struct Out {
    opens: VecDeque<FeedOpen>,
    closes: VecDeque<u64>,
    credits: BTreeMap<u64, u64>,
}

impl Session {
    /// A session that has just begun.
    pub(crate) fn new(id: u64, incarnation: String) -> Self {
        Self {
            id,
            incarnation,
            closed: CancellationToken::new(),
            next_stream: AtomicU64::new(1),
            out: Mutex::default(),
            notify: Notify::new(),
            streams: Mutex::default(),
        }
    }

    /// Asks for a container: `open` gets the number of the stream, which is returned.
    pub(crate) fn open(&self, container: &Arc<Container>, open: FeedOpen) -> u64 {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(stream, Arc::clone(container));
        self.say(|out| out.opens.push_back(FeedOpen { stream, ..open }));
        stream
    }

    /// Says that a container is no longer wanted.
    pub(crate) fn close(&self, stream: u64) {
        if self.forget(stream) {
            self.say(|out| {
                out.credits.remove(&stream);
                out.closes.push_back(stream);
            });
        }
    }

    /// Lets go of a stream that is over; false when it was not known.
    pub(crate) fn forget(&self, stream: u64) -> bool {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.remove(&stream).is_some()
    }

    /// Gives room for further bytes.
    pub(crate) fn credit(&self, stream: u64, bytes: u64) {
        self.say(|out| *out.credits.entry(stream).or_default() += bytes);
    }

    /// The container of a stream.
    pub(crate) fn container(&self, stream: u64) -> Option<Arc<Container>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.get(&stream).cloned()
    }

    /// Containers whose streams are open.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.values().cloned().collect()
    }

    fn say(&self, change: impl FnOnce(&mut Out)) {
        change(&mut self.out.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    /// The next message to the executor.
    pub(crate) async fn next(&self) -> Message {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.notify.notified().await;
        }
    }

    fn take(&self) -> Option<Message> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = out.closes.pop_front() {
            out.opens.retain(|open| open.stream != stream);
            return Some(Message::Close(FeedClose { stream }));
        }
        if let Some(open) = out.opens.pop_front() {
            return Some(Message::Open(open));
        }
        let (stream, bytes) = out.credits.pop_first()?;
        Some(Message::Window(FeedWindow { stream, bytes }))
    }
}
