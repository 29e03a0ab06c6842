//! The three services as pods of a real cluster, with the rights of the chart and no others.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role};
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::Kubeconfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use windlass_tests::binaries::{binary, repository};
use windlass_tests::chart;
use windlass_tests::iris::{Parameters, cross_validate};
use windlass_tests::real_cluster::{RealCluster, TestNamespace};
use windlass_tests::wait::until;

use super::cron_job::{SUBMITTER, a_cron_job_runs_its_schedule};

const RELEASE: &str = "it";
const RELEASED: &str = "app.kubernetes.io/instance=it";
/// Where the services listen, at the address of the cluster.
pub(super) const SCHEDULER_PORT: u16 = 17600;
const RELAY_PORT: u16 = 17601;
const EXECUTOR_PORT: u16 = 17602;
/// A token that may only look.
const VIEWER: &str = "token-of-a-viewer";

/// What a test installs, and where.
pub(super) struct Installation {
    pub(super) cluster: RealCluster,
    pub(super) client: kube::Client,
    home: TestNamespace,
    pub(super) steps: TestNamespace,
    pub(super) folder: tempfile::TempDir,
    pub(super) host: String,
    port: String,
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the command runs");
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

impl Installation {
    async fn new() -> Self {
        let cluster = RealCluster::of_environment();
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
        let server = kubeconfig.clusters[0]
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.server.clone());
        let server = server.expect("an address");
        let address = server.trim_start_matches("https://").trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').expect("a port");
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            client: cluster.client().await,
            home: cluster.namespace("windlass").await,
            steps: cluster.namespace("iris").await,
            host: host.to_owned(),
            port: port.to_owned(),
            folder,
            cluster,
        }
    }

    fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    fn at_home<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.home.name)
    }

    /// The image of the programs, and that of the example's steps.
    fn give_images(&self) {
        let archive = self.folder.path().join("windlass.tar");
        let programs = binary("windlass").parent().expect("a folder").to_owned();
        let tests = repository().join("tests/cluster/image.sh");
        let image = |args: &[&str]| {
            let folder = self.cluster.folder();
            let mut command = Command::new(&tests);
            command.args(args).env("CLUSTER_RUN", &folder);
            succeed(command.env("CLUSTER_NETWORK", folder.file_name().expect("a name")));
        };
        let mut made = Command::new(repository().join("deploy/image.sh"));
        succeed(made.arg(&archive).arg(programs).arg("windlass:test"));
        image(&["import", archive.to_str().expect("a readable path")]);
        std::fs::remove_file(archive).expect("the archive goes");
        let python = ["docker.io/library/python:3", "docker.io/library/python:3.12-slim"];
        image(&["name", python[0], python[1]]);
    }

    /// Volumes for the claims, as an operator without a storage class makes them.
    async fn give_volumes(&self) {
        let volumes: Api<PersistentVolume> = self.all();
        for service in ["scheduler", "log-relay"] {
            let folder = self.open_folder(service);
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": self.volume(service)},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": self.home.name,
                    "claimRef": {"namespace": self.home.name, "name": format!("data-it-windlass-{service}-0")},
                    "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": folder},
                },
            });
            let volume = serde_json::from_value(volume).expect("a volume");
            volumes.create(&PostParams::default(), &volume).await.expect("a volume");
        }
    }

    fn volume(&self, service: &str) -> String {
        format!("{}-{service}", self.home.name)
    }

    /// A folder that the services' user can write.
    fn open_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&folder, open.clone()).expect("open");
        std::fs::set_permissions(self.folder.path(), open).expect("open");
        folder
    }

    fn values(&self, workspace: &Path) -> Value {
        let api_server = json!([
            {"name": "KUBERNETES_SERVICE_HOST", "value": self.host},
            {"name": "KUBERNETES_SERVICE_PORT", "value": self.port},
        ]);
        let storage = json!({"size": "1Gi", "storageClass": self.home.name});
        let viewer = json!({
            "name": "looker", "sha256": windlass_service::token_digest(VIEWER),
            "roles": [{"role": "viewer", "namespaces": [self.steps.name]}],
        });
        let submitter = json!({
            "name": "cron-job", "sha256": windlass_service::token_digest(SUBMITTER),
            "roles": [{"role": "submitter", "namespaces": [self.steps.name]}],
        });
        json!({
            "image": {"repository": "windlass", "tag": "test", "pullPolicy": "Never"},
            "stepNamespaces": [self.steps.name],
            "hostNetwork": {"enabled": true, "address": self.host},
            "workspaceVolume": {"hostPath": {"path": workspace, "type": "Directory"}},
            "access": {"entries": [viewer, submitter]},
            "scheduler": {"port": SCHEDULER_PORT, "persistence": storage},
            "logRelay": {"port": RELAY_PORT, "persistence": storage},
            "executor": {"port": EXECUTOR_PORT, "replicas": 1, "extraEnv": api_server},
        })
    }

    fn helm(&self, args: &[&str]) -> Output {
        let mut helm = chart::program("helm");
        helm.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        helm.args(["--namespace", &self.home.name]).args(args);
        let output = helm.output().expect("helm runs");
        assert!(output.status.success(), "{}\n{}", text(&output.stderr), self.state());
        output
    }

    /// What the pods say, for failures.
    pub(super) fn state(&self) -> String {
        let kubectl = |args: &[&str]| {
            let mut kubectl = chart::program("kubectl");
            kubectl.arg("--kubeconfig").arg(self.cluster.kubeconfig());
            let output = kubectl.args(["--namespace", &self.home.name]).args(args).output();
            output.map(|output| text(&output.stdout)).unwrap_or_default()
        };
        let logs = ["logs", "--selector", RELEASED, "--tail", "20", "--prefix"];
        [
            kubectl(&["get", "pods,pvc,events"]),
            kubectl(&["describe", "pods"]),
            kubectl(&logs),
        ]
        .join("\n")
    }

    async fn secret(&self, name: &str, key: &str) -> String {
        let secret = self.at_home::<Secret>().get(name).await.expect("the secret");
        text(&secret.data.expect("data")[key].0)
    }

    pub(super) fn windlass(&self, token: &str, args: &[&str]) -> Output {
        let mut windlass = Command::new(binary("windlass"));
        windlass
            .args(args)
            .args(["--namespace", &self.steps.name])
            .args(["--server", &format!("https://{}:{SCHEDULER_PORT}", self.host)])
            .arg("--ca")
            .arg(self.folder.path().join("ca.crt"))
            .env("WINDLASS_TOKEN", token);
        windlass.output().expect("windlass runs")
    }

    pub(super) async fn nothing_left<K>(&self, what: &str, api: Api<K>, labels: &str)
    where
        K: Clone + DeserializeOwned + std::fmt::Debug + Resource,
    {
        until(&format!("no {what} is left"), async || {
            let list = api.list_metadata(&ListParams::default().labels(labels)).await;
            let list = list.map_err(|error| error.to_string())?;
            list.items
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("{} are left", list.items.len()))
        })
        .await;
    }
}

/// behaviours C1, K2, U23
#[tokio::test(flavor = "multi_thread")]
async fn the_services_run_as_pods_and_iris_through_them() {
    let installation = Installation::new().await;
    installation.give_images();
    installation.give_volumes().await;
    let workspace = installation.open_folder("workspaces");
    let values = installation.folder.path().join("values.json");
    std::fs::write(&values, installation.values(&workspace).to_string()).expect("written");
    let values = values.to_str().expect("a readable path");
    let chart = chart::folder();
    let chart = chart.to_str().expect("a readable path");
    let wait = ["--values", values, "--wait", "--timeout", "3m"];
    installation.helm(&[&["install", RELEASE, chart], &wait[..]].concat());

    let admin = installation.secret("it-windlass-admin-token", "token").await;
    let authority = installation.secret("it-windlass-scheduler-tls", "ca.crt").await;
    std::fs::write(installation.folder.path().join("ca.crt"), &authority).expect("written");

    // The file is the one that --local runs; nothing is said about the cluster but where it is.
    let pipeline = repository().join("examples/iris/pipeline.yaml");
    let pipeline = pipeline.to_str().expect("a readable path");
    let run = installation.windlass(&admin, &["run", pipeline]);
    let printed = text(&run.stdout) + &text(&run.stderr);
    assert!(run.status.success(), "{printed}\n{}", installation.state());
    let csv = std::fs::read_to_string(repository().join("examples/iris/iris.csv")).expect("the table");
    let (right, total) = cross_validate(&csv, Parameters::default());
    let expected = format!("accuracy {:.4} ({right} of {total})", right as f64 / total as f64);
    // A viewer reads it, through the relay.
    let report = installation.windlass(VIEWER, &["logs", "@latest", "report", "--prefix", "never"]);
    let printed = text(&report.stdout);
    assert_eq!(
        printed.lines().last(),
        Some(expected.as_str()),
        "{printed}\n{}",
        text(&report.stderr)
    );

    // Roles hold: who may look may not submit, and nobody comes without a token that is known.
    let refused = installation.windlass(VIEWER, &["run", pipeline]);
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    assert!(text(&refused.stderr).contains("submitter"), "{}", text(&refused.stderr));
    let unknown = installation.windlass("wrong", &["list"]);
    assert!(!unknown.status.success(), "{}", text(&unknown.stdout));

    a_cron_job_runs_its_schedule(&installation, &workspace, &authority).await;

    // An upgrade that changes nothing keeps tokens, certificates and pods.
    let pods = async || {
        let pods = installation
            .at_home::<Pod>()
            .list(&ListParams::default().labels(RELEASED))
            .await;
        let uids = pods.expect("pods").items.into_iter().filter_map(|pod| pod.metadata.uid);
        uids.collect::<std::collections::BTreeSet<_>>()
    };
    let before = pods().await;
    assert_eq!(before.len(), 3, "{}", installation.state());
    installation.helm(&[&["upgrade", RELEASE, chart], &wait[..]].concat());
    assert_eq!(installation.secret("it-windlass-admin-token", "token").await, admin);
    assert_eq!(
        installation.secret("it-windlass-scheduler-tls", "ca.crt").await,
        authority
    );
    assert_eq!(pods().await, before, "{}", installation.state());

    // None of the services has died on the way.
    let listed = installation
        .at_home::<Pod>()
        .list(&ListParams::default().labels(RELEASED))
        .await;
    let statuses = listed.expect("pods").items.into_iter().filter_map(|pod| pod.status);
    let containers = statuses.flat_map(|status| status.container_statuses.unwrap_or_default());
    let restarts: Vec<i32> = containers.map(|container| container.restart_count).collect();
    assert_eq!(restarts, [0, 0, 0], "{}", installation.state());

    // What ran leaves nothing in its namespace.
    let steps = &installation.steps.name;
    let (client, ours) = (installation.client.clone(), "windlass.dev/installation");
    installation
        .nothing_left("pod", Api::<Pod>::namespaced(client.clone(), steps), ours)
        .await;
    installation
        .nothing_left("owner", Api::<ConfigMap>::namespaced(client.clone(), steps), ours)
        .await;

    // What was installed leaves its claims, as its notes say, and nothing else.
    let notes = text(&installation.helm(&["get", "notes", RELEASE]).stdout);
    assert!(notes.contains("keeps the claims"), "{notes}");
    installation.helm(&["uninstall", RELEASE, "--wait", "--timeout", "2m"]);
    installation
        .nothing_left("pod", installation.at_home::<Pod>(), RELEASED)
        .await;
    installation
        .nothing_left("secret", installation.at_home::<Secret>(), RELEASED)
        .await;
    installation
        .nothing_left("cluster role", installation.all::<ClusterRole>(), RELEASED)
        .await;
    installation
        .nothing_left(
            "cluster role binding",
            installation.all::<ClusterRoleBinding>(),
            RELEASED,
        )
        .await;
    installation
        .nothing_left("role", Api::<Role>::namespaced(client, steps), RELEASED)
        .await;
    let claims = installation
        .at_home::<PersistentVolumeClaim>()
        .list(&ListParams::default())
        .await;
    let claims: Vec<_> = claims
        .expect("claims")
        .items
        .into_iter()
        .filter_map(|claim| claim.metadata.name)
        .collect();
    assert_eq!(claims, ["data-it-windlass-log-relay-0", "data-it-windlass-scheduler-0"]);

    let volumes: Api<PersistentVolume> = installation.all();
    for service in ["scheduler", "log-relay"] {
        volumes
            .delete(&installation.volume(service), &DeleteParams::default())
            .await
            .expect("deleted");
    }
    installation.home.delete().await;
    installation.steps.delete().await;
}
