//! Events of one run for its watchers: encoded once, shared by all, bounded (I11).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

/// Bound on the bytes of the events that are kept for watchers of one run.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    kept: Mutex<Kept>,
    newest: watch::Sender<Newest>,
}

/// How far a run's events have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) sequence: u64,
    pub(crate) phase: HubPhase,
}

/// Whether events follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HubPhase {
    /// They do.
    Open,
    /// The run has ended.
    Ended,
    /// The state is being read back from the store: watch again.
    Closed,
}

#[derive(Debug, Default)]
struct Kept {
    watchers: usize,
    events: VecDeque<Event>,
    bytes: usize,
}

/// An encoded event with its sequence number.
pub(crate) type Event = (u64, Bytes);

/// What a watcher gets when it asks for more.
#[derive(Debug)]
pub(crate) enum More {
    /// These events.
    Events(Vec<Event>),
    /// It asked too late: they are kept no longer.
    Gone,
}

/// One watcher; events are kept while there is at least one.
#[derive(Debug)]
pub(crate) struct Watching {
    hub: Arc<Hub>,
    newest: watch::Receiver<Newest>,
}

impl Hub {
    pub(crate) fn new(newest: Newest) -> Self {
        let (newest, _) = watch::channel(newest);
        Self {
            kept: Mutex::default(),
            newest,
        }
    }

    /// Whether anybody watches. The answer holds as long as the caller keeps the run's record locked for writing, because
    /// watchers come only under its lock for reading.
    pub(crate) fn is_watched(&self) -> bool {
        self.lock().watchers > 0
    }

    /// Begins to watch; to be called while the run's record is locked for reading.
    pub(crate) fn watch(self: &Arc<Self>) -> Watching {
        self.lock().watchers += 1;
        Watching {
            hub: Arc::clone(self),
            newest: self.newest.subscribe(),
        }
    }

    /// Hands durable events on; none when nobody watched.
    pub(crate) fn publish(&self, newest: Newest, events: Vec<Event>) {
        {
            let mut kept = self.lock();
            // The last watcher may have left since the events were made; whoever comes now begins after them.
            let wanted = kept.watchers > 0;
            for event in events.into_iter().filter(|_| wanted) {
                kept.bytes += event.1.len();
                kept.events.push_back(event);
            }
            while kept.bytes > MAX_BYTES {
                let Some((_, bytes)) = kept.events.pop_front() else {
                    break;
                };
                kept.bytes -= bytes.len();
            }
        }
        self.newest.send_replace(newest);
    }

    /// Sends everybody away.
    pub(crate) fn close(&self) {
        self.newest.send_modify(|newest| newest.phase = HubPhase::Closed);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// Waits until there is something after `sequence` and says how far the run is.
    pub(crate) async fn wait_after(&mut self, sequence: u64) -> Newest {
        let open = |newest: &Newest| newest.sequence <= sequence && newest.phase == HubPhase::Open;
        // The sender lives in the hub, which this watcher keeps.
        match self.newest.wait_for(|newest| !open(newest)).await {
            Ok(newest) => *newest,
            Err(_) => Newest {
                sequence,
                phase: HubPhase::Closed,
            },
        }
    }

    /// Events after `sequence`, at most `limit`.
    pub(crate) fn events_after(&self, sequence: u64, limit: usize) -> More {
        let kept = self.hub.lock();
        let skipped = kept.events.partition_point(|(of, _)| *of <= sequence);
        match kept.events.get(skipped) {
            // What was published while nobody watched is not there: only what follows without a gap is handed out.
            Some((next, _)) if *next == sequence + 1 => {
                let events = (*next..).zip(kept.events.iter().skip(skipped)).take(limit);
                let events = events.take_while(|(wanted, (of, _))| wanted == of);
                More::Events(events.map(|(_, event)| event.clone()).collect())
            }
            _ if self.newest.borrow().sequence <= sequence => More::Events(Vec::new()),
            _ => More::Gone,
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut kept = self.hub.lock();
        kept.watchers -= 1;
        if kept.watchers == 0 {
            kept.events = VecDeque::new();
            kept.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, bytes: usize) -> Event {
        (sequence, vec![0; bytes].into())
    }

    fn sequences(more: More) -> Vec<u64> {
        match more {
            More::Events(events) => events.iter().map(|(sequence, _)| *sequence).collect(),
            More::Gone => panic!("the events are gone"),
        }
    }

    fn at(sequence: u64) -> Newest {
        Newest {
            sequence,
            phase: HubPhase::Open,
        }
    }

    #[tokio::test]
    async fn a_watcher_gets_what_follows_its_position() {
        let hub = Arc::new(Hub::new(at(3)));
        assert!(!hub.is_watched());
        let mut watching = hub.watch();
        assert!(sequences(watching.events_after(3, 10)).is_empty());
        hub.publish(at(5), vec![event(4, 1), event(5, 1)]);
        assert_eq!(watching.wait_after(3).await, at(5));
        assert_eq!(sequences(watching.events_after(3, 10)), [4, 5]);
        assert_eq!(sequences(watching.events_after(4, 10)), [5]);
        assert_eq!(sequences(watching.events_after(3, 1)), [4]);
        hub.close();
        assert_eq!(watching.wait_after(5).await.phase, HubPhase::Closed);
        drop(watching);
        assert!(!hub.is_watched());
        hub.publish(at(6), vec![event(6, 1)]);
        assert!(hub.lock().events.is_empty(), "nothing is kept for nobody");
    }

    #[tokio::test]
    async fn what_was_published_while_nobody_watched_is_never_skipped() {
        let hub = Arc::new(Hub::new(at(0)));
        let watching = hub.watch();
        hub.publish(at(1), vec![event(1, 1)]);
        hub.publish(at(6), Vec::new());
        hub.publish(at(7), vec![event(7, 1)]);
        assert_eq!(sequences(watching.events_after(0, 10)), [1], "up to the gap");
        assert!(matches!(watching.events_after(1, 10), More::Gone));
        assert_eq!(sequences(watching.events_after(6, 10)), [7]);
    }

    #[tokio::test]
    async fn i11_a_slow_watcher_is_told_and_keeps_nothing() {
        let hub = Arc::new(Hub::new(at(0)));
        let watching = hub.watch();
        for sequence in 1..=8 {
            hub.publish(at(sequence), vec![event(sequence, MAX_BYTES / 4)]);
        }
        assert!(matches!(watching.events_after(0, 10), More::Gone));
        assert_eq!(sequences(watching.events_after(5, 10)), [6, 7, 8]);
    }
}
