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
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use windlass_tests::tls::TlsListener;
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
        let (listener, certificate) = TlsListener::bind().await;
        let address = listener.address();
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
