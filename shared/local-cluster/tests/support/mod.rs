//! A cluster in a folder of its own, and clients for it.

#![allow(dead_code, reason = "every test file uses a part")]

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use windlass_local_cluster::{Config, Handle, LocalCluster, OnStop};

/// A running cluster that takes its processes with it.
pub(crate) struct Cluster {
    pub(crate) handle: Handle,
    pub(crate) client: Client,
    pub(crate) stop: CancellationToken,
    pub(crate) folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        Self::in_folder(folder, change).await
    }

    pub(crate) async fn in_folder(folder: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(folder.path().join("cluster"));
        config.on_stop = OnStop::Kill;
        config.shim = vec![env!("CARGO_BIN_EXE_windlass-container-shim").into()];
        change(&mut config);
        let stop = CancellationToken::new();
        let handle = LocalCluster::start(config, stop.clone()).await.expect("starts");
        let client = client(&handle).await;
        Self {
            handle,
            client,
            stop,
            folder,
        }
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Stops in order and hands back the folder for another start.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.handle.join().await;
        self.folder
    }

    pub(crate) async fn create(&self, pod: Value) -> Pod {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("created")
    }

    /// Waits, bounded, until the pod fulfils a condition.
    pub(crate) async fn wait(&self, name: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..2400 {
            last = json!(self.pods().get_opt(name).await.expect("get"));
            if done(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{name} never was {what}: {last:#}");
    }

    pub(crate) async fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        self.wait(name, "gone", Value::is_null).await;
    }
}

pub(crate) async fn client(handle: &Handle) -> Client {
    client_of(&handle.kubeconfig).await
}

pub(crate) async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).expect("kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .expect("config");
    // Tests want to see every refusal themselves.
    config.default_retry = false;
    Client::try_from(config).expect("client")
}

/// A pod with one container that runs a shell script.
pub(crate) fn shell_pod(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "main", "image": "none", "command": ["sh", "-c", script]}],
        },
    })
}

/// The reason of a refusal.
pub(crate) fn refusal(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("no refusal: {other}"),
    }
}
