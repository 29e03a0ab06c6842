//! A namespace, an installation that serves it, and runs whose every start is written down outside of Kubernetes.

mod turns;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::binaries::binary;
use crate::deployment::{Deployment, Options, Part};
use crate::pipelines::from_json;
use crate::real_cluster::{RealCluster, TestNamespace};
use crate::wait::until_within;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Resource;
use kube::api::{Api, ListParams, Patch, PatchParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::{Run, RunState, Step, SubmitRunRequest};

pub use turns::{Turn, repair};

/// How long something on a real cluster may take on a loaded machine.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);

/// A test's own namespace and installation.
pub struct Scene {
    /// The cluster.
    pub cluster: RealCluster,
    /// A client with all rights.
    pub client: kube::Client,
    /// Where its pods are.
    pub namespace: TestNamespace,
    /// What serves it.
    pub deployment: Deployment,
    folder: TempDir,
    _turn: Turn,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Scene").field(&self.namespace).finish()
    }
}

impl Scene {
    /// With the rights of the chart's executors, unless the options name another kubeconfig.
    pub async fn new(turn: Turn, name: &str, options: Options) -> Self {
        let cluster = RealCluster::of_environment();
        let kubeconfig = match options.kubeconfig {
            Some(kubeconfig) => kubeconfig,
            None => cluster.executor_kubeconfig().await,
        };
        let options = Options {
            kubeconfig: Some(kubeconfig),
            ..options
        };
        Self {
            client: cluster.client().await,
            namespace: cluster.namespace(name).await,
            deployment: Deployment::start(options).await,
            folder: tempfile::tempdir().expect("a folder"),
            cluster,
            _turn: turn,
        }
    }

    /// The folder that scripts find in `$FOLDER`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Objects of its namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace.name)
    }

    /// A node by its number, 1 or 2: it is named for its address.
    pub fn node(&self, number: u32) -> String {
        let folder = self.cluster.folder();
        let network = folder.file_name().expect("a network").to_string_lossy().into_owned();
        format!("{network}.{number}")
    }

    /// Whether new pods may go to a node.
    pub async fn cordon(&self, node: &str, unschedulable: bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"unschedulable": unschedulable}}));
        let patched = nodes.patch(node, &PatchParams::default(), &patch).await;
        patched.expect("a node can be cordoned");
    }

    /// The file to which every start of an attempt adds a line.
    fn witness(&self) -> PathBuf {
        self.folder.path().join("starts")
    }

    /// Submits steps (name, script) that run side by side, with more settings of all of them. A script finds its own folder, which
    /// outlives nodes, in `$FOLDER`.
    pub async fn submit(&self, defaults: Value, steps: &[(&str, &str)]) -> Run {
        self.submit_to(&self.deployment, defaults, steps).await
    }

    /// Like [`Self::submit`], to another installation.
    pub async fn submit_to(&self, deployment: &Deployment, defaults: Value, steps: &[(&str, &str)]) -> Run {
        let folder = self.folder.path();
        let steps: Vec<_> = steps
            .iter()
            .map(|(name, script)| {
                let script = format!("echo \"$WINDLASS_STEP $WINDLASS_ATTEMPT\" >> $FOLDER/starts\n{script}");
                json!({"name": name, "command": ["/bin/sh", "-c", script]})
            })
            .collect();
        let mut all = json!({
            "image": "busybox:1.36",
            "terminationGrace": "2s",
            "env": [{"name": "FOLDER", "value": folder}],
            "retries": {"infrastructure": {"attempts": 2, "delay": "10ms"}},
            "pod": {
                "imagePullPolicy": "Never",
                "volumes": [{"name": "witness", "hostPath": {"path": folder}}],
                "volumeMounts": [{"name": "witness", "mountPath": folder}],
            },
        });
        merge(&mut all, defaults);
        let pipeline = from_json(json!({"name": "scene", "defaults": all, "steps": steps}));
        let request = SubmitRunRequest {
            namespace: self.namespace.name.clone(),
            request_id: uuid::Uuid::new_v4().to_string(),
            pipeline: Some(pipeline_to_proto(&pipeline)),
            ..SubmitRunRequest::default()
        };
        let response = deployment.runs().submit_run(request).await;
        response.expect("the run is accepted").into_inner().run.expect("a run")
    }

    /// `windlass` with these arguments.
    pub fn windlass(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("windlass"));
        let server = format!("http://{}", self.deployment.address(Part::Scheduler));
        command
            .args(args)
            .args(["--server", &server, "--namespace", &self.namespace.name])
            .arg("--token-file")
            .arg(self.deployment.folder().join("token"))
            .env("NO_COLOR", "1")
            .output()
            .expect("windlass runs")
    }

    /// What a command prints, with its exit status in front.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.windlass(args);
        let status = output.status.code().unwrap_or(-1);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        format!("exit status {status}\n{out}{err}")
    }

    /// A step as it is now.
    pub fn step(&self, run: &Run, step: &str) -> Value {
        let output = self.windlass(&["get", &run.name, step, "-o", "json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|_| json!({"said": self.says(&["get", &run.name, step])}))
    }

    /// Waits until a step is like that.
    pub async fn step_that(&self, run: &Run, step: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until_within(PATIENCE, &format!("{step} {what}"), async || {
            let found = self.step(run, step);
            if is(&found) {
                Ok(found)
            } else {
                Err(format!("{found:#}"))
            }
        })
        .await
    }

    /// Waits until a step is in this state.
    pub async fn step_in(&self, run: &Run, step: &str, state: &str) -> Value {
        self.step_that(run, step, &format!("is {state}"), |found| found["state"] == *state)
            .await
    }

    /// Waits until a file that scripts write is there.
    pub async fn file(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        until_within(PATIENCE, &format!("{name} is written"), async || {
            std::fs::read_to_string(&path).map_err(|error| format!("{error}; {}", self.pods_now()))
        })
        .await
    }

    /// Writes a file that scripts wait for.
    pub fn write(&self, name: &str) {
        std::fs::write(self.folder.path().join(name), "").expect("a file");
    }

    /// The only pod of a step's attempt.
    pub async fn pod_of(&self, step: &str, attempt: u32) -> Pod {
        let pods: Api<Pod> = self.api();
        let selector = format!("windlass.dev/step={step},windlass.dev/attempt={attempt}");
        until_within(PATIENCE, "the pod is there", async || {
            let list = pods.list(&ListParams::default().labels(&selector)).await;
            let mut items = list.map_err(|error| error.to_string())?.items;
            assert!(items.len() <= 1, "one pod for an attempt: {items:#?}");
            items.pop().ok_or_else(|| "none".to_owned())
        })
        .await
    }

    fn pods_now(&self) -> String {
        let run = self.says(&["get", "@latest"]);
        format!("{run}\n{}", self.says(&["explain", "@latest"]))
    }

    /// The run ends like that; what `windlass wait` says has to fit.
    pub async fn ends(&self, run: &Run, state: RunState) -> Vec<Step> {
        let ended = until_within(PATIENCE, "the run ends", async || {
            let now = self.get(run).await?;
            match crate::client::is_terminal(&now) {
                true => Ok(now),
                false => Err(self.pods_now()),
            }
        })
        .await;
        assert_eq!(ended.state(), state, "{}", self.pods_now());
        let exit = match state {
            RunState::Succeeded => 0,
            _ => 1,
        };
        assert_eq!(self.windlass(&["wait", &run.name]).status.code(), Some(exit));
        let request = windlass_api::run::v1::ListStepsRequest {
            namespace: self.namespace.name.clone(),
            run: run.name.clone(),
            page_size: 1000,
            ..Default::default()
        };
        let steps = self.deployment.runs().list_steps(request).await;
        steps.expect("the steps").into_inner().steps
    }

    async fn get(&self, run: &Run) -> Result<Run, String> {
        let request = windlass_api::run::v1::GetRunRequest {
            namespace: self.namespace.name.clone(),
            run: run.name.clone(),
        };
        let response = self.deployment.runs().get_run(request).await;
        let run = response.map_err(|status| status.to_string())?.into_inner().run;
        run.ok_or_else(|| "no run".to_owned())
    }

    /// Every attempt was started as often as given here, whatever Kubernetes remembers: `STEP ATTEMPT`, sorted.
    pub fn started(&self, expected: &[&str]) {
        let text = std::fs::read_to_string(self.witness()).unwrap_or_default();
        let mut started: Vec<_> = text.lines().collect();
        started.sort_unstable();
        assert_eq!(started, expected, "starts of attempts");
    }

    /// The log of a step as `windlass logs` has it.
    pub fn log(&self, run: &Run, step: &str) -> String {
        let output = self.windlass(&["logs", &run.name, step, "-f", "--prefix", "never"]);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Nothing is left that blocks: every pod was let go.
    pub async fn close(self) {
        let pods: Api<Pod> = self.api();
        until_within(PATIENCE, "all pods are let go", async || {
            let list = pods.list(&ListParams::default()).await;
            let items = list.map_err(|error| error.to_string())?.items;
            let held = items.iter().filter(|pod| has_finalizer(pod)).count();
            if held == 0 { Ok(()) } else { Err(format!("{held} held")) }
        })
        .await;
        self.namespace.delete().await;
        if matches!(self._turn, Turn::Alone { .. }) {
            repair();
        }
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Whether our finalizer holds a pod.
pub fn has_finalizer(pod: &Pod) -> bool {
    let mut finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == windlass_manifest::FINALIZER)
}

/// Signals a process that this test or its cluster started.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// Pid of the kubelet of a node.
pub fn kubelet(node: &str) -> i32 {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let is_it = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split('\0');
        arguments.next().is_some_and(|program| program.ends_with("/kubelet")) && arguments.any(|text| text == node)
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(is_it)
        .unwrap_or_else(|| panic!("no kubelet of {node}"))
}
