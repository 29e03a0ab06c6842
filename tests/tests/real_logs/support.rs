//! Writers, and what they wrote.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use windlass_api::run::v1::Run;
use windlass_tests::log_reader::Reader;
use windlass_tests::scene::Scene;

/// Submits steps that write as `writer.py` is told, with more settings of all of them, and begins to read.
pub(crate) async fn write(scene: &Scene, defaults: Value, steps: &[(&str, &str)]) -> (Run, Reader) {
    std::fs::write(scene.folder().join("writer.py"), include_str!("writer.py")).expect("a file");
    let scripts: Vec<_> = steps
        .iter()
        .map(|(name, args)| (*name, format!("exec python3 $FOLDER/writer.py {args}")))
        .collect();
    let steps: Vec<_> = scripts.iter().map(|(name, script)| (*name, script.as_str())).collect();
    let mut all = json!({"image": "python:3", "retries": {"infrastructure": {"attempts": 1}}});
    for (key, value) in defaults.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let run = scene.submit(all, &steps).await;
    let reader = Reader::start(&scene.deployment, &scene.namespace.name, &run.name);
    (run, reader)
}

/// What the first attempt of a step wrote.
pub(crate) fn written(scene: &Scene, step: &str) -> Vec<String> {
    let path = scene.folder().join(format!("written.{step}.1"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// Counts the files that kubelets rotate away, of the pods of a scene.
pub(crate) struct Rotations {
    seen: Arc<Mutex<BTreeSet<PathBuf>>>,
    task: JoinHandle<()>,
}

impl Rotations {
    pub(crate) fn watch(scene: &Scene) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let found = Arc::clone(&seen);
        let nodes = scene.cluster.folder().join("nodes");
        let pods = format!("{}_", scene.namespace.name);
        let task = tokio::spawn(async move {
            // A kubelet rotates every three seconds, and keeps a few of the files.
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
            loop {
                tick.tick().await;
                found.lock().expect("no panic").extend(rotated(&nodes, &pods));
            }
        });
        Self { seen, task }
    }

    /// How many there were of a step.
    pub(crate) fn of(&self, step: &str) -> usize {
        let seen = self.seen.lock().expect("no panic");
        let of_it = |path: &&PathBuf| path.display().to_string().contains(&format!("-{step}-1-"));
        seen.iter().filter(of_it).count()
    }
}

impl Drop for Rotations {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Files of pods whose folders begin like that, but the current ones.
fn rotated(nodes: &std::path::Path, pods: &str) -> Vec<PathBuf> {
    let list = |folder: PathBuf| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    list(nodes.to_owned())
        .flat_map(|node| list(node.join("pod-logs")))
        .filter(|pod| {
            pod.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(pods))
        })
        .flat_map(|pod| list(pod.join("main")))
        .filter(|file| {
            file.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("0.log."))
        })
        .map(
            |file| match file.extension().is_some_and(|end| end == "gz" || end == "tmp") {
                true => file.with_extension(""),
                false => file,
            },
        )
        .collect()
}
