//! I3: an API server that is away, forgets, or has no time fails no step.

use std::process::Command;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use windlass_api::run::v1::{Run, RunState};
use windlass_tests::deployment::{Options, Part};
use windlass_tests::wait::until_within;

use super::support::{PATIENCE, Scene, Turn, signal};

const WAITS: &str =
    "echo begin; echo > $FOLDER/up.$WINDLASS_STEP; until [ -e $FOLDER/go ]; do sleep 0.1; done; echo end";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const STARTED: [&str; 4] = ["a 1", "b 1", "c 1", "d 1"];

async fn running(scene: &Scene) -> Run {
    let run = scene.submit(json!({}), &NAMES.map(|name| (name, WAITS))).await;
    for name in NAMES {
        scene.step_in(&run, name, "RUNNING").await;
    }
    run
}

/// All ended well, started once, with complete logs.
async fn unharmed(scene: &Scene, run: &Run) {
    let steps = scene.ends(run, RunState::Succeeded).await;
    assert!(steps.iter().all(|step| step.attempts.len() == 1), "{steps:#?}");
    scene.started(&STARTED);
    for name in NAMES {
        assert_eq!(scene.log(run, name), "begin\nend\n", "log of {name}");
    }
}

/// behaviours E7, X5, U16
#[tokio::test(flavor = "multi_thread")]
async fn i3_i7_an_api_server_that_is_killed_fails_no_step() {
    let scene = Scene::new(Turn::alone().await, "api-server", Options::default()).await;
    let run = running(&scene).await;
    signal(scene.cluster.pid("kube-apiserver"), Signal::SIGKILL);
    // The steps end while nobody can say so.
    scene.write("go");
    let said = until_within(PATIENCE, "the steps are RUNNING still", async || {
        let step = scene.step(&run, "a");
        if step["state"] == "RUNNING" {
            Ok(step)
        } else {
            Err(format!("{step:#}"))
        }
    })
    .await;
    assert_eq!(said["attempts"].as_array().map(Vec::len), Some(1), "{said:#}");
    scene.cluster.up(2);
    unharmed(&scene, &run).await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_i7_an_etcd_that_is_killed_fails_no_step() {
    let scene = Scene::new(Turn::alone().await, "etcd", Options::default()).await;
    let run = running(&scene).await;
    signal(scene.cluster.pid("etcd"), Signal::SIGKILL);
    scene.write("go");
    scene.cluster.up(2);
    unharmed(&scene, &run).await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_i7_history_that_was_compacted_away_fails_no_step() {
    let scene = Scene::new(Turn::alone().await, "compaction", Options::default()).await;
    let run = running(&scene).await;
    let pods: Api<Pod> = scene.api();
    let everything = ListParams::default();
    let known = pods.list(&everything).await.expect("a list").metadata.resource_version;
    let known = known.expect("a version");
    let executor = i32::try_from(scene.deployment.pid(Part::Executor)).expect("a pid");
    signal(executor, Signal::SIGSTOP);
    scene.write("go");
    until_within(PATIENCE, "the containers have ended", async || {
        let list = pods.list(&everything).await.map_err(|error| error.to_string())?;
        let ended = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
        let count = list.items.iter().filter(ended).count();
        if count == NAMES.len() {
            Ok(())
        } else {
            Err(format!("{count}"))
        }
    })
    .await;
    compact(&scene);
    // Its cache has the history still: only one that starts anew has to ask etcd.
    signal(scene.cluster.pid("kube-apiserver"), Signal::SIGKILL);
    scene.cluster.up(2);
    assert_eq!(
        watched_from(&pods, &known).await,
        410,
        "what the executor knew is too old"
    );
    signal(executor, Signal::SIGCONT);
    unharmed(&scene, &run).await;
    scene.close().await;
}

/// What a watch from a version is answered with.
async fn watched_from(pods: &Api<Pod>, version: &str) -> u16 {
    let events = match pods.watch(&WatchParams::default(), version).await {
        Ok(events) => events,
        Err(kube::Error::Api(status)) => return status.code,
        Err(error) => panic!("{error}"),
    };
    let mut events = std::pin::pin!(events);
    match events.try_next().await.expect("an event") {
        Some(WatchEvent::Error(status)) => status.code,
        other => panic!("{other:?}"),
    }
}

/// Drops all of etcd's history.
fn compact(scene: &Scene) {
    let address = format!("http://{}:16479", scene.node(1));
    let ask = |path: &str, body: Value| {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--data",
                &body.to_string(),
                &format!("{address}{path}"),
            ])
            .output()
            .expect("curl runs");
        assert!(output.status.success(), "{path}: {output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let answer = ask("/v3/kv/range", json!({"key": "AA=="}));
    let revision = answer["header"]["revision"].clone();
    ask("/v3/kv/compaction", json!({"revision": revision, "physical": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_an_api_server_that_has_no_time_for_the_executor_fails_no_step() {
    let turn = Turn::shared().await;
    let cluster = windlass_tests::real_cluster::RealCluster::of_environment();
    let client = cluster.client().await;
    let home = cluster.namespace("slow-executor").await;
    let folder = tempfile::tempdir().expect("a folder");
    let account = Account::new(&client, &home.name).await;
    let options = Options {
        kubeconfig: Some(account.kubeconfig(&cluster, folder.path()).await),
        ..Options::default()
    };
    let scene = Scene::new(turn, "throttled", options).await;
    account.throttle().await;
    let names: Vec<String> = (0..12).map(|number| format!("s{number:02}")).collect();
    let steps: Vec<_> = names.iter().map(|name| (name.as_str(), "echo done")).collect();
    let run = scene.submit(json!({}), &steps).await;
    // First everything is refused, for as long as it takes to notice; then all but a few requests at a time.
    until_within(PATIENCE, "requests are rejected", async || {
        match account.rejected().await {
            0..10 => Err("too few"),
            _ => Ok(()),
        }
    })
    .await;
    let waiting = scene.step(&run, &names[0]);
    assert!(
        ["READY", "STARTING"].contains(&waiting["state"].as_str().unwrap_or_default()),
        "{waiting:#}"
    );
    scene.started(&[]);
    account.relent().await;
    let ended = scene.ends(&run, RunState::Succeeded).await;
    assert!(ended.iter().all(|step| step.attempts.len() == 1), "{ended:#?}");
    let expected: Vec<_> = names.iter().map(|name| format!("{name} 1")).collect();
    scene.started(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        assert_eq!(scene.log(&run, name), "done\n");
    }
    account.free().await;
    scene.close().await;
    home.delete().await;
}

/// A service account with all rights that the API server can be told to neglect.
struct Account<'c> {
    client: &'c kube::Client,
    name: &'c str,
}

impl<'c> Account<'c> {
    /// Account, binding, flow schema and priority level are named for their namespace.
    async fn new(client: &'c kube::Client, name: &'c str) -> Self {
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        let account = json!({"metadata": {"name": name}});
        let account = serde_json::from_value(account).expect("an account");
        accounts
            .create(&PostParams::default(), &account)
            .await
            .expect("created");
        let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
        let binding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": name}],
        }))
        .expect("a binding");
        bindings
            .create(&PostParams::default(), &binding)
            .await
            .expect("created");
        Self { client, name }
    }

    async fn kubeconfig(
        &self,
        cluster: &windlass_tests::real_cluster::RealCluster,
        folder: &std::path::Path,
    ) -> std::path::PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), self.name);
        let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}}));
        let request = request.expect("a request");
        let token = accounts
            .create_token_request(self.name, &PostParams::default(), &request)
            .await;
        let token = token.expect("a token").status.expect("a status").token;
        let admin = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
        let mut own = serde_json::to_value(&admin).expect("JSON");
        for user in own["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({"token": token});
        }
        let path = folder.join("kubeconfig");
        std::fs::write(&path, own.to_string()).expect("a file");
        path
    }

    /// No seat and no queue: every request is 429.
    async fn throttle(&self) {
        let levels: Api<PriorityLevelConfiguration> = Api::all(self.client.clone());
        let level = serde_json::from_value(json!({
            "metadata": {"name": self.name},
            "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            }},
        }))
        .expect("a level");
        levels.create(&PostParams::default(), &level).await.expect("created");
        let schemas: Api<FlowSchema> = Api::all(self.client.clone());
        let schema = serde_json::from_value(json!({
            "metadata": {"name": self.name},
            "spec": {
                "priorityLevelConfiguration": {"name": self.name}, "matchingPrecedence": 2,
                "rules": [{
                    "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": self.name, "namespace": self.name}}],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
                }],
            },
        }))
        .expect("a schema");
        schemas.create(&PostParams::default(), &schema).await.expect("created");
    }

    /// The least share of the API server that there is, still without a queue.
    async fn relent(&self) {
        let levels: Api<PriorityLevelConfiguration> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"limited": {"nominalConcurrencyShares": 1}}}));
        levels
            .patch(self.name, &PatchParams::default(), &patch)
            .await
            .expect("patched");
    }

    /// How many requests the API server has rejected for it.
    async fn rejected(&self) -> u64 {
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let text = self.client.request_text(request).await.expect("metrics");
        let lines = text
            .lines()
            .filter(|line| line.starts_with("apiserver_flowcontrol_rejected_requests_total{"));
        let of_it = lines.filter(|line| line.contains(&format!("priority_level=\"{}\"", self.name)));
        of_it
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    async fn free(&self) {
        let schemas: Api<FlowSchema> = Api::all(self.client.clone());
        let levels: Api<PriorityLevelConfiguration> = Api::all(self.client.clone());
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        let usual = DeleteParams::default();
        schemas.delete(self.name, &usual).await.expect("deleted");
        levels.delete(self.name, &usual).await.expect("deleted");
        bindings.delete(self.name, &usual).await.expect("deleted");
    }
}
