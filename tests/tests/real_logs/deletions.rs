//! Others delete pods.

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, WatchEvent, WatchParams};
use nix::sys::signal::Signal;
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::{Options, Part};
use windlass_tests::scene::{PATIENCE, Scene, Turn, signal};

use super::support::{write, written};

/// Name and arguments of writers that begin when they are told.
const WRITERS: [(&str, &str); 6] = [
    ("s1", "begin=go lines=3000"),
    ("s2", "begin=go lines=1"),
    ("s3", "begin=go lines=0"),
    ("s4", "begin=go lines=20 rate=20"),
    ("s5", "begin=go lines=300 length=5000"),
    ("s6", "begin=go lines=2000 rate=1000"),
];

/// behaviours X1
#[tokio::test(flavor = "multi_thread")]
async fn i7_pods_that_are_deleted_when_they_have_ended_keep_their_logs() {
    let scene = Scene::new(Turn::shared().await, "deleted", Options::default()).await;
    let (run, reader) = write(&scene, json!({}), &WRITERS).await;
    for (step, _) in WRITERS {
        scene.file(&format!("waits.{step}.1")).await;
        scene.step_in(&run, step, "RUNNING").await;
    }
    // Nobody lets go of a pod meanwhile.
    let scheduler = i32::try_from(scene.deployment.pid(Part::Scheduler)).expect("a pid");
    signal(scheduler, Signal::SIGSTOP);
    let deleter = tokio::spawn(delete_what_has_succeeded(scene.api(), WRITERS.len()));
    scene.write("go");
    let deleted = tokio::time::timeout(PATIENCE, deleter).await;
    deleted.expect("in time").expect("all are deleted");
    signal(scheduler, Signal::SIGCONT);
    scene.ends(&run, RunState::Succeeded).await;
    let logs = reader.end().await;
    for (step, _) in WRITERS {
        logs.is_whole(&format!("{step}/1"), &written(&scene, step));
    }
    scene.close().await;
}

/// Deletes so many pods, each at the moment when it has succeeded.
async fn delete_what_has_succeeded(pods: Api<Pod>, count: usize) {
    let events = pods.watch(&WatchParams::default(), "0").await.expect("a watch");
    let mut events = std::pin::pin!(events);
    let mut deleted = 0;
    while deleted < count {
        let event = events.try_next().await.expect("an event").expect("more");
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
            continue;
        };
        let phase = pod.status.and_then(|status| status.phase);
        if phase.as_deref() == Some("Succeeded") && pod.metadata.deletion_timestamp.is_none() {
            let at_once = DeleteParams::default().grace_period(0);
            let name = pod.metadata.name.expect("a name");
            pods.delete(&name, &at_once).await.expect("deleted");
            deleted += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_what_a_deleted_pod_writes_before_it_ends_is_there() {
    let scene = Scene::new(Turn::shared().await, "killed", Options::default()).await;
    let steps = [
        ("talks", "rate=200 up=talks last_words=50 exit=7"),
        ("listens", "lines=1 then=1 until=never up=listens last_words=3 exit=7"),
    ];
    let (run, reader) = write(&scene, json!({}), &steps).await;
    let pods: Api<Pod> = scene.api();
    for (step, _) in steps {
        scene.file(step).await;
        let name = scene.pod_of(step, 1).await.metadata.name.expect("a name");
        pods.delete(&name, &DeleteParams::default()).await.expect("deleted");
    }
    scene.ends(&run, RunState::Failed).await;
    let logs = reader.end().await;
    for (step, _) in steps {
        let attempt = &scene.step(&run, step)["attempts"][0];
        assert_eq!(
            (&attempt["failureClass"], &attempt["exitCode"]),
            (&json!("POD_DELETED"), &json!(7))
        );
        logs.is_whole(&format!("{step}/1"), &written(&scene, step));
    }
    assert_eq!(written(&scene, "listens").len(), 4, "with the last words");
    scene.close().await;
}
