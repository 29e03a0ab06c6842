//! The session with the scheduler: which containers are ours, what is sealed, and news of runs that somebody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use windlass_api::follow::v1::follow_request::Message as Said;
use windlass_api::follow::v1::follow_response::Message;
use windlass_api::follow::v1::follow_service_client::FollowServiceClient;
use windlass_api::follow::v1::{FollowRequest, FollowResponse, KeptRuns, RelayHello};
use windlass_api::{INTERNAL_PROTOCOL, INTERNAL_PROTOCOL_MIN};
use windlass_ids::RunId;
use windlass_service::{AuthenticatedChannel, Backoff, BackoffSettings};

use crate::hub::Hub;
use crate::metrics;

const HEARTBEAT: Duration = Duration::from_secs(10);
/// A scheduler that is silent for so long is dialled again.
const SILENCE: Duration = Duration::from_secs(35);
const QUEUE: usize = 64;
/// Runs of one message.
const KEPT_AT_ONCE: usize = 1_000;
/// Pause after a failure to list the runs of which there are logs.
const KEPT_PAUSE: Duration = Duration::from_secs(30);

/// Follows the scheduler until shutdown, again after every loss.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) hub: Arc<Hub>,
    pub(crate) channel: AuthenticatedChannel,
    /// Name for people.
    pub(crate) name: String,
    /// Epoch of the scheduler that was followed last.
    pub(crate) epoch: AtomicU64,
}

impl Follow {
    /// Runs until shutdown.
    pub(crate) async fn run(self) {
        let mut random = rand::rngs::StdRng::from_os_rng();
        let mut backoff = Backoff::new(BackoffSettings {
            max: Duration::from_secs(5),
            ..BackoffSettings::default()
        });
        let shutdown = self.hub.shutdown.clone();
        while !shutdown.is_cancelled() {
            let mut welcomed = false;
            let ended = tokio::select! {
                ended = self.session(&mut welcomed) => ended,
                () = shutdown.cancelled() => return,
            };
            if welcomed {
                backoff.reset();
            }
            metrics::scheduler_connected(false);
            let delay = backoff.next_delay(&mut random);
            if let Err(status) = ended {
                tracing::warn!(code = ?status.code(), error = status.message(), ?delay, "scheduler lost; it is dialled again");
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn session(&self, welcomed: &mut bool) -> Result<(), Status> {
        let (said, requests) = mpsc::channel::<FollowRequest>(QUEUE);
        said.send(self.hello()).await.map_err(|_| gone())?;
        let mut client = FollowServiceClient::new(self.channel.clone()).max_decoding_message_size(64 * 1024 * 1024);
        let mut responses = client.follow(ReceiverStream::new(requests)).await?.into_inner();
        let first = tokio::time::timeout(SILENCE, responses.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the scheduler is silent"))?;
        let wants_kept = match first.ok_or_else(gone)??.message {
            Some(Message::Welcome(welcome)) => {
                tracing::info!(
                    protocol = welcome.protocol,
                    epoch = welcome.epoch,
                    known = welcome.known,
                    "scheduler followed"
                );
                let before = self.epoch.swap(welcome.epoch, Ordering::Relaxed);
                // A scheduler of another epoch does not know yet what there is: it assigns it again as it learns of it.
                if !welcome.known && before == welcome.epoch {
                    self.hub.revoke_all().await;
                }
                welcome.wants_kept
            }
            other => return Err(Status::internal(format!("a welcome was expected, not {other:?}"))),
        };
        self.hub.outbox.restart();
        *welcomed = true;
        metrics::scheduler_connected(true);
        // Writing has a task of its own, so that it never holds up reading.
        let telling = wants_kept.then(|| tokio::spawn(tell_kept(Arc::clone(&self.hub), said.clone())));
        let mut writing = tokio::spawn(write(Arc::clone(&self.hub), said));
        let ended = tokio::select! {
            ended = self.read(&mut responses) => ended,
            _ = &mut writing => Err(gone()),
        };
        writing.abort();
        if let Some(telling) = telling {
            telling.abort();
        }
        ended
    }

    fn hello(&self) -> FollowRequest {
        FollowRequest {
            message: Some(Said::Hello(RelayHello {
                relay: self.hub.relay.to_string(),
                name: self.name.clone(),
                advertised_address: self.hub.advertised.clone(),
                protocol_min: INTERNAL_PROTOCOL_MIN,
                protocol_max: INTERNAL_PROTOCOL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            })),
            ..FollowRequest::default()
        }
    }

    async fn read(&self, responses: &mut tonic::Streaming<FollowResponse>) -> Result<(), Status> {
        loop {
            let response = tokio::time::timeout(SILENCE, responses.next()).await;
            let response = response.map_err(|_| Status::deadline_exceeded("the scheduler is silent"))?;
            let response = response.ok_or_else(gone)??;
            self.hub.outbox.acknowledged(response.acknowledged);
            if let Some(message) = response.message {
                self.take(message).await;
            }
            self.hub.outbox.taken(response.sequence);
        }
    }

    async fn take(&self, message: Message) {
        match message {
            Message::Assign(assign) => self.hub.assign(assign).await,
            Message::Revoke(revoke) => self.hub.revoke(&revoke).await,
            Message::Abandon(abandon) => self.hub.abandon(&abandon).await,
            Message::Run(update) => self.hub.runs.update(update),
            Message::Forget(forget) => {
                if let Some(run) = RunId::from_slice(&forget.run_id) {
                    self.hub.forget(run);
                }
            }
            Message::Welcome(_) | Message::Heartbeat(_) => {}
        }
    }
}

/// Says of which runs there are logs: those that were deleted while the scheduler was not followed are named in the answer.
async fn tell_kept(hub: Arc<Hub>, said: mpsc::Sender<FollowRequest>) {
    let kept = loop {
        match hub.kept().await {
            Ok(kept) => break Vec::from_iter(kept),
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::error!(error, "logs cannot be listed yet: those of deleted runs may stay");
                tokio::time::sleep(KEPT_PAUSE).await;
            }
        }
    };
    for runs in kept.chunks(KEPT_AT_ONCE) {
        let run_ids = runs.iter().map(|run| run.as_bytes().to_vec()).collect();
        let request = FollowRequest {
            message: Some(Said::Kept(KeptRuns { run_ids })),
            ..FollowRequest::default()
        };
        if said.send(request).await.is_err() {
            return;
        }
    }
}

async fn write(hub: Arc<Hub>, said: mpsc::Sender<FollowRequest>) {
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        let request = tokio::select! {
            request = hub.outbox.next() => request,
            _ = heartbeat.tick() => hub.outbox.heartbeat(),
        };
        if said.send(request).await.is_err() {
            return;
        }
    }
}

fn gone() -> Status {
    Status::unavailable("the scheduler has closed the session")
}
