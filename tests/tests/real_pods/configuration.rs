//! Secrets, config maps and volumes: those that are there, and those that are not.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

use crate::support::said::Step;
use crate::support::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn env_of_secrets_and_config_maps_and_volumes_reach_the_step() {
    let scene = Scene::new("volumes").await;
    scene
        .put::<Secret>(json!({"metadata": {"name": "warehouse"}, "stringData": {"password": "sesame", "user": "ana"}}))
        .await;
    scene
        .put::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"MODE": "fast"}}))
        .await;
    let step = scene
        .run(
            r#"
- name: work
  env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: warehouse, key: password}}}
    - {name: MISSING, valueFrom: {secretKeyRef: {name: warehouse, key: nothing, optional: true}}}
  pod:
    envFrom: [{configMapRef: {name: settings}}]
    volumes:
      - {name: scratch, emptyDir: {sizeLimit: 1Mi}}
      - {name: host, hostPath: {path: /proc/sys/kernel, type: Directory}}
      - {name: secret, secret: {secretName: warehouse, defaultMode: 256}}
    volumeMounts:
      - {name: scratch, mountPath: /scratch}
      - {name: host, mountPath: /host, readOnly: true}
      - {name: secret, mountPath: /secret}
  script: |
    set -eu
    [ "$PASSWORD" = sesame ] && [ "$MODE" = fast ] && [ -z "${MISSING:-}" ]
    echo kept > /scratch/file
    echo "$(cat /scratch/file) $(cat /secret/user) $(ls /host/ostype)"
"#,
        )
        .succeeds()
        .await;
    step.succeeded();
    scene.says(&["logs", "@latest", "work"]).has(&["kept ana /host/ostype"]);
    scene.close().await;
}

/// A container whose configuration cannot work: `CreateContainerConfigError`.
fn cannot_work(step: &Step, what: &str) {
    step.failed_with("CONFIG", "CreateContainerConfigError")
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&[what])
        .evidence(&["CreateContainerConfigError"])
        .run_says(&["FAILED CONFIG", what])
        .get_says(&[what])
        .explain_says(&[
            "CreateContainerConfigError: ",
            what,
            "the Secret or ConfigMap that is meant",
        ]);
}

/// behaviours R10
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_a_configuration_error() {
    let scene = Scene::new("no-secret").await;
    let step = scene
        .run("- {name: work, command: ['true'], env: [{name: P, valueFrom: {secretKeyRef: {name: absent, key: p}}}]}")
        .fails()
        .await;
    cannot_work(&step, r#"secret "absent" not found"#);
    scene.close().await;
}

/// behaviours R10
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_of_a_secret_is_a_configuration_error() {
    let scene = Scene::new("no-key").await;
    scene
        .put::<Secret>(json!({"metadata": {"name": "warehouse"}, "stringData": {"user": "ana"}}))
        .await;
    let step = scene
        .run(
            "- {name: work, command: ['true'], env: [{name: P, valueFrom: {secretKeyRef: {name: warehouse, key: p}}}]}",
        )
        .fails()
        .await;
    cannot_work(&step, "couldn't find key p in Secret");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_config_map_is_a_configuration_error() {
    let scene = Scene::new("no-map").await;
    let step = scene
        .run("- {name: work, command: ['true'], pod: {envFrom: [{configMapRef: {name: absent}}]}}")
        .fails()
        .await;
    cannot_work(&step, r#"configmap "absent" not found"#);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_image_that_must_not_run_as_root_is_a_configuration_error() {
    let scene = Scene::new("root").await;
    let step = scene
        .run("- {name: work, command: ['true'], pod: {securityContext: {runAsNonRoot: true}}}")
        .fails()
        .await;
    cannot_work(&step, "runAsNonRoot");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_comes_late_is_waited_for() {
    let scene = Scene::new("late-secret").await;
    let run = scene.run(
        "- {name: work, command: ['true'], deadlines: {pulling: 60s}, pod: {volumes: [{name: s, secret: {secretName: late}}], \
         volumeMounts: [{name: s, mountPath: /s}]}}",
    );
    scene.explained("PREPARING", r#"secret "late" not found"#).await.has(&[
        "FailedMount",
        "fails with STARTUP_TIMEOUT",
        "check the volumes and secrets",
    ]);
    scene
        .put::<Secret>(json!({"metadata": {"name": "late"}, "stringData": {"user": "ana"}}))
        .await;
    run.succeeds().await.succeeded().attempts(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_path_that_is_not_there_is_a_startup_timeout() {
    let scene = Scene::new("host-path").await;
    let run = scene.run(
        "- {name: work, command: ['true'], deadlines: {pulling: 12s}, pod: {volumes: [{name: h, hostPath: {path: /absent, type: \
         Directory}}], volumeMounts: [{name: h, mountPath: /h}]}}",
    );
    scene
        .explained("PREPARING", "hostPath type check failed: /absent")
        .await
        .has(&[
            "FailedMount",
            "fails with STARTUP_TIMEOUT",
            "check the volumes and secrets",
        ]);
    let step = run.fails().await;
    step.failed_with("STARTUP_TIMEOUT", "NOT_PULLED")
        .never_started()
        .why(&[
            "its pod was not set up within 12s (deadlines.pulling): FailedMount: ",
            "hostPath type check failed: /absent",
        ])
        .explain_says(&["/absent is not a directory", "provide what it waited for"]);
    scene.close().await;
}
