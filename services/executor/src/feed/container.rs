//! Reads the log of one container for one relay.
//!
//! A follow that ends cleanly says nothing by itself: the kubelet cuts it after four hours, and an API server that loses its kubelet
//! ends it as cleanly. It is over when the container has ended, and the end of its log, asked for after that, is what was read last.
//! Follows are renewed before the kubelet cuts them, since a cut can take the line that breaks it. A refusal decides nothing either,
//! since a kubelet that has just started does not know its pods: the pod itself tells.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use windlass_api::feed::v1::feed_request::Message;
use windlass_api::feed::v1::{FeedChunk, FeedEnd, FeedEndReason, FeedLine, FeedOpen, FeedRequest};
use windlass_service::{Backoff, BackoffSettings, Clock};

use super::lines::Lines;
use super::masking::Known;
use super::seam::{Position, Seam, Verdict, advance};
use super::skips::{LEAP, Skips};
use super::standing::{Standing, Watched};
use super::window::{Window, cost};
use crate::agent::{ContainerPhase, Containers, Event};
use crate::kubernetes::requests::pod_path;
use crate::kubernetes::{Api, ApiError, Call, Query, Stream};
use crate::metrics;

/// A follow is renewed after this time.
const MAX_FOLLOW: Duration = Duration::from_secs(3 * 3600 + 1800);
/// A follow of which nothing comes for so long is renewed, too: its connection may have died without a sign, and a container that is
/// silent costs one request in this time.
const MAX_QUIET: Duration = Duration::from_secs(300);
/// How long nothing may come of the log of a container that has ended: its connection may have died without a sign.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// How long news of a container's end may come after the end of its log.
const NEWS: Duration = Duration::from_secs(2);
/// A follow that lasted for so long may have been cut, and is opened anew at once: to a container that ends, that is one request more.
const CUT: Duration = Duration::from_secs(5);
/// Runtimes keep long lines in pieces: containerd of 16 KiB, CRI-O of 8 KiB.
const PIECE: usize = 8 * 1024;
/// Content of one chunk.
const CHUNK: usize = 64 * 1024;
/// Failures in a row after which the relay is told to ask again later.
pub(super) const MAX_FAILURES: u32 = 8;
pub(super) const BACKOFF: BackoffSettings = BackoffSettings {
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
    /// Tells when a follow began.
    pub(crate) clock: Clock,
    /// What logs must not show.
    pub(crate) known: Arc<Known>,
}

/// What went wrong since the last progress.
struct Trouble {
    failures: u32,
    /// Clean ends that were not those of the log.
    unproven: u32,
    backoff: Backoff,
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            failures: 0,
            unproven: 0,
            backoff: Backoff::new(BACKOFF),
        }
    }
}

impl Trouble {
    fn delay(&mut self) -> Duration {
        self.backoff.next_delay(&mut rand::rng())
    }
}

/// One container's log.
pub(crate) struct Reader {
    sources: Sources,
    open: FeedOpen,
    window: Arc<Window>,
    out: mpsc::Sender<FeedRequest>,
    position: Option<Position>,
    /// Bytes of the last line that was read, all its parts, and whether another part comes.
    last: (usize, bool),
    lines: Lines,
    seam: Seam,
    skips: Skips,
    /// Set when the last request was answered to its end, with the line that was unfinished there.
    last_clean: Option<Option<FeedLine>>,
}

/// Why reading stopped.
pub(super) enum Stopped {
    /// With this end, to be told.
    End(FeedEndReason, String),
    /// Nobody listens.
    Closed,
}

impl Stopped {
    /// There is no such pod any more.
    pub(super) fn gone() -> Self {
        Self::End(FeedEndReason::Gone, "the pod is gone".to_owned())
    }

    /// Everything that was ever written was read.
    pub(super) fn complete() -> Self {
        Self::End(FeedEndReason::Complete, String::new())
    }

    fn is_gone(&self) -> bool {
        matches!(self, Self::End(FeedEndReason::Gone, _))
    }
}

/// How one request for the log ended.
enum Read {
    /// Cleanly.
    Clean,
    /// It was renewed in time.
    Renewed,
    /// The connection broke, nothing came any more, or the log was refused.
    Broken(Fault),
}

/// Why a request for the log gave none, or not all.
struct Fault {
    text: String,
    /// Whether it is about the pod or container: only the pod tells what that means.
    of_log: bool,
    /// Whether there is no trace of the log any more, if the container is over.
    lost: bool,
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self {
            of_log: matches!(error.code(), Some(400 | 404)),
            lost: is_lost(&error),
            text: error.to_string(),
        }
    }
}

impl Fault {
    /// What the kubelet wrote in place of a log.
    fn complaint(text: String) -> Self {
        let vanished = ["unable to retrieve container logs", "no such file or directory"];
        Self {
            of_log: true,
            lost: vanished.iter().any(|words| text.contains(words)),
            text,
        }
    }
}

impl Reader {
    /// For what a relay opened.
    pub(crate) fn new(sources: Sources, open: FeedOpen, window: Arc<Window>, out: mpsc::Sender<FeedRequest>) -> Self {
        let position = Position::of(&open);
        Self {
            skips: Skips::new(sources.clock.now(), true),
            sources,
            window,
            out,
            seam: Seam::new(position.clone()),
            position,
            last: (0, false),
            open,
            lines: Lines::default(),
            last_clean: None,
        }
    }

    /// Reads to the end and tells it.
    pub(crate) async fn run(mut self) {
        let stream = self.open.stream;
        let Err(stopped) = self.read_all().await;
        if let Stopped::End(reason, message) = stopped {
            let end = FeedEnd {
                stream,
                reason: reason.into(),
                message,
            };
            // Nobody listens any more.
            self.send(Message::End(end)).await.ok();
        }
    }

    async fn read_all(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let mut watched = Watched::begin(&self.sources, &self.open).await?;
        let mut trouble = Trouble::default();
        loop {
            match watched.until_started().await {
                Err(stopped) if stopped.is_gone() => return Err(self.vanished(stopped).await),
                standing => drop(standing?),
            }
            let begin = Instant::now();
            let (before, read) = (self.position.clone(), self.request(&mut watched).await?);
            if self.position != before {
                trouble = Trouble::default();
            }
            match read {
                Read::Clean => {
                    let rest = self.lines.rest();
                    self.last_clean = Some(rest.clone());
                    // What is written while news are waited for might be rotated away.
                    if begin.elapsed() < CUT {
                        watched.until_ended(NEWS).await?;
                    }
                    if watched.has_ended()? {
                        match self.is_whole(rest.as_ref()).await {
                            Ok(true) => return Err(self.finish(rest).await),
                            // What is missing comes with the next reading; if nothing ever does, nothing is there.
                            Ok(false) if trouble.unproven >= MAX_FAILURES => return Err(self.finish(rest).await),
                            Ok(false) => {
                                trouble.unproven += 1;
                                watched.pause(trouble.delay()).await?;
                            }
                            Err(fault) => self.broken(fault, &mut watched, &mut trouble).await?,
                        }
                    }
                }
                Read::Renewed => self.last_clean = None,
                Read::Broken(fault) => self.broken(fault, &mut watched, &mut trouble).await?,
            }
            // What is unfinished is read again.
            self.lines.reset();
        }
    }

    /// A request for the log failed.
    async fn broken(&mut self, fault: Fault, watched: &mut Watched, trouble: &mut Trouble) -> Result<(), Stopped> {
        let found = match fault.of_log {
            true => watched.look().await,
            false => Ok(Standing::Unknown),
        };
        let found = match found {
            Err(stopped) if stopped.is_gone() => return Err(self.vanished(stopped).await),
            found => found?,
        };
        if found == Standing::Ended && fault.lost {
            return Err(self.vanished(Stopped::End(FeedEndReason::Gone, fault.text)).await);
        }
        // To wait for its start is no failure.
        trouble.failures += u32::from(found != Standing::Waiting);
        if trouble.failures >= MAX_FAILURES {
            return Err(Stopped::End(FeedEndReason::Unavailable, fault.text));
        }
        watched.pause(trouble.delay()).await
    }

    /// Asks for the log from the position on, and sends what comes of it.
    async fn request(&mut self, watched: &mut Watched) -> Result<Read, Stopped> {
        match self.open_masked(watched).await {
            Ok(stream) => self.read(stream, &mut watched.news()).await,
            Err(error) => Ok(Read::Broken(error.into())),
        }
    }

    /// The log is gone before it could be read once more: nothing is lost when it had been read to a clean end, with the line that was
    /// unfinished there.
    async fn vanished(&mut self, stopped: Stopped) -> Stopped {
        let Some(rest) = self.last_clean.take() else {
            return stopped;
        };
        self.finish(rest).await
    }

    /// Opens the log once it is known what must not be seen of it: rather none than one with values of Secrets.
    async fn open_masked(&mut self, watched: &Watched) -> Result<Stream, ApiError> {
        let Some(secrets) = watched.secrets() else {
            return Err(ApiError::NoAnswer("the pod, for the Secrets that it uses".to_owned()));
        };
        if let Some(uses) = secrets {
            let Sources { api, known, .. } = &self.sources;
            if let Some(masks) = known.masks(api, &self.open.namespace, &uses).await? {
                self.lines.hide(masks);
            }
        }
        self.open_log().await
    }

    fn query(&self) -> Query {
        Query::new(format!("{}/log", pod_path(&self.open.namespace, &self.open.pod_name)))
            .with("container", &self.open.container)
            .with("timestamps", "true")
    }

    async fn open_log(&self) -> Result<Stream, ApiError> {
        let mut query = self.query().with("follow", "true");
        if let Some(since) = self.position.as_ref().and_then(Position::since) {
            query = query.with("sinceTime", &since);
        }
        self.sources
            .api
            .stream(Call::new("log", Method::GET, query.build()))
            .await
    }

    async fn read(&mut self, mut stream: Stream, news: &mut watch::Receiver<Containers>) -> Result<Read, Stopped> {
        self.seam = Seam::new(self.position.clone());
        self.skips = Skips::new(self.sources.clock.now(), self.position.is_some());
        let deadline = Instant::now() + MAX_FOLLOW;
        loop {
            let begin = Instant::now();
            let chunk = tokio::select! {
                chunk = stream.chunk() => chunk,
                () = silence(news, &self.open.container) => {
                    let error = ApiError::NoAnswer("the log of an ended container does not end".to_owned());
                    return Ok(Read::Broken(error.into()));
                }
                () = tokio::time::sleep_until(deadline.min(Instant::now() + MAX_QUIET)) => return Ok(Read::Renewed),
            };
            self.skips.waited(begin.elapsed());
            match chunk {
                Err(error) => return Ok(Read::Broken(error.into())),
                Ok(None) => {
                    let complaint = self.lines.complaint().map(Fault::complaint);
                    return Ok(complaint.map_or(Read::Clean, Read::Broken));
                }
                Ok(Some(chunk)) => self.lines.push(&chunk),
            }
            self.forward().await?;
        }
    }

    /// Sends the complete lines that are new.
    async fn forward(&mut self) -> Result<(), Stopped> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(line) = self.lines.next() {
            let (before, goes_on) = self.last;
            self.last = (line.content.len() + if goes_on { before } else { 0 }, line.partial);
            let gap = match self.seam.judge(&line) {
                Verdict::Held => continue,
                Verdict::New => {
                    let suspicious = self.skips.suspect(self.position.as_ref(), &line);
                    suspicious && !self.is_there_still().await
                }
                Verdict::NewAfterGap => true,
            };
            if gap {
                self.send_lines(std::mem::take(&mut batch), false).await?;
                bytes = 0;
                self.send_lines(Vec::new(), true).await?;
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

    /// Whether the line that was read last is in the newest file, and so what comes after it: else the kubelet may have left out files.
    async fn is_there_still(&self) -> bool {
        let Some(last) = &self.position else { return true };
        let mut query = self.query();
        if let Some(since) = last.since() {
            query = query.with("sinceTime", &since);
        }
        let call = Call::new("log", Method::GET, query.build());
        let Ok(mut stream) = self.sources.api.stream(call).await else {
            return false;
        };
        let mut lines = self.lines.alike();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(MAX_SILENCE, stream.chunk()).await {
            lines.push(&chunk);
            while let Some(line) = lines.next() {
                // Times of two streams may be mixed a little.
                if line.time_nanos == last.time() || line.time_nanos > last.time() + LEAP {
                    return line.time_nanos == last.time();
                }
            }
        }
        false
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

    /// Whether what was read last, up to an unfinished line, is the end of the log. The container has ended.
    async fn is_whole(&self, rest: Option<&FeedLine>) -> Result<bool, Fault> {
        let held = match rest {
            Some(rest) => Some(advance(self.position.clone(), rest)),
            None => self.position.clone(),
        };
        // One more than have the time of the last one, so that these can be counted. The kubelet counts the pieces that the runtime
        // has made of a long line.
        let pieces = rest.map_or(self.last.0, |rest| rest.content.len()) / PIECE;
        let last = held
            .as_ref()
            .map_or(0, Position::ordinal)
            .saturating_add(1 + pieces as u64);
        let query = self.query().with("tailLines", &last.to_string());
        let call = Call::new("log", Method::GET, query.build());
        let mut stream = self.sources.api.stream(call).await?;
        let mut lines = self.lines.alike();
        let mut found = None;
        loop {
            let chunk = tokio::time::timeout(MAX_SILENCE, stream.chunk()).await;
            let silent = |_| ApiError::NoAnswer("the end of a log does not come".to_owned());
            let Some(chunk) = chunk.map_err(silent)?? else { break };
            lines.push(&chunk);
            while let Some(line) = lines.next() {
                found = Some(advance(found, &line));
            }
        }
        if let Some(complaint) = lines.complaint() {
            return Err(Fault::complaint(complaint));
        }
        if let Some(line) = lines.rest() {
            found = Some(advance(found, &line));
        }
        Ok(match (held, found) {
            (Some(held), Some(found)) => held.is_at(&found),
            (held, found) => held.is_none() && found.is_none(),
        })
    }

    async fn finish(&mut self, rest: Option<FeedLine>) -> Stopped {
        if let Some(rest) = rest
            && self.seam.judge(&rest) != Verdict::Held
            && let Err(stopped) = self.send_lines(vec![rest], false).await
        {
            return stopped;
        }
        Stopped::complete()
    }
}

/// Passes when nothing has happened for too long after the container's end.
async fn silence(news: &mut watch::Receiver<Containers>, container: &str) {
    let over = |known: &Containers| known.gone || known.phases.get(container) == Some(&ContainerPhase::Ended);
    if news.wait_for(over).await.is_err() {
        // Nobody will tell.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(MAX_SILENCE).await;
}

/// Whether the kubelet says that it has no trace of a container that is over.
fn is_lost(error: &ApiError) -> bool {
    error
        .refusal()
        .is_some_and(|refusal| refusal.code == 400 && refusal.message.ends_with("is terminated"))
}
