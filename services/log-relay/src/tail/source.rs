//! One source of a client's stream: where its log lies, and how far the client has got.

use std::sync::Arc;

use windlass_api::follow::v1::LogSource;
use windlass_api::log::v1 as api;
use windlass_ids::RunId;

use crate::cursor::{SourceId, SourcePosition};
use crate::error::{TailError, chain};
use crate::hub::container::{Container, Found};
use crate::hub::wake::Listener;
use crate::hub::{Hub, attempt_key};
use crate::key::{AttemptKey, ContainerKey};
use crate::metrics;
use crate::store::block::{Block, Place};
use crate::store::live::{Span, read_blocks};
use crate::store::manifest::Manifest;

/// What is read at once.
const READ_BYTES: usize = 48 * 1024;

/// Where a log lies.
#[derive(Debug)]
enum Origin {
    /// Not known yet.
    Unknown,
    /// Waited for: no relay has said that it has it.
    Awaited(ContainerKey),
    Live(Arc<Container>),
    Archived(Arc<Manifest>, usize),
    /// With another relay, which sends it: its address, and the number of the stream.
    Remote(String, u64),
    /// Everything was sent, or there is nothing.
    Over,
}

/// One source of a client's stream.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: SourceId,
    pub(crate) log: Arc<LogSource>,
    /// The next line, mark and offset that the client gets.
    pub(crate) next: SourcePosition,
    /// Whether the client was told of the source.
    pub(crate) described: bool,
    /// Whether the client has all of it.
    pub(crate) finished: bool,
    /// What the relay that owns it has said last; none when no other one was asked.
    pub(crate) heard: Option<Heard>,
    /// Whether the line whose parts are being read is sent.
    pub(crate) split: Option<bool>,
    /// Whether it waits for the relay to settle after its start.
    settling: bool,
    /// The next record that is read.
    record: u64,
    /// Reading ends before this record, when the client does not follow.
    target: Option<u64>,
    origin: Origin,
    listener: Listener,
}

/// What another relay has said of a source that it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing since it was asked.
    Nothing,
    /// It was not given the container yet.
    Awaited,
    /// A part of the log, with more to come.
    Part,
    /// Everything that is there was sent.
    UpToDate,
}

/// What a turn of reading gave.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Blocks with the wanted records.
    Blocks(Vec<Arc<Block>>),
    /// Nothing more at present.
    UpToDate,
    /// Reading goes on from the archive.
    Switched,
    /// Everything was read.
    Ended,
    /// There is nothing, and there should be.
    Missing,
    /// It is with the relay at this address.
    Elsewhere(String),
}

/// Where a source begins when the client has no position in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// At the last lines.
    pub(crate) tail: Option<u64>,
    /// At a time, nanoseconds since 1970.
    pub(crate) since: Option<i64>,
    /// Whether to wait for more.
    pub(crate) follow: bool,
}

impl Source {
    /// A source that the client has not read from, or up to `position`.
    pub(crate) fn new(id: SourceId, log: Arc<LogSource>, position: Option<SourcePosition>, listener: Listener) -> Self {
        let next = position.unwrap_or_default();
        Self {
            id,
            log,
            next,
            described: false,
            finished: false,
            heard: None,
            split: None,
            settling: false,
            // Marks make a record's number greater than its line's: reading from here misses nothing, even if the client counted wrong.
            record: next.line,
            target: None,
            origin: Origin::Unknown,
            listener,
        }
    }

    /// How clients are told of it.
    pub(crate) fn description(&self) -> api::Source {
        api::Source {
            id: self.number(),
            step: self.log.step_name.clone(),
            attempt: self.id.attempt,
            pod_uid: self.log.pod_uid.clone(),
            container: self.id.container.clone(),
            step_index: self.id.step,
        }
    }

    /// Number of the source in the stream.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.listener.slot + 1).unwrap_or(u32::MAX)
    }

    /// Whether nobody has said where it lies.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.origin, Origin::Unknown | Origin::Awaited(_))
    }

    /// Whether a relay was named for it, or may still be, but it has not come yet.
    pub(crate) fn is_promised(&self) -> bool {
        let here = self.is_awaited() && (self.settling || !self.log.relay.is_empty());
        here || matches!(self.heard, Some(Heard::Nothing | Heard::Awaited))
    }

    /// Whether the attempt has ended, but its log still comes in.
    pub(crate) fn is_draining(&self) -> bool {
        let open = match &self.origin {
            Origin::Live(container) => container.finished().is_none(),
            Origin::Remote(..) => true,
            Origin::Unknown | Origin::Awaited(_) | Origin::Archived(..) | Origin::Over => false,
        };
        self.log.ended && open
    }

    /// The relay that sends it, and the number of the stream.
    pub(crate) fn remote(&self) -> Option<(String, u64)> {
        match &self.origin {
            Origin::Remote(address, stream) => Some((address.clone(), *stream)),
            Origin::Unknown | Origin::Awaited(_) | Origin::Live(_) | Origin::Archived(..) | Origin::Over => None,
        }
    }

    /// Whether the relay that owns it was asked, and has not said anything of it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.heard == Some(Heard::Nothing)
    }

    /// Whether the relay that owns it is sending what is there.
    pub(crate) fn is_arriving(&self) -> bool {
        self.heard == Some(Heard::Part)
    }

    /// From now on another relay sends it.
    pub(crate) fn go_remote(&mut self, hub: &Hub, address: String, stream: u64) {
        if let Origin::Awaited(key) = &self.origin {
            hub.stop_waiting(&key.attempt, &self.listener);
        }
        self.origin = Origin::Remote(address, stream);
        self.heard = Some(Heard::Nothing);
    }

    /// It is no longer where it was.
    pub(crate) fn look_again(&mut self) {
        self.origin = Origin::Unknown;
        self.heard = Some(Heard::Nothing);
    }

    /// The relay that sends it has chosen where to begin, unless the client had a position.
    pub(crate) fn begin_at(&mut self, position: SourcePosition, record: u64) {
        if self.next == SourcePosition::default() {
            self.next = position;
            self.record = self.record.max(record);
        }
    }

    /// The next record that is read.
    pub(crate) fn record(&self) -> u64 {
        self.record
    }

    /// Whether it is read from the archive.
    pub(crate) fn is_archived(&self) -> bool {
        matches!(self.origin, Origin::Archived(..))
    }

    /// The scheduler has news of it.
    pub(crate) fn update(&mut self, log: Arc<LogSource>) {
        self.log = log;
        if self.is_awaited() {
            self.listener.raise();
        }
    }

    /// Reads on.
    pub(crate) async fn read(&mut self, hub: &Arc<Hub>, begin: Begin) -> Result<Piece, TailError> {
        if self.is_awaited() {
            self.locate(hub, begin).await?;
        }
        match &self.origin {
            Origin::Unknown | Origin::Awaited(_) => self.await_or_miss(hub),
            Origin::Over => Ok(Piece::Ended),
            // It comes by itself.
            Origin::Remote(..) => Ok(Piece::UpToDate),
            Origin::Archived(manifest, index) => read_archived(hub, manifest, *index, self.record).await,
            Origin::Live(container) => {
                let container = Arc::clone(container);
                self.read_live(hub, container).await
            }
        }
    }

    /// A record was taken: reading goes on after it.
    pub(crate) fn passed(&mut self, place: Place) {
        self.record = self.record.max(place.record() + 1);
    }

    /// Reading goes on at a place.
    pub(crate) fn record_from(&mut self, place: Place) {
        self.record = self.record.max(place.record());
    }

    /// Whether a record lies before what is read.
    pub(crate) fn is_before(&self, place: Place) -> bool {
        place.record() < self.record
    }

    async fn locate(&mut self, hub: &Arc<Hub>, begin: Begin) -> Result<(), TailError> {
        let Some(attempt) = attempt_key(&self.log).filter(|key| !key.pod_uid.is_empty()) else {
            return Ok(());
        };
        let key = ContainerKey {
            attempt,
            container: self.id.container.clone(),
        };
        if self.take_live(hub, &key, begin) {
            return Ok(());
        }
        // What runs is not sealed: the archive need not be asked.
        if self.log.ended
            && let Some(manifest) = find_archived(hub, &key.attempt).await?
        {
            hub.stop_waiting(&key.attempt, &self.listener);
            self.take_archived(manifest, begin);
            return Ok(());
        }
        hub.wait_for(&key.attempt, self.listener.clone());
        // It may have been assigned in between.
        if !self.take_live(hub, &key, begin) {
            self.origin = Origin::Awaited(key);
        }
        Ok(())
    }

    fn take_live(&mut self, hub: &Arc<Hub>, key: &ContainerKey, begin: Begin) -> bool {
        let Some(container) = hub.container(key) else {
            return false;
        };
        hub.stop_waiting(&key.attempt, &self.listener);
        container.listen(self.listener.clone());
        hub.want(&container);
        self.heard = None;
        let end = container.extent().end;
        self.begin_at_tail(end, begin);
        if !begin.follow && !self.log.ended {
            self.target = Some(end.record());
        }
        self.origin = Origin::Live(container);
        true
    }

    fn take_archived(&mut self, manifest: Arc<Manifest>, begin: Begin) {
        self.heard = None;
        let name = &self.id.container;
        let Some(index) = manifest.containers.iter().position(|sealed| sealed.name == *name) else {
            self.origin = Origin::Over;
            return;
        };
        let sealed = &manifest.containers[index];
        self.begin_at_tail(sealed.end(), begin);
        if let Some(since) = begin.since.filter(|_| self.next == SourcePosition::default()) {
            let first = sealed.segments.partition_point(|segment| segment.last_time < since);
            if let Some(segment) = sealed.segments.get(first) {
                self.next = SourcePosition {
                    line: segment.line,
                    mark: segment.mark,
                    offset: segment.offset,
                };
                self.record = segment.line + segment.mark;
            }
        }
        self.origin = Origin::Archived(manifest, index);
    }

    fn begin_at_tail(&mut self, end: Place, begin: Begin) {
        let Some(lines) = begin.tail.filter(|_| self.next == SourcePosition::default()) else {
            return;
        };
        let first = end.line.saturating_sub(lines);
        self.next.line = first;
        self.record = first;
    }

    /// Waits until a relay has it, unless none ever will, or another one has it.
    fn await_or_miss(&mut self, hub: &Hub) -> Result<Piece, TailError> {
        let log = Arc::clone(&self.log);
        let ours = log.relay == hub.relay.to_string() || log.relay_address == hub.advertised;
        if !log.relay_address.is_empty() && !ours {
            return Ok(Piece::Elsewhere(log.relay_address.clone()));
        }
        if log.ended && log.relay.is_empty() {
            if !log.pod_uid.is_empty() && self.waits_for_settling(hub) {
                return Ok(Piece::UpToDate);
            }
            self.origin = Origin::Over;
            // Without a pod there was nothing to read.
            return Ok(if log.pod_uid.is_empty() {
                Piece::Ended
            } else {
                Piece::Missing
            });
        }
        Ok(Piece::UpToDate)
    }

    /// After a start it is not known yet which pods are left: an ended attempt without a relay may still be assigned to this one.
    fn waits_for_settling(&mut self, hub: &Hub) -> bool {
        let Some(rest) = hub.settles_in() else { return false };
        if !self.settling {
            self.settling = true;
            let listener = self.listener.clone();
            hub.tasks.spawn(async move {
                tokio::time::sleep(rest).await;
                listener.raise();
            });
        }
        true
    }

    async fn read_live(&mut self, hub: &Arc<Hub>, container: Arc<Container>) -> Result<Piece, TailError> {
        if self.target.is_some_and(|target| self.record >= target) {
            return Ok(Piece::UpToDate);
        }
        match container.find(self.record, READ_BYTES) {
            Found::Blocks(blocks) => Ok(Piece::Blocks(blocks)),
            Found::UpToDate => Ok(Piece::UpToDate),
            Found::MovedAway => {
                hub.left(&container, &self.listener).await;
                self.origin = Origin::Unknown;
                self.listener.raise();
                Ok(Piece::UpToDate)
            }
            Found::Ended => {
                hub.left(&container, &self.listener).await;
                self.origin = Origin::Over;
                Ok(Piece::Ended)
            }
            Found::Sealed(manifest, index) => {
                hub.left(&container, &self.listener).await;
                self.origin = Origin::Archived(manifest, index);
                Ok(Piece::Switched)
            }
            Found::File(at, end) => read_file(&container, at, end, self.record).await,
        }
    }

    /// The client no longer reads it.
    pub(crate) async fn leave(&mut self, hub: &Hub) {
        match std::mem::replace(&mut self.origin, Origin::Over) {
            Origin::Live(container) => hub.left(&container, &self.listener).await,
            Origin::Awaited(key) => hub.stop_waiting(&key.attempt, &self.listener),
            Origin::Unknown | Origin::Archived(..) | Origin::Remote(..) | Origin::Over => {}
        }
    }
}

/// Whose log it is, when its pod was let go: the scheduler no longer knows its containers, but the archive does.
fn released(log: &LogSource) -> Option<AttemptKey> {
    let is_released = log.ended && log.relay.is_empty() && !log.pod_uid.is_empty();
    attempt_key(log).filter(|_| is_released)
}

/// Looks many attempts up in the archive at once, so that each need not be asked for by itself.
pub(crate) async fn look_up(hub: &Hub, run: RunId, logs: &[Arc<LogSource>]) -> Result<(), TailError> {
    let keys = logs.iter().filter_map(|log| released(log)).collect();
    hub.archive.look_up(run, keys).await.map_err(|error| {
        let error = chain(&error);
        tracing::error!(%run, error, "archive cannot be read");
        TailError::Storage
    })
}

/// The containers of an attempt.
pub(crate) async fn containers_of(hub: &Hub, log: &LogSource) -> Result<Vec<String>, TailError> {
    let Some(key) = released(log) else {
        return Ok(log.containers.clone());
    };
    let found = find_archived(hub, &key).await?;
    let sealed = found.map(|manifest| manifest.containers.iter().map(|sealed| sealed.name.clone()).collect());
    Ok(sealed.unwrap_or_else(|| log.containers.clone()))
}

async fn find_archived(hub: &Hub, key: &AttemptKey) -> Result<Option<Arc<Manifest>>, TailError> {
    hub.archive.find(key).await.map_err(|error| {
        let error = chain(&error);
        tracing::error!(attempt = %key, error, "archive cannot be read");
        TailError::Storage
    })
}

async fn read_archived(hub: &Hub, manifest: &Manifest, index: usize, record: u64) -> Result<Piece, TailError> {
    let Some(sealed) = manifest.containers.get(index) else {
        return Ok(Piece::Ended);
    };
    let blocks = hub.archive.read(sealed, record).await.map_err(|error| {
        let error = chain(&error);
        tracing::error!(object = sealed.object, error, "archived log cannot be read");
        TailError::Storage
    })?;
    let Some(blocks) = blocks else {
        return Ok(Piece::Ended);
    };
    let first = blocks.partition_point(|block| block.end.record() <= record);
    let mut bytes = 0;
    let mut wanted = Vec::new();
    for block in &blocks[first..] {
        if bytes >= READ_BYTES {
            break;
        }
        bytes += block.file_bytes();
        wanted.push(Arc::clone(block));
    }
    Ok(Piece::Blocks(wanted))
}

async fn read_file(container: &Arc<Container>, at: u64, end: u64, record: u64) -> Result<Piece, TailError> {
    metrics::read_from_disk();
    let path = container.path.clone();
    let span = Span {
        at,
        end,
        record,
        wanted: READ_BYTES as u64,
    };
    let read = tokio::task::spawn_blocking(move || read_blocks(&path, span)).await;
    match read {
        Ok(Ok(blocks)) if !blocks.is_empty() => Ok(Piece::Blocks(blocks)),
        // It was sealed in between: the next turn finds it in the archive.
        Ok(_) if matches!(container.find(record, 1), Found::Sealed(..)) => Ok(Piece::Blocks(Vec::new())),
        Ok(Ok(_)) => {
            tracing::error!(container = %container.key, "live log is damaged");
            Err(TailError::Storage)
        }
        Ok(Err(error)) => {
            tracing::error!(container = %container.key, %error, "live log cannot be read");
            Err(TailError::Storage)
        }
        Err(_) => Err(TailError::ShuttingDown),
    }
}
