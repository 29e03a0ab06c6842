//! Others delete pods.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, WatchEvent, WatchParams};
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::Options;
use windlass_tests::scene::{Scene, Turn};

use super::support::{write, written};

/// behaviours X1
#[tokio::test(flavor = "multi_thread")]
async fn i7_pods_that_are_deleted_when_they_have_ended_keep_their_logs() {
    let scene = Scene::new(Turn::shared().await, "deleted", Options::default()).await;
    let pods: Api<Pod> = scene.api();
    let deleted = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&deleted);
    let deleter = tokio::spawn(async move {
        let events = pods.watch(&WatchParams::default(), "0").await.expect("a watch");
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
                continue;
            };
            let phase = pod.status.and_then(|status| status.phase);
            if phase.as_deref() == Some("Succeeded") && pod.metadata.deletion_timestamp.is_none() {
                let at_once = DeleteParams::default().grace_period(0);
                // It may have been let go before.
                let name = pod.metadata.name.expect("a name");
                if pods.delete(&name, &at_once).await.is_ok() {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let steps = ["s1", "s2", "s3", "s4", "s5", "s6"];
    let args = [
        "lines=3000",
        "lines=1",
        "lines=0",
        "lines=20 rate=20",
        "lines=300 length=5000",
        "lines=2000 rate=1000",
    ];
    let all: Vec<_> = steps.into_iter().zip(args).collect();
    let (run, reader) = write(&scene, json!({}), &all).await;
    scene.ends(&run, RunState::Succeeded).await;
    let logs = reader.end().await;
    for step in steps {
        logs.is_whole(&format!("{step}/1"), &written(&scene, step));
    }
    let deleted = deleted.load(Ordering::Relaxed);
    println!("{deleted} deleted before they were let go");
    assert!(deleted >= 3, "{deleted} were deleted");
    deleter.abort();
    scene.close().await;
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
