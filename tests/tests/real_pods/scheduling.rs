//! Pods for which there is no node.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use crate::support::scene::Scene;

/// A step that no node takes: explained while it waits, and a startup timeout in the end.
async fn no_node(name: &str, settings: &str, why: &str) {
    let scene = Scene::new(name).await;
    if settings.contains("claimName") {
        let claim = json!({"metadata": {"name": "unbound"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        scene.put::<PersistentVolumeClaim>(claim).await;
    }
    let run = scene.run(&format!(
        "- {{name: work, command: ['true'], deadlines: {{scheduled: 4s}}, pod: {{{settings}}}}}"
    ));
    scene.explained("UNSCHEDULABLE", why).await.has(&[
        "its pod has no node (Unschedulable): ",
        "until",
        "fails with STARTUP_TIMEOUT",
        "help",
    ]);
    let step = run.fails().await;
    step.failed_with("STARTUP_TIMEOUT", "NOT_SCHEDULED")
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&[
            "its pod got no node within 4s (deadlines.scheduled): Unschedulable: ",
            why,
        ]);
    step.run_says(&["FAILED STARTUP_TIMEOUT", why])
        .get_says(&[why])
        .explain_says(&[
            "NOT_SCHEDULED: its pod got no node within 4s",
            why,
            "provide what it waited for",
        ]);
    scene.close().await;
}

/// behaviours S8
#[tokio::test(flavor = "multi_thread")]
async fn a_node_selector_that_fits_nothing_is_a_startup_timeout() {
    no_node("selector", "nodeSelector: {gpu: a100}", "node affinity/selector").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_fit_nowhere_are_a_startup_timeout() {
    no_node(
        "resources",
        "resources: {requests: {memory: 900Ti}}",
        "Insufficient memory",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_resource_that_nobody_has_is_a_startup_timeout() {
    no_node(
        "gpu",
        "resources: {limits: {nvidia.com/gpu: 1}}",
        "Insufficient nvidia.com/gpu",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_never_binds_is_a_startup_timeout() {
    let settings = "volumes: [{name: data, persistentVolumeClaim: {claimName: unbound}}], \
                    volumeMounts: [{name: data, mountPath: /data}]";
    no_node("unbound", settings, "unbound").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_there_is_a_startup_timeout() {
    let scene = Scene::new("no-claim").await;
    let step = scene
        .run(
            "- {name: work, command: ['true'], deadlines: {scheduled: 3s}, pod: {volumes: [{name: data, \
             persistentVolumeClaim: {claimName: absent}}], volumeMounts: [{name: data, mountPath: /data}]}}",
        )
        .fails()
        .await;
    step.failed_with("STARTUP_TIMEOUT", "NOT_SCHEDULED")
        .never_started()
        .why(&[r#"persistentvolumeclaim "absent" not found"#])
        .explain_says(&[r#"persistentvolumeclaim "absent" not found"#]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_not_there_is_a_startup_timeout() {
    let scene = Scene::new("scheduler").await;
    let run = scene.run("- {name: work, command: ['true'], deadlines: {scheduled: 3s}, pod: {schedulerName: absent}}");
    let step = run.fails().await;
    step.failed_with("STARTUP_TIMEOUT", "NOT_SCHEDULED")
        .never_started()
        .why(&["its pod got no node within 3s (deadlines.scheduled)"])
        .explain_says(&["its pod got no node within 3s"]);
    scene.close().await;
}
