//! Feed: executors dial in, are asked for containers, and send their logs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use windlass_api::feed::v1::feed_request::Message;
use windlass_api::feed::v1::feed_response::Message as Reply;
use windlass_api::feed::v1::feed_service_server::FeedService;
use windlass_api::feed::v1::{
    FeedChunk, FeedEnd, FeedEndReason, FeedHeartbeat, FeedHello, FeedRequest, FeedResponse, FeedWelcome,
};
use windlass_api::{INTERNAL_PROTOCOL, INTERNAL_PROTOCOL_MIN};

use crate::hub::Hub;
use crate::hub::container::FeedRef;
use crate::hub::session::Session;
use crate::store::live::{Batch, BatchEnd};
use crate::writer::{Detached, Job};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// An executor that is silent for so long is taken to be gone.
const SILENCE: Duration = Duration::from_secs(35);
const QUEUE: usize = 16;
/// Bound on a message of an executor.
pub(crate) const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// The Feed service.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) hub: Arc<Hub>,
}

#[tonic::async_trait]
impl FeedService for Feed {
    type FeedStream = Pin<Box<dyn Stream<Item = Result<FeedResponse, Status>> + Send>>;

    async fn feed(&self, request: Request<Streaming<FeedRequest>>) -> Result<Response<Self::FeedStream>, Status> {
        let mut requests = request.into_inner();
        let hello = match requests.next().await.transpose()?.and_then(|first| first.message) {
            Some(Message::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("the first message must be a hello")),
        };
        let welcome = self.welcome(&hello)?;
        let session = self.hub.session_began(&hello.incarnation);
        tracing::info!(executor_id = %hello.incarnation, session = session.id, "executor feeds");
        let (replies, stream) = mpsc::channel(QUEUE);
        let hub = Arc::clone(&self.hub);
        self.hub.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = read(&hub, &session, requests) => ended,
                () = write(&session, welcome, &replies) => Ok(()),
                () = hub.shutdown.cancelled() => Err(Status::unavailable("the relay is going away")),
            };
            if let Err(status) = &ended {
                tracing::info!(executor_id = %session.incarnation, error = status.message(), "executor no longer feeds");
                // Nobody may be left to hear it.
                drop(replies.try_send(Err(status.clone())));
            }
            hub.session_ended(&session).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Feed {
    fn welcome(&self, hello: &FeedHello) -> Result<FeedResponse, Status> {
        let protocol = INTERNAL_PROTOCOL.min(hello.protocol_max);
        if protocol < INTERNAL_PROTOCOL_MIN.max(hello.protocol_min) {
            return Err(Status::failed_precondition(format!(
                "this relay speaks the protocols {INTERNAL_PROTOCOL_MIN} to {INTERNAL_PROTOCOL}, the executor {} to {}",
                hello.protocol_min, hello.protocol_max
            )));
        }
        if hello.incarnation.is_empty() {
            return Err(Status::invalid_argument("the hello names no incarnation"));
        }
        Ok(reply(Reply::Welcome(FeedWelcome {
            relay: self.hub.relay.to_string(),
            protocol,
        })))
    }
}

fn reply(message: Reply) -> FeedResponse {
    FeedResponse { message: Some(message) }
}

async fn write(session: &Session, welcome: FeedResponse, replies: &mpsc::Sender<Result<FeedResponse, Status>>) {
    let mut next = welcome;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    while replies.send(Ok(next)).await.is_ok() {
        next = tokio::select! {
            message = session.next() => reply(message),
            _ = heartbeat.tick() => reply(Reply::Heartbeat(FeedHeartbeat {})),
        };
    }
}

async fn read(hub: &Arc<Hub>, session: &Arc<Session>, mut requests: Streaming<FeedRequest>) -> Result<(), Status> {
    loop {
        let request = tokio::time::timeout(SILENCE, requests.next()).await;
        let request = request.map_err(|_| Status::deadline_exceeded("the executor is silent"))?;
        let Some(request) = request else { return Ok(()) };
        match request?.message {
            Some(Message::Chunk(chunk)) => append(hub, session, chunk).await?,
            Some(Message::End(end)) => end_stream(hub, session, end).await?,
            Some(Message::Hello(_)) => return Err(Status::invalid_argument("a second hello")),
            Some(Message::Heartbeat(_)) | None => {}
        }
    }
}

async fn append(hub: &Hub, session: &Arc<Session>, chunk: FeedChunk) -> Result<(), Status> {
    let batch = Batch {
        gap: chunk.gap.then_some(chunk.lost_lines),
        lines: chunk.lines,
        end: None,
    };
    queue(hub, session, chunk.stream, batch).await
}

async fn end_stream(hub: &Hub, session: &Arc<Session>, end: FeedEnd) -> Result<(), Status> {
    let complete = match end.reason() {
        FeedEndReason::Complete => true,
        FeedEndReason::Gone => false,
        FeedEndReason::Unspecified | FeedEndReason::Unavailable | FeedEndReason::Closed => {
            return detach(hub, session, &end).await;
        }
    };
    let message = match end.message.is_empty() {
        true => "the pod or its log is gone; what is missing is unknown".to_owned(),
        false => end.message,
    };
    let batch = Batch {
        end: Some(BatchEnd { complete, message }),
        ..Batch::default()
    };
    queue(hub, session, end.stream, batch).await
}

async fn detach(hub: &Hub, session: &Arc<Session>, end: &FeedEnd) -> Result<(), Status> {
    let Some(container) = session.container(end.stream) else {
        return Ok(());
    };
    session.forget(end.stream);
    tracing::debug!(container = %container.key, reason = ?end.reason(), error = end.message, "log cannot be read now");
    let feed = FeedRef {
        session: session.id,
        stream: end.stream,
    };
    let then = Detached::Unavailable;
    sent(hub.writer.send(Job::Detach { container, feed, then }).await)
}

/// Waits until memory and the queue have room; meanwhile the executor is not read from.
async fn queue(hub: &Hub, session: &Arc<Session>, stream: u64, batch: Batch) -> Result<(), Status> {
    let Some(container) = session.container(stream) else {
        // It was closed in the meantime.
        return Ok(());
    };
    let bytes = batch.lines.iter().map(|line| line.content.len() + 64).sum();
    let permit = hub.writer.reserve(bytes).await.ok_or_else(stopping)?;
    let session = Arc::clone(session);
    let job = Job::Append {
        container,
        session,
        stream,
        batch,
        permit,
    };
    sent(hub.writer.send(job).await)
}

fn sent(sent: bool) -> Result<(), Status> {
    if sent { Ok(()) } else { Err(stopping()) }
}

fn stopping() -> Status {
    Status::unavailable("the relay is going away")
}
