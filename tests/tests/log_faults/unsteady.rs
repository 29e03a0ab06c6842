//! Two proxies that do to connections what networks, kubelets and API servers do to them: at random, from a seed, and not for ever.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use futures::{StreamExt as _, TryStreamExt};
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::{TcpListener, TcpStream};

/// Of one log so many requests are disturbed, and of one relay's connections.
const DISTURBED: usize = 6;
/// A disturbed log ends before so many bytes.
const MOST_BYTES: usize = 6_000;

type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub(crate) struct Cut;

/// What is done, and how often it was.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    /// Logs that ended as if they were over.
    pub(crate) clean: AtomicUsize,
    /// Logs whose connection broke.
    pub(crate) dirty: AtomicUsize,
    /// Logs of which nothing came any more.
    pub(crate) stalled: AtomicUsize,
    /// Connections to the relay that broke.
    pub(crate) cut: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    /// How often each thing was asked for.
    asked: HashMap<String, usize>,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Whole,
    Clean(usize),
    Dirty(usize),
    Stalled(usize),
}

impl Faults {
    /// Begins anew, with this seed.
    pub(crate) fn begin(&self, seed: u64) {
        *self.state.lock().expect("no panic") = State {
            seed,
            ..State::default()
        };
    }

    /// Random for this thing, asked for once more; none when it was disturbed often enough.
    fn random(&self, what: &str) -> Option<StdRng> {
        let mut state = self.state.lock().expect("no panic");
        let seed = state.seed;
        let asked = state.asked.entry(what.to_owned()).or_default();
        *asked += 1;
        let mut hasher = DefaultHasher::new();
        (seed, what, *asked).hash(&mut hasher);
        (*asked <= DISTURBED).then(|| StdRng::seed_from_u64(hasher.finish()))
    }

    fn fate(&self, log: &str) -> Fate {
        let Some(mut random) = self.random(log) else {
            return Fate::Whole;
        };
        let bytes = random.random_range(0..MOST_BYTES);
        match random.random_range(0..20) {
            0..8 => Fate::Clean(bytes),
            8..15 => Fate::Dirty(bytes),
            15 => Fate::Stalled(bytes),
            _ => Fate::Whole,
        }
    }
}

/// In front of an API server, for clients without TLS: logs end cleanly, are cut, or stall.
pub(crate) async fn api(client: kube::Client, faults: Arc<Faults>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (client, faults) = (client.clone(), Arc::clone(&faults));
            let serve = service_fn(move |request| answer(client.clone(), Arc::clone(&faults), request));
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // How a connection ends is the client's matter.
                server.serve_connection(TokioIo::new(stream), serve).await.ok();
            });
        }
    });
    address
}

async fn answer(client: kube::Client, faults: Arc<Faults>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (parts, incoming) = request.into_parts();
    let content = incoming.collect().await.map_err(|_| Cut)?.to_bytes();
    let path = parts.uri.path_and_query().ok_or(Cut)?.to_string();
    let mut request = Request::new(kube::client::Body::from(content.to_vec()));
    *request.method_mut() = parts.method;
    *request.uri_mut() = path.parse().map_err(|_| Cut)?;
    for name in [header::CONTENT_TYPE, header::ACCEPT, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let response = client.send(request).await.map_err(|_| Cut)?;
    let (mut parts, body) = response.into_parts();
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
    ] {
        parts.headers.remove(name);
    }
    let frames = TryStreamExt::map_err(BodyStream::new(body), |_| Cut);
    let fate = match log_of(&path) {
        Some(log) if parts.status.is_success() => faults.fate(log),
        _ => Fate::Whole,
    };
    let (bytes, end) = match fate {
        Fate::Whole => return Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync())),
        Fate::Clean(bytes) => (bytes, End::Clean),
        Fate::Dirty(bytes) => (bytes, End::Dirty),
        Fate::Stalled(bytes) => (bytes, End::Stalled),
    };
    let disturbed = futures::stream::unfold((Box::pin(frames), bytes, false), move |(mut frames, left, over)| {
        let faults = Arc::clone(&faults);
        async move {
            if over {
                return None;
            }
            if left == 0 {
                return end.come(&faults).await.map(|frame| (frame, (frames, 0, true)));
            }
            let frame = frames.next().await?;
            let Ok(Ok(mut data)) = frame.map(Frame::into_data) else {
                return Some((Err(Cut), (frames, 0, true)));
            };
            data.truncate(left);
            let left = left - data.len();
            Some((Ok(Frame::data(data)), (frames, left, false)))
        }
    });
    Ok(Response::from_parts(parts, StreamBody::new(disturbed).boxed_unsync()))
}

/// How a disturbed log ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Clean,
    Dirty,
    Stalled,
}

impl End {
    async fn come(self, faults: &Faults) -> Option<Result<Frame<Bytes>, Cut>> {
        match self {
            Self::Clean => {
                faults.clean.fetch_add(1, Ordering::Relaxed);
                None
            }
            Self::Dirty => {
                faults.dirty.fetch_add(1, Ordering::Relaxed);
                Some(Err(Cut))
            }
            Self::Stalled => {
                faults.stalled.fetch_add(1, Ordering::Relaxed);
                std::future::pending().await
            }
        }
    }
}

/// The step whose log was asked for: of its pod's name, `RUN-STEP-ATTEMPT-HASH`, only this is the same in every run.
fn log_of(path: &str) -> Option<&str> {
    let pod = path.split('?').next()?.strip_suffix("/log")?;
    pod.rsplit('-').nth(2)
}

/// In front of a relay: connections, each with many streams of clients or executors, break after some time.
pub(crate) async fn relay(to: SocketAddr, faults: Arc<Faults>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let faults = Arc::clone(&faults);
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else {
                    return;
                };
                let life = faults.random("relay").map(|mut random| random.random_range(50..1_500));
                let carried = tokio::io::copy_bidirectional(&mut near, &mut far);
                match life {
                    None => drop(carried.await),
                    Some(millis) => {
                        if tokio::time::timeout(Duration::from_millis(millis), carried)
                            .await
                            .is_err()
                        {
                            faults.cut.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    address
}
