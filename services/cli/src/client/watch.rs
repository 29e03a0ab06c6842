//! Watching a run to its end, across restarts of the server.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Code, Status};
use windlass_api::run::v1::run_service_client::RunServiceClient;
use windlass_api::run::v1::watch_run_response::Message;
use windlass_api::run::v1::{Run, RunEvent, Step, WatchEndReason, WatchRunRequest};

use super::OwnedTask;
use super::call::{Delays, cause, is_retryable};
use super::session::{Reach, Session};
use crate::errors::{CliError, Result};

/// Keep-alives come every 15 s; after three missed ones the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(50);

/// What happened to a watched run.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchItem {
    /// What was known before is void: a snapshot follows.
    Reset,
    /// Part of the state.
    Snapshot {
        /// The run, in the first part.
        run: Option<Box<Run>>,
        /// Steps.
        steps: Vec<Step>,
    },
    /// The state is complete.
    Synced,
    /// A change.
    Event(Box<RunEvent>),
    /// The connection broke; the watch goes on by itself.
    Lost {
        /// Why.
        cause: String,
    },
    /// The connection is back.
    Back,
    /// The run has ended.
    Ended(Option<Box<Run>>),
    /// The run was deleted.
    Deleted,
}

/// A watch; dropped, it stops.
#[derive(Debug)]
pub struct Watch {
    items: mpsc::Receiver<Result<WatchItem>>,
    _task: OwnedTask,
}

impl Watch {
    /// Begins to watch.
    pub fn start(session: &Session, run: &str) -> Self {
        let (sender, items) = mpsc::channel(256);
        let watcher = Watcher {
            reach: session.reach(),
            run: run.to_owned(),
            token: String::new(),
            lost: false,
            items: sender,
        };
        Self {
            items,
            _task: OwnedTask::spawn(watcher.run()),
        }
    }

    /// The next item; `None` after the end.
    ///
    /// # Errors
    /// When the watch cannot go on, for example because there is no such run.
    pub async fn next(&mut self) -> Option<Result<WatchItem>> {
        self.items.recv().await
    }
}

struct Watcher {
    reach: Reach,
    run: String,
    token: String,
    lost: bool,
    items: mpsc::Sender<Result<WatchItem>>,
}

/// Why one stream stopped.
enum Stop {
    /// For good: ended, or nobody listens.
    Done,
    /// Go on with the last token.
    Resume(Status),
}

impl Watcher {
    async fn run(mut self) {
        let mut delays = Delays::new();
        loop {
            let status = match self.stream(&mut delays).await {
                Stop::Done => return,
                Stop::Resume(status) => status,
            };
            match status.code() {
                // The history before our token is gone: begin anew.
                Code::OutOfRange => self.token.clear(),
                Code::ResourceExhausted => {}
                _ if is_retryable(&status) => {
                    if !self.lost {
                        self.lost = true;
                        let cause = cause(&status);
                        if !self.send(WatchItem::Lost { cause }).await {
                            return;
                        }
                    }
                }
                _ => {
                    drop(self.items.send(Err(CliError::from_status(&status))).await);
                    return;
                }
            }
            tokio::time::sleep(delays.next(&status)).await;
        }
    }

    async fn stream(&mut self, delays: &mut Delays) -> Stop {
        let request = WatchRunRequest {
            namespace: self.reach.namespace.clone(),
            run: self.run.clone(),
            resume_token: self.token.clone(),
        };
        let mut client = RunServiceClient::new(self.reach.channel.clone());
        let mut stream = match client.watch_run(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Stop::Resume(status),
        };
        if self.token.is_empty() && !self.send(WatchItem::Reset).await {
            return Stop::Done;
        }
        loop {
            let message = match tokio::time::timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(message))) => message.message,
                Ok(Ok(None)) => return Stop::Resume(Status::unavailable("the stream ended early")),
                Ok(Err(status)) => return Stop::Resume(status),
                Err(_) => return Stop::Resume(Status::unavailable("nothing was heard for 50 s")),
            };
            if self.lost {
                self.lost = false;
                if !self.send(WatchItem::Back).await {
                    return Stop::Done;
                }
            }
            delays.reset();
            if let Some(stop) = self.handle(message).await {
                return stop;
            }
        }
    }

    async fn handle(&mut self, message: Option<Message>) -> Option<Stop> {
        let item = match message? {
            Message::Snapshot(chunk) => WatchItem::Snapshot {
                run: chunk.run.map(Box::new),
                steps: chunk.steps,
            },
            Message::Synced(synced) => {
                self.token = synced.resume_token;
                WatchItem::Synced
            }
            Message::Event(event) => {
                self.token = event.resume_token;
                WatchItem::Event(Box::new(event.event?))
            }
            Message::KeepAlive(alive) => {
                if !alive.resume_token.is_empty() {
                    self.token = alive.resume_token;
                }
                return None;
            }
            Message::End(end) => match end.reason() {
                WatchEndReason::ShuttingDown => {
                    if !end.resume_token.is_empty() {
                        self.token = end.resume_token;
                    }
                    return Some(Stop::Resume(Status::unavailable("the server is shutting down")));
                }
                WatchEndReason::RunDeleted => WatchItem::Deleted,
                WatchEndReason::RunEnded | WatchEndReason::Unspecified => WatchItem::Ended(end.run.map(Box::new)),
            },
        };
        let last = matches!(item, WatchItem::Ended(_) | WatchItem::Deleted);
        let heard = self.send(item).await;
        (last || !heard).then_some(Stop::Done)
    }

    async fn send(&self, item: WatchItem) -> bool {
        self.items.send(Ok(item)).await.is_ok()
    }
}
