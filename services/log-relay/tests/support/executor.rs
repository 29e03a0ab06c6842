//! A scripted executor: it holds pod logs and feeds them as it is asked to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use windlass_api::feed::v1::feed_request::Message as Said;
use windlass_api::feed::v1::feed_response::Message;
use windlass_api::feed::v1::feed_service_client::FeedServiceClient;
use windlass_api::feed::v1::*;

#[derive(Clone)]
pub struct Executor {
    pub incarnation: String,
    cluster: Cluster,
    session: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

/// The logs of a cluster's pods, shared by its executors.
#[derive(Clone, Default)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
pub struct State {
    pub logs: BTreeMap<String, PodLog>,
    /// Every FeedOpen, by pod uid and container.
    pub opens: Vec<FeedOpen>,
    pub closes: usize,
    /// Lines before the seam that are sent again.
    pub overlap: usize,
    /// Lines of a chunk.
    pub chunk: usize,
}

#[derive(Clone, Default)]
pub struct PodLog {
    pub lines: Vec<FeedLine>,
    /// Lines before this one are gone.
    pub rotated: usize,
    pub end: Option<FeedEndReason>,
    /// Refuses so many times.
    pub unavailable: usize,
}

impl Cluster {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Writes lines as the container of a pod would, `time` nanoseconds apart.
    pub fn write<T: Into<Vec<u8>>>(&self, pod: &str, lines: impl IntoIterator<Item = T>) {
        self.change(|state| {
            let log = state.logs.entry(format!("{pod}/main")).or_default();
            for line in lines {
                // Two lines share each time, as a coarse clock would have it.
                let time_nanos = 1_700_000_000_000_000_000 + (log.lines.len() as i64 / 2) * 1_000;
                log.lines.push(FeedLine {
                    time_nanos,
                    content: Bytes::from(line.into()),
                    ..FeedLine::default()
                });
            }
        });
    }

    pub fn end(&self, pod: &str, reason: FeedEndReason) {
        self.change(|state| state.logs.entry(format!("{pod}/main")).or_default().end = Some(reason));
    }

    pub fn opens(&self) -> usize {
        self.state().opens.len()
    }
}

impl Executor {
    pub fn new(incarnation: &str, cluster: &Cluster) -> Self {
        Self {
            incarnation: incarnation.to_owned(),
            cluster: cluster.clone(),
            session: Arc::default(),
        }
    }

    /// Dials a relay, again until it is there.
    pub fn connect(&self, relay: Channel) {
        let this = self.clone();
        let task = tokio::spawn(async move {
            loop {
                this.feed(relay.clone()).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        if let Some(before) = self.session.lock().expect("not poisoned").replace(task) {
            before.abort();
        }
    }

    pub fn disconnect(&self) {
        if let Some(task) = self.session.lock().expect("not poisoned").take() {
            task.abort();
        }
    }

    async fn feed(&self, relay: Channel) -> Option<()> {
        let (out, requests) = mpsc::channel(16);
        let hello = FeedHello {
            incarnation: self.incarnation.clone(),
            cluster_uid: "cluster".to_owned(),
            protocol_min: 1,
            protocol_max: 1,
        };
        out.send(said(Said::Hello(hello))).await.ok()?;
        let mut client = FeedServiceClient::new(relay);
        let mut replies = client.feed(ReceiverStream::new(requests)).await.ok()?.into_inner();
        let mut streams = tokio::task::JoinSet::new();
        let rooms: Arc<Mutex<BTreeMap<u64, i64>>> = Arc::default();
        while let Some(Ok(reply)) = replies.next().await {
            match reply.message {
                Some(Message::Open(open)) => {
                    rooms.lock().expect("rooms").insert(open.stream, open.window as i64);
                    self.cluster.state().opens.push(open.clone());
                    let work = serve(self.cluster.clone(), open, out.clone(), Arc::clone(&rooms));
                    streams.spawn(async move {
                        work.await;
                    });
                }
                Some(Message::Window(window)) => {
                    let mut rooms = rooms.lock().expect("rooms");
                    *rooms.entry(window.stream).or_default() += window.bytes as i64;
                    drop(rooms);
                    self.cluster.version.send_modify(|version| *version += 1);
                }
                Some(Message::Close(close)) => {
                    rooms.lock().expect("rooms").remove(&close.stream);
                    self.cluster.change(|state| state.closes += 1);
                }
                _ => {}
            }
        }
        None
    }
}

fn said(message: Said) -> FeedRequest {
    FeedRequest { message: Some(message) }
}

async fn serve(
    cluster: Cluster,
    open: FeedOpen,
    out: mpsc::Sender<FeedRequest>,
    rooms: Arc<Mutex<BTreeMap<u64, i64>>>,
) -> Option<()> {
    let mut version = cluster.version.subscribe();
    let name = format!("{}/{}", open.pod_uid, open.container);
    let mut at: Option<usize> = None;
    loop {
        version.borrow_and_update();
        let step = next(&cluster, &open, &name, &mut at, &rooms);
        match step {
            Step::Say(message, last) => {
                out.send(said(message)).await.ok()?;
                if last {
                    return None;
                }
            }
            Step::Wait => version.changed().await.ok()?,
            Step::Closed => return None,
        }
    }
}

enum Step {
    Say(Said, bool),
    Wait,
    Closed,
}

fn next(
    cluster: &Cluster,
    open: &FeedOpen,
    name: &str,
    at: &mut Option<usize>,
    rooms: &Mutex<BTreeMap<u64, i64>>,
) -> Step {
    let mut rooms = rooms.lock().expect("rooms");
    let Some(room) = rooms.get_mut(&open.stream) else {
        return Step::Closed;
    };
    let mut state = cluster.state();
    let (overlap, chunk) = (state.overlap, state.chunk.max(1));
    let log = state.logs.entry(name.to_owned()).or_default();
    let end = |reason: FeedEndReason| {
        Step::Say(
            Said::End(FeedEnd {
                stream: open.stream,
                reason: reason.into(),
                message: String::new(),
            }),
            true,
        )
    };
    if log.unavailable > 0 {
        log.unavailable -= 1;
        return end(FeedEndReason::Unavailable);
    }
    let (mut gap, mut lost) = (false, None);
    let from = *at.get_or_insert_with(|| {
        let seam = seam(log, open);
        gap = seam < log.rotated;
        lost = gap.then(|| (log.rotated - seam) as u64);
        if gap {
            log.rotated
        } else {
            seam.saturating_sub(overlap).max(log.rotated)
        }
    });
    if from < log.lines.len() {
        if *room <= 0 {
            return Step::Wait;
        }
        let lines = log.lines[from..log.lines.len().min(from + chunk)].to_vec();
        *room -= lines.iter().map(|line| line.content.len() as i64 + 1).sum::<i64>();
        *at = Some(from + lines.len());
        return Step::Say(
            Said::Chunk(FeedChunk {
                stream: open.stream,
                lines,
                gap,
                lost_lines: lost,
            }),
            false,
        );
    }
    match log.end {
        Some(reason) => end(reason),
        None => Step::Wait,
    }
}

/// The first line after what the relay holds; checks that the relay named it rightly.
fn seam(log: &PodLog, open: &FeedOpen) -> usize {
    let Some(time) = open.after_time else { return 0 };
    let time = time.seconds * 1_000_000_000 + i64::from(time.nanos);
    let first = log
        .lines
        .iter()
        .position(|line| line.time_nanos == time)
        .expect("a held line has a known time");
    let seam = first + open.after_ordinal as usize;
    let held = &log.lines[seam - 1];
    assert_eq!(held.time_nanos, time, "the ordinal counts lines of that time");
    assert_eq!(Sha256::digest(&held.content).to_vec(), open.last_line_digest);
    seam
}
