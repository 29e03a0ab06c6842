//! A proxy in front of an API server, for clients without TLS, that ends logs before they are over.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt};
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// What is answered.
pub type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
pub struct Cut;

/// What becomes of a log that is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It comes whole.
    Whole,
    /// It ends like that after so many bytes.
    Bytes(usize, End),
    /// It ends like that after this time.
    Time(Duration, End),
}

/// How a disturbed log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As if it were over.
    Clean,
    /// As if it were over, once more comes, which is lost: the kubelet's way after four hours.
    CleanOnceMoreComes,
    /// The connection breaks.
    Dirty,
    /// Nothing comes any more.
    Stalled,
}

/// Who decides.
pub trait Faults: Send + Sync + 'static {
    /// What becomes of the log of a pod that is asked for.
    fn fate(&self, pod: &str) -> Fate;
    /// It ended like that.
    fn ended(&self, pod: &str, end: End);
}

/// Starts it; it ends with the runtime.
///
/// # Panics
/// When there is no port.
pub async fn start(client: kube::Client, faults: Arc<impl Faults>) -> SocketAddr {
    serve(move |request| answer(client.clone(), Arc::clone(&faults), request)).await
}

/// Starts a server without TLS on a free port; it ends with the runtime.
///
/// # Panics
/// When there is no port.
pub async fn serve<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Result<Response<Body>, Cut>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            let serve = service_fn(answer.clone());
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // How a connection ends is the client's matter.
                server.serve_connection(TokioIo::new(stream), serve).await.ok();
            });
        }
    });
    address
}

/// Writes a kubeconfig that leads to a proxy.
///
/// # Panics
/// When it cannot be written.
pub fn write_kubeconfig(address: SocketAddr, path: &Path) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    });
    std::fs::write(path, config.to_string()).expect("a file");
}

/// Asks an API server what was asked here.
///
/// # Errors
/// When it does not answer.
pub async fn pass_on(client: &kube::Client, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (parts, incoming) = request.into_parts();
    let content = incoming.collect().await.map_err(|_| Cut)?.to_bytes();
    let path = parts.uri.path_and_query().ok_or(Cut)?.as_str();
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
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

async fn answer(
    client: kube::Client,
    faults: Arc<impl Faults>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let path = request.uri().path().to_owned();
    let response = pass_on(&client, request).await?;
    let Some(pod) = pod_of(&path).filter(|_| response.status().is_success()) else {
        return Ok(response);
    };
    let (bytes, time, end) = match faults.fate(pod) {
        Fate::Whole => return Ok(response),
        Fate::Bytes(bytes, end) => (Some(bytes), None, end),
        Fate::Time(time, end) => (None, Some(Instant::now() + time), end),
    };
    let (parts, body) = response.into_parts();
    let disturbed = Disturbed {
        frames: BodyStream::new(body),
        bytes,
        time,
        end,
        over: false,
        faults,
        pod: pod.to_owned(),
    };
    let frames = futures::stream::unfold(disturbed, async |mut log| log.next().await.map(|frame| (frame, log)));
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

/// A log that ends before it is over.
struct Disturbed<S, F> {
    frames: S,
    /// How much it may still give.
    bytes: Option<usize>,
    /// Until when.
    time: Option<Instant>,
    end: End,
    over: bool,
    faults: Arc<F>,
    pod: String,
}

impl<S, F> Disturbed<S, F>
where
    S: futures::Stream<Item = Result<Frame<Bytes>, Cut>> + Unpin,
    F: Faults,
{
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        if self.over {
            return None;
        }
        if self.bytes == Some(0) {
            return self.come_to_the_end().await;
        }
        let deadline = self.time;
        let past = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            biased;
            () = past => return self.come_to_the_end().await,
            frame = self.frames.next() => frame?,
        };
        let Ok(Ok(mut data)) = frame.map(Frame::into_data) else {
            self.over = true;
            return Some(Err(Cut));
        };
        if let Some(left) = &mut self.bytes {
            data.truncate(*left);
            *left -= data.len();
        }
        Some(Ok(Frame::data(data)))
    }

    async fn come_to_the_end(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        self.over = true;
        if self.end == End::CleanOnceMoreComes {
            self.frames.next().await?.ok()?;
        }
        self.faults.ended(&self.pod, self.end);
        match self.end {
            End::Clean | End::CleanOnceMoreComes => None,
            End::Dirty => Some(Err(Cut)),
            End::Stalled => std::future::pending().await,
        }
    }
}

/// The pod whose log is asked for.
fn pod_of(path: &str) -> Option<&str> {
    let path = path.split('?').next()?.strip_suffix("/log")?;
    path.rsplit('/').next()
}
