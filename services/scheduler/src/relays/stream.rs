//! One stream of a log relay.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use windlass_api::follow::v1 as wire;
use windlass_api::follow::v1::follow_request::Message;
use windlass_api::follow::v1::follow_response::Message as Answer;
use windlass_ids::{RelayId, RunId};

use super::session::{Order, Relay};
use super::{MAX_RELAYS, Relays};
use crate::errors::{SessionError, Unavailable};
use crate::executors::negotiate;
use crate::lookup;
use crate::shared::Shared;

/// Messages between a stream's writer and its connection.
const OUTGOING: usize = 8;
/// Refused subscriptions that wait to be told.
const MAX_REFUSALS: usize = 1_000;

/// What the writer hands to the connection.
type Outgoing = mpsc::Receiver<Result<wire::FollowResponse, Status>>;

/// Serves a stream: returns once the Welcome is said; the rest goes on in a task that ends with the stream or at `shutdown`.
///
/// # Errors
/// See [`SessionError`].
pub(crate) async fn follow(
    shared: Arc<Shared>,
    mut incoming: Streaming<wire::FollowRequest>,
    shutdown: CancellationToken,
) -> Result<Outgoing, SessionError> {
    let hello = match incoming.message().await {
        Ok(Some(wire::FollowRequest {
            message: Some(Message::Hello(hello)),
            ..
        })) => hello,
        Ok(_) | Err(_) => return Err(SessionError::NoHello),
    };
    let protocol = negotiate(hello.protocol_min, hello.protocol_max)?;
    let partition = shared.partition()?;
    let relay: RelayId = hello.relay.parse().map_err(|error| bad("hello.relay", &error))?;
    if hello.advertised_address.is_empty() {
        return Err(bad("hello.advertised_address", &"must not be empty"));
    }
    tracing::info!(relay_id = %relay, name = hello.name, address = hello.advertised_address, "log relay connected");
    let attached = shared.relays.attach(relay, hello, &shared)?;
    let (outgoing, receiver) = mpsc::channel(OUTGOING);
    let welcome = wire::FollowResponse {
        message: Some(Answer::Welcome(wire::FollowWelcome {
            protocol,
            epoch: partition.epoch,
            installation: partition.installation.to_string(),
            known: attached.known,
            wants_kept: true,
        })),
        ..wire::FollowResponse::default()
    };
    // The channel is empty and its receiver is here.
    outgoing.try_send(Ok(welcome)).map_err(|_| SessionError::Replaced)?;
    tokio::spawn(serve(shared, relay, incoming, outgoing, attached, shutdown));
    Ok(receiver)
}

fn bad(field: &'static str, fault: &impl std::fmt::Display) -> SessionError {
    SessionError::BadHello {
        field,
        fault: fault.to_string(),
    }
}

/// A stream that is attached to a relay.
struct Attached {
    number: u64,
    /// Whether the relay was known before.
    known: bool,
    token: CancellationToken,
    wake: Arc<Notify>,
}

async fn serve(
    shared: Arc<Shared>,
    relay: RelayId,
    incoming: Streaming<wire::FollowRequest>,
    outgoing: mpsc::Sender<Result<wire::FollowResponse, Status>>,
    attached: Attached,
    shutdown: CancellationToken,
) {
    let ended = tokio::select! {
        error = read(&shared, relay, incoming) => error,
        () = write(&shared, relay, &attached, &outgoing) => None,
        () = attached.token.cancelled() => Some(SessionError::Replaced),
        () = shutdown.cancelled() => Some(Unavailable::ShuttingDown.into()),
    };
    tracing::info!(relay_id = %relay, reason = ended.as_ref().map(tracing::field::display), "log relay's stream ended");
    shared.relays.detach(relay, attached.number, &shared);
    if let Some(error) = ended {
        outgoing.try_send(Err(error.into())).ok();
    }
}

/// Sends what there is to say, and heartbeats when there is nothing.
async fn write(
    shared: &Shared,
    relay: RelayId,
    attached: &Attached,
    outgoing: &mpsc::Sender<Result<wire::FollowResponse, Status>>,
) {
    let heartbeat: Duration = shared.timing.heartbeat;
    loop {
        let Ok(room) = outgoing.reserve().await else {
            return;
        };
        let next = shared.relays.lock().next(relay, attached.number);
        let message = match next {
            Some(message) => message,
            None => tokio::select! {
                () = attached.wake.notified() => continue,
                () = outgoing.closed() => return,
                () = tokio::time::sleep(heartbeat) => wire::FollowResponse {
                    message: Some(Answer::Heartbeat(wire::FollowHeartbeat {})),
                    ..wire::FollowResponse::default()
                },
            },
        };
        room.send(Ok(message));
    }
}

async fn read(
    shared: &Arc<Shared>,
    relay: RelayId,
    mut incoming: Streaming<wire::FollowRequest>,
) -> Option<SessionError> {
    loop {
        let request = match incoming.message().await {
            Ok(Some(request)) => request,
            Ok(None) | Err(_) => return None,
        };
        let fault = |fault: &str| SessionError::BadMessage {
            sequence: request.sequence,
            fault: fault.to_owned(),
        };
        match request.message {
            Some(Message::Hello(_)) => return Some(fault("a second Hello")),
            Some(Message::Sealed(sealed)) => shared.relays.sealed(&sealed, shared),
            Some(Message::Subscribe(subscribe)) => subscribe_run(shared, relay, subscribe).await,
            Some(Message::Unsubscribe(unsubscribe)) => {
                shared.relays.unsubscribe(relay, unsubscribe.subscription);
            }
            Some(Message::Kept(kept)) => forget_deleted(shared, relay, &kept).await,
            Some(Message::Heartbeat(_)) | None => {}
        }
        shared.relays.received(relay, request.sequence, request.acknowledged);
    }
}

async fn subscribe_run(shared: &Arc<Shared>, relay: RelayId, subscribe: wire::SubscribeRun) {
    let found = async {
        let namespace = lookup::namespace(&subscribe.namespace)?;
        lookup::entry(shared, &namespace, &subscribe.run).await
    };
    let entry = match found.await {
        Ok(entry) => Ok(entry),
        Err(error) => {
            let status = Status::from(error);
            Err(wire::RunUpdate {
                subscription: subscribe.subscription,
                code: u32::try_from(i32::from(status.code())).unwrap_or(2),
                message: status.message().to_owned(),
                ..wire::RunUpdate::default()
            })
        }
    };
    shared.relays.with(relay, |session| match entry {
        Ok(entry) => session.subscribe(subscribe.subscription, entry),
        Err(refusal) if session.refusals.len() < MAX_REFUSALS => session.refusals.push_back(refusal),
        Err(_) => {}
    });
}

/// A relay has logs of these runs: what was deleted while it was away goes now.
async fn forget_deleted(shared: &Shared, relay: RelayId, kept: &wire::KeptRuns) {
    let runs: Vec<RunId> = kept.run_ids.iter().filter_map(|run| RunId::from_slice(run)).collect();
    // Without an answer it is asked again by the next stream.
    let Ok(store) = shared.store() else { return };
    match store.deleted_among(&runs).await {
        Ok(deleted) => shared.relays.with(relay, |session| {
            deleted.into_iter().for_each(|run| session.order(Order::Forget(run)));
        }),
        Err(error) => tracing::error!(%error, "store could not be read"),
    }
}

impl Relays {
    /// Attaches a stream to a relay, which is new or was known before, and tells it what it owns.
    fn attach(&self, of: RelayId, hello: wire::RelayHello, shared: &Shared) -> Result<Attached, SessionError> {
        let mut state = self.lock();
        if state.relays.len() >= MAX_RELAYS && !state.relays.contains_key(&of) {
            return Err(bad("hello.relay", &"too many log relays are connected"));
        }
        state.last_stream += 1;
        let number = state.last_stream;
        let token = CancellationToken::new();
        let known = state.relays.contains_key(&of);
        let relay = state
            .relays
            .entry(of)
            .or_insert_with(|| Relay::new(hello.name.clone(), hello.advertised_address.clone()));
        relay.name = hello.name;
        relay.address = hello.advertised_address;
        relay.gone_since = None;
        relay.restart();
        let wake = Arc::clone(&relay.wake);
        if let Some((_, older)) = relay.stream.replace((number, token.clone())) {
            older.cancel();
        }
        let sources = state.sources.iter();
        let own: Vec<_> = sources
            .filter(|(_, source)| source.relay.is_none() || source.relay == Some(of))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in own {
            state.assign(attempt, &shared.executors);
        }
        shared.executors.set_relays(Self::announced(&state));
        Ok(Attached {
            number,
            known,
            token,
            wake,
        })
    }

    /// Takes a stream away, unless another one took its place.
    fn detach(&self, of: RelayId, number: u64, shared: &Shared) {
        let now = shared.clock.now();
        self.with(of, |relay| {
            if relay.stream.as_ref().is_some_and(|(current, _)| *current == number) {
                relay.stream = None;
                relay.gone_since = Some(now);
            }
        });
    }

    fn unsubscribe(&self, of: RelayId, subscription: u64) {
        self.with(of, |relay| relay.unsubscribe(subscription));
    }

    fn received(&self, of: RelayId, sequence: u64, acknowledged: u64) {
        self.with(of, |relay| {
            relay.received = relay.received.max(sequence);
            relay.acknowledged(acknowledged);
        });
    }

    fn with(&self, of: RelayId, change: impl FnOnce(&mut Relay)) {
        if let Some(relay) = self.lock().relays.get_mut(&of) {
            change(relay);
            relay.wake.notify_one();
        }
    }
}
