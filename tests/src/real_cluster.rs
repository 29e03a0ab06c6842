//! The real Kubernetes of `tests/cluster`, for tests that need more than the local cluster can show.

use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::wait::until;

/// Names the kubeconfig that `tests/cluster/up.sh` has written.
pub const KUBECONFIG: &str = "WINDLASS_TEST_KUBECONFIG";

/// A running cluster.
#[derive(Clone, Debug)]
pub struct RealCluster {
    kubeconfig: PathBuf,
}

impl RealCluster {
    /// The one that [`KUBECONFIG`] names.
    ///
    /// # Panics
    /// When it names none: these tests are only built where there is a cluster.
    pub fn of_environment() -> Self {
        let kubeconfig = std::env::var_os(KUBECONFIG);
        let kubeconfig = kubeconfig.unwrap_or_else(|| {
            panic!("{KUBECONFIG} is not set: start a cluster with tests/cluster/up.sh and name its kubeconfig")
        });
        Self {
            kubeconfig: PathBuf::from(kubeconfig),
        }
    }

    /// Its kubeconfig, with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// The folder of the running cluster: its pids, its logs, its nodes.
    ///
    /// # Panics
    /// When the kubeconfig lies in no folder.
    pub fn folder(&self) -> PathBuf {
        self.kubeconfig.parent().expect("a folder").to_owned()
    }

    /// Pid of one of its programs: `etcd`, `kube-apiserver`, `node-127.0.0.1`.
    ///
    /// # Panics
    /// When no such program was started.
    pub fn pid(&self, program: &str) -> i32 {
        let file = self.folder().join("pids").join(format!("{program}.pid"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.trim().parse().expect("a pid")
    }

    /// Starts again what has died.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn up(&self, nodes: u32) {
        let folder = self.folder();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/up.sh");
        let output = Command::new(script)
            .args(["--nodes", &nodes.to_string()])
            .env("CLUSTER_NETWORK", folder.file_name().expect("a name"))
            .env("CLUSTER_RUN", &folder)
            .output()
            .expect("the script runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A client with all rights.
    ///
    /// # Panics
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> kube::Client {
        self.client_as("windlass-tests").await
    }

    /// A client with all rights whose user agent is told.
    ///
    /// # Panics
    /// When the kubeconfig cannot be used.
    pub async fn client_as(&self, user_agent: &'static str) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.expect("a configuration");
        let name = http::HeaderValue::from_static(user_agent);
        config.headers.push((http::header::USER_AGENT, name));
        kube::Client::try_from(config).expect("a client")
    }

    /// A namespace of its own for a test, in which pods are accepted.
    pub async fn namespace(&self, name: &str) -> TestNamespace {
        let client = self.client().await;
        let name = format!("{name}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        until("pods are accepted", async || accounts.get("default").await.map(drop)).await;
        TestNamespace { name, client }
    }
}

/// A namespace that a test made.
#[derive(Clone)]
pub struct TestNamespace {
    /// Its name.
    pub name: String,
    client: kube::Client,
}

impl std::fmt::Debug for TestNamespace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("TestNamespace").field(&self.name).finish()
    }
}

impl TestNamespace {
    /// Begins its deletion, and does not wait for it.
    pub async fn delete(self) {
        let namespaces: Api<Namespace> = Api::all(self.client);
        namespaces.delete(&self.name, &DeleteParams::default()).await.ok();
    }
}
