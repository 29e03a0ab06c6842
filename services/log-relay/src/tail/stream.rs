//! One client's stream: its sources are read in turns, as far as the client takes what was read.

mod remote;
mod taking;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use windlass_api::follow::v1::LogSource;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{Checkpoint, End, EndReason, KeepAlive, Mark, MarkKind};
use windlass_ids::RunId;

use self::remote::Remotes;
use super::batch::Batch;
use super::selection::{From, Selection, Until};
use super::source::{Begin, Piece, Source, containers_of, look_up};
use super::wire::Outgoing;
use crate::cursor::{Cursor, SourceId, SourcePosition};
use crate::error::TailError;
use crate::hub::Hub;
use crate::hub::runs::RunWatch;
use crate::hub::wake::{Listener, Wake};
use crate::metrics;
use crate::store::block::{Block, LineRecord, MarkRecord, Place, Record, StoredMark};

const CHECKPOINT: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the scheduler may take to answer for a run.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long a client that does not follow waits for what is on its way.
const GRACE: Duration = Duration::from_secs(3);
/// What a client may take to get the end when the relay is going away.
const FAREWELL: Duration = Duration::from_secs(1);
/// Many readers are woken less often, so that each message carries more lines.
const CALM_PER_READER: Duration = Duration::from_micros(100);
const CALM_MAX: Duration = Duration::from_millis(10);
const CALM_FROM: usize = 8;

/// One client's stream.
#[derive(Debug)]
pub(crate) struct Reader {
    hub: Arc<Hub>,
    watch: Arc<RunWatch>,
    changes: watch::Receiver<u64>,
    seen: u64,
    run: RunId,
    selection: Selection,
    messages: mpsc::Sender<Result<Outgoing, Status>>,
    wake: Arc<Wake>,
    sources: Vec<Source>,
    slots: BTreeMap<SourceId, usize>,
    remotes: Remotes,
    /// From the cursor: sources that the client has, and where it stopped in others.
    finished: BTreeSet<SourceId>,
    resumed: BTreeMap<SourceId, SourcePosition>,
    batch: Batch,
    lines: u64,
    bytes: u64,
    moved: bool,
    /// How many sources were there when the stream began.
    first_sources: usize,
    started: Instant,
    last_checkpoint: Instant,
    last_message: Instant,
}

/// Why a reader stops before the end of what it reads.
#[derive(Debug)]
enum Stop {
    /// The client is gone.
    Gone,
    /// The relay is going away.
    ShuttingDown,
    /// A limit of the request is reached.
    Limit,
    /// It cannot go on.
    Failed(TailError),
}

impl std::convert::From<TailError> for Stop {
    fn from(error: TailError) -> Self {
        Self::Failed(error)
    }
}

impl Reader {
    /// Looks the run up and checks the request against it.
    pub(crate) async fn begin(
        hub: Arc<Hub>,
        selection: Selection,
        messages: mpsc::Sender<Result<Outgoing, Status>>,
    ) -> Result<Self, TailError> {
        let watch = hub.runs.watch(&selection.namespace, &selection.run);
        let mut changes = watch.changes();
        let deadline = Instant::now() + LOOKUP;
        let (run, checked, sources) = loop {
            {
                let view = watch.view();
                if let Some((code, message)) = view.refused.clone() {
                    return Err(TailError::RunRefused { code, message });
                }
                if let Some(run) = view.run.filter(|_| view.synced) {
                    let (mut sources, _) = view.news_since(0);
                    selection.narrow(&mut sources, &view);
                    break (run, selection.check(&view), sources);
                }
            }
            tokio::select! {
                changed = changes.changed() => drop(changed),
                () = hub.shutdown.cancelled() => return Err(TailError::ShuttingDown),
                () = sleep_until(deadline) => return Err(TailError::SchedulerUnreachable),
            }
        };
        match checked {
            Err(TailError::UnknownContainer { .. }) if has_container(&hub, &selection, &sources).await? => {}
            checked => checked?,
        }
        let now = Instant::now();
        let (finished, resumed) = match &selection.from {
            From::Cursor(cursor) => (cursor.finished.clone(), cursor.open.clone()),
            From::Start | From::Tail(_) | From::Since(_) => Default::default(),
        };
        Ok(Self {
            remotes: Remotes::new(Arc::clone(&hub)),
            hub,
            watch,
            changes,
            seen: 0,
            run,
            selection,
            messages,
            wake: Arc::default(),
            sources: Vec::new(),
            slots: BTreeMap::new(),
            finished,
            resumed,
            batch: Batch::default(),
            lines: 0,
            bytes: 0,
            moved: false,
            first_sources: 0,
            started: now,
            last_checkpoint: now,
            last_message: now,
        })
    }

    /// Streams until the end, which is told to the client.
    pub(crate) async fn run(&mut self) {
        let stop = match self.stream().await {
            Ok(reason) => self.end(reason).await,
            Err(stop) => Err(stop),
        };
        let told = match stop {
            Ok(()) | Err(Stop::Gone) => Ok(()),
            Err(Stop::Limit) => self.end(EndReason::Limit).await,
            Err(Stop::ShuttingDown) => self.end(EndReason::ShuttingDown).await,
            Err(Stop::Failed(error)) => {
                drop(self.flush().await);
                drop(self.messages.send(Err(error.into())).await);
                Ok(())
            }
        };
        if let Err(stop) = told {
            tracing::debug!(?stop, "end not told");
        }
    }

    /// Lets go of everything.
    pub(crate) async fn leave(&mut self) {
        for source in &mut self.sources {
            source.leave(&self.hub).await;
        }
    }

    async fn stream(&mut self) -> Result<EndReason, Stop> {
        self.admit().await?;
        // The first message is a cursor, so that a client can resume from its first line on.
        let cursor = self.cursor().encode().to_vec();
        self.send(Message::Checkpoint(Checkpoint { cursor })).await?;
        self.first_sources = self.sources.len();
        loop {
            self.admit().await?;
            self.pump().await?;
            self.flush().await?;
            if let Some(reason) = self.is_over() {
                return self.unheard().map_or(Ok(reason), |error| Err(error.into()));
            }
            self.rest().await?;
        }
    }

    /// Waits for something to do.
    async fn rest(&mut self) -> Result<(), Stop> {
        let shutdown = self.hub.shutdown.clone();
        let checkpoint = self.last_checkpoint + CHECKPOINT;
        let keep_alive = self.last_message + KEEP_ALIVE;
        let grace = self.started + GRACE;
        tokio::select! {
            () = self.wake.ready() => self.calm().await,
            news = self.remotes.next() => self.hear(news).await?,
            changed = self.changes.changed() => drop(changed),
            () = sleep_until(checkpoint), if self.moved => self.checkpoint().await?,
            () = sleep_until(keep_alive) => {
                let cursor = self.cursor().encode().to_vec();
                self.send(Message::KeepAlive(KeepAlive { cursor })).await?;
            }
            () = sleep_until(grace), if !self.selection.follow && Instant::now() < grace => {}
            () = self.messages.closed() => return Err(Stop::Gone),
            () = shutdown.cancelled() => return Err(Stop::ShuttingDown),
        }
        Ok(())
    }

    async fn calm(&self) {
        let readers = self.hub.readers();
        if readers >= CALM_FROM {
            let readers = u32::try_from(readers).unwrap_or(u32::MAX);
            tokio::time::sleep(CALM_PER_READER.saturating_mul(readers).min(CALM_MAX)).await;
        }
    }

    /// Takes over what the scheduler says of the run.
    async fn admit(&mut self) -> Result<(), TailError> {
        self.check_run()?;
        let mut news = {
            let view = self.watch.view();
            let (mut news, version) = view.news_since(self.seen);
            self.seen = version;
            self.selection.narrow(&mut news, &view);
            news
        };
        news.retain(|log| self.selection.takes(log));
        look_up(&self.hub, self.run, &news).await?;
        for log in news {
            for container in containers_of(&self.hub, &log).await? {
                if self.selection.takes_container(&container) {
                    self.admit_source(&log, container);
                }
            }
        }
        Ok(())
    }

    /// The run may be deleted while it is read.
    fn check_run(&self) -> Result<(), TailError> {
        match self.watch.view().refused.clone() {
            Some((code, message)) => Err(TailError::RunRefused { code, message }),
            None => Ok(()),
        }
    }

    fn admit_source(&mut self, log: &Arc<LogSource>, container: String) {
        let id = SourceId {
            step: log.step,
            attempt: log.attempt,
            container,
        };
        if self.finished.contains(&id) {
            return;
        }
        if let Some(slot) = self.slots.get(&id) {
            let slot = *slot;
            self.sources[slot].update(Arc::clone(log));
            self.follow_owner(slot);
            return;
        }
        let slot = self.sources.len();
        let listener = Listener {
            wake: Arc::clone(&self.wake),
            slot,
        };
        let position = self.resumed.remove(&id);
        self.slots.insert(id.clone(), slot);
        self.sources.push(Source::new(id, Arc::clone(log), position, listener));
        self.wake.raise(slot);
    }

    /// Reads all sources that have something new, each in turn.
    async fn pump(&mut self) -> Result<(), Stop> {
        loop {
            let (news, slot) = (self.remotes.ready(), self.wake.take());
            if news.is_none() && slot.is_none() {
                return Ok(());
            }
            if self.hub.shutdown.is_cancelled() {
                return Err(Stop::ShuttingDown);
            }
            if let Some(news) = news {
                self.hear(news).await?;
            }
            if let Some(slot) = slot {
                self.turn(slot).await?;
            }
            if self.batch.is_full() {
                self.flush().await?;
            }
            if self.moved && self.last_checkpoint.elapsed() >= CHECKPOINT {
                self.flush().await?;
                self.checkpoint().await?;
                self.admit().await?;
            }
        }
    }

    async fn turn(&mut self, slot: usize) -> Result<(), Stop> {
        let begin = self.begin_of(slot);
        let source = &mut self.sources[slot];
        if source.finished || source.remote().is_some() {
            return Ok(());
        }
        let read = source.read(&self.hub, begin).await;
        if read.is_err() {
            self.check_run()?;
        }
        match read? {
            Piece::UpToDate => {}
            Piece::Blocks(blocks) => {
                for block in blocks {
                    self.take(slot, &block).await?;
                }
                // What is archived is read to its end before others; live sources take turns.
                if self.sources[slot].is_archived() {
                    self.wake.raise_first(slot);
                } else {
                    self.wake.raise(slot);
                }
            }
            Piece::Elsewhere(address) => self.fetch(slot, address),
            Piece::Switched => {
                self.switched(slot).await?;
                self.wake.raise_first(slot);
            }
            Piece::Missing => {
                let message = "no relay has kept this log";
                self.mark(slot, MarkKind::Lost, None, message).await?;
                self.finish(slot).await?;
            }
            Piece::Ended => self.finish(slot).await?,
        }
        Ok(())
    }

    async fn switched(&mut self, slot: usize) -> Result<(), Stop> {
        if self.sources[slot].described {
            self.mark(slot, MarkKind::Switched, None, "the log goes on from the archive")
                .await?;
        }
        Ok(())
    }

    /// Sources that come later begin at their start, whatever the client asked for at first.
    fn begin_of(&self, slot: usize) -> Begin {
        let (tail, since) = match self.selection.from {
            From::Tail(lines) => (Some(lines).filter(|_| slot < self.first_sources), None),
            From::Since(time) => (None, Some(time)),
            From::Start | From::Cursor(_) => (None, None),
        };
        Begin {
            tail,
            since,
            follow: self.selection.follow,
        }
    }

    fn is_over(&self) -> Option<EndReason> {
        let view = self.watch.view();
        if !self.wake.is_idle() || view.news_since(self.seen).1 != self.seen {
            return None;
        }
        let all_sent = self.sources.iter().all(|source| source.finished);
        let over = match self.selection.until {
            Until::Run => view.ended_state.is_some(),
            Until::Selection => self.selection.is_over(&view),
            Until::Never => false,
        };
        if over && all_sent {
            return Some(EndReason::Complete);
        }
        if self.selection.follow || self.is_fetching() {
            return None;
        }
        let pending = |source: &Source| !source.finished && (source.is_promised() || source.is_draining());
        let waits =
            self.sources.iter().any(pending) && (self.started.elapsed() < GRACE || self.hub.settles_in().is_some());
        let ended = view.ended_state.is_some() && all_sent;
        (!waits).then_some(if ended {
            EndReason::Complete
        } else {
            EndReason::CaughtUp
        })
    }

    fn cursor(&self) -> Cursor {
        let mut cursor = Cursor::new(self.run);
        cursor.finished.clone_from(&self.finished);
        cursor.open.clone_from(&self.resumed);
        for source in &self.sources {
            if source.finished {
                cursor.finished.insert(source.id.clone());
            } else if source.next != SourcePosition::default() {
                cursor.open.insert(source.id.clone(), source.next);
            }
        }
        cursor
    }

    async fn checkpoint(&mut self) -> Result<(), Stop> {
        self.moved = false;
        self.last_checkpoint = Instant::now();
        let cursor = self.cursor().encode().to_vec();
        self.send(Message::Checkpoint(Checkpoint { cursor })).await
    }

    async fn end(&mut self, reason: EndReason) -> Result<(), Stop> {
        let flushed = self.flush().await;
        if let Err(Stop::Gone) = flushed {
            return flushed;
        }
        let run_state = self.watch.view().ended_state.clone().unwrap_or_default();
        let end = End {
            reason: reason.into(),
            run_state,
            cursor: self.cursor().encode().to_vec(),
            lines: self.lines,
        };
        self.send(Message::End(end)).await
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        metrics::lines_sent(self.batch.lines);
        match self.batch.take() {
            Some(lines) => self.put(lines).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Stop> {
        self.put(Outgoing::Message(message)).await
    }

    /// Waits until the client takes the message. A client that takes nothing holds up nobody but itself.
    async fn put(&mut self, message: Outgoing) -> Result<(), Stop> {
        let shutdown = self.hub.shutdown.clone();
        let farewell = async {
            shutdown.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            biased;
            sent = self.messages.send(Ok(message)) => sent.map_err(|_| Stop::Gone)?,
            () = farewell => return Err(Stop::Gone),
        }
        self.last_message = Instant::now();
        Ok(())
    }
}

/// Whether one of the selected sources has a container of the selection, archived ones included.
async fn has_container(hub: &Hub, selection: &Selection, sources: &[Arc<LogSource>]) -> Result<bool, TailError> {
    for log in sources.iter().filter(|log| selection.takes(log)) {
        let names = containers_of(hub, log).await?;
        if names.iter().any(|name| selection.takes_container(name)) {
            return Ok(true);
        }
    }
    Ok(false)
}
