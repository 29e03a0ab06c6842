//! A proxy in front of a real API server that does to requests what a local cluster's faults do to them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_local_cluster::{Faults, Verdict};

type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Cut;

/// Listens, with plain HTTP, until `shutdown`; requests go to where `client` leads.
pub async fn start(client: kube::Client, faults: Faults, shutdown: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (client, faults) = (client.clone(), faults.clone());
            let serve = service_fn(move |request| answer(client.clone(), faults.clone(), request));
            let shutdown = shutdown.clone();
            tokio::spawn(shutdown.run_until_cancelled_owned(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // How a connection ends is the client's matter.
                server.serve_connection(TokioIo::new(stream), serve).await.ok();
            }));
        }
    }));
    address
}

async fn answer(client: kube::Client, faults: Faults, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (parts, incoming) = request.into_parts();
    let content = incoming.collect().await.map_err(|_| Cut)?.to_bytes();
    let (verb, resource, name) = classify(&parts, &content);
    let verdict = faults.judge(verb, &resource, &name);
    let mut request = Request::new(kube::client::Body::from(content.to_vec()));
    *request.method_mut() = parts.method;
    *request.uri_mut() = parts
        .uri
        .path_and_query()
        .map_or_else(|| "/".into(), ToString::to_string)
        .parse()
        .map_err(|_| Cut)?;
    for name in [header::CONTENT_TYPE, header::ACCEPT, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    match verdict.delay {
        None => judged(client, faults, verdict, verb, request).await,
        // A client that gives up takes nothing back.
        Some(delay) => {
            let late = tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                judged(client, faults, verdict, verb, request).await
            });
            late.await.unwrap_or(Err(Cut))
        }
    }
}

async fn judged(
    client: kube::Client,
    faults: Faults,
    verdict: Verdict,
    verb: &'static str,
    request: Request<kube::client::Body>,
) -> Result<Response<Body>, Cut> {
    if verdict.cut {
        return Err(Cut);
    }
    if let Some(error) = verdict.refuse {
        let status = Full::new(Bytes::from(error.to_value().to_string()));
        let mut response = Response::new(status.map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = error.code;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = error.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return Ok(response);
    }
    let mut breaks = faults.watch_breaks();
    let response = client.send(request).await.map_err(|_| Cut)?;
    if verdict.lose_reply {
        return Err(Cut);
    }
    tokio::time::sleep(verdict.late_reply.unwrap_or(Duration::ZERO)).await;
    let (mut parts, body) = response.into_parts();
    // What was decoded on the way here is sent as it is.
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
    ] {
        parts.headers.remove(name);
    }
    let frames = TryStreamExt::map_err(BodyStream::new(body), |_| Cut);
    if verb != "watch" || parts.status != StatusCode::OK {
        return Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()));
    }
    breaks.mark_unchanged();
    let broken = async move {
        drop(breaks.changed().await);
        Err::<Frame<Bytes>, Cut>(Cut)
    };
    let frames = futures::stream::select(
        frames.map(Some).chain(futures::stream::iter([None])),
        futures::stream::once(broken).map(Some),
    );
    let until_its_end = frames
        .take_while(|frame| std::future::ready(frame.is_some()))
        .filter_map(std::future::ready);
    Ok(Response::from_parts(
        parts,
        StreamBody::new(until_its_end).boxed_unsync(),
    ))
}

/// Verb, plural of the kind, and name, as faults know them.
fn classify(parts: &http::request::Parts, content: &[u8]) -> (&'static str, String, String) {
    let mut words = parts.uri.path().split('/').skip(1);
    match words.next() {
        Some("api") => words.next(),
        _ => words.nth(1),
    };
    let mut words: Vec<&str> = words.collect();
    if words.len() > 2 && words[0] == "namespaces" {
        words.drain(..2);
    }
    let word = |index: usize| words.get(index).copied().unwrap_or_default().to_owned();
    let (resource, name, subresource) = (word(0), word(1), word(2));
    let is_watch = parts.uri.query().unwrap_or_default().contains("watch=true");
    let verb = match (&parts.method, name.is_empty()) {
        _ if subresource == "log" => "log",
        (&Method::GET, true) if is_watch => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        (&Method::DELETE, false) => "delete",
        _ => "update",
    };
    if verb != "create" {
        return (verb, resource, name);
    }
    let object: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
    (
        verb,
        resource,
        object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
    )
}
