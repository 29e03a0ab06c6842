//! A log endpoint that costs next to nothing: in front of the local cluster, it answers for pods' logs itself, from memory, at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::watch;
use windlass_tests::log_proxy::{Body, Cut, pass_on, serve};

/// Bytes of a line, without its time and newline.
pub(crate) const LINE: usize = 100;
/// Bytes of a piece of a body.
const PIECE: usize = 64 * 1024;
/// Bytes of `2026-11-30T12:00:00.123456789Z `, a line and its newline.
const RECORD: usize = 31 + LINE + 1;

/// What all containers have written, and how often it was asked for.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Since when the times in lines count.
    pub(crate) origin: Instant,
    logs: Mutex<HashMap<String, Arc<Log>>>,
}

/// The log of one pod, by the name of its step.
#[derive(Debug)]
pub(crate) struct Log {
    /// Lines as the endpoint shows them, with times.
    text: Mutex<Vec<u8>>,
    /// How many bytes there are, and whether there will be no more.
    length: watch::Sender<(usize, bool)>,
    /// Requests that follow it.
    pub(crate) follows: AtomicUsize,
}

impl Log {
    fn new() -> Self {
        Self {
            text: Mutex::default(),
            length: watch::Sender::new((0, false)),
            follows: AtomicUsize::new(0),
        }
    }

    /// Adds lines whose content begins with a number of 16 digits.
    fn write(&self, first: u64, count: usize, number: impl Fn(u64) -> u128) {
        let mut text = self.text.lock().expect("no panic");
        let filling = "x".repeat(LINE - 17);
        for line in first..first + count as u64 {
            // A thousand lines share each second, which the endpoint's clients must bear.
            let time = 1_790_000_000_000_000_000_i128 + i128::from(line) * 1_000_000;
            let time = jiff::Timestamp::from_nanosecond(time).expect("a time");
            text.extend_from_slice(format!("{time:.9} {:016} {filling}\n", number(line)).as_bytes());
        }
        let length = text.len();
        drop(text);
        self.length.send_modify(|state| state.0 = length);
    }

    /// There will be no more.
    pub(crate) fn end(&self) {
        self.length.send_modify(|state| state.1 = true);
    }

    fn slice(&self, from: usize, to: usize) -> Bytes {
        Bytes::copy_from_slice(&self.text.lock().expect("no panic")[from..to])
    }

    /// Where the last lines begin.
    fn tail(&self, lines: usize) -> usize {
        let text = self.text.lock().expect("no panic");
        text.len() - (lines * RECORD).min(text.len())
    }

    /// Where the lines begin that are not older than a second.
    fn since(&self, second: i64) -> usize {
        let line = usize::try_from((second - 1_790_000_000).max(0)).expect("a number") * 1_000;
        (line * RECORD).min(self.text.lock().expect("no panic").len())
    }
}

impl Endpoint {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            logs: Mutex::default(),
        })
    }

    /// The log of the pod of a step, however often it is asked for.
    pub(crate) fn log(&self, step: &str) -> Arc<Log> {
        let mut logs = self.logs.lock().expect("no panic");
        Arc::clone(logs.entry(step.to_owned()).or_insert_with(|| Arc::new(Log::new())))
    }

    /// Writes numbered lines at once.
    pub(crate) fn write_all(&self, step: &str, lines: usize) {
        let log = self.log(step);
        for first in (0..lines).step_by(50_000) {
            log.write(first as u64, 50_000.min(lines - first), u128::from);
        }
        log.end();
    }

    /// Writes one line a millisecond, each with the microsecond at which it was written; until the time is over.
    pub(crate) async fn write_paced(&self, step: &str, seconds: usize) {
        let log = self.log(step);
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for line in 0..(seconds * 1_000) as u64 {
            tick.tick().await;
            log.write(line, 1, |_| self.origin.elapsed().as_micros());
        }
    }

    /// Serves in front of a cluster; for clients without TLS.
    pub(crate) async fn serve(self: Arc<Self>, cluster: kube::Client) -> SocketAddr {
        serve(move |request| answer(cluster.clone(), Arc::clone(&self), request)).await
    }
}

async fn answer(
    cluster: kube::Client,
    endpoint: Arc<Endpoint>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let path = request.uri().path_and_query().ok_or(Cut)?.to_string();
    let (pod, query) = path.split_once("/log?").unwrap_or_default();
    // RUN-STEP-ATTEMPT-HASH
    match pod.rsplit('-').nth(2) {
        Some(step) => Ok(Response::new(body(&endpoint.log(step), query))),
        None => pass_on(&cluster, request).await,
    }
}

fn body(log: &Arc<Log>, query: &str) -> Body {
    let given = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
    };
    let follow = given("follow").as_deref() == Some("true");
    if follow {
        log.follows.fetch_add(1, Ordering::Relaxed);
    }
    let since = given("sinceTime").map(|time| {
        let time = time.replace("%3A", ":").replace("%3a", ":");
        time.parse::<jiff::Timestamp>().expect("a time").as_second()
    });
    let tail = given("tailLines").map(|lines| log.tail(lines.parse().expect("a number")));
    let from = tail.unwrap_or_else(|| since.map_or(0, |second| log.since(second)));
    let (log, length) = (Arc::clone(log), log.length.subscribe());
    let pieces = futures::stream::unfold((log, length, from), move |(log, mut length, at)| async move {
        let state = length.wait_for(|(length, over)| *length > at || *over || !follow).await;
        let end = state.expect("the log is there").0;
        (end > at).then(|| {
            let to = end.min(at + PIECE);
            (Ok(Frame::data(log.slice(at, to))), (log, length, to))
        })
    });
    StreamBody::new(pieces.boxed()).boxed_unsync()
}
