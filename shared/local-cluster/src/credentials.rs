//! Token, certificates and kubeconfig: made at the first start, kept 0600, the same after a restart.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("the local cluster's certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// rustls refuses the certificate.
    #[error("the local cluster's certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

/// The token of the data folder, made when there is none. A given one replaces it.
pub(crate) fn token(folder: &Path, given: Option<&str>) -> Result<String, CredentialsError> {
    let path = folder.join("token");
    if given.is_none()
        && let Ok(kept) = std::fs::read_to_string(&path)
        && !kept.trim().is_empty()
    {
        return Ok(kept.trim().to_owned());
    }
    let token = match given {
        Some(token) => token.to_owned(),
        None => hex::encode(rand::random::<[u8; 32]>()),
    };
    write_private(&path, token.as_bytes())?;
    Ok(token)
}

/// The TLS side of the server.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) ca_pem: String,
    pub(crate) config: Arc<rustls::ServerConfig>,
}

/// The certificate authority of the data folder, made when there is none, and a fresh server certificate by it.
pub(crate) fn tls(folder: &Path, listen: IpAddr) -> Result<Tls, CredentialsError> {
    let key_path = folder.join("ca.key");
    let ca_path = folder.join("ca.pem");
    let kept = std::fs::read_to_string(&key_path)
        .ok()
        .zip(std::fs::read_to_string(&ca_path).ok());
    let (key, ca_pem) = match kept {
        Some((key, pem)) => (KeyPair::from_pem(&key)?, pem),
        None => {
            let key = KeyPair::generate()?;
            let pem = ca_params().self_signed(&key)?.pem();
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            write_private(&ca_path, pem.as_bytes())?;
            (key, pem)
        }
    };
    let issuer = Issuer::new(ca_params(), key);
    let server_key = KeyPair::generate()?;
    let certificate = server_params(listen)?.signed_by(&server_key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls {
        ca_pem,
        config: Arc::new(config),
    })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "windlass local cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn server_params(listen: IpAddr) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "windlass local cluster server");
    for address in [listen, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let name = SanType::IpAddress(address);
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The address that clients on this machine use.
pub(crate) fn url(tls: bool, bound: SocketAddr) -> String {
    let ip = match bound.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, bound.port()))
}

/// Writes a kubeconfig with one cluster, one user and one context.
pub(crate) fn write_kubeconfig(
    folder: &Path,
    url: &str,
    ca_pem: Option<&str>,
    token: &str,
) -> Result<PathBuf, CredentialsError> {
    let path = folder.join("kubeconfig");
    let ca = ca_pem.map_or_else(String::new, |pem| {
        format!("    certificate-authority-data: {}\n", STANDARD.encode(pem))
    });
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: windlass-local\n  cluster:\n    server: {url}\n{ca}users:\n- name: windlass-local\n  user:\n    token: {token}\ncontexts:\n- name: windlass-local\n  context:\n    cluster: windlass-local\n    user: windlass-local\n    namespace: default\ncurrent-context: windlass-local\n"
    );
    write_private(&path, text.as_bytes())?;
    Ok(path)
}

/// Writes a file that only its owner can read, in one step.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), CredentialsError> {
    let failed = |source| CredentialsError::File {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn credentials_are_private_and_survive_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let first = token(folder.path(), None).expect("token");
        assert_eq!(token(folder.path(), None).expect("token"), first);
        assert_eq!(token(folder.path(), Some("mine")).expect("token"), "mine");
        let ca = tls(folder.path(), Ipv4Addr::LOCALHOST.into()).expect("tls").ca_pem;
        assert_eq!(tls(folder.path(), Ipv4Addr::LOCALHOST.into()).expect("tls").ca_pem, ca);
        write_kubeconfig(folder.path(), "https://127.0.0.1:1", Some(&ca), &first).expect("kubeconfig");
        for file in ["token", "ca.key", "kubeconfig"] {
            let mode = std::fs::metadata(folder.path().join(file))
                .expect(file)
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
