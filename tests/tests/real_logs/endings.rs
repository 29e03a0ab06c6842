//! Containers are killed and pods evicted: what they wrote until then is there.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, EvictParams};
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::Options;
use windlass_tests::scene::{Scene, Turn};

use super::support::{write, written};

#[tokio::test(flavor = "multi_thread")]
async fn i7_the_last_lines_before_an_oom_kill_are_there() {
    let scene = Scene::new(Turn::shared().await, "oom", Options::default()).await;
    let pod = |resources| json!({"pod": {"imagePullPolicy": "Never", "resources": resources}});
    let little = pod(json!({"limits": {"memory": "48Mi"}}));
    let (run, reader) = write(&scene, little, &[("eats", "lines=700 eats=all")]).await;
    scene.ends(&run, RunState::Failed).await;
    let logs = reader.end().await;
    let attempt = &scene.step(&run, "eats")["attempts"][0];
    assert_eq!(attempt["failureClass"], "OOM_KILLED", "{attempt:#}");
    logs.is_whole("eats/1", &written(&scene, "eats"));
    scene.close().await;
}

/// behaviours E35
#[tokio::test(flavor = "multi_thread")]
async fn i7_the_last_lines_before_an_eviction_by_the_api_are_there() {
    let scene = Scene::new(Turn::shared().await, "evicted", Options::default()).await;
    let steps = [("work", "rate=100 up=work last_words=40 exit=3")];
    let (run, reader) = write(&scene, json!({}), &steps).await;
    scene.file("work").await;
    let pods: Api<Pod> = scene.api();
    let name = scene.pod_of("work", 1).await.metadata.name.expect("a name");
    pods.evict(&name, &EvictParams::default()).await.expect("evicted");
    scene.ends(&run, RunState::Failed).await;
    let logs = reader.end().await;
    let attempt = &scene.step(&run, "work")["attempts"][0];
    assert_eq!(attempt["failureClass"], "EVICTED", "{attempt:#}");
    logs.is_whole("work/1", &written(&scene, "work"));
    scene.close().await;
}

/// The kubelet removes the container, and its log, as soon as it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn i7_the_last_lines_before_an_eviction_for_a_full_disk_are_there() {
    let scene = Scene::new(Turn::shared().await, "full", Options::default()).await;
    let steps = [("fills", "lines=30 rate=10 fills=12000000 last_words=40 exit=3")];
    let pod = json!({"limits": {"ephemeral-storage": "8Mi"}});
    let (run, reader) = write(&scene, json!({"pod": {"resources": pod}}), &steps).await;
    scene.ends(&run, RunState::Failed).await;
    let logs = reader.end().await;
    let attempt = &scene.step(&run, "fills")["attempts"][0];
    assert_eq!(attempt["failureClass"], "EVICTED", "{attempt:#}");
    logs.is_whole("fills/1", &written(&scene, "fills"));
    scene.close().await;
}
