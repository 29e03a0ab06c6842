//! Credentials that change while they are used (behaviours O1, V5, V7, V11, C1, U14).

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use windlass_executor::kubernetes::{Api, ApiServerArgs, connect, connect_to};
use windlass_local_cluster::LocalCluster;

use crate::gate::Gate;

/// A cluster behind a door, and a folder for what leads to it.
struct Scene {
    folder: TempDir,
    cluster: kube::Client,
    _stop: DropGuard,
}

impl Scene {
    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let stop = CancellationToken::new();
        let config = windlass_local_cluster::Config::new(folder.path().join("cluster"));
        let cluster = LocalCluster::start(config, stop.clone()).await.expect("a cluster");
        let cluster = connect(Some(&cluster.kubeconfig), None).await.expect("a client");
        Self {
            folder,
            cluster,
            _stop: stop.drop_guard(),
        }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// A plugin that gives what stands in the file `credential`, and writes down that it ran.
    fn plugin(&self) -> Value {
        let folder = self.folder.path().display();
        let script = format!("#!/bin/sh\necho run >> {folder}/runs\ncat {folder}/credential\n");
        let plugin = self.file("plugin", script);
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).expect("executable");
        json!({"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never"})
    }

    fn plugin_gives(&self, status: Value) {
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": status,
        });
        self.file("credential", credential.to_string());
    }

    /// How often the plugin ran.
    fn runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.folder.path().join("runs"));
        runs.unwrap_or_default().lines().count()
    }

    fn kubeconfig(&self, server: String, authority: Option<&str>, user: Value) -> PathBuf {
        use base64::Engine as _;
        let authority = authority.map(|pem| base64::engine::general_purpose::STANDARD.encode(pem));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        self.file("kubeconfig", config.to_string())
    }
}

async fn is_let_in(client: &kube::Client) -> bool {
    Api::new(client.clone()).cluster_uid().await.is_ok()
}

/// The plugin tells no end, so that nothing but the 401 says that its token is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u14_a_plugin_is_run_again_once_when_its_token_is_refused_however_many_requests_were() {
    let scene = Scene::start().await;
    let gate = Gate::plain(scene.cluster.clone()).await;
    gate.know("first");
    scene.plugin_gives(json!({"token": "first"}));
    let user = json!({"exec": scene.plugin()});
    let kubeconfig = scene.kubeconfig(format!("http://{}", gate.address), None, user);
    let client = connect(Some(&kubeconfig), None).await.expect("a client");
    let of_one = scene.runs();
    assert!(is_let_in(&client).await);
    assert_eq!(
        (scene.runs(), gate.refused()),
        (of_one, 0),
        "nothing is asked for without need"
    );

    scene.plugin_gives(json!({"token": "second"}));
    gate.know("second");
    let many = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { is_let_in(&client).await })
    });
    for request in many.collect::<Vec<_>>() {
        assert!(request.await.expect("no panic"), "it is sent again");
    }
    assert_eq!(scene.runs(), 2 * of_one, "one renewal for all");

    // A token that stays wrong is no reason to ask again and again.
    gate.know("third");
    let before = gate.refused();
    for _ in 0..20 {
        assert!(!is_let_in(&client).await);
    }
    assert_eq!(scene.runs(), 2 * of_one);
    assert_eq!(gate.refused() - before, 20, "each was sent once");
}

/// A POST is sent again with its body, and done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_a_token_file_and_a_kubeconfig_are_read_again_when_their_token_is_refused() {
    let scene = Scene::start().await;
    let gate = Gate::plain(scene.cluster.clone()).await;
    gate.know("first");
    let token = scene.file("token", "first");
    let args = ApiServerArgs {
        api_server: Some(format!("http://{}", gate.address)),
        api_token_file: Some(token),
        api_insecure: true,
        ..ApiServerArgs::default()
    };
    let by_file = connect_to(&args).await.expect("a client").expect("named");
    let with = |token: &str| scene.kubeconfig(format!("http://{}", gate.address), None, json!({"token": token}));
    let by_kubeconfig = connect(Some(&with("first")), None).await.expect("a client");
    assert!(is_let_in(&by_file).await && is_let_in(&by_kubeconfig).await);

    scene.file("token", "second");
    with("second");
    gate.know("second");
    let made = ConfigMap {
        metadata: ObjectMeta {
            name: Some("made-once".to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let maps = kube::Api::<ConfigMap>::namespaced(by_file, "default");
    let made = maps.create(&PostParams::default(), &made).await;
    assert!(made.expect("by the second try").metadata.uid.is_some());
    assert!(is_let_in(&by_kubeconfig).await);
    assert_eq!(gate.refused(), 2, "one for each client");
}

/// behaviours E25: a certificate comes from files, and is held in memory alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v5_a_client_certificate_is_read_again_from_its_files_when_it_is_refused() {
    let scene = Scene::start().await;
    let gate = Gate::tls(scene.cluster.clone()).await;
    let (first, second) = (gate.identity(), gate.identity());
    let args = ApiServerArgs {
        api_server: Some(format!("https://{}", gate.address)),
        api_ca_file: Some(scene.file("ca.pem", gate.authority())),
        api_client_cert: Some(scene.file("cert.pem", &first.certificate)),
        api_client_key: Some(scene.file("key.pem", &first.key)),
        ..ApiServerArgs::default()
    };
    gate.know_certificate(&first);
    let client = connect_to(&args).await.expect("a client").expect("named");
    assert!(is_let_in(&client).await);
    scene.file("cert.pem", &second.certificate);
    scene.file("key.pem", &second.key);
    gate.know_certificate(&second);
    assert!(is_let_in(&client).await, "over a connection with the new certificate");
    assert_eq!(gate.refused(), 1);
}

/// behaviours V11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v11_a_certificate_of_a_plugin_is_renewed_before_its_end() {
    let scene = Scene::start().await;
    let gate = Gate::tls(scene.cluster.clone()).await;
    let (first, second) = (gate.identity(), gate.identity());
    let status = |identity: &crate::gate::Identity, end: &str| {
        json!({
            "clientCertificateData": identity.certificate,
            "clientKeyData": identity.key,
            "expirationTimestamp": end,
        })
    };
    scene.plugin_gives(status(&first, "2020-01-01T00:00:00Z"));
    let server = format!("https://{}", gate.address);
    let kubeconfig = scene.kubeconfig(server, Some(gate.authority()), json!({"exec": scene.plugin()}));
    let client = connect(Some(&kubeconfig), None).await.expect("a client");
    scene.plugin_gives(status(&second, "2999-01-01T00:00:00Z"));
    gate.know_certificate(&second);
    assert!(is_let_in(&client).await);
    assert_eq!(gate.refused(), 0, "nobody had to refuse the first one");
    let runs = scene.runs();
    assert!(is_let_in(&client).await);
    assert_eq!(scene.runs(), runs, "it is good for long");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_cannot_be_found_again_leave_those_of_before() {
    let scene = Scene::start().await;
    let gate = Gate::plain(scene.cluster.clone()).await;
    gate.know("first");
    let user = json!({"token": "first"});
    let kubeconfig = scene.kubeconfig(format!("http://{}", gate.address), None, user);
    let client = connect(Some(&kubeconfig), None).await.expect("a client");
    std::fs::write(&kubeconfig, "no kubeconfig").expect("written");
    gate.know("other");
    let error = Api::new(client.clone()).cluster_uid().await.expect_err("refused");
    assert_eq!(error.code(), Some(401), "{error}");
    gate.know("first");
    assert!(is_let_in(&client).await);
}

/// behaviours E25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_e25_what_a_plugin_writes_is_in_no_error() {
    let scene = Scene::start().await;
    let user = json!({"exec": scene.plugin()});
    let kubeconfig = scene.kubeconfig("http://127.0.0.1:9".to_owned(), None, user);
    for end in ["exit 1", "true"] {
        let script = format!("#!/bin/sh\necho '{{\"status\": {{\"token\": \"hush-hush\"'\n{end}\n");
        scene.file("plugin", script);
        let error = connect(Some(&kubeconfig), None).await.err().expect("no credential");
        let error = anyhow::Error::from(error);
        let told = format!("{error:?} {error:#}");
        assert!(told.contains("plugin") && !told.contains("hush-hush"), "{told}");
    }
}
