//! What stands between a container and its log is killed under a follow.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::Options;
use windlass_tests::scene::{PATIENCE, Scene, Turn, kubelet, signal};
use windlass_tests::wait::until_within;

use super::support::{Rotations, write, written};

/// The first two are too small to be rotated, whatever happens.
const STEPS: [(&str, &str); 3] = [
    ("busy", "rate=10 length=60 until=go up=busy"),
    ("silent", "lines=2 then=2 until=go up=silent"),
    ("rotates", "rate=400 length=200 until=go up=rotates"),
];

/// Kills while they write, and has them write on for some seconds.
async fn survives(name: &str, kill: impl AsyncFnOnce(&Scene)) {
    let scene = Scene::new(Turn::alone().await, name, Options::default()).await;
    let rotations = Rotations::watch(&scene);
    let (run, reader) = write(&scene, json!({}), &STEPS).await;
    for (step, _) in STEPS {
        scene.file(step).await;
        scene.step_in(&run, step, "RUNNING").await;
    }
    kill(&scene).await;
    // They write once more beside those that came back, and it is rotated.
    let before = rotations.of("rotates");
    until_within(PATIENCE, "the log is rotated", async || {
        let now = rotations.of("rotates");
        if now > before + 1 {
            Ok(())
        } else {
            Err(format!("{now} times"))
        }
    })
    .await;
    scene.write("go");
    scene.ends(&run, RunState::Succeeded).await;
    let logs = reader.end().await;
    for step in ["busy", "silent"] {
        logs.is_whole(&format!("{step}/1"), &written(&scene, step));
    }
    let gaps = logs.gaps("rotates/1", &written(&scene, "rotates"));
    println!("{name}: {} rotations, gaps: {gaps:?}", rotations.of("rotates"));
    scene.close().await;
}

/// behaviours E7
#[tokio::test(flavor = "multi_thread")]
async fn i7_an_api_server_that_is_killed_under_a_follow_costs_no_line() {
    survives("api-server", async |scene: &Scene| {
        signal(scene.cluster.pid("kube-apiserver"), Signal::SIGKILL);
        scene.cluster.up(2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_kubelet_that_is_killed_under_a_follow_costs_no_line() {
    survives("kubelets", async |scene: &Scene| {
        let begin = Instant::now();
        for node in [scene.node(1), scene.node(2)] {
            let old = kubelet(&node);
            signal(old, Signal::SIGKILL);
            until_within(PATIENCE, "another one is there", async || {
                let alive = windlass_tests::wait::is_alive(u32::try_from(old).expect("a pid"));
                if alive { Err("the old one lives") } else { Ok(()) }
            })
            .await;
        }
        assert!(begin.elapsed() < Duration::from_secs(60));
    })
    .await;
}
