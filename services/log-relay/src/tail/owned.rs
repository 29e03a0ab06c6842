//! What this relay owns, for the readers of other relays. A reader's relay merges, filters and counts; here it is only read, and never
//! asked for any further.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use windlass_api::relay::v1::read_request::Message as Asked;
use windlass_api::relay::v1::read_response::Message;
use windlass_api::relay::v1::relay_service_server::RelayService;
use windlass_api::relay::v1::{ReadBlocks, ReadOpen, ReadPosition, ReadRequest, ReadResponse, ReadState};

use super::source::{Begin, Piece, Source};
use crate::cursor::{SourceId, SourcePosition};
use crate::error::TailError;
use crate::hub::Hub;
use crate::hub::wake::{Listener, Wake};
use crate::store::block::Block;

/// Containers of one session. A cursor names no more.
const MAX_STREAMS: usize = 1_000_000;

/// The relay service.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) hub: Arc<Hub>,
}

#[tonic::async_trait]
impl RelayService for Owned {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(&self, request: Request<Streaming<ReadRequest>>) -> Result<Response<Self::ReadStream>, Status> {
        // One message waits while the next is made: a stalled reader holds no more than these two.
        let (messages, stream) = mpsc::channel(1);
        let mut session = Session {
            hub: Arc::clone(&self.hub),
            wake: Arc::default(),
            sources: BTreeMap::new(),
            slots: BTreeMap::new(),
            next_slot: 0,
            messages,
        };
        self.hub.tasks.spawn(async move {
            if let Err(status) = session.run(request.into_inner()).await {
                // Nobody may be left to hear it.
                drop(session.messages.try_send(Err(status)));
            }
            for one in session.sources.values_mut() {
                one.source.leave(&session.hub).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// One reader of another relay.
struct Session {
    hub: Arc<Hub>,
    wake: Arc<Wake>,
    sources: BTreeMap<usize, One>,
    /// By the number of the stream.
    slots: BTreeMap<u64, usize>,
    next_slot: usize,
    messages: mpsc::Sender<Result<ReadResponse, Status>>,
}

/// One container that it reads.
struct One {
    stream: u64,
    source: Source,
    begin: Begin,
    told: ReadState,
}

impl Session {
    async fn run(&mut self, mut requests: Streaming<ReadRequest>) -> Result<(), Status> {
        let shutdown = self.hub.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Status::unavailable("the relay is going away")),
                request = requests.next() => match request {
                    Some(request) => self.take(request?.message).await?,
                    None => return Ok(()),
                },
                () = self.messages.closed() => return Ok(()),
                () = self.wake.ready() => {
                    if let Some(slot) = self.wake.take() {
                        self.turn(slot).await?;
                    }
                }
            }
        }
    }

    async fn take(&mut self, asked: Option<Asked>) -> Result<(), Status> {
        match asked {
            Some(Asked::Open(open)) => self.open(open),
            Some(Asked::Close(close)) => {
                self.close(close.stream).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn open(&mut self, open: ReadOpen) -> Result<(), Status> {
        let log = Arc::new(
            open.source
                .ok_or_else(|| Status::invalid_argument("open.source: must be set"))?,
        );
        if let Some(one) = self.slots.get(&open.stream).and_then(|slot| self.sources.get_mut(slot)) {
            one.source.update(log);
            return Ok(());
        }
        if self.sources.len() >= MAX_STREAMS {
            return Err(Status::resource_exhausted(format!(
                "at most {MAX_STREAMS} streams are allowed"
            )));
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let id = SourceId {
            step: log.step,
            attempt: log.attempt,
            container: open.container,
        };
        let listener = Listener {
            wake: Arc::clone(&self.wake),
            slot,
        };
        let position = open.position.map(|position| SourcePosition {
            line: position.line,
            mark: position.mark,
            offset: position.offset,
        });
        let one = One {
            stream: open.stream,
            source: Source::new(id, log, position, listener),
            begin: Begin {
                tail: open.tail_lines,
                since: open.since_nanos,
                follow: open.follow,
            },
            told: ReadState::Unspecified,
        };
        self.slots.insert(open.stream, slot);
        self.sources.insert(slot, one);
        self.wake.raise(slot);
        Ok(())
    }

    async fn close(&mut self, stream: u64) {
        let slot = self.slots.remove(&stream);
        if let Some(mut one) = slot.and_then(|slot| self.sources.remove(&slot)) {
            one.source.leave(&self.hub).await;
        }
    }

    async fn turn(&mut self, slot: usize) -> Result<(), Status> {
        let Some(one) = self.sources.get_mut(&slot) else {
            return Ok(());
        };
        let stream = one.stream;
        let read = one.source.read(&self.hub, one.begin).await;
        let state = match read {
            Ok(Piece::Blocks(blocks)) => {
                one.told = ReadState::Unspecified;
                let message = Message::Blocks(blocks_of(&one.source, &blocks));
                if let Some(last) = blocks.last() {
                    one.source.record_from(last.end);
                }
                self.wake.raise(slot);
                return self.send(stream, message).await;
            }
            Ok(Piece::UpToDate) if one.source.is_awaited() => ReadState::Awaited,
            Ok(Piece::UpToDate) => ReadState::UpToDate,
            Ok(Piece::Switched) => {
                self.wake.raise(slot);
                ReadState::Switched
            }
            Ok(Piece::Ended) => ReadState::Ended,
            // What is with a third relay is for the reader's to ask there.
            Ok(Piece::Missing | Piece::Elsewhere(_)) => ReadState::Elsewhere,
            Err(TailError::ShuttingDown) => return Err(Status::unavailable("the relay is going away")),
            Err(_) => ReadState::Unavailable,
        };
        if matches!(state, ReadState::Ended | ReadState::Elsewhere | ReadState::Unavailable) {
            self.close(stream).await;
        } else if std::mem::replace(&mut one.told, state) == state {
            return Ok(());
        }
        self.send(stream, Message::State(state.into())).await
    }

    async fn send(&self, stream: u64, message: Message) -> Result<(), Status> {
        let response = ReadResponse {
            stream,
            message: Some(message),
        };
        let sent = self.messages.send(Ok(response)).await;
        sent.map_err(|_| Status::cancelled("the reader is gone"))
    }
}

fn blocks_of(source: &Source, blocks: &[Arc<Block>]) -> ReadBlocks {
    let mut data = Vec::with_capacity(blocks.iter().map(|block| block.file_bytes()).sum());
    blocks.iter().for_each(|block| block.write_to(&mut data));
    ReadBlocks {
        data: data.into(),
        begin: Some(ReadPosition {
            line: source.next.line,
            mark: source.next.mark,
            offset: source.next.offset,
        }),
        record: source.record(),
    }
}
