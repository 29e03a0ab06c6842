//! WatchRun: a snapshot, a mark, events, keep-alives, an end. Only what is durable is shown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use windlass_api::convert::timestamp_to_proto;
use windlass_api::run::v1 as wire;
use windlass_api::run::v1::watch_run_response::Message;
use windlass_ids::StepIndex;

use super::Api;
use super::encoded::Frames;
use crate::errors::{LookupError, WatchError};
use crate::history::{failed, lookup_error, replay};
use crate::lookup;
use crate::metric;
use crate::read_model::render::{self, StepDetail};
use crate::read_model::{
    HubPhase, More, RunEntry, RunRecord, Watching, WithRun, event, event_frame, frame, resume_sequence, resume_token,
};
use crate::store::{HistoryError, MAX_HISTORY, RunHeader};

/// Messages between a watcher's task and its connection.
const OUTGOING: usize = 16;
/// Bytes of a snapshot chunk from which the next one begins; far below 1 MiB.
const CHUNK_BYTES: usize = 512 * 1024;
/// Events that are taken from the hub at a time.
const EVENTS: usize = 256;

/// How long a client may take for one message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a message was not sent.
#[derive(Clone, Copy)]
enum Over {
    /// The connection is gone.
    Gone,
    /// The client does not take its messages.
    Slow,
}

type Sender = mpsc::Sender<Result<Bytes, Status>>;

impl Api {
    pub(super) async fn watch(&self, request: wire::WatchRunRequest) -> Result<Frames, WatchError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let header = lookup::header(&self.shared, &namespace, &request.run).await?;
        let entry = lookup::entry_of(&self.shared, &header).await?;
        let resume = match request.resume_token.as_str() {
            "" => None,
            token => Some(resume_sequence(token, header.id).ok_or(WatchError::BadToken)?),
        };
        if resume.is_some_and(|sequence| sequence > entry.record().last_sequence) {
            return Err(WatchError::BadToken);
        }
        let permit = Arc::clone(&self.shared.watchers)
            .try_acquire_owned()
            .map_err(|_| WatchError::TooMany)?;
        if let Some(sequence) = resume {
            self.check_kept(&header, sequence).await?;
        }
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let watcher = Watcher {
            api: self.clone(),
            header,
            entry,
            sender,
            _permit: permit,
        };
        tokio::spawn(watcher.run(resume));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// A token whose events are gone is refused at once, as a status of the call itself.
    async fn check_kept(&self, header: &RunHeader, sequence: u64) -> Result<(), WatchError> {
        match self.shared.store()?.history(header.id, sequence + 1, 1).await {
            Ok(_) => Ok(()),
            Err(HistoryError::TooOld { .. } | HistoryError::NotFound) => Err(WatchError::TokenTooOld),
            Err(HistoryError::Store(error)) => Err(failed(&error).into()),
        }
    }
}

/// One watch.
struct Watcher {
    api: Api,
    header: RunHeader,
    entry: Arc<RunEntry>,
    sender: Sender,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(self, resume: Option<u64>) {
        metrics::gauge!(metric::WATCHERS).increment(1);
        let outcome = self.follow(resume).await;
        metrics::gauge!(metric::WATCHERS).decrement(1);
        if let Err(error) = outcome {
            // Room is not certain: the last message of a watcher that was too slow has to wait for it.
            self.sender.send_timeout(Err(error.into()), PATIENCE).await.ok();
        }
    }

    async fn follow(&self, resume: Option<u64>) -> Result<(), WatchError> {
        let (mut watching, start, snapshot) = {
            let (record, watching) = self.entry.watch();
            (
                watching,
                record.last_sequence,
                resume.is_none().then(|| Arc::clone(&record)),
            )
        };
        let mut position = resume.unwrap_or(start);
        if let Some(record) = snapshot {
            match self.snapshot(&record).await {
                Ok(()) => {}
                Err(Over::Gone) => return Ok(()),
                Err(Over::Slow) => return Err(self.too_slow(None)),
            }
        }
        if matches!(watching.events_after(position, 1), More::Gone) {
            match self.replay(position, start).await {
                Err(WatchError::Lookup(LookupError::UnknownRun { .. })) => {
                    self.end(wire::WatchEndReason::RunDeleted, position).await.ok();
                    return Ok(());
                }
                replayed => match replayed? {
                    Ok(until) => position = until,
                    Err(Stop::Over) => return Ok(()),
                    Err(Stop::TooSlow(position)) => return Err(self.too_slow(Some(position))),
                },
            }
        }
        match self.events(&mut watching, position).await {
            Ok(()) | Err(Stop::Over) => Ok(()),
            Err(Stop::TooSlow(position)) => Err(self.too_slow(Some(position))),
        }
    }

    /// What a watcher is told that did not take its messages up to `position`, or its whole snapshot.
    fn too_slow(&self, position: Option<u64>) -> WatchError {
        metrics::counter!(metric::SLOW_WATCHERS).increment(1);
        WatchError::TooSlow {
            resume_token: position.map_or_else(String::new, |position| resume_token(self.header.id, position)),
        }
    }

    async fn snapshot(&self, record: &RunRecord) -> Result<(), Over> {
        let meta = self.entry.meta();
        let mut chunk = wire::SnapshotChunk {
            run: Some(render::run(meta, record)),
            steps: Vec::new(),
        };
        let mut bytes = 0;
        for index in 0..record.len() {
            let index = StepIndex(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(step) = record.step(index) else {
                break;
            };
            let step = render::step(meta, record, &step, StepDetail::Newest);
            bytes += prost::Message::encoded_len(&step);
            chunk.steps.push(step);
            if bytes > CHUNK_BYTES {
                bytes = 0;
                self.send(Message::Snapshot(std::mem::take(&mut chunk))).await?;
            }
        }
        if chunk.run.is_some() || !chunk.steps.is_empty() {
            self.send(Message::Snapshot(chunk)).await?;
        }
        let resume_token = resume_token(self.header.id, record.last_sequence);
        self.send(Message::Synced(wire::Synced { resume_token })).await
    }

    /// Sends the events after `from` up to `until` from the store's history.
    async fn replay(&self, from: u64, until: u64) -> Result<Result<u64, Stop>, WatchError> {
        let store = self.api.shared.store()?;
        let past = replay(store.as_ref(), &self.header, from).await?;
        let mut record = RunRecord::clone(&past.record());
        while record.last_sequence < until {
            let next = record.last_sequence + 1;
            let changes = store.history(self.header.id, next, MAX_HISTORY).await;
            let changes = changes.map_err(|error| match error {
                HistoryError::TooOld { .. } => WatchError::TokenTooOld,
                error => lookup_error(error, &self.header).into(),
            })?;
            if changes.is_empty() {
                return Err(LookupError::StoreFailed.into());
            }
            for change in changes.iter().take_while(|change| change.sequence <= until) {
                let before = record.last_sequence;
                record.apply(change);
                let with_run = if change.sequence == until {
                    WithRun::Yes
                } else {
                    WithRun::IfChanged
                };
                let event = event(past.meta(), &record, change, with_run);
                if let Err(over) = self.send_frame(event_frame(self.header.id, event)).await {
                    return Ok(Err(over.after(before)));
                }
            }
        }
        Ok(Ok(record.last_sequence))
    }

    async fn events(&self, watching: &mut Watching, mut position: u64) -> Result<(), Stop> {
        loop {
            let newest = tokio::select! {
                newest = watching.wait_after(position) => newest,
                () = self.sender.closed() => return Err(Stop::Over),
                () = self.api.shutdown.cancelled() => {
                    return self.end(wire::WatchEndReason::ShuttingDown, position).await;
                }
                () = tokio::time::sleep(self.api.shared.timing.keep_alive) => {
                    self.keep_alive(position).await?;
                    continue;
                }
            };
            if newest.sequence > position {
                let events = match watching.events_after(position, EVENTS) {
                    More::Events(events) => events,
                    More::Gone => return Err(Stop::TooSlow(position)),
                };
                for (sequence, event) in events {
                    self.send_frame(event).await.map_err(|over| over.after(position))?;
                    position = sequence;
                }
                continue;
            }
            match newest.phase {
                HubPhase::Open => {}
                HubPhase::Ended => return self.end(wire::WatchEndReason::RunEnded, position).await,
                HubPhase::Closed => return self.end(wire::WatchEndReason::ShuttingDown, position).await,
            }
        }
    }

    async fn keep_alive(&self, position: u64) -> Result<(), Stop> {
        let keep_alive = wire::KeepAlive {
            resume_token: resume_token(self.header.id, position),
            time: Some(timestamp_to_proto(self.api.shared.clock.now())),
        };
        let sent = self.send(Message::KeepAlive(keep_alive)).await;
        sent.map_err(|over| over.after(position))
    }

    async fn end(&self, reason: wire::WatchEndReason, position: u64) -> Result<(), Stop> {
        let ended = reason != wire::WatchEndReason::ShuttingDown;
        let end = wire::WatchEnd {
            reason: reason.into(),
            run: Some(render::run(self.entry.meta(), &self.entry.record())),
            resume_token: if ended {
                String::new()
            } else {
                resume_token(self.header.id, position)
            },
        };
        let sent = self.send(Message::End(end)).await;
        sent.map_err(|over| over.after(position))
    }

    async fn send(&self, message: Message) -> Result<(), Over> {
        self.send_frame(frame(message)).await
    }

    async fn send_frame(&self, frame: Bytes) -> Result<(), Over> {
        let sent = self.sender.send_timeout(Ok(frame), PATIENCE).await;
        sent.map_err(|error| match error {
            SendTimeoutError::Closed(_) => Over::Gone,
            SendTimeoutError::Timeout(_) => Over::Slow,
        })
    }
}

/// Why a watch stops before its end.
enum Stop {
    /// The connection is gone, so that nothing is left to be said.
    Over,
    /// The client was too slow; the sequence number of the last event that it was sent.
    TooSlow(u64),
}

impl Over {
    fn after(self, position: u64) -> Stop {
        match self {
            Self::Gone => Stop::Over,
            Self::Slow => Stop::TooSlow(position),
        }
    }
}
