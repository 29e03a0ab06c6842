//! Dialling with TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as Rustls};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::material::{TlsError, pair, provider, roots, setup, system_roots};
use crate::reload::read;

/// The port of addresses that name none.
const DEFAULT_PORT: u16 = 443;

/// Whom a dialler trusts, and what it shows. The files are read at every dial, so that renewed ones are in use from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authority of the servers; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown when a server asks.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a server was not reached with TLS.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// Files that cannot be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The server's certificate is of an unknown authority.
    #[error(
        "the certificate of {address} is signed by no authority that is trusted here; name the right one with --tls-ca \
         (--ca for the command line)"
    )]
    UnknownAuthority {
        /// The server.
        address: String,
    },
    /// The server's certificate is for other names.
    #[error("the certificate of {address} is not for this name ({problem})")]
    OtherName {
        /// The server.
        address: String,
        /// Which names it is for.
        problem: String,
    },
    /// The server's certificate is over, or not yet good.
    #[error("the certificate of {address} is not valid now: {problem}")]
    OutOfTime {
        /// The server.
        address: String,
        /// Since when.
        problem: String,
    },
    /// The server answers in plain text.
    #[error("{address} does not speak TLS; if it is the right server, dial it with http://")]
    NotTls {
        /// The server.
        address: String,
    },
    /// Anything else about TLS.
    #[error("no TLS with {address}: {problem}")]
    Other {
        /// The server.
        address: String,
        /// What is wrong.
        problem: String,
    },
}

impl ClientTls {
    /// The configuration, of what the files hold now.
    pub(crate) fn config(&self) -> Result<ClientConfig, TlsError> {
        let roots = match &self.ca {
            Some(path) => roots(path, &read(path)?)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some((cert, key)) => {
                let (certificates, private) = pair((cert, &read(cert)?), (key, &read(key)?))?;
                builder
                    .with_client_auth_cert(certificates, private)
                    .map_err(|error| TlsError::Pair {
                        cert: cert.clone(),
                        key: key.clone(),
                        problem: error.to_string(),
                    })?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// A connection to the server of an address.
    pub(crate) async fn dial(self, uri: Uri) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
        self.dial_for(uri, b"h2").await
    }

    /// As for gRPC, for a server that speaks HTTP/1.1.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial_http1(self, uri: Uri) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
        self.dial_for(uri, b"http/1.1").await
    }

    async fn dial_for(self, uri: Uri, protocol: &[u8]) -> Result<TokioIo<TlsStream<TcpStream>>, DialError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut config = self.config()?;
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(host.clone()).map_err(|error| DialError::Other {
            address: address.clone(),
            problem: error.to_string(),
        })?;
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let agreed = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        agreed.map(TokioIo::new).map_err(|error| told(address, error))
    }
}

fn told(address: String, error: io::Error) -> DialError {
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => DialError::NotTls { address },
            _ => DialError::Connect(error),
        };
    };
    let problem = cause.to_string();
    match cause {
        Rustls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            DialError::UnknownAuthority { address }
        }
        Rustls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => DialError::OtherName { address, problem },
        Rustls::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => DialError::OutOfTime { address, problem },
        Rustls::InvalidMessage(_) => DialError::NotTls { address },
        Rustls::AlertReceived(alert) => DialError::Other {
            address,
            problem: format!("it refused with {}", described(*alert)),
        },
        _ => DialError::Other { address, problem },
    }
}

fn described(alert: AlertDescription) -> String {
    format!("the alert {alert:?}")
}
