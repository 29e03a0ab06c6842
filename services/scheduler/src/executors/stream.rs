//! One stream of an executor: Hello and Welcome, then a reader and a writer that do not wait for each other.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use windlass_api::DISPATCH_CAPABILITIES;
use windlass_api::convert::duration_to_proto;
use windlass_api::dispatch::v1 as wire;
use windlass_api::dispatch::v1::connect_request::Message;
use windlass_scheduling::{Event, Rejection};

use super::convert;
use super::hello::Hello;
use super::inventory::InventoryChunk;
use super::session::Session;
use crate::driver::{Command, ConnectOrder, Disconnected, Refusal, Report};
use crate::errors::{SessionError, Unavailable};
use crate::shared::{Partition, Shared};

/// Messages between a stream's writer and its connection: a slow executor slows only itself (I11).
const OUTGOING: usize = 8;

/// What the writer hands to the connection.
pub(crate) type Outgoing = mpsc::Receiver<Result<wire::ConnectResponse, Status>>;

/// Serves a stream: returns once the Welcome is said; the rest goes on in tasks that end with the stream or at `shutdown`.
///
/// # Errors
/// See [`SessionError`].
pub(crate) async fn connect(
    shared: Arc<Shared>,
    mut incoming: Streaming<wire::ConnectRequest>,
    shutdown: CancellationToken,
) -> Result<Outgoing, SessionError> {
    let hello = match incoming.message().await {
        Ok(Some(wire::ConnectRequest {
            message: Some(Message::Hello(hello)),
            ..
        })) => Hello::check(hello)?,
        Ok(_) | Err(_) => return Err(SessionError::NoHello),
    };
    let partition = shared.partition()?;
    let (session, resumed) = open_session(&shared, &partition, &hello).await?;
    let (generation, stream) = session.attach(shared.clock.now());
    tracing::info!(
        executor_id = %session.incarnation,
        name = session.name,
        cluster = %session.alias,
        resumed,
        "executor connected"
    );
    let (outgoing, receiver) = mpsc::channel(OUTGOING);
    let welcome = welcome(&shared, &partition, &session, &hello, resumed);
    // The channel is empty and its receiver is here.
    outgoing.try_send(Ok(welcome)).map_err(|_| SessionError::Replaced)?;
    let reader = Reader {
        shared: Arc::clone(&shared),
        session: Arc::clone(&session),
        acknowledged: 0,
    };
    let writer = Writer {
        heartbeat: shared.timing.heartbeat,
        session,
        generation,
        outgoing,
    };
    tokio::spawn(serve(reader, incoming, writer, stream, shutdown));
    Ok(receiver)
}

/// The session that the stream goes on with and whether it is resumed, once the core knows of it durably.
///
/// # Errors
/// When the core refuses the executor or does not answer.
pub(crate) async fn open_session(
    shared: &Shared,
    partition: &Partition,
    hello: &Hello,
) -> Result<(Arc<Session>, bool), SessionError> {
    if let Some(session) = resumable(shared, partition, hello) {
        match announce(shared, &session, hello, true).await? {
            Announced::Accepted => return Ok((session, true)),
            // Its lease has ended, and others may have its shards: what it was told must not be said again.
            Announced::GivenUp => session.retire(),
        }
    }
    let session = Arc::new(Session::new(hello, partition.epoch));
    match announce(shared, &session, hello, false).await? {
        Announced::Accepted => Ok((session, false)),
        Announced::GivenUp => Err(SessionError::Replaced),
    }
}

/// The session of an executor that remembers it, when everything it missed is kept.
fn resumable(shared: &Shared, partition: &Partition, hello: &Hello) -> Option<Arc<Session>> {
    let session = shared.executors.get(hello.incarnation)?;
    // Whatever follows, an older stream ends now: its end must not be reported after the beginning of this one.
    session.detach();
    let known = session.epoch == partition.epoch && hello.resume_epoch == partition.epoch;
    if known && session.resume(hello.resume_sequence) {
        return Some(session);
    }
    // Reports of it that still wait would be taken for reports of the session that takes its place.
    session.retire();
    None
}

/// What the core says of an executor that connects.
enum Announced {
    Accepted,
    /// It does not know the session that was to be resumed.
    GivenUp,
}

/// Tells the core, and waits until that is durable.
async fn announce(
    shared: &Shared,
    session: &Arc<Session>,
    hello: &Hello,
    resumed: bool,
) -> Result<Announced, SessionError> {
    let event = Event::ExecutorConnected {
        incarnation: session.incarnation,
        cluster: session.cluster.clone(),
        alias: session.alias.clone(),
        credit: hello.credit,
        resumed,
    };
    let (reply, answer) = oneshot::channel();
    let order = ConnectOrder {
        event,
        session: Arc::clone(session),
        reply,
    };
    shared.inbox.send(Command::Connect(Box::new(order))).await?;
    match answer.await {
        Ok(Ok(())) => Ok(Announced::Accepted),
        Ok(Err(Refusal::Rejected(Rejection::UnknownExecutor { .. }))) => Ok(Announced::GivenUp),
        Ok(Err(Refusal::Rejected(rejection))) => Err(refused(session, rejection)),
        Ok(Err(Refusal::NotEnded)) | Err(_) => Err(Unavailable::ShuttingDown.into()),
        Ok(Err(Refusal::Unavailable(error))) => Err(error.into()),
    }
}

fn refused(session: &Session, rejection: Rejection) -> SessionError {
    match rejection {
        Rejection::AliasTaken { alias, owner } => SessionError::AliasTaken {
            alias: alias.0,
            known: owner.0,
            offered: session.cluster.0.clone(),
        },
        other => SessionError::BadHello {
            field: "hello.cluster_alias",
            fault: other.to_string(),
        },
    }
}

fn welcome(
    shared: &Shared,
    partition: &Partition,
    session: &Session,
    hello: &Hello,
    resumed: bool,
) -> wire::ConnectResponse {
    let received = session.tell(|outbox| outbox.received());
    let welcome = wire::SchedulerWelcome {
        protocol: hello.protocol,
        capabilities: DISPATCH_CAPABILITIES.map(str::to_owned).to_vec(),
        installation: partition.installation.to_string(),
        epoch: partition.epoch,
        lease: Some(duration_to_proto(shared.timing.lease)),
        resumed,
        received_sequence: received,
        heartbeat_interval: Some(duration_to_proto(shared.timing.heartbeat)),
    };
    wire::ConnectResponse {
        acknowledged: received,
        message: Some(wire::connect_response::Message::Welcome(welcome)),
        ..wire::ConnectResponse::default()
    }
}

async fn serve(
    reader: Reader,
    incoming: Streaming<wire::ConnectRequest>,
    writer: Writer,
    stream: CancellationToken,
    shutdown: CancellationToken,
) {
    let (session, shared) = (Arc::clone(&reader.session), Arc::clone(&reader.shared));
    let ended = tokio::select! {
        error = reader.read(incoming) => error,
        () = writer.write() => None,
        () = stream.cancelled() => Some(SessionError::Replaced),
        () = shutdown.cancelled() => Some(Unavailable::ShuttingDown.into()),
    };
    session.stream_ended(writer.generation);
    let incarnation = session.incarnation;
    tracing::info!(executor_id = %incarnation, reason = ended.as_ref().map(tracing::field::display), "executor's stream ended");
    if !stream.is_cancelled() {
        stream.cancel();
        let gone = Disconnected {
            session,
            stream: writer.generation,
        };
        // Without a driver nobody needs to know.
        shared.inbox.send(Command::Disconnected(gone)).await.ok();
    }
    if let Some(error) = ended {
        writer.outgoing.try_send(Err(error.into())).ok();
    }
}

/// Sends what there is to say, and heartbeats when there is nothing.
struct Writer {
    heartbeat: Duration,
    session: Arc<Session>,
    generation: u64,
    outgoing: mpsc::Sender<Result<wire::ConnectResponse, Status>>,
}

impl Writer {
    /// Ends when the connection takes no more, or another stream took over.
    async fn write(&self) {
        loop {
            let Ok(room) = self.outgoing.reserve().await else {
                return;
            };
            let message = match self.session.next(self.generation) {
                Some(message) => Some(message),
                None => tokio::select! {
                    () = self.session.woken() => continue,
                    () = self.outgoing.closed() => return,
                    () = tokio::time::sleep(self.heartbeat) => self.session.heartbeat(self.generation),
                },
            };
            match message {
                Some(message) => room.send(Ok(message)),
                None => return,
            }
        }
    }
}

/// Turns messages into events and waits for room in the driver's inbox, never for the writer.
struct Reader {
    shared: Arc<Shared>,
    session: Arc<Session>,
    acknowledged: u64,
}

impl Reader {
    async fn read(mut self, mut incoming: Streaming<wire::ConnectRequest>) -> Option<SessionError> {
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message,
                Ok(None) | Err(_) => return None,
            };
            let (sequence, bytes) = (message.sequence, message.encoded_len());
            let report = match self.report(message) {
                Ok(report) => report,
                Err(fault) => return Some(SessionError::BadMessage { sequence, fault }),
            };
            if let Err(error) = self.shared.inbox.report(report, bytes).await {
                return Some(error.into());
            }
        }
    }

    fn report(&mut self, message: wire::ConnectRequest) -> Result<Report, convert::Fault> {
        let mut report = Report::new(Arc::clone(&self.session), message.sequence);
        report.sent_ms = message.sent_ms;
        if message.acknowledged > self.acknowledged {
            self.acknowledged = message.acknowledged;
            report.launched = self.session.tell(|outbox| outbox.acknowledged(message.acknowledged));
        }
        if let Some(message) = message.message {
            self.events(message, &mut report)?;
        }
        Ok(report)
    }

    fn events(&self, message: Message, report: &mut Report) -> Result<(), convert::Fault> {
        let incarnation = self.session.incarnation;
        match message {
            Message::Hello(_) => return Err("a second Hello".to_owned()),
            Message::Heartbeat(_) => {}
            Message::SecretAnswer(answer) => self.session.answered::<wire::SecretCall>(answer),
            Message::RunSecretAnswer(answer) => self.session.answered::<wire::RunSecretCall>(answer),
            Message::ScheduleSecretAnswer(answer) => self.session.answered::<wire::ScheduleSecretCall>(answer),
            Message::Draining(_) => report.events.push(Event::ExecutorDraining { incarnation }),
            Message::ClusterAnswer(answer) => self.session.answered::<wire::ClusterCall>(answer),
            Message::Credit(wire::Credit { credit }) => {
                self.session.note_credit(credit);
                report.events.push(Event::CreditChanged { incarnation, credit });
            }
            Message::Sight(sight) => {
                let visible = sight.visible;
                self.session.note_sight(sight);
                report.events.push(Event::ClusterSightChanged { incarnation, visible });
            }
            Message::Observations(observations) => {
                for mut message in observations.observations {
                    let containers = std::mem::take(&mut message.containers);
                    let observation = convert::observation(message)?;
                    if !containers.is_empty() {
                        report.containers.insert(observation.attempt, containers);
                    }
                    report.events.push(Event::AttemptObserved {
                        by: incarnation,
                        observation,
                    });
                }
            }
            Message::Inventory(chunk) => report.chunk = Some(InventoryChunk::read(chunk)?),
        }
        Ok(())
    }
}
