//! A namespace with one run in it.

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use windlass_tests::binaries::binary;
use windlass_tests::real_cluster::{RealCluster, TestNamespace};
use windlass_tests::wait::{until, until_within};

use super::Installation;
use super::said::{Said, Step};

/// How long a run of these tests may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What all pipelines of these tests begin with: images of the nodes, one attempt, short bounds.
const HEAD: &str = r"
name: scene
defaults:
  image: busybox:1.36
  terminationGrace: 2s
  retries: {infrastructure: {attempts: 1}}
  pod: {imagePullPolicy: Never}
";

/// A test's own namespace.
pub(crate) struct Scene {
    pub(crate) client: kube::Client,
    installation: &'static Installation,
    name: String,
    /// None when there is no such namespace.
    namespace: Option<TestNamespace>,
    folder: TempDir,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Scene").field(&self.name()).finish()
    }
}

impl Scene {
    /// An empty one.
    pub(crate) async fn new(name: &str) -> Self {
        let namespace = RealCluster::of_environment().namespace(name).await;
        Self {
            namespace: Some(namespace.clone()),
            ..Self::without_namespace(&namespace.name).await
        }
    }

    /// One whose namespace does not exist.
    pub(crate) async fn without_namespace(name: &str) -> Self {
        Self {
            client: RealCluster::of_environment().client().await,
            installation: Installation::shared().await,
            name: name.to_owned(),
            namespace: None,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Name of its namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Objects of its namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), self.name())
    }

    /// Puts an object into its namespace.
    pub(crate) async fn put<K>(&self, object: serde_json::Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .expect("it is created")
    }

    /// `windlass run` of a pipeline with these steps; one step is called `work`.
    pub(crate) fn run(&self, steps: &str) -> Running<'_> {
        self.run_with("", steps)
    }

    /// Like [`Self::run`], with more settings of the pipeline.
    pub(crate) fn run_with(&self, settings: &str, steps: &str) -> Running<'_> {
        let file = self.folder.path().join("pipeline.yaml");
        std::fs::write(&file, format!("{HEAD}{settings}\nsteps:\n{steps}\n")).expect("a file");
        let output = self.folder.path().join("output");
        let log = File::create(&output).expect("a file");
        let child = self
            .windlass(&["run", "--no-check-references"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("windlass starts");
        Running { scene: self, child }
    }

    fn windlass(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("windlass"));
        command
            .args(args)
            .args(["--server", &self.installation.server(), "--namespace", self.name()])
            .arg("--token-file")
            .arg(self.installation.token_file())
            .env("NO_COLOR", "1");
        command
    }

    /// What a command prints.
    pub(crate) fn says(&self, args: &[&str]) -> Said {
        let Output { stdout, stderr, .. } = self.windlass(args).output().expect("windlass runs");
        let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        Said::new(format!("windlass {}", args.join(" ")), text)
    }

    /// The step `work` as the API has it.
    pub(crate) fn step(&self) -> Step {
        let said = self.says(&["get", "@latest", "work", "-o", "json"]);
        let step = serde_json::from_str(&said.text).unwrap_or_else(|error| panic!("{error}: {said}"));
        Step::new(step, self.said_of_work())
    }

    fn said_of_work(&self) -> Vec<Said> {
        let commands: [&[&str]; 4] = [
            &["get", "@latest"],
            &["get", "@latest", "work"],
            &["explain", "@latest", "work"],
            &["explain", "@latest"],
        ];
        commands.iter().map(|args| self.says(args)).collect()
    }

    /// Waits until `explain` names this blocker for the step `work`, with this text.
    pub(crate) async fn explained(&self, blocker: &str, text: &str) -> Said {
        until("the explanation says so", async || {
            let said = self.says(&["explain", "@latest", "work"]);
            let head = said.text.lines().next().unwrap_or_default();
            if head.ends_with(&format!(", {blocker}")) && said.text.contains(text) {
                Ok(said)
            } else {
                Err(format!("not {blocker} with {text:?}: {said}"))
            }
        })
        .await
    }

    /// Waits until a pod of the step `work` is like that.
    pub(crate) async fn pod_that(&self, what: &str, is: impl Fn(&Pod) -> bool) -> Pod {
        let pods: Api<Pod> = self.api();
        until(&format!("a pod {what}"), async || {
            let list = pods
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            let found = list.items.iter().find(|pod| is(pod)).cloned();
            found.ok_or_else(|| {
                let statuses = list.items.iter().map(|pod| format!("{:?}", pod.status));
                format!("pods: {}\n{}", statuses.collect::<String>(), self.output())
            })
        })
        .await
    }

    /// Waits until the main container of the step `work` runs.
    pub(crate) async fn running_pod(&self) -> Pod {
        self.pod_that("runs", |pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref());
            let running = |name: &str| {
                statuses.is_some_and(|all| {
                    all.iter()
                        .any(|one| one.name == name && one.state.as_ref().is_some_and(|state| state.running.is_some()))
                })
            };
            running("main")
        })
        .await
    }

    /// Changes an object of its namespace.
    pub(crate) async fn change<K>(&self, name: &str, patch: serde_json::Value)
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let objects: Api<K> = self.api();
        let patch = Patch::Merge(patch);
        objects
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("it is changed");
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Nothing is left: every pod was let go (I4), and the namespace may go.
    pub(crate) async fn close(self) {
        let pods: Api<Pod> = self.api();
        until("all pods are let go", async || {
            let list = pods
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            let held = list.items.iter().filter(|pod| {
                let mut finalizers = pod.metadata.finalizers.iter().flatten();
                finalizers.any(|finalizer| finalizer == windlass_manifest::FINALIZER)
            });
            let held: Vec<_> = held.map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect();
            if held.is_empty() {
                Ok(())
            } else {
                Err(format!("held: {held:?}"))
            }
        })
        .await;
        if let Some(namespace) = self.namespace {
            namespace.delete().await;
        }
    }
}

/// A `windlass run` under way.
#[derive(Debug)]
pub(crate) struct Running<'s> {
    scene: &'s Scene,
    child: Child,
}

impl Running<'_> {
    /// Waits for its end; the exit status has to be this.
    async fn ends_with(mut self, status: i32) -> Said {
        let ended = until_within(PATIENCE, "windlass run ends", async || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| {
                format!(
                    "{}\n{}",
                    self.scene.output(),
                    self.scene.says(&["explain", "@latest", "work"])
                )
            })
        })
        .await;
        let said = Said::new("windlass run".to_owned(), self.scene.output());
        assert_eq!(ended.code(), Some(status), "exit status of {said}");
        said
    }

    /// It fails; the step `work` as it is then.
    pub(crate) async fn fails(self) -> Step {
        self.ends(1).await
    }

    /// It ends with this status; the step `work` as it is then.
    pub(crate) async fn ends(self, status: i32) -> Step {
        let scene = self.scene;
        let said = self.ends_with(status).await;
        scene.step().with(said)
    }

    /// It succeeds; the step `work` as it is then.
    pub(crate) async fn succeeds(self) -> Step {
        self.ends(0).await
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
