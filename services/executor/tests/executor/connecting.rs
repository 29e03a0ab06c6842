//! The ways to an API server: contexts of a kubeconfig, exec plugins, and an address with files (behaviours C2, O1, O3, V3, V5, V7, V11).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use windlass_executor::kubernetes::{Api, ApiServerArgs, ConnectError, connect, connect_to};
use windlass_local_cluster::LocalCluster;

use crate::common::KUBECONFIG;

/// A cluster with TLS, and what leads to it.
struct Reached {
    folder: TempDir,
    kubeconfig: Value,
    uid: String,
    _stop: DropGuard,
}

impl Reached {
    async fn start() -> Self {
        Self::with(std::env::var_os(KUBECONFIG).map(PathBuf::from)).await
    }

    /// With the cluster of a kubeconfig, else with a local one.
    async fn with(kubeconfig: Option<PathBuf>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let stop = CancellationToken::new();
        let path = match kubeconfig {
            Some(path) => path,
            None => {
                let config = windlass_local_cluster::Config::new(folder.path());
                let cluster = LocalCluster::start(config, stop.clone()).await.expect("a cluster");
                cluster.kubeconfig.clone()
            }
        };
        let text = std::fs::read_to_string(&path).expect("a kubeconfig");
        let client = connect(Some(&path), None)
            .await
            .expect("its current context leads to it");
        Self {
            folder,
            kubeconfig: serde_saphyr::from_str(&text).expect("YAML"),
            uid: Api::new(client).cluster_uid().await.expect("it answers"),
            _stop: stop.drop_guard(),
        }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    fn cluster(&self) -> &Value {
        &self.kubeconfig["clusters"][0]["cluster"]
    }

    fn user(&self) -> &Value {
        &self.kubeconfig["users"][0]["user"]
    }

    fn server(&self) -> String {
        self.cluster()["server"].as_str().expect("an address").to_owned()
    }

    fn ca(&self) -> PathBuf {
        self.file("ca.pem", pem(&self.cluster()["certificate-authority-data"]))
    }

    async fn is_reached(&self, client: kube::Client) -> bool {
        Api::new(client).cluster_uid().await.is_ok_and(|uid| uid == self.uid)
    }
}

fn pem(data: &Value) -> Vec<u8> {
    let data = data.as_str().expect("data");
    base64::engine::general_purpose::STANDARD.decode(data).expect("base64")
}

/// behaviours C2, O3, Q3, V10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_is_not_the_current_one_is_used_and_one_that_is_not_there_is_told_with_those_that_are() {
    let reached = Reached::start().await;
    let other = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "elsewhere",
        "clusters": [
            {"name": "nobody", "cluster": {"server": "https://127.0.0.1:9"}},
            {"name": "right", "cluster": reached.cluster()},
        ],
        "users": [{"name": "stranger", "user": {"token": "wrong"}}, {"name": "known", "user": reached.user()}],
        "contexts": [
            {"name": "elsewhere", "context": {"cluster": "nobody", "user": "stranger"}},
            {"name": "here", "context": {"cluster": "right", "user": "known"}},
        ],
    });
    let path = reached.file("two.yaml", other.to_string());
    let current = connect(Some(&path), None).await.expect("a client");
    assert!(
        !reached.is_reached(current).await,
        "the current context leads elsewhere"
    );
    let here = connect(Some(&path), Some("here")).await.expect("a client");
    assert!(reached.is_reached(here).await);
    let unknown = connect(Some(&path), Some("her")).await.err().expect("no such context");
    assert_eq!(
        unknown.to_string(),
        "the kubeconfig has no context \"her\"; it has elsewhere, here; its current one is elsewhere"
    );
}

/// behaviours O1, V11, U14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_run_again_before_its_credentials_expire() {
    // The real cluster knows its administrator by a certificate, and only tokens are renewed: this is about the client.
    let reached = Reached::with(None).await;
    let folder = reached.folder.path().display();
    let token = reached.user()["token"].as_str().expect("a token");
    // The first credential is one that nobody knows, and every one is about to expire.
    let script = format!(
        "#!/bin/sh\necho run >> {folder}/runs\ntoken=stale\n[ $(wc -l < {folder}/runs) -gt 1 ] && token={token}\n\
         echo '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":\
         {{\"expirationTimestamp\":\"2020-01-01T00:00:00Z\",\"token\":\"'$token'\"}}}}'\n"
    );
    let plugin = reached.file("plugin", script);
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).expect("executable");
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": plugin,
        "interactiveMode": "Never",
    });
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": reached.cluster()}],
        "users": [{"name": "u", "user": {"exec": exec}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let path = reached.file("exec.yaml", config.to_string());
    let client = connect(Some(&path), None).await.expect("a client");
    assert!(reached.is_reached(client.clone()).await);
    let runs = |path: &Path| std::fs::read_to_string(path).expect("runs").lines().count();
    let before = runs(&reached.folder.path().join("runs"));
    assert!(before > 1, "the first one was stale");
    assert!(reached.is_reached(client).await);
    assert!(runs(&reached.folder.path().join("runs")) > before);
}

/// behaviours V3, V5, V7, E25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_files_leads_to_the_cluster_and_who_answers_is_checked() {
    let reached = Reached::start().await;
    let mut args = ApiServerArgs {
        api_server: Some(reached.server()),
        ..ApiServerArgs::default()
    };
    // A real cluster knows its administrator by a certificate, the local one by a token.
    match reached.user()["token"].as_str() {
        Some(token) => args.api_token_file = Some(reached.file("token", token)),
        None => {
            args.api_client_cert = Some(reached.file("cert.pem", pem(&reached.user()["client-certificate-data"])));
            args.api_client_key = Some(reached.file("key.pem", pem(&reached.user()["client-key-data"])));
        }
    }
    let client = async |args: &ApiServerArgs| connect_to(args).await.expect("a client").expect("named");
    assert!(
        !reached.is_reached(client(&args).await).await,
        "the system does not trust its authority"
    );
    let with_ca = ApiServerArgs {
        api_ca_file: Some(reached.ca()),
        ..args.clone()
    };
    assert!(reached.is_reached(client(&with_ca).await).await);
    let insecure = ApiServerArgs {
        api_insecure: true,
        ..args.clone()
    };
    assert!(reached.is_reached(client(&insecure).await).await, "E25: it is applied");
    let nobody = ApiServerArgs {
        api_token_file: Some(reached.file("wrong", "wrong")),
        api_client_cert: None,
        api_client_key: None,
        ..with_ca.clone()
    };
    assert!(!reached.is_reached(client(&nobody).await).await, "it does not know us");

    let plain = ApiServerArgs {
        api_server: Some(reached.server().replace("https://", "http://")),
        ..args.clone()
    };
    let refused = connect_to(&plain).await.err().expect("a token in the clear");
    assert!(matches!(refused, ConnectError::Plain(_)), "{refused}");
    let absent = ApiServerArgs {
        api_ca_file: Some(reached.folder.path().join("none")),
        ..args
    };
    let refused = connect_to(&absent).await.err().expect("no such file");
    assert!(refused.to_string().starts_with("--api-server"), "{refused}");
}
