//! One container's log as its readers share it: extent, index, a ring of the newest blocks, and who listens.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hub::wake::Listener;
use crate::key::ContainerKey;
use crate::store::block::Block;
use crate::store::live::{Appender, Extent, IndexEntry};
use crate::store::manifest::Manifest;

/// Memory for the newest blocks of all containers that somebody reads.
const RING_BUDGET: usize = 64 * 1024 * 1024;
const RING_MIN: usize = 64 * 1024;
const RING_MAX: usize = 1024 * 1024;

/// Which upstream stream feeds a container at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FeedRef {
    /// Number of the executor's session.
    pub(crate) session: u64,
    /// Number of the stream in it.
    pub(crate) stream: u64,
}

/// One container's log.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) key: ContainerKey,
    pub(crate) path: PathBuf,
    state: Mutex<State>,
    /// Used by the writer, and once while the container is loaded.
    pub(crate) appender: Mutex<Appender>,
    link: Mutex<Link>,
    watched: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct State {
    extent: Extent,
    index: Vec<IndexEntry>,
    ring: VecDeque<Arc<Block>>,
    ring_bytes: usize,
    listeners: Vec<Listener>,
    sealed: Option<(Arc<Manifest>, usize)>,
    /// The container is no longer this relay's: nothing will be added here.
    moved_away: bool,
}

/// What is known of a container's upstream.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The stream that feeds it.
    pub(crate) feed: Option<FeedRef>,
    /// The session that it was asked for from, answered or not.
    pub(crate) asked: Option<u64>,
    /// The session that is left alone for a while, since it could not read the container.
    pub(crate) backing_off: Option<u64>,
    /// Failed attempts in a row.
    pub(crate) failures: u32,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// Blocks, the first of which holds the wanted record.
    Blocks(Vec<Arc<Block>>),
    /// They lie in the live file, from this offset to that one.
    File(u64, u64),
    /// They lie in the archive.
    Sealed(Arc<Manifest>, usize),
    /// Nothing yet.
    UpToDate,
    /// Nothing any more.
    Ended,
    /// Nothing any more here: another relay may have it.
    MovedAway,
}

impl Container {
    /// Loads what a live file holds. Blocks the thread.
    pub(crate) fn load(key: ContainerKey, live: &Path, watched: Arc<AtomicUsize>) -> std::io::Result<Self> {
        let path = live.join(key.live_path());
        let appender = Appender::open(&path)?;
        Ok(Self {
            key,
            path,
            state: Mutex::new(State {
                extent: appender.extent.clone(),
                index: appender.index.clone(),
                ring: VecDeque::new(),
                ring_bytes: 0,
                listeners: Vec::new(),
                sealed: None,
                moved_away: false,
            }),
            appender: Mutex::new(appender),
            link: Mutex::default(),
            watched,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its upstream.
    pub(crate) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its log holds.
    pub(crate) fn extent(&self) -> Extent {
        self.state().extent.clone()
    }

    /// Set when the log is over: whether it is complete.
    pub(crate) fn finished(&self) -> Option<bool> {
        self.state().extent.finished
    }

    /// Whether somebody reads it.
    pub(crate) fn is_watched(&self) -> bool {
        !self.state().listeners.is_empty()
    }

    /// Shows written blocks to the readers.
    pub(crate) fn publish(&self, blocks: &[Arc<Block>], extent: &Extent, index: &[IndexEntry]) {
        let mut state = self.state();
        let known = state.index.len();
        state.index.extend_from_slice(index.get(known..).unwrap_or_default());
        state.extent.clone_from(extent);
        if state.listeners.is_empty() {
            return;
        }
        for block in blocks {
            state.ring_bytes += block.file_bytes();
            state.ring.push_back(Arc::clone(block));
        }
        let share = RING_BUDGET / self.watched.load(Ordering::Relaxed).max(1);
        let limit = share.clamp(RING_MIN, RING_MAX);
        while state.ring_bytes > limit {
            let Some(block) = state.ring.pop_front() else { break };
            state.ring_bytes -= block.file_bytes();
        }
        state.listeners.iter().for_each(Listener::raise);
    }

    /// From now on the log is read from the archive; the live file may go.
    pub(crate) fn set_sealed(&self, manifest: Arc<Manifest>, container: usize) {
        let mut state = self.state();
        state.sealed = Some((manifest, container));
        state.ring.clear();
        state.ring_bytes = 0;
        state.listeners.iter().for_each(Listener::raise);
    }

    /// The container is no longer this relay's; its readers look for it anew.
    pub(crate) fn moved_away(&self) {
        let mut state = self.state();
        state.moved_away = true;
        state.listeners.iter().for_each(Listener::raise);
    }

    /// Where the record number `record` and those after it are.
    pub(crate) fn find(&self, record: u64, wanted: usize) -> Found {
        let state = self.state();
        if let Some((manifest, container)) = &state.sealed {
            return Found::Sealed(Arc::clone(manifest), *container);
        }
        if record >= state.extent.end.record() {
            return match state.extent.finished {
                Some(_) => Found::Ended,
                None if state.moved_away => Found::MovedAway,
                None => Found::UpToDate,
            };
        }
        let blocks = state.in_ring(record, wanted);
        if !blocks.is_empty() {
            return Found::Blocks(blocks);
        }
        let entry = state.index.partition_point(|entry| entry.record <= record);
        let at = entry.checked_sub(1).map_or(0, |entry| state.index[entry].at);
        Found::File(at, state.extent.bytes)
    }

    /// Registers a reader. It is told at once.
    pub(crate) fn listen(&self, listener: Listener) {
        let mut state = self.state();
        if state.listeners.is_empty() {
            self.watched.fetch_add(1, Ordering::Relaxed);
        }
        listener.raise();
        state.listeners.push(listener);
    }

    /// A reader has left.
    pub(crate) fn leave(&self, listener: &Listener) {
        let mut state = self.state();
        let before = state.listeners.len();
        state.listeners.retain(|other| !other.is_same(listener));
        if before > 0 && state.listeners.is_empty() {
            self.watched.fetch_sub(1, Ordering::Relaxed);
            state.ring = VecDeque::new();
            state.ring_bytes = 0;
        }
    }
}

impl State {
    fn in_ring(&self, record: u64, wanted: usize) -> Vec<Arc<Block>> {
        let first = self.ring.partition_point(|block| block.end.record() <= record);
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for block in self.ring.range(first..) {
            if blocks.is_empty() && block.start.record() > record {
                break;
            }
            if bytes >= wanted {
                break;
            }
            bytes += block.file_bytes();
            blocks.push(Arc::clone(block));
        }
        blocks
    }
}
