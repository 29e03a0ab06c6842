//! Others end the pod: deletions, evictions. Exit codes lie then.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, EvictParams};

use crate::support::scene::Scene;

/// Ends with exit code 0 when it is told to, as a well-behaved program does.
const TRAPS: &str = r#"command: [sh, -c, "trap 'exit 0' TERM; sleep 1000 & wait"]"#;

async fn delete(scene: &Scene, pod: &Pod) {
    let pods: Api<Pod> = scene.api();
    let name = pod.metadata.name.as_deref().expect("a name");
    pods.delete(name, &DeleteParams::default())
        .await
        .expect("it is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn x14_a_trapped_sigterm_under_deletion_is_no_success() {
    let scene = Scene::new("trapped").await;
    let run = scene.run(&format!("- {{name: work, {TRAPS}}}"));
    delete(&scene, &scene.running_pod().await).await;
    let step = run.fails().await;
    step.failed_with("POD_DELETED", "PodDeleted")
        .exit_code(0)
        .attempts(1)
        .why(&["somebody deleted the pod; exit code 0 came after that"])
        .evidence(&[
            "deletionTimestamp",
            "container main terminated with exit code 0: Completed",
        ]);
    step.run_says(&["FAILED POD_DELETED  exit 0", "somebody deleted the pod"])
        .get_says(&["somebody deleted the pod; exit code 0 came after that"])
        .explain_says(&[
            "PodDeleted: somebody deleted the pod",
            "find out who deletes pods",
            "retries.infrastructure.attempts",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x14_a_step_may_take_exit_code_0_after_a_deletion_for_success() {
    let scene = Scene::new("accepted").await;
    let run = scene.run(&format!(
        "- {{name: work, acceptExitZeroWhenTerminated: true, {TRAPS}}}"
    ));
    delete(&scene, &scene.running_pod().await).await;
    run.succeeds().await.succeeded().exit_code(0).attempts(1);
    scene.close().await;
}

/// behaviours E35
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced_once_it_is_dead() {
    let scene = Scene::new("replaced").await;
    let run = scene.run(
        r#"
- name: work
  retries: {infrastructure: {attempts: 2, delay: 100ms}}
  script: '[ "$WINDLASS_ATTEMPT" = 2 ] || sleep 1000'
"#,
    );
    delete(&scene, &scene.running_pod().await).await;
    let step = run.succeeds().await;
    step.succeeded().attempts(2).step_says(&[
        "attempt       1",
        "exit code   137",
        "class       POD_DELETED",
        "somebody deleted the pod; exit code 137 (SIGKILL) came after that",
        "attempt       2",
    ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_by_the_api_is_evicted() {
    let scene = Scene::new("evicted").await;
    let run = scene.run(&format!("- {{name: work, {TRAPS}}}"));
    let pod = scene.running_pod().await;
    let pods: Api<Pod> = scene.api();
    let name = pod.metadata.name.as_deref().expect("a name");
    pods.evict(name, &EvictParams::default()).await.expect("it is evicted");
    let step = run.fails().await;
    step.failed_with("EVICTED", "EvictionByEvictionAPI")
        .exit_code(0)
        .attempts(1)
        .why(&["Eviction API: evicting; exit code 0 came after that"])
        .evidence(&["condition DisruptionTarget: EvictionByEvictionAPI", "deletionTimestamp"]);
    step.run_says(&["FAILED EVICTED  exit 0"])
        .get_says(&["Eviction API: evicting"])
        .explain_says(&[
            "EvictionByEvictionAPI: ",
            "no fault of the step",
            "retries.infrastructure.attempts",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_pod_that_is_deleted_never_ran() {
    let scene = Scene::new("pending").await;
    let run = scene.run("- {name: work, command: ['true'], pod: {nodeSelector: {absent: label}}}");
    scene.explained("UNSCHEDULABLE", "node affinity/selector").await;
    let pod = scene.pod_that("is there", |_| true).await;
    delete(&scene, &pod).await;
    let step = run.fails().await;
    step.failed_with("POD_DELETED", "PodDeleted")
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&["somebody deleted the pod before it had a node"])
        .evidence(&["pod Pending", "deletionTimestamp"])
        .explain_says(&[
            "somebody deleted the pod before it had a node",
            "find out who deletes pods",
        ]);
    scene.close().await;
}

/// The kubelet makes an exit code 137 up for a container that never was.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_while_it_is_set_up_never_ran() {
    let scene = Scene::new("set-up").await;
    let run = scene.run(
        "- {name: work, command: ['true'], pod: {volumes: [{name: s, secret: {secretName: absent}}], volumeMounts: [{name: s, \
         mountPath: /s}]}}",
    );
    scene.explained("PREPARING", r#"secret "absent" not found"#).await;
    let pod = scene.pod_that("is there", |_| true).await;
    delete(&scene, &pod).await;
    let step = run.fails().await;
    step.failed_with("POD_DELETED", "PodDeleted")
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&["somebody deleted the pod before its main container ran"])
        .evidence(&["ContainerStatusUnknown", "deletionTimestamp"])
        .explain_says(&["before its main container ran", "find out who deletes pods"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_pod_that_is_deleted_by_force_is_seen_to_end() {
    let scene = Scene::new("forced").await;
    let run = scene.run("- {name: work, command: [sleep, '1000']}");
    let name = scene.running_pod().await.metadata.name.expect("a name");
    let pods: Api<Pod> = scene.api();
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete(&name, &at_once).await.expect("it is deleted");
    let step = run.fails().await;
    step.failed_with("POD_DELETED", "PodDeleted")
        .exit_code(137)
        .attempts(1)
        .why(&["somebody deleted the pod; exit code 137 (SIGKILL) came after that"]);
    scene.close().await;
}
