//! A door in front of an API server, which knows one credential at a time and answers 401 to every other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// See the module.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    known: Known,
    refused: Arc<AtomicUsize>,
    authority: Option<(String, Issuer<'static, KeyPair>)>,
    _stop: DropGuard,
}

/// Bearer tokens, and certificates in DER, that are let in.
type Known = Arc<Mutex<BTreeSet<Vec<u8>>>>;

/// A client certificate and its key, PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    der: Vec<u8>,
}

impl Gate {
    /// In front of where `client` leads, without TLS.
    pub(crate) async fn plain(client: kube::Client) -> Self {
        Self::start(client, None).await
    }

    /// With TLS; clients may show certificates.
    pub(crate) async fn tls(client: kube::Client) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("an authority").pem();
        Self::start(client, Some((pem, Issuer::new(params, key)))).await
    }

    async fn start(client: kube::Client, authority: Option<(String, Issuer<'static, KeyPair>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (known, refused, stop) = (
            Known::default(),
            Arc::<AtomicUsize>::default(),
            CancellationToken::new(),
        );
        let acceptor = authority.as_ref().map(acceptor);
        let door = (client, Arc::clone(&known), Arc::clone(&refused));
        let serving = stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (door, acceptor) = (door.clone(), acceptor.clone());
                tokio::spawn(serving.clone().run_until_cancelled_owned(async move {
                    match acceptor {
                        None => serve(stream, None, door).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else {
                                return;
                            };
                            let shown = stream.get_ref().1.peer_certificates();
                            let shown = shown.and_then(|chain| chain.first()).map(|first| first.to_vec());
                            serve(stream, shown, door).await;
                        }
                    }
                }));
            }
        }));
        Self {
            address,
            known,
            refused,
            authority,
            _stop: stop.drop_guard(),
        }
    }

    /// Lets this one in, and nobody else.
    pub(crate) fn know(&self, credential: impl Into<Vec<u8>>) {
        *self.known.lock().expect("no panic") = [credential.into()].into();
    }

    /// As [`Self::know`].
    pub(crate) fn know_certificate(&self, identity: &Identity) {
        self.know(identity.der.clone());
    }

    /// How many requests were answered with 401.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// The authority of its certificate, PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority.as_ref().expect("with TLS").0
    }

    /// A new client certificate.
    pub(crate) fn identity(&self) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let issuer = &self.authority.as_ref().expect("with TLS").1;
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }
}

fn acceptor((pem, issuer): &(String, Issuer<'static, KeyPair>)) -> TlsAcceptor {
    use rustls_pki_types::pem::PemObject as _;
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build().expect("a verifier");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        );
    TlsAcceptor::from(Arc::new(config.expect("a certificate")))
}

type Door = (kube::Client, Known, Arc<AtomicUsize>);

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, shown: Option<Vec<u8>>, door: Door) {
    let serve = service_fn(move |request| answer(request, shown.clone(), door.clone()));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // How a connection ends is the client's matter.
    server.serve_connection(TokioIo::new(stream), serve).await.ok();
}

async fn answer(
    request: Request<Incoming>,
    shown: Option<Vec<u8>>,
    (client, known, refused): Door,
) -> Result<Response<Full<Bytes>>, kube::Error> {
    let token = request.headers().get(header::AUTHORIZATION);
    let token = token
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .map(<[u8]>::to_vec);
    let is_known = {
        let known = known.lock().expect("no panic");
        shown
            .into_iter()
            .chain(token)
            .any(|credential| known.contains(&credential))
    };
    if !is_known {
        refused.fetch_add(1, Ordering::SeqCst);
        let status =
            r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "code": 401}"#;
        let mut answer = Response::new(Full::from(status));
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(answer);
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut forwarded = Request::new(kube::client::Body::from(body.to_vec()));
    *forwarded.method_mut() = parts.method;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    *forwarded.uri_mut() = path.parse().expect("a path");
    if let Some(of_body) = parts.headers.get(header::CONTENT_TYPE) {
        forwarded.headers_mut().insert(header::CONTENT_TYPE, of_body.clone());
    }
    let (parts, body) = client.send(forwarded).await?.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::from_parts(parts, Full::from(body)))
}
