//! Connections of a listener, with TLS or without.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::material::{TlsError, pair, provider, roots, setup};
use crate::reload::Reloaded;

/// How long a client may take to say hello and to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are being agreed on at a time.
const HANDSHAKES: usize = 1024;
/// Pause after an accept that failed, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Certificate and authorities of a server. They are read again when their files change.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Reloaded<ServerConfig>,
    client_ca: bool,
}

impl ServerTls {
    pub(super) fn open(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let mut paths = vec![cert.to_owned(), key.to_owned()];
        paths.extend(client_ca.map(Path::to_owned));
        let named = paths.clone();
        let config = Reloaded::open("TLS", paths, move |contents| build(&named, contents))?;
        Ok(Self {
            config,
            client_ca: client_ca.is_some(),
        })
    }

    /// Whether services must show a certificate.
    pub(crate) fn wants_certificates(&self) -> bool {
        self.client_ca
    }
}

fn build(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let (certificates, private) = pair((&paths[0], &contents[0]), (&paths[1], &contents[1]))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = match (paths.get(2), contents.get(2)) {
        (Some(path), Some(pem)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path, pem)?), provider());
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().map_err(setup)?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates, private)
        .map_err(|error| TlsError::Pair {
            cert: paths[0].clone(),
            key: paths[1].clone(),
            problem: error.to_string(),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection shows its certificate anew: none outlives its end in a resumed session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// In plain text, as this listener serves.
    Plain,
    /// In plain text, although this listener serves TLS: it gets health and nothing else.
    PlainWhereTls,
    /// With TLS.
    Tls {
        /// It has shown a certificate of a service.
        certificate: bool,
    },
}

/// The other end of a connection, in the extensions of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) arrival: Arrival,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connections of a listener, each as soon as it is agreed on: a slow one holds up no other.
pub(crate) fn incoming(listener: TcpListener, tls: Option<ServerTls>) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(accept(listener, tls, sender));
    ReceiverStream::new(receiver)
}

async fn accept(listener: TcpListener, tls: Option<ServerTls>, sender: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        let Some(tls) = &tls else {
            let connection = plain(stream, Arrival::Plain);
            if sender.send(Ok(connection)).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (acceptor, sender) = (TlsAcceptor::from(tls.config.get()), sender.clone());
        tokio::spawn(async move {
            let agreed = tokio::time::timeout(HANDSHAKE, agree(acceptor, stream)).await;
            drop(place);
            match agreed {
                Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%error, "a connection was not agreed on"),
                Err(_) => tracing::debug!("a connection took too long to be agreed on"),
            }
        });
    }
}

async fn agree(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<Connection> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
        return Ok(plain(stream, Arrival::PlainWhereTls));
    }
    let stream = acceptor.accept(stream).await?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty());
    Ok(Connection {
        stream: Stream::Tls(Box::new(stream)),
        peer: Peer {
            arrival: Arrival::Tls { certificate },
        },
    })
}

fn plain(stream: TcpStream, arrival: Arrival) -> Connection {
    Connection {
        stream: Stream::Plain(stream),
        peer: Peer { arrival },
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
