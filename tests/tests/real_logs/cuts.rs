//! What kubelets do after four hours, after ten seconds: streams end cleanly while their containers live.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::Options;
use windlass_tests::log_proxy::{self, End, Fate, Faults};
use windlass_tests::real_cluster::RealCluster;
use windlass_tests::scene::{Scene, Turn};

use super::support::{write, written};

const LIMIT: Duration = Duration::from_secs(10);

/// Every log ends after the limit; that of a step `lossy-…` when the next line comes, which is lost.
#[derive(Default)]
struct Kubelet {
    ended: Mutex<BTreeMap<String, usize>>,
}

impl Faults for Kubelet {
    fn fate(&self, pod: &str) -> Fate {
        match pod.contains("-lossy-") {
            true => Fate::Time(LIMIT, End::CleanOnceMoreComes),
            false => Fate::Time(LIMIT, End::Clean),
        }
    }

    fn ended(&self, pod: &str, _: End) {
        *self.ended.lock().expect("no panic").entry(pod.to_owned()).or_default() += 1;
    }
}

impl Kubelet {
    /// How often logs of a step ended so.
    fn ended_of(&self, step: &str) -> usize {
        let ended = self.ended.lock().expect("no panic");
        let of_it = ended.iter().filter(|(pod, _)| pod.contains(&format!("-{step}-1-")));
        of_it.map(|(_, count)| count).sum()
    }
}

/// behaviours E8
#[tokio::test(flavor = "multi_thread")]
async fn i7_streams_that_end_cleanly_every_ten_seconds_cost_no_line() {
    let turn = Turn::shared().await;
    let cluster = RealCluster::of_environment();
    let faults = Arc::new(Kubelet::default());
    let proxy = log_proxy::start(cluster.client().await, Arc::clone(&faults)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    log_proxy::write_kubeconfig(proxy, &kubeconfig);
    let options = Options {
        kubeconfig: Some(kubeconfig),
        ..Options::default()
    };
    let scene = Scene::new(turn, "cuts", options).await;
    let steps = [
        // A step that writes, and how often its follow is cut at the least.
        ("busy", "lines=2200 rate=50", 4),
        ("seldom", "lines=11 rate=0.25", 4),
        ("silent", "silent=25 lines=1", 2),
        ("lossy-busy", "lines=2200 rate=50", 4),
        ("lossy-seldom", "lines=11 rate=0.25", 3),
        ("lossy-silent", "silent=25 lines=1", 1),
    ];
    let (run, reader) = write(&scene, json!({}), &steps.map(|(step, args, _)| (step, args))).await;
    scene.ends(&run, RunState::Succeeded).await;
    let logs = reader.end().await;
    for (step, _, cuts) in steps {
        let ended = faults.ended_of(step);
        println!("{step}: {ended} cuts");
        assert!(ended >= cuts, "{step} was cut {ended} times");
        logs.is_whole(&format!("{step}/1"), &written(&scene, step));
    }
    scene.close().await;
}
