//! The real Kubernetes of `tests/cluster`, for tests that need more than the local cluster can show.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};

use crate::chart;
use crate::wait::until;

/// Names the kubeconfig that `tests/cluster/up.sh` has written.
pub const KUBECONFIG: &str = "WINDLASS_TEST_KUBECONFIG";

/// Release and namespace of the account whose rights the chart gives.
const RELEASE: &str = "windlass";
const EXECUTOR_HOME: &str = "windlass-tests";
/// How long its tokens are good for.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

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

    /// A kubeconfig with the rights that the chart gives to executors, and no others: those of the whole cluster, and those in the
    /// namespaces that [`Self::namespace`] has made.
    ///
    /// # Panics
    /// When the cluster refuses the chart's rights or a token.
    pub async fn executor_kubeconfig(&self) -> PathBuf {
        self.give_rights(&[]).await;
        let wanted = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, EXECUTOR_HOME);
        let account = format!("{RELEASE}-executor");
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &wanted)
            .await;
        let token = answer.expect("a token").status.expect("an answer").token;
        let mut kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = Some(AuthInfo {
                token: Some(token.clone().into()),
                ..AuthInfo::default()
            });
        }
        let file = self.folder().join("executor.kubeconfig");
        let text = serde_json::to_string(&kubeconfig).expect("JSON is YAML");
        let mut part = tempfile::NamedTempFile::new_in(self.folder()).expect("a file");
        part.write_all(text.as_bytes()).expect("the file is written");
        part.persist(&file).expect("the file has its name");
        file
    }

    /// The chart's rights for the executors' account: those of the whole cluster, and those in these namespaces.
    async fn give_rights(&self, step_namespaces: &[&str]) {
        let namespaces: Api<Namespace> = Api::all(self.client().await);
        let home = Namespace {
            metadata: named(EXECUTOR_HOME),
            ..Namespace::default()
        };
        match namespaces.create(&PostParams::default(), &home).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            made => drop(made.expect("a namespace")),
        }
        let rights = chart::rights(RELEASE, EXECUTOR_HOME, step_namespaces);
        chart::apply(&self.kubeconfig, &rights);
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

    /// A namespace of its own for a test, in which pods are accepted and the chart's executors have their rights.
    pub async fn namespace(&self, name: &str) -> TestNamespace {
        let client = self.client().await;
        let name = format!("{name}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let namespace = Namespace {
            metadata: named(&name),
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        until("pods are accepted", async || accounts.get("default").await.map(drop)).await;
        self.give_rights(&[&name]).await;
        TestNamespace { name, client }
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
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
