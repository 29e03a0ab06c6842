//! A log relay that plays a script over the real protocol.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use windlass_api::follow::v1 as wire;
use windlass_api::follow::v1::follow_service_client::FollowServiceClient;
use windlass_api::follow::v1::{follow_request, follow_response};

use crate::support::Scheduler;

/// What the relay was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) assigns: Vec<wire::Assign>,
    pub(crate) forgotten: Vec<Vec<u8>>,
    pub(crate) abandoned: Vec<wire::Abandon>,
    pub(crate) updates: Vec<wire::RunUpdate>,
    pub(crate) welcomes: usize,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) id: String,
    /// Whether logs are sealed as soon as their attempt has ended.
    seals: bool,
    told: Arc<Mutex<Told>>,
    subscribe: Option<String>,
    /// Runs of which it has logs.
    kept: Vec<Vec<u8>>,
}

impl Relay {
    pub(crate) fn new(number: u8, seals: bool) -> Self {
        Self {
            id: format!("00000000-0000-4000-9000-0000000000{number:02x}"),
            seals,
            told: Arc::default(),
            subscribe: None,
            kept: Vec::new(),
        }
    }

    /// Subscribes to a run as soon as it is welcome.
    pub(crate) fn subscribing(mut self, run: &str) -> Self {
        self.subscribe = Some(run.to_owned());
        self
    }

    /// Says that it has logs of these runs.
    pub(crate) fn keeping(mut self, runs: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.kept.extend(runs);
        self
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spawn(&self, scheduler: &Scheduler) -> JoinHandle<()> {
        let (relay, channel) = (self.clone(), scheduler.channel());
        tokio::spawn(async move {
            let (outgoing, receiver) = mpsc::channel(64);
            outgoing.send(relay.hello()).await.expect("the receiver is here");
            let mut client = FollowServiceClient::new(channel);
            let Ok(answer) = client.follow(ReceiverStream::new(receiver)).await else {
                return;
            };
            let mut incoming = answer.into_inner();
            while let Ok(Some(message)) = incoming.message().await {
                for reply in relay.take(message) {
                    if outgoing.send(reply).await.is_err() {
                        return;
                    }
                }
            }
        })
    }

    fn hello(&self) -> wire::FollowRequest {
        request(follow_request::Message::Hello(wire::RelayHello {
            relay: self.id.clone(),
            name: "relay-1".to_owned(),
            advertised_address: format!("127.0.0.1:{}", 7_000),
            protocol_min: 1,
            protocol_max: 1,
            version: "0".to_owned(),
        }))
    }

    fn take(&self, message: wire::FollowResponse) -> Vec<wire::FollowRequest> {
        use follow_response::Message;
        let mut told = self.told();
        match message.message.expect("a message") {
            Message::Welcome(welcome) => {
                told.welcomes += 1;
                let subscribe = self.subscribe.iter().map(|run| {
                    request(follow_request::Message::Subscribe(wire::SubscribeRun {
                        subscription: 1,
                        namespace: "ml".to_owned(),
                        run: run.clone(),
                    }))
                });
                let kept = welcome.wants_kept.then(|| {
                    request(follow_request::Message::Kept(wire::KeptRuns {
                        run_ids: self.kept.clone(),
                    }))
                });
                return subscribe.chain(kept).collect();
            }
            Message::Assign(assign) => {
                let source = assign.source.clone().expect("a source");
                let sealed = wire::FollowRequest {
                    sequence: told.assigns.len() as u64 + 1,
                    ..request(follow_request::Message::Sealed(wire::Sealed {
                        grant: assign.grant,
                        run_id: source.run_id,
                        step: source.step,
                        attempt: source.attempt,
                        pod_uid: source.pod_uid,
                        complete: true,
                        ..wire::Sealed::default()
                    }))
                };
                told.assigns.push(assign);
                if self.seals && source.ended {
                    return vec![sealed];
                }
            }
            Message::Forget(forget) => told.forgotten.push(forget.run_id),
            Message::Abandon(abandon) => told.abandoned.push(abandon),
            Message::Run(update) => told.updates.push(update),
            Message::Revoke(_) | Message::Heartbeat(_) => {}
        }
        Vec::new()
    }
}

fn request(message: follow_request::Message) -> wire::FollowRequest {
    wire::FollowRequest {
        message: Some(message),
        ..wire::FollowRequest::default()
    }
}
