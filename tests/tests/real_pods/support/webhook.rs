//! An admission webhook that the test answers, for the pods of one namespace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use windlass_tests::wait::until;

use super::scene::Scene;

/// What the webhook says.
#[derive(Debug)]
pub(crate) enum Answer {
    Allow,
    Deny(&'static str),
}

/// Answers a request of an admission review.
type Handler = dyn Fn(Value) -> BoxFuture<'static, Answer> + Send + Sync;

/// A webhook that is asked; see the module.
#[derive(Debug)]
pub(crate) struct Webhook {
    configurations: Api<ValidatingWebhookConfiguration>,
    name: String,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Asked {
    handler: Arc<Handler>,
    /// Questions about pods that only find out whether the webhook is asked.
    probes: Arc<AtomicUsize>,
}

const PROBE: &str = "probe";

impl Webhook {
    /// Starts one that answers what `handler` says, and waits until the API server asks it.
    pub(crate) async fn start(
        scene: &Scene,
        handler: impl Fn(Value) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        let asked = Asked {
            handler: Arc::new(handler),
            probes: Arc::default(),
        };
        let (listener, certificate) = listener().await;
        let address = listener.listener.local_addr().expect("an address");
        let router = Router::new().route("/", post(review)).with_state(asked.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(scene.client.clone());
        let configuration = configuration(scene.name(), address, &certificate);
        configurations
            .create(&PostParams::default(), &configuration)
            .await
            .expect("a configuration");
        let pods: Api<Pod> = scene.api();
        until("the webhook is asked", async || {
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            pods.create(&dry_run, &probe()).await.ok();
            match asked.probes.load(Ordering::SeqCst) {
                0 => Err("not asked"),
                _ => Ok(()),
            }
        })
        .await;
        Self {
            configurations,
            name: scene.name().to_owned(),
            serving,
        }
    }

    /// Takes it away.
    pub(crate) async fn remove(self) {
        self.configurations
            .delete(&self.name, &DeleteParams::default())
            .await
            .expect("it is removed");
        self.serving.abort();
    }
}

fn probe() -> Pod {
    let pod = json!({"metadata": {"name": PROBE}, "spec": {"containers": [{"name": "main", "image": "busybox:1.36"}]}});
    serde_json::from_value(pod).expect("a pod")
}

fn configuration(namespace: &str, address: SocketAddr, certificate: &str) -> ValidatingWebhookConfiguration {
    let configuration = json!({"metadata": {"name": namespace}, "webhooks": [{
        "name": "pods.policy.example",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 1,
        "clientConfig": {"url": format!("https://{address}/"), "caBundle": STANDARD.encode(certificate)},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
    }]});
    serde_json::from_value(configuration).expect("a configuration")
}

async fn review(State(asked): State<Asked>, Json(review): Json<Value>) -> Json<Value> {
    let request = review["request"].clone();
    let uid = request["uid"].clone();
    let answer = if request["name"] == PROBE {
        asked.probes.fetch_add(1, Ordering::SeqCst);
        Answer::Allow
    } else {
        (asked.handler)(request).await
    };
    let response = match answer {
        Answer::Allow => json!({"uid": uid, "allowed": true}),
        Answer::Deny(message) => json!({"uid": uid, "allowed": false, "status": {"code": 403, "message": message}}),
    };
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.expect("a connection");
            // One that ends in its handshake asks nothing.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A listener with a certificate of its own, and that certificate as PEM.
async fn listener() -> (TlsListener, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.self_signed(&key).expect("a certificate");
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate for the key");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (TlsListener { listener, acceptor }, certificate.pem())
}
