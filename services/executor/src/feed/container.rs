//! Reads the log of one container for one relay.
//!
//! A follow that ends cleanly says nothing by itself: the kubelet cuts it after four hours. It is over when the container has ended,
//! and the log was read to an end that came after that. Follows are renewed before the kubelet cuts them, since a cut can take the line that breaks it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use windlass_api::feed::v1::feed_request::Message;
use windlass_api::feed::v1::{FeedChunk, FeedEnd, FeedEndReason, FeedLine, FeedOpen, FeedRequest};
use windlass_service::{Backoff, BackoffSettings};

use super::lines::Lines;
use super::seam::{Position, Seam, Verdict, advance};
use super::window::{Window, cost};
use crate::agent::{ContainerPhase, Containers, Event, FollowRequest, containers_of};
use crate::kubernetes::requests::pod_path;
use crate::kubernetes::{Api, ApiError, Call, Stream};
use crate::metrics;

/// A follow is renewed after this time.
const MAX_FOLLOW: Duration = Duration::from_secs(3 * 3600 + 1800);
/// How long news of a container's end may come after the end of its log.
const NEWS: Duration = Duration::from_secs(2);
/// Content of one chunk.
const CHUNK: usize = 64 * 1024;
/// Failures in a row after which the relay is told to ask again later.
const MAX_FAILURES: u32 = 8;
const BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_secs(5),
};

/// What reading needs.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The API server.
    pub(crate) api: Api,
    /// Who knows of containers.
    pub(crate) agent: mpsc::Sender<Event>,
}

/// One container's log.
pub(crate) struct Reader {
    sources: Sources,
    open: FeedOpen,
    window: Arc<Window>,
    out: mpsc::Sender<FeedRequest>,
    position: Option<Position>,
    lines: Lines,
    seam: Seam,
}

/// Why reading stopped.
enum Stopped {
    /// With this end, to be told.
    End(FeedEndReason, String),
    /// Nobody listens.
    Closed,
}

/// How one request for the log ended.
enum Read {
    /// Cleanly.
    Clean,
    /// It was renewed in time.
    Renewed,
    /// The connection broke.
    Broken(ApiError),
}

impl Reader {
    /// For what a relay opened.
    pub(crate) fn new(sources: Sources, open: FeedOpen, window: Arc<Window>, out: mpsc::Sender<FeedRequest>) -> Self {
        let position = Position::of(&open);
        Self {
            sources,
            window,
            out,
            seam: Seam::new(position.clone()),
            position,
            open,
            lines: Lines::default(),
        }
    }

    /// Reads to the end and tells it.
    pub(crate) async fn run(mut self) {
        let stream = self.open.stream;
        if let Stopped::End(reason, message) = self.read_all().await {
            let end = FeedEnd {
                stream,
                reason: reason.into(),
                message,
            };
            // Nobody listens any more.
            self.send(Message::End(end)).await.ok();
        }
    }

    async fn read_all(&mut self) -> Stopped {
        let mut containers = match self.containers().await {
            Ok(containers) => containers,
            Err(stopped) => return stopped,
        };
        let mut backoff = Backoff::new(BACKOFF);
        let mut failures = 0;
        loop {
            let ended_before = self.phase(&containers) == Some(ContainerPhase::Ended);
            let read = match self.open_log().await {
                Ok(stream) => match self.read(stream).await {
                    Ok(read) => read,
                    Err(stopped) => return stopped,
                },
                Err(error) => Read::Broken(error),
            };
            match read {
                Read::Renewed => continue,
                Read::Clean => {
                    if ended_before || self.ends(&mut containers).await {
                        return self.complete().await;
                    }
                    // Cut, or not begun: it goes on where it was.
                    failures = 0;
                }
                Read::Broken(error) => match self.judge(&error, &mut containers).await {
                    Some(stopped) => return stopped,
                    None if is_not_started(&error) => {}
                    None => {
                        failures += 1;
                        if failures >= MAX_FAILURES {
                            return Stopped::End(FeedEndReason::Unavailable, error.to_string());
                        }
                    }
                },
            }
            self.lines.reset();
            let delay = backoff.next_delay(&mut rand::rng());
            // News of the container make waiting pointless.
            drop(tokio::time::timeout(delay, containers.changed()).await);
        }
    }

    /// What is known of the pod's containers. Its uid is checked: another pod of that name is not read.
    async fn containers(&self) -> Result<watch::Receiver<Containers>, Stopped> {
        let (reply, answer) = oneshot::channel();
        let request = FollowRequest {
            uid: self.open.pod_uid.clone(),
            reply,
        };
        let sent = self.sources.agent.send(Event::Follow(request)).await;
        sent.map_err(|_| Stopped::Closed)?;
        let (known, receiver) = answer.await.map_err(|_| Stopped::Closed)?;
        if !known && self.look().await.is_none() {
            return Err(Stopped::End(FeedEndReason::Gone, "the pod is gone".to_owned()));
        }
        Ok(receiver)
    }

    /// Reads the pod; nothing when it is gone, or another one.
    async fn look(&self) -> Option<Containers> {
        let mut backoff = Backoff::new(BACKOFF);
        for _ in 0..MAX_FAILURES {
            match self
                .sources
                .api
                .get_pod(&self.open.namespace, &self.open.pod_name)
                .await
            {
                Ok(Some(pod)) => return containers_of(&pod, &self.open.pod_uid),
                Ok(None) => return None,
                Err(_) => {
                    let delay = backoff.next_delay(&mut rand::rng());
                    tokio::time::sleep(delay).await;
                }
            }
        }
        // Not seeing is not knowing: what reading gives will tell.
        Some(Containers::default())
    }

    fn phase(&self, containers: &watch::Receiver<Containers>) -> Option<ContainerPhase> {
        containers.borrow().phases.get(&self.open.container).copied()
    }

    /// Whether the container has ended, or that is heard soon.
    async fn ends(&self, containers: &mut watch::Receiver<Containers>) -> bool {
        let name = self.open.container.clone();
        let ended = |known: &Containers| known.gone || known.phases.get(&name) == Some(&ContainerPhase::Ended);
        if tokio::time::timeout(NEWS, containers.wait_for(ended))
            .await
            .is_ok_and(|news| news.is_ok())
        {
            return true;
        }
        if self.phase(containers).is_some() {
            return false;
        }
        // Nothing was heard of it since somebody asked.
        let found = self.look().await;
        found.is_none_or(|found| found.phases.get(&name) == Some(&ContainerPhase::Ended))
    }

    async fn open_log(&self) -> Result<Stream, ApiError> {
        let mut query =
            crate::kubernetes::Query::new(format!("{}/log", pod_path(&self.open.namespace, &self.open.pod_name)))
                .with("container", &self.open.container)
                .with("follow", "true")
                .with("timestamps", "true");
        if let Some(since) = self.position.as_ref().and_then(Position::since) {
            query = query.with("sinceTime", &since);
        }
        self.sources
            .api
            .stream(Call::new("log", Method::GET, query.build()))
            .await
    }

    async fn read(&mut self, mut stream: Stream) -> Result<Read, Stopped> {
        self.seam = Seam::new(self.position.clone());
        let deadline = Instant::now() + MAX_FOLLOW;
        loop {
            let chunk = match tokio::time::timeout_at(deadline, stream.chunk()).await {
                Err(_) => return Ok(Read::Renewed),
                Ok(Err(error)) => return Ok(Read::Broken(error)),
                Ok(Ok(None)) => return Ok(Read::Clean),
                Ok(Ok(Some(chunk))) => chunk,
            };
            self.lines.push(&chunk);
            self.forward().await?;
        }
    }

    /// Sends the complete lines that are new.
    async fn forward(&mut self) -> Result<(), Stopped> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(line) = self.lines.next() {
            match self.seam.judge(&line) {
                Verdict::Held => continue,
                Verdict::New => {}
                Verdict::NewAfterGap => {
                    self.send_lines(std::mem::take(&mut batch), false).await?;
                    bytes = 0;
                    self.send_lines(Vec::new(), true).await?;
                }
            }
            self.position = Some(advance(self.position.take(), &line));
            bytes += cost(&line);
            batch.push(line);
            if bytes >= CHUNK {
                self.send_lines(std::mem::take(&mut batch), false).await?;
                bytes = 0;
            }
        }
        self.send_lines(batch, false).await
    }

    async fn send_lines(&mut self, lines: Vec<FeedLine>, gap: bool) -> Result<(), Stopped> {
        if lines.is_empty() && !gap {
            return Ok(());
        }
        if gap {
            ::metrics::counter!(metrics::LOG_GAPS).increment(1);
        }
        ::metrics::counter!(metrics::LOG_LINES).increment(lines.len() as u64);
        self.window.open().await;
        self.window.take(&lines);
        let chunk = FeedChunk {
            stream: self.open.stream,
            lines,
            gap,
            lost_lines: None,
        };
        self.send(Message::Chunk(chunk)).await
    }

    async fn send(&self, message: Message) -> Result<(), Stopped> {
        let request = FeedRequest { message: Some(message) };
        self.out.send(request).await.map_err(|_| Stopped::Closed)
    }

    /// The container has ended and its log was read after that: also its last, unfinished line.
    async fn complete(&mut self) -> Stopped {
        if let Some(rest) = self.lines.rest()
            && self.seam.judge(&rest) != Verdict::Held
            && let Err(stopped) = self.send_lines(vec![rest], false).await
        {
            return stopped;
        }
        Stopped::End(FeedEndReason::Complete, String::new())
    }

    /// What a failed request means, when it is the end.
    async fn judge(&self, error: &ApiError, containers: &mut watch::Receiver<Containers>) -> Option<Stopped> {
        let gone = |message: String| Some(Stopped::End(FeedEndReason::Gone, message));
        match error.code() {
            Some(404) => gone(error.to_string()),
            Some(400) if is_not_started(error) => {
                let known = containers.borrow_and_update().clone();
                let ended = known.phases.get(&self.open.container) == Some(&ContainerPhase::Ended);
                if known.unborn {
                    // Nothing was ever written, so nothing is lost.
                    return Some(Stopped::End(FeedEndReason::Complete, String::new()));
                }
                // It can have ended without ever having had a log.
                (known.gone || ended).then(|| Stopped::End(FeedEndReason::Gone, error.to_string()))
            }
            Some(400) => gone(error.to_string()),
            _ => None,
        }
    }
}

/// Whether a refusal says that the container has not started.
fn is_not_started(error: &ApiError) -> bool {
    let waiting = |message: &str| {
        message.contains("waiting to start")
            || message.contains("not available")
            || message.contains("does not have a host")
    };
    error
        .refusal()
        .is_some_and(|refusal| refusal.code == 400 && waiting(&refusal.message))
}
