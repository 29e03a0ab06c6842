//! A session with one relay.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::feed::v1::feed_request::Message as Request;
use windlass_api::feed::v1::feed_response::Message as Response;
use windlass_api::feed::v1::feed_service_client::FeedServiceClient;
use windlass_api::feed::v1::{FeedHeartbeat, FeedHello, FeedOpen, FeedRequest};
use windlass_api::{INTERNAL_PROTOCOL, INTERNAL_PROTOCOL_MIN};
use windlass_service::{Backoff, BackoffSettings, ChannelSettings, ClientTls, connect_lazy};

use super::container::{Reader, Sources};
use super::window::Window;
use crate::metrics;

/// Chunks that wait to be written, of all containers of a session.
const QUEUE: usize = 32;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A relay that is silent for so long is taken to be gone.
const SILENCE: Duration = Duration::from_secs(45);
const BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_secs(5),
};

/// Dials relays.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// Bearer token.
    pub(crate) token: Option<String>,
    /// Whom to trust, and what to show.
    pub(crate) tls: ClientTls,
    /// UUID of this process.
    pub(crate) incarnation: String,
    /// Uid of the cluster.
    pub(crate) cluster_uid: String,
    /// What is read.
    pub(crate) sources: Sources,
}

/// An open stream.
struct Open {
    window: Arc<Window>,
    stop: CancellationToken,
}

impl Dialer {
    /// Keeps a session with the relay at `address` until `stop`.
    pub(crate) async fn run(self, address: String, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF);
        while !stop.is_cancelled() {
            let mut welcomed = false;
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.session(&address, &mut welcomed) => ended,
            };
            if welcomed {
                backoff.reset();
            }
            let delay = backoff.next_delay(&mut rand::rng());
            tracing::debug!(relay = %address, error = %ended, retry_in = ?delay, "session with a log relay ended");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn session(&self, address: &str, welcomed: &mut bool) -> String {
        let settings = ChannelSettings {
            address: address.to_owned(),
            token: self.token.clone(),
            user: None,
            tls: self.tls.clone(),
        };
        let channel = match connect_lazy(&settings) {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        let (out, requests) = mpsc::channel(QUEUE);
        let hello = FeedHello {
            incarnation: self.incarnation.clone(),
            cluster_uid: self.cluster_uid.clone(),
            protocol_min: INTERNAL_PROTOCOL_MIN,
            protocol_max: INTERNAL_PROTOCOL,
        };
        // The queue is empty.
        out.try_send(request(Request::Hello(hello))).ok();
        let opened = FeedServiceClient::new(channel)
            .feed(ReceiverStream::new(requests))
            .await;
        let mut responses = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => return status.to_string(),
        };
        let streams = CancellationToken::new();
        let _ends_with_the_session = streams.clone().drop_guard();
        let mut session = Session {
            sources: self.sources.clone(),
            out,
            open: HashMap::new(),
            tasks: TaskTracker::new(),
            streams,
        };
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {
                    // When the queue is full, what is in it shows that we live.
                    session.out.try_send(request(Request::Heartbeat(FeedHeartbeat {}))).ok();
                    if heard.elapsed() > SILENCE {
                        return "the relay is silent".to_owned();
                    }
                }
                response = responses.message() => {
                    heard = tokio::time::Instant::now();
                    match response {
                        Ok(Some(response)) => {
                            *welcomed = true;
                            session.handle(response.message);
                        }
                        Ok(None) => return "the relay ended it".to_owned(),
                        Err(status) => return status.to_string(),
                    }
                }
            }
        }
    }
}

struct Session {
    sources: Sources,
    out: mpsc::Sender<FeedRequest>,
    open: HashMap<u64, Open>,
    tasks: TaskTracker,
    streams: CancellationToken,
}

impl Session {
    fn handle(&mut self, message: Option<Response>) {
        match message {
            Some(Response::Open(open)) => self.open(open),
            Some(Response::Close(close)) => {
                if let Some(open) = self.open.remove(&close.stream) {
                    open.stop.cancel();
                }
            }
            Some(Response::Window(window)) => {
                if let Some(open) = self.open.get(&window.stream) {
                    open.window.add(window.bytes);
                }
            }
            Some(Response::Welcome(_) | Response::Heartbeat(_)) | None => {}
        }
        metrics::set(metrics::LOG_STREAMS, self.tasks.len());
    }

    fn open(&mut self, open: FeedOpen) {
        // Those that are over stay until the relay opens another one; they hold next to nothing.
        self.open.retain(|_, open| !open.stop.is_cancelled());
        let window = Arc::new(Window::new(open.window));
        let stop = self.streams.child_token();
        let (stream, ended) = (open.stream, stop.clone());
        let reader = Reader::new(self.sources.clone(), open, window.clone(), self.out.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = reader.run() => ended.cancel(),
            }
        });
        self.open.insert(stream, Open { window, stop });
    }
}

fn request(message: Request) -> FeedRequest {
    FeedRequest { message: Some(message) }
}
