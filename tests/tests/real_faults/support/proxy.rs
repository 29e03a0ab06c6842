//! A proxy in front of the API server that can lose answers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::net::TcpListener;
use windlass_tests::real_cluster::RealCluster;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is answered.
    Answered,
    /// The API server carries it out, and the connection breaks before the answer.
    AnswerLost,
}

/// One request that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// What the API server said, whether it got through or not.
    pub(crate) status: u16,
    pub(crate) fate: Fate,
}

type Rule = Box<dyn Fn(&Method, &str, &[Seen]) -> Fate + Send + Sync>;

struct State {
    client: kube::Client,
    rule: Rule,
    seen: Mutex<Vec<Seen>>,
}

/// The running proxy; it ends with its owner.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<Infallible>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the answer is lost on purpose")]
    OnPurpose,
    #[error("the API server does not answer: {0}")]
    Upstream(#[from] kube::Error),
    #[error("the request breaks off: {0}")]
    Request(#[from] hyper::Error),
}

impl Proxy {
    /// Forwards everything, with all rights; the rule, which sees what went before, says what becomes of each answer.
    pub(crate) async fn start(rule: impl Fn(&Method, &str, &[Seen]) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            client: RealCluster::of_environment().client().await,
            rule: Box::new(rule),
            seen: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, state.clone()));
        Self { address, state, task }
    }

    /// Writes a kubeconfig that leads here.
    pub(crate) fn write_kubeconfig(&self, path: &Path) {
        windlass_tests::log_proxy::write_kubeconfig(self.address, path);
    }

    /// All requests so far whose answers have begun.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("a lock").clone()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) -> Infallible {
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            continue;
        };
        let state = state.clone();
        let service = service_fn(move |request| forward(state.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service);
        tokio::spawn(connection);
    }
}

async fn forward(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (mut head, body) = request.into_parts();
    let (method, path) = (head.method.clone(), head.uri.to_string());
    head.headers.remove(http::header::HOST);
    let body = body.collect().await?.to_bytes().to_vec();
    let response = state.client.send(Request::from_parts(head, Body::from(body))).await?;
    let fate = {
        let mut seen = state.seen.lock().expect("a lock");
        let fate = (state.rule)(&method, &path, &seen);
        let status = response.status().as_u16();
        seen.push(Seen {
            method,
            path,
            status,
            fate,
        });
        fate
    };
    match fate {
        Fate::Answered => Ok(response),
        Fate::AnswerLost => Err(Cut::OnPurpose),
    }
}
