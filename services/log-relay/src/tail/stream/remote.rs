//! Sources that other relays own: one session with each such relay, in which this reader's containers are read together. A connection of
//! its own keeps a reader that stalls from slowing others.

use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use windlass_api::relay::v1::read_request::Message as Ask;
use windlass_api::relay::v1::read_response::Message as Said;
use windlass_api::relay::v1::relay_service_client::RelayServiceClient;
use windlass_api::relay::v1::{ReadBlocks, ReadClose, ReadOpen, ReadPosition, ReadRequest, ReadResponse, ReadState};
use windlass_service::BackoffSettings;

use super::super::source::Heard;
use super::*;
use crate::hub::backoff_after;

/// How soon a relay is asked again that could not be read from.
const PEER_BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_secs(2),
};
/// Bound on a message of an owner.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a reader reads through other relays.
#[derive(Debug)]
pub(super) struct Remotes {
    hub: Arc<Hub>,
    owners: BTreeMap<String, Owner>,
    /// Numbers of sources by streams. A number is never used again, so that what comes late means nothing.
    slots: BTreeMap<u64, usize>,
    last: u64,
    /// Failures since something was read.
    failures: u32,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
}

/// A session with another relay.
#[derive(Debug)]
struct Owner {
    session: u64,
    /// Holds two requests for each source at most.
    requests: mpsc::UnboundedSender<ReadRequest>,
    streams: BTreeSet<u64>,
    task: AbortHandle,
}

/// What came from another relay.
#[derive(Debug)]
pub(super) struct News {
    address: String,
    session: u64,
    said: Result<ReadResponse, Status>,
}

impl Remotes {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        let (tell, news) = mpsc::channel(1);
        Self {
            hub,
            owners: BTreeMap::new(),
            slots: BTreeMap::new(),
            last: 0,
            failures: 0,
            news,
            tell,
        }
    }

    /// What has come.
    pub(super) fn ready(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Waits for what comes next.
    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // Never, since a sender is held here.
            None => std::future::pending().await,
        }
    }

    /// Asks a relay for a source; the number of the stream.
    fn open(&mut self, address: &str, slot: usize, open: ReadOpen) -> u64 {
        self.last += 1;
        let stream = self.last;
        self.slots.insert(stream, slot);
        let (hub, tell) = (Arc::clone(&self.hub), self.tell.clone());
        let owner = self.owners.entry(address.to_owned()).or_insert_with(|| {
            let (requests, asked) = mpsc::unbounded_channel();
            let address = address.to_owned();
            let talking = hub.tasks.spawn(talk(Arc::clone(&hub), address, stream, asked, tell));
            Owner {
                session: stream,
                requests,
                streams: BTreeSet::new(),
                task: talking.abort_handle(),
            }
        });
        owner.streams.insert(stream);
        owner.say(Ask::Open(ReadOpen { stream, ..open }));
        metrics::proxied(1.0);
        stream
    }

    /// Says what has changed.
    fn update(&self, address: &str, open: ReadOpen) {
        if let Some(owner) = self.owners.get(address) {
            owner.say(Ask::Open(open));
        }
    }

    /// No longer reads a stream.
    fn close(&mut self, address: &str, stream: u64) {
        if self.slots.remove(&stream).is_none() {
            return;
        }
        metrics::proxied(-1.0);
        if let Some(owner) = self.owners.get_mut(address) {
            owner.streams.remove(&stream);
            owner.say(Ask::Close(ReadClose { stream }));
            if owner.streams.is_empty()
                && let Some(owner) = self.owners.remove(address)
            {
                owner.task.abort();
            }
        }
    }

    /// A session is over: the sources that were read in it.
    fn lost(&mut self, address: &str, session: u64) -> Vec<usize> {
        let Some(owner) = self.owners.get(address).filter(|owner| owner.session == session) else {
            return Vec::new();
        };
        let slots: Vec<usize> = owner
            .streams
            .iter()
            .filter_map(|stream| self.slots.remove(stream))
            .collect();
        metrics::proxied(-(slots.len() as f64));
        self.owners.remove(address);
        slots
    }
}

impl Drop for Remotes {
    fn drop(&mut self) {
        metrics::proxied(-(self.slots.len() as f64));
        self.owners.values().for_each(|owner| owner.task.abort());
    }
}

impl Owner {
    fn say(&self, ask: Ask) {
        // A session that is over has said so, or will.
        drop(self.requests.send(ReadRequest { message: Some(ask) }));
    }
}

async fn talk(
    hub: Arc<Hub>,
    address: String,
    session: u64,
    asked: mpsc::UnboundedReceiver<ReadRequest>,
    tell: mpsc::Sender<News>,
) {
    let news = |said| News {
        address: address.clone(),
        session,
        said,
    };
    let talking = async {
        let channel = hub
            .peer(&address)
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut client = RelayServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut responses = client.read(UnboundedReceiverStream::new(asked)).await?.into_inner();
        while let Some(response) = responses.message().await? {
            if tell.send(news(Ok(response))).await.is_err() {
                break;
            }
        }
        Err::<(), _>(Status::unavailable("the relay has ended the session"))
    };
    if let Err(status) = talking.await {
        // Nobody may be left to hear it.
        drop(tell.send(news(Err(status))).await);
    }
}

impl Reader {
    /// Reads a source through the relay that owns it.
    pub(super) fn fetch(&mut self, slot: usize, address: String) {
        let begin = self.begin_of(slot);
        let source = &self.sources[slot];
        let is_new = source.next == SourcePosition::default();
        let open = ReadOpen {
            position: (!is_new).then_some(ReadPosition {
                line: source.next.line,
                mark: source.next.mark,
                offset: source.next.offset,
            }),
            tail_lines: begin.tail.filter(|_| is_new),
            since_nanos: begin.since.filter(|_| is_new),
            follow: begin.follow,
            ..asked(source)
        };
        let stream = self.remotes.open(&address, slot, open);
        self.sources[slot].go_remote(&self.hub, address, stream);
    }

    /// The scheduler has news of a source that another relay owns, or did.
    pub(super) fn follow_owner(&mut self, slot: usize) {
        let source = &mut self.sources[slot];
        let Some((address, stream)) = source.remote() else {
            return;
        };
        let now = source.log.relay_address.clone();
        if now.is_empty() || now == address {
            self.remotes.update(
                &address,
                ReadOpen {
                    stream,
                    ..asked(source)
                },
            );
            return;
        }
        self.remotes.close(&address, stream);
        source.look_again();
        self.wake.raise(slot);
    }

    /// A source is over.
    pub(super) fn let_go(&mut self, slot: usize) {
        if let Some((address, stream)) = self.sources[slot].remote() {
            self.remotes.close(&address, stream);
        }
    }

    /// Takes what came from another relay.
    pub(super) async fn hear(&mut self, news: News) -> Result<(), Stop> {
        let response = match news.said {
            Ok(response) => response,
            Err(status) => {
                tracing::debug!(address = news.address, code = ?status.code(), error = status.message(), "another relay cannot be read from");
                for slot in self.remotes.lost(&news.address, news.session) {
                    self.look_later(slot, &news.address)?;
                }
                return Ok(());
            }
        };
        let Some(slot) = self.remotes.slots.get(&response.stream).copied() else {
            return Ok(());
        };
        match response.message {
            Some(Said::Blocks(blocks)) => self.take_blocks(slot, blocks).await,
            Some(Said::State(state)) => self.take_state(slot, state, &news.address).await,
            None => Ok(()),
        }
    }

    async fn take_blocks(&mut self, slot: usize, blocks: ReadBlocks) -> Result<(), Stop> {
        self.remotes.failures = 0;
        let source = &mut self.sources[slot];
        source.heard = Some(Heard::Part);
        let begin = blocks.begin.unwrap_or_default();
        source.begin_at(
            SourcePosition {
                line: begin.line,
                mark: begin.mark,
                offset: begin.offset,
            },
            blocks.record,
        );
        let mut data = blocks.data;
        while let Some(block) = Block::take(&mut data).map_err(|_| TailError::Storage)? {
            self.take(slot, &block).await?;
        }
        Ok(())
    }

    async fn take_state(&mut self, slot: usize, state: i32, address: &str) -> Result<(), Stop> {
        let source = &mut self.sources[slot];
        match ReadState::try_from(state).unwrap_or_default() {
            ReadState::Unspecified => Ok(()),
            ReadState::Awaited => {
                source.heard = Some(Heard::Awaited);
                Ok(())
            }
            ReadState::UpToDate => {
                self.remotes.failures = 0;
                source.heard = Some(Heard::UpToDate);
                Ok(())
            }
            ReadState::Switched => self.switched(slot).await,
            ReadState::Ended => {
                self.let_go(slot);
                self.finish(slot).await
            }
            ReadState::Elsewhere => {
                self.let_go(slot);
                self.look_later(slot, address)
            }
            ReadState::Unavailable => Err(TailError::Storage.into()),
        }
    }

    /// Looks again after a while where a source is. Who does not follow is told when that takes long.
    fn look_later(&mut self, slot: usize, address: &str) -> Result<(), Stop> {
        let source = &mut self.sources[slot];
        source.look_again();
        if !self.selection.follow && self.started.elapsed() >= GRACE {
            return Err(self.not_reached(slot, address).into());
        }
        self.remotes.failures = self.remotes.failures.saturating_add(1);
        let delay = backoff_after(PEER_BACKOFF, self.remotes.failures);
        let (wake, shutdown) = (Arc::clone(&self.wake), self.hub.shutdown.clone());
        self.hub.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => wake.raise(slot),
                () = shutdown.cancelled() => {}
            }
        });
        Ok(())
    }

    fn not_reached(&self, slot: usize, address: &str) -> TailError {
        TailError::OtherRelay {
            step: self.sources[slot].log.step_name.clone(),
            address: address.to_owned(),
        }
    }

    /// Whether sources that other relays own are still arriving.
    pub(super) fn is_fetching(&self) -> bool {
        self.sources
            .iter()
            .any(|source| !source.finished && source.is_arriving())
    }

    /// The first source that another relay owns and has not said anything of in time.
    pub(super) fn unheard(&self) -> Option<TailError> {
        let slow = |source: &Source| !source.finished && source.is_unheard();
        let slot = self.sources.iter().position(slow)?;
        Some(self.not_reached(slot, &self.sources[slot].log.relay_address))
    }
}

fn asked(source: &Source) -> ReadOpen {
    ReadOpen {
        source: Some(LogSource::clone(&source.log)),
        container: source.id.container.clone(),
        ..ReadOpen::default()
    }
}
