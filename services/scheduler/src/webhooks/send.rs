//! One POST, on a connection of its own.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use windlass_service::{ClientTls, DialError};

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where messages go. It is never printed: the path or the query may be a secret (I8).
pub(super) struct Endpoint {
    uri: Uri,
    tls: Option<ClientTls>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

/// A message with its headers.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) seconds: i64,
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

/// Why a message got no answer. No text of it has the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("no connection: {0}")]
    Connect(std::io::ErrorKind),
    #[error("no TLS")]
    Tls,
    #[error("no answer within {}s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection broke")]
    Broken,
}

impl Endpoint {
    pub(super) fn parse(text: &str, ca: Option<PathBuf>) -> Result<Self, &'static str> {
        let scheme = "must begin with https:// or http://";
        let uri: Uri = text.parse().map_err(|_| "is no URL")?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(ClientTls { ca, identity: None }),
            Some("http") if ca.is_none() => None,
            Some("http") => return Err("is in plain text, and needs no caFile"),
            _ => return Err(scheme),
        };
        let authority = uri.authority().ok_or("must name a host")?;
        if authority.as_str().contains('@') {
            return Err("must not have a user; receivers know us by the signature");
        }
        Ok(Self { uri, tls })
    }

    /// Sends a message and returns how it was answered; redirects are not followed.
    pub(super) async fn send(&self, message: Message) -> Result<StatusCode, SendError> {
        tokio::time::timeout(TIMEOUT, self.exchange(message))
            .await
            .unwrap_or(Err(SendError::Timeout))
    }

    async fn exchange(&self, message: Message) -> Result<StatusCode, SendError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.seconds)
            .header("webhook-signature", message.signature)
            .body(Full::new(Bytes::from(message.body)))
            .map_err(|_| SendError::Broken)?;
        match &self.tls {
            Some(tls) => {
                let dialled = tls.clone().dial_http1(self.uri.clone()).await;
                let stream = dialled.map_err(|error| match error {
                    DialError::Connect(error) => SendError::Connect(error.kind()),
                    _ => SendError::Tls,
                })?;
                post(stream, request).await
            }
            None => {
                let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let stream = TcpStream::connect((host, self.uri.port_u16().unwrap_or(80))).await;
                post(
                    TokioIo::new(stream.map_err(|error| SendError::Connect(error.kind()))?),
                    request,
                )
                .await
            }
        }
    }
}

async fn post<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, SendError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|_| SendError::Broken)?;
    let answer = async move { sender.send_request(request).await.map(|answer| answer.status()) };
    // Both: the connection is driven until the head of the answer is there, and dropped with the rest.
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer.map_err(|_| SendError::Broken),
        _ = &mut connection => answer.await.map_err(|_| SendError::Broken),
    }
}
