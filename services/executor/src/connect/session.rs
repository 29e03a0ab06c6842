//! The session with the scheduler: one bidirectional stream after another.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::connect_request::Message as Request;
use windlass_api::dispatch::v1::connect_response::Message as Response;
use windlass_api::dispatch::v1::dispatch_service_client::DispatchServiceClient;
use windlass_api::{DISPATCH_CAPABILITIES, INTERNAL_PROTOCOL, INTERNAL_PROTOCOL_MIN};
use windlass_ids::InstallationId;
use windlass_service::{Backoff, BackoffSettings, ChannelSettings, connect_lazy};

use super::{Lease, Outbox};
use crate::agent::Event;
use crate::metrics;

/// How long the scheduler may take to welcome us.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats when the scheduler does not say.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Lease when the scheduler does not say.
const LEASE: Duration = Duration::from_secs(30);
/// How long a call of the scheduler may take when it does not say.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of one message of the scheduler; a template of a step has up to 3 MiB, the files of a run twice their size in JSON.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_secs(5),
};

/// Who this executor is.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    /// UUID of this process.
    pub(crate) incarnation: String,
    /// Name for people.
    pub(crate) name: String,
    /// Uid of the cluster.
    pub(crate) cluster_uid: String,
    /// Alias of the cluster.
    pub(crate) cluster_alias: String,
    /// Launches that it takes before they are acknowledged.
    pub(crate) credit: u32,
    /// Whether the cluster is the embedded local one.
    pub(crate) local_cluster: bool,
    /// The only installation that it serves, if there is one.
    pub(crate) installation: Option<InstallationId>,
}

/// What the scheduler said when the stream began.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    /// The installation.
    pub(crate) installation: InstallationId,
    /// Whether the session goes on where it was.
    pub(crate) resumed: bool,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the scheduler said nothing in time")]
    Silent,
    #[error("the scheduler ended the stream")]
    Ended,
    #[error("the scheduler broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the executor stops")]
    Stopping,
}

/// Keeps a session with the scheduler until `stop`.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where the scheduler is.
    pub(crate) channel: ChannelSettings,
    /// Who we are.
    pub(crate) introduction: Introduction,
    /// What we say.
    pub(crate) outbox: Arc<Outbox>,
    /// Under which we act.
    pub(crate) lease: Arc<Lease>,
    /// Who hears what the scheduler says.
    pub(crate) agent: mpsc::Sender<Event>,
    /// Epoch of the scheduler that was last heard.
    pub(crate) epoch: u64,
}

impl Session {
    /// Connects again and again.
    ///
    /// # Errors
    /// When the address or the token cannot be used.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), windlass_service::ChannelError> {
        let client = DispatchServiceClient::new(connect_lazy(&self.channel)?);
        let mut client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut backoff = Backoff::new(BACKOFF);
        while !stop.is_cancelled() {
            let mut welcomed = false;
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.stream(&mut client, &mut welcomed) => ended,
            };
            metrics::set_flag(metrics::CONNECTED, false);
            if welcomed {
                backoff.reset();
                if self.agent.send(Event::Down).await.is_err() {
                    return Ok(());
                }
            }
            let delay = backoff.next_delay(&mut rand::rng());
            if let Err(error) = ended {
                tracing::warn!(%error, scheduler = %self.channel.address, retry_in = ?delay, "session with the scheduler ended");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
        Ok(())
    }

    async fn stream(
        &mut self,
        client: &mut DispatchServiceClient<windlass_service::AuthenticatedChannel>,
        welcomed: &mut bool,
    ) -> Result<(), SessionError> {
        let (send, requests) = mpsc::channel(16);
        let hello = dispatch::ConnectRequest {
            acknowledged: self.outbox.taken(),
            message: Some(Request::Hello(self.hello())),
            ..dispatch::ConnectRequest::default()
        };
        let hello_sent = Instant::now();
        send.send(hello).await.map_err(|_| SessionError::Ended)?;
        let opened = tokio::time::timeout(WELCOME_TIMEOUT, client.connect(ReceiverStream::new(requests))).await;
        let mut responses = opened.map_err(|_| SessionError::Silent)??.into_inner();
        let welcome = self.welcome(&mut responses, hello_sent).await?;
        *welcomed = true;
        metrics::set_flag(metrics::CONNECTED, true);
        let heartbeat = welcome.heartbeat_interval.and_then(duration).unwrap_or(HEARTBEAT);
        let outbox = self.outbox.clone();
        let write = async {
            loop {
                let message = outbox.next(heartbeat).await;
                if send.send(message).await.is_err() {
                    return Err(SessionError::Ended);
                }
            }
        };
        let silence = heartbeat.saturating_mul(4).max(Duration::from_secs(10));
        tokio::select! {
            ended = write => ended,
            ended = self.read(&mut responses, silence) => ended,
        }
    }

    fn hello(&self) -> dispatch::ExecutorHello {
        let introduction = self.introduction.clone();
        dispatch::ExecutorHello {
            incarnation: introduction.incarnation,
            name: introduction.name,
            protocol_min: INTERNAL_PROTOCOL_MIN,
            protocol_max: INTERNAL_PROTOCOL,
            capabilities: DISPATCH_CAPABILITIES.map(str::to_owned).to_vec(),
            cluster_uid: introduction.cluster_uid,
            cluster_alias: introduction.cluster_alias,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            credit: introduction.credit,
            resume_epoch: self.epoch,
            resume_sequence: self.outbox.taken(),
            local_cluster: introduction.local_cluster,
        }
    }

    async fn welcome(
        &mut self,
        responses: &mut Streaming<dispatch::ConnectResponse>,
        hello_sent: Instant,
    ) -> Result<dispatch::SchedulerWelcome, SessionError> {
        let first = tokio::time::timeout(WELCOME_TIMEOUT, responses.message()).await;
        let first = first.map_err(|_| SessionError::Silent)??.ok_or(SessionError::Ended)?;
        let Some(Response::Welcome(welcome)) = first.message else {
            return Err(SessionError::Protocol("its first message is no welcome"));
        };
        if !(INTERNAL_PROTOCOL_MIN..=INTERNAL_PROTOCOL).contains(&welcome.protocol) {
            return Err(SessionError::Protocol("it chose a protocol that was not offered"));
        }
        if welcome.epoch < self.epoch {
            return Err(SessionError::Protocol(
                "its epoch is older than the last one: it was replaced",
            ));
        }
        let installation = welcome.installation.parse();
        let installation = installation.map_err(|_| SessionError::Protocol("its installation is no UUID"))?;
        if self.introduction.installation.is_some_and(|only| only != installation) {
            return Err(SessionError::Protocol("its installation is not that of --installation"));
        }
        let resumed = welcome.resumed && welcome.epoch == self.epoch;
        self.epoch = welcome.epoch;
        let length = welcome.lease.and_then(duration).unwrap_or(LEASE);
        self.lease.granted(length, hello_sent);
        self.outbox.begin_stream(welcome.received_sequence, resumed);
        tracing::info!(epoch = welcome.epoch, resumed, %installation, "session with the scheduler began");
        let (taken, up) = oneshot::channel();
        let began = Event::Up(Welcome { installation, resumed }, taken);
        self.agent.send(began).await.map_err(|_| SessionError::Stopping)?;
        up.await.map_err(|_| SessionError::Stopping)?;
        Ok(welcome)
    }

    async fn read(
        &self,
        responses: &mut Streaming<dispatch::ConnectResponse>,
        silence: Duration,
    ) -> Result<(), SessionError> {
        loop {
            let next = tokio::time::timeout(silence, responses.message()).await;
            let response = next.map_err(|_| SessionError::Silent)??.ok_or(SessionError::Ended)?;
            if let Some(sent) = self.outbox.instant_of(response.heard_ms) {
                self.lease.renew(sent);
            }
            self.outbox.acknowledged(response.acknowledged);
            let taken = self.outbox.taken();
            let Some(message) = response.message else { continue };
            let stream = self.outbox.stream();
            let message = match message {
                Response::SecretCall(call) => {
                    let call = Box::new(call);
                    let asked = Event::SecretCall { stream, call };
                    self.agent.send(asked).await.map_err(|_| SessionError::Stopping)?;
                    continue;
                }
                Response::RunSecretCall(call) => {
                    let call = Box::new(call);
                    let asked = Event::RunSecretCall { stream, call };
                    self.agent.send(asked).await.map_err(|_| SessionError::Stopping)?;
                    continue;
                }
                Response::ScheduleSecretCall(call) => {
                    let call = Box::new(call);
                    let asked = Event::ScheduleSecretCall { stream, call };
                    self.agent.send(asked).await.map_err(|_| SessionError::Stopping)?;
                    continue;
                }
                Response::ClusterCall(call) => {
                    let asked = Event::ClusterCall { stream, call };
                    self.agent.send(asked).await.map_err(|_| SessionError::Stopping)?;
                    continue;
                }
                message => message,
            };
            if response.sequence == 0 || response.sequence <= taken {
                continue;
            }
            if response.sequence != taken + 1 {
                return Err(SessionError::Protocol("a message is missing"));
            }
            let command = Event::Command {
                sequence: response.sequence,
                message: Box::new(message),
            };
            self.agent.send(command).await.map_err(|_| SessionError::Stopping)?;
            self.outbox.took(response.sequence);
        }
    }
}

/// Until when an answer to a call that comes now is waited for.
pub(crate) fn deadline(timeout: Option<prost_types::Duration>) -> Instant {
    Instant::now() + timeout.and_then(duration).unwrap_or(CALL_TIMEOUT)
}

/// A duration of a message; nothing when it is negative or zero.
pub(crate) fn duration(duration: prost_types::Duration) -> Option<Duration> {
    Duration::try_from(duration).ok().filter(|duration| !duration.is_zero())
}
