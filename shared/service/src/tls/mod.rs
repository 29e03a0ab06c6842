//! TLS: the flags, the server's side and the dialler's side.
//!
//! There is one provider of cryptography (ring), named wherever a configuration is built: nothing global is installed.

mod client;
mod material;
mod server;

use std::path::PathBuf;

use clap::Args;

pub use client::{ClientTls, DialError};
pub use material::TlsError;
pub use server::ServerTls;
pub(crate) use server::{Arrival, Peer, incoming};

/// Settings of TLS, the same for every service.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsArgs {
    /// Certificate chain (PEM) with which this service serves TLS; read again when it changes.
    #[arg(long, env = "WINDLASS_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate.
    #[arg(long, env = "WINDLASS_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authority (PEM) of the services' client certificates: executors and relays must show one of its certificates, others may.
    /// Sign with it for services only.
    #[arg(long, env = "WINDLASS_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Authority (PEM) by which services that are dialled at `https://` are verified; the system's when absent.
    #[arg(long, env = "WINDLASS_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate chain (PEM) that is shown to services that are dialled; that of --tls-cert when absent.
    #[arg(
        long,
        env = "WINDLASS_TLS_CLIENT_CERT",
        value_name = "FILE",
        requires = "tls_client_key"
    )]
    pub tls_client_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate that is shown.
    #[arg(
        long,
        env = "WINDLASS_TLS_CLIENT_KEY",
        value_name = "FILE",
        requires = "tls_client_cert"
    )]
    pub tls_client_key: Option<PathBuf>,
}

impl TlsArgs {
    /// The server's side; none without a certificate.
    ///
    /// # Errors
    /// When a file cannot be read or used. Must be called inside a tokio runtime.
    pub fn server(&self) -> Result<Option<ServerTls>, TlsError> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => ServerTls::open(cert, key, self.tls_client_ca.as_deref()).map(Some),
            _ => Ok(None),
        }
    }

    /// The dialler's side.
    pub fn client(&self) -> ClientTls {
        let pair = |cert: &Option<PathBuf>, key: &Option<PathBuf>| cert.clone().zip(key.clone());
        ClientTls {
            ca: self.tls_ca.clone(),
            identity: pair(&self.tls_client_cert, &self.tls_client_key).or_else(|| pair(&self.tls_cert, &self.tls_key)),
        }
    }

    /// The scheme of the addresses at which this service is dialled.
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }
}
