//! Certificates and keys from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::reload::ReadError;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file holds no certificate.
    #[error("{path} holds no certificate; it must be PEM with at least one `BEGIN CERTIFICATE`")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds something that is no certificate.
    #[error("{path} holds a certificate that cannot be used: {problem}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file holds no private key.
    #[error("{path} holds no private key; it must be PEM with a `BEGIN PRIVATE KEY`, not encrypted")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or are of an unknown kind.
    #[error("the certificate {cert} and the key {key} cannot be used: {problem}")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system has no authorities.
    #[error("the system has no certificate authorities; name the services' with --tls-ca (--ca for the command line)")]
    NoSystemRoots,
    /// TLS itself cannot be configured.
    #[error("TLS cannot be configured: {problem}")]
    Setup {
        /// What is wrong.
        problem: String,
    },
}

/// Certificates and their key.
pub(super) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| TlsError::BadCertificate {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

pub(super) fn pair(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Pair, TlsError> {
    let private = PrivateKeyDer::from_pem_slice(key.1).map_err(|_| TlsError::NoKey { path: key.0.to_owned() })?;
    Ok((certificates(cert.0, cert.1)?, private))
}

pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| TlsError::BadCertificate {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
    }
    Ok(roots)
}

pub(super) fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots)
}

pub(super) fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup {
        problem: error.to_string(),
    }
}
