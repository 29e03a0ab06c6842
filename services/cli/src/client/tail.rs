//! Tailing logs across restarts of the relay: no line lost, none twice.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Code, Status};
use windlass_api::log::v1::tail_logs_request::From;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{End, EndReason, EndWhen, Line, Mark, MarkKind, Source, TailLogsRequest};

use super::OwnedTask;
use super::call::{Delays, cause, is_retryable};
use super::position::{Cursor, SourceKey};
use super::session::{Reach, Session};
use crate::errors::{CliError, Result};

/// Keep-alives come every 15 s; after three missed ones the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(50);

/// Bound on the parts of one line that are held back until its end.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// What to tail.
#[derive(Clone, Debug, Default)]
pub struct TailOptions {
    /// Id or name of the run.
    pub run: String,
    /// Steps; all when empty.
    pub steps: Vec<String>,
    /// Attempt; all when 0.
    pub attempt: u32,
    /// Container; `main` when empty.
    pub container: String,
    /// The last lines only.
    pub tail: Option<u64>,
    /// From this time on.
    pub since: Option<prost_types::Timestamp>,
    /// Where an earlier reader stopped.
    pub cursor: Option<Cursor>,
    /// Whether to wait for more.
    pub follow: bool,
    /// Only lines with this text.
    pub contains: String,
    /// Only lines that one of these regular expressions matches.
    pub include: Vec<String>,
    /// No lines that one of these matches.
    pub exclude: Vec<String>,
    /// Only the attempt before the newest of each step.
    pub previous: bool,
}

/// What comes out of a tail.
#[derive(Clone, Debug, PartialEq)]
pub enum TailItem {
    /// One line, or the next part of one that is longer than 4 MiB.
    Line {
        /// Where from.
        source: SourceKey,
        /// Its number in the source, from 0.
        number: u64,
        /// When it was written.
        time: Option<prost_types::Timestamp>,
        /// Without its newline.
        content: Vec<u8>,
        /// Whether the line goes on in the next one of its source.
        partial: bool,
    },
    /// Something other than a line.
    Mark {
        /// Where, when it concerns one source.
        source: Option<SourceKey>,
        /// What.
        mark: Mark,
    },
    /// Everything before this item is covered by this cursor.
    Checkpoint(Cursor),
    /// The connection broke; the tail goes on by itself.
    Lost {
        /// Why.
        cause: String,
    },
    /// The connection is back.
    Back,
    /// The last item.
    End {
        /// Why it ended.
        reason: EndReason,
        /// State of the run, such as `SUCCEEDED`.
        run_state: String,
        /// Where to go on.
        cursor: Cursor,
    },
}

/// A tail; dropped, it stops.
#[derive(Debug)]
pub struct Tail {
    items: mpsc::Receiver<Result<TailItem>>,
    _task: OwnedTask,
}

impl Tail {
    /// Begins to tail.
    pub fn start(session: &Session, options: TailOptions) -> Self {
        let (sender, items) = mpsc::channel(1024);
        let tailer = Tailer {
            reach: session.reach(),
            cursor: options.cursor.clone().unwrap_or_default(),
            options,
            lost: false,
            items: sender,
        };
        Self {
            items,
            _task: OwnedTask::spawn(tailer.run()),
        }
    }

    /// The next item; `None` after the end.
    ///
    /// # Errors
    /// When the tail cannot go on.
    pub async fn next(&mut self) -> Option<Result<TailItem>> {
        self.items.recv().await
    }
}

struct Tailer {
    reach: Reach,
    options: TailOptions,
    cursor: Cursor,
    lost: bool,
    items: mpsc::Sender<Result<TailItem>>,
}

enum Stop {
    Done,
    Resume(Status),
}

/// What one stream knows: its numbers of sources, and lines whose end did not come yet.
#[derive(Default)]
struct Stream {
    sources: BTreeMap<u32, SourceKey>,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl Tailer {
    async fn run(mut self) {
        let mut delays = Delays::new();
        loop {
            let status = match self.stream(&mut delays).await {
                Stop::Done => return,
                Stop::Resume(status) => status,
            };
            // READER_TOO_SLOW is resumed silently, since we read again now.
            if status.code() != Code::ResourceExhausted {
                if !is_retryable(&status) {
                    drop(self.items.send(Err(CliError::from_status(&status))).await);
                    return;
                }
                if !self.lost {
                    self.lost = true;
                    let cause = cause(&status);
                    if !self.send(TailItem::Lost { cause }).await {
                        return;
                    }
                }
            }
            tokio::time::sleep(delays.next(&status)).await;
        }
    }

    fn request(&self) -> TailLogsRequest {
        let from = if !self.cursor.checkpoint().is_empty() {
            Some(From::Cursor(self.cursor.checkpoint().to_vec()))
        } else if self.cursor.is_start() {
            let tail = self.options.tail.map(From::TailLines);
            tail.or(self.options.since.map(From::Since))
        } else {
            // Lines came but no checkpoint: from the start, and what was read is dropped.
            self.options.since.map(From::Since)
        };
        TailLogsRequest {
            namespace: self.reach.namespace.clone(),
            run: self.options.run.clone(),
            steps: self.options.steps.clone(),
            attempt: self.options.attempt,
            container: self.options.container.clone(),
            from,
            follow: self.options.follow,
            contains: self.options.contains.clone(),
            include: self.options.include.clone(),
            exclude: self.options.exclude.clone(),
            previous: self.options.previous,
            max_lines: 0,
            max_bytes: 0,
            end_when: if self.options.steps.is_empty() {
                EndWhen::RunFinished.into()
            } else {
                EndWhen::SelectionFinished.into()
            },
        }
    }

    async fn stream(&mut self, delays: &mut Delays) -> Stop {
        let mut client = match self.reach.logs().await {
            Ok(client) => client,
            Err(status) => return Stop::Resume(status),
        };
        let mut messages = match client.tail_logs(self.request()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Stop::Resume(status),
        };
        let mut stream = Stream::default();
        self.cursor.resume();
        loop {
            let message = match tokio::time::timeout(SILENCE, messages.message()).await {
                Ok(Ok(Some(message))) => message.message,
                Ok(Ok(None)) => return Stop::Resume(Status::unavailable("the stream ended early")),
                Ok(Err(status)) => return Stop::Resume(status),
                Err(_) => return Stop::Resume(Status::unavailable("nothing was heard for 50 s")),
            };
            if self.lost {
                self.lost = false;
                if !self.send(TailItem::Back).await {
                    return Stop::Done;
                }
            }
            delays.reset();
            let Some(message) = message else { continue };
            if let Some(stop) = self.handle(&mut stream, message).await {
                return stop;
            }
        }
    }

    async fn handle(&mut self, stream: &mut Stream, message: Message) -> Option<Stop> {
        let heard = match message {
            Message::Lines(lines) => {
                stream.learn(&lines.sources);
                return self.lines(stream, lines.lines).await;
            }
            Message::Mark(mark) => {
                stream.learn(mark.source_description.as_slice());
                let source = stream.sources.get(&mark.source).cloned();
                if let (MarkKind::SourceEnded, Some(source)) = (mark.kind(), &source) {
                    self.cursor.complete(source);
                }
                self.send(TailItem::Mark { source, mark }).await
            }
            Message::Checkpoint(checkpoint) => self.checkpoint(stream, checkpoint.cursor).await,
            Message::KeepAlive(alive) => self.checkpoint(stream, alive.cursor).await,
            Message::End(end) => return Some(self.end(end).await),
        };
        (!heard).then_some(Stop::Done)
    }

    async fn lines(&mut self, stream: &mut Stream, lines: Vec<Line>) -> Option<Stop> {
        for line in lines {
            let Some(source) = stream.sources.get(&line.source) else {
                return Some(Stop::Resume(Status::unavailable("a line came from an unknown source")));
            };
            let parts = stream.parts.entry(line.source).or_default();
            parts.extend_from_slice(&line.content);
            if line.partial && parts.len() < MAX_LINE {
                continue;
            }
            let content = std::mem::take(parts);
            let number = line.position.map_or(0, |position| position.line);
            if !self.cursor.advance(source, number) {
                continue;
            }
            let item = TailItem::Line {
                source: source.clone(),
                number,
                time: line.time,
                content,
                partial: line.partial,
            };
            if !self.send(item).await {
                return Some(Stop::Done);
            }
        }
        None
    }

    async fn checkpoint(&mut self, stream: &Stream, cursor: Vec<u8>) -> bool {
        // A checkpoint inside a line would lose the parts that are held back.
        if cursor.is_empty() || stream.parts.values().any(|parts| !parts.is_empty()) {
            return true;
        }
        self.cursor.check(cursor);
        self.send(TailItem::Checkpoint(self.cursor.clone())).await
    }

    async fn end(&mut self, end: End) -> Stop {
        let reason = end.reason();
        self.cursor.check(end.cursor);
        if reason == EndReason::ShuttingDown {
            return Stop::Resume(Status::unavailable("the log relay is shutting down"));
        }
        let item = TailItem::End {
            reason,
            run_state: end.run_state,
            cursor: self.cursor.clone(),
        };
        self.send(item).await;
        Stop::Done
    }

    async fn send(&self, item: TailItem) -> bool {
        self.items.send(Ok(item)).await.is_ok()
    }
}

impl Stream {
    fn learn(&mut self, sources: &[Source]) {
        for source in sources {
            self.sources.insert(source.id, SourceKey::from(source));
        }
    }
}
