//! One run for readers: what never changes, its record, and its watchers' hub.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use windlass_scheduling::Change;

use super::events::{WithRun, event};
use super::frame::event_frame;
use super::hub::{Hub, HubPhase, Newest, Watching};
use super::meta::RunMeta;
use super::record::RunRecord;

/// See the module.
#[derive(Debug)]
pub(crate) struct RunEntry {
    meta: RunMeta,
    /// Shared with snapshots that are being sent: it is copied only when it changes meanwhile.
    record: RwLock<Arc<RunRecord>>,
    hub: Arc<Hub>,
}

/// What became of a run by applied changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It goes on.
    Active,
    /// It has ended.
    Ended,
}

impl RunEntry {
    /// A run with the state of `record`.
    pub(crate) fn new(meta: RunMeta, record: RunRecord) -> Self {
        Self {
            hub: Arc::new(Hub::new(newest(&record))),
            meta,
            record: RwLock::new(Arc::new(record)),
        }
    }

    /// What never changes.
    pub(crate) fn meta(&self) -> &RunMeta {
        &self.meta
    }

    /// The state, locked for reading; to be held for a moment only.
    pub(crate) fn record(&self) -> RwLockReadGuard<'_, Arc<RunRecord>> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch, with the state at that moment.
    pub(crate) fn watch(&self) -> (RwLockReadGuard<'_, Arc<RunRecord>>, Watching) {
        let record = self.record();
        let watching = self.hub.watch();
        (record, watching)
    }

    /// Sends watchers away, because the state is read back from the store.
    pub(crate) fn close(&self) {
        self.hub.close();
    }

    /// Applies durable changes of one commit and hands their events to watchers, if there are any.
    pub(crate) fn apply(&self, changes: &[Change]) -> Applied {
        let mut guard = self.record.write().unwrap_or_else(PoisonError::into_inner);
        let record = Arc::make_mut(&mut guard);
        let watched = self.hub.is_watched();
        let mut events = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            record.apply(change);
            if watched {
                let last = index + 1 == changes.len();
                let with_run = if last { WithRun::Yes } else { WithRun::IfChanged };
                let event = event(&self.meta, record, change, with_run);
                events.push((change.sequence, event_frame(change.run, event)));
            }
        }
        let newest = newest(record);
        drop(guard);
        self.hub.publish(newest, events);
        match newest.phase {
            HubPhase::Ended => Applied::Ended,
            HubPhase::Open | HubPhase::Closed => Applied::Active,
        }
    }
}

/// How far a run is: one that has ended sends its watchers home, also when it was read back from the store.
fn newest(record: &RunRecord) -> Newest {
    Newest {
        sequence: record.last_sequence,
        phase: if record.state.is_terminal() {
            HubPhase::Ended
        } else {
            HubPhase::Open
        },
    }
}
