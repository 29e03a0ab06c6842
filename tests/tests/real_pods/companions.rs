//! Containers beside the main one: sidecars, containers that never end, init containers.

use crate::support::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn e11_a_native_sidecar_ends_with_the_step() {
    let scene = Scene::new("sidecar").await;
    let step = scene
        .run(
            r#"
- name: work
  script: "until [ -e /shared/ready ]; do sleep 0.1; done; exit 0"
  pod:
    volumes: [{name: shared, emptyDir: {}}]
    volumeMounts: [{name: shared, mountPath: /shared}]
    sidecars:
      - name: proxy
        image: busybox:1.36
        imagePullPolicy: Never
        command: [sh, -c, "touch /shared/ready; sleep 100000"]
        volumeMounts: [{name: shared, mountPath: /shared}]
"#,
        )
        .succeeds()
        .await;
    step.succeeded().exit_code(0).attempts(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_a_second_container_that_never_ends_does_not_hold_the_step() {
    let scene = Scene::new("second").await;
    let step = scene
        .run(
            r#"
- name: work
  command: ["true"]
  pod:
    overlay:
      containers: [{name: agent, image: "busybox:1.36", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#,
        )
        .succeeds()
        .await;
    step.succeeded().exit_code(0).attempts(1);
    // What is left of the pod goes with it.
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_the_main_containers_failure_is_the_steps_while_another_goes_on() {
    let scene = Scene::new("second-fails").await;
    let step = scene
        .run(
            r#"
- name: work
  command: [sh, -c, "exit 4"]
  pod:
    overlay:
      containers: [{name: agent, image: "busybox:1.36", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#,
        )
        .fails()
        .await;
    step.failed_with("USER_ERROR", "Error")
        .exit_code(4)
        .evidence(&["container main terminated with exit code 4", "container agent running"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_container_that_fails_does_not_fail_the_step() {
    let scene = Scene::new("agent-fails").await;
    let step = scene
        .run(
            r#"
- name: work
  command: [sleep, "2"]
  pod:
    overlay:
      containers: [{name: agent, image: "busybox:1.36", imagePullPolicy: Never, command: [sh, -c, "exit 9"]}]
"#,
        )
        .succeeds()
        .await;
    step.succeeded().exit_code(0).attempts(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_container_that_fails_fails_the_step() {
    let scene = Scene::new("init").await;
    let step = scene
        .run(
            r#"
- name: work
  command: ["true"]
  pod:
    initContainers:
      - {name: fetch, image: "busybox:1.36", imagePullPolicy: Never, command: [sh, -c, "echo looking; echo no bucket > /dev/termination-log; exit 6"]}
"#,
        )
        .fails()
        .await;
    step.failed_with("USER_ERROR", "InitContainerFailed")
        .attempts(1)
        .never_started()
        .why(&["init container fetch: exit code 6"])
        .termination_message("no bucket\n")
        .evidence(&["container fetch terminated with exit code 6: Error"]);
    scene
        .says(&["logs", "@latest", "work", "--container", "*"])
        .has(&["looking"]);
    step.run_says(&["init container fetch: exit code 6", "│ no bucket"])
        .get_says(&["init container fetch: exit code 6"])
        .explain_says(&[
            "InitContainerFailed: init container fetch: exit code 6",
            "--container '*'",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_container_that_never_ends_is_a_startup_timeout() {
    let scene = Scene::new("init-hangs").await;
    let run = scene.run(
        r#"
- name: work
  command: ["true"]
  deadlines: {initialising: 5s}
  pod:
    initContainers: [{name: fetch, image: "busybox:1.36", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#,
    );
    scene
        .explained("INITIALISING", "fetch")
        .await
        .has(&["fails with STARTUP_TIMEOUT"]);
    let step = run.fails().await;
    step.failed_with("STARTUP_TIMEOUT", "NOT_INITIALISED")
        .never_started()
        .why(&[
            "its init containers did not end within 5s (deadlines.initialising)",
            "fetch",
        ])
        .explain_says(&["its init containers did not end within 5s"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_container_without_its_command_is_a_configuration_error() {
    let scene = Scene::new("init-command").await;
    let step = scene
        .run(
            r#"
- name: work
  command: ["true"]
  pod:
    initContainers: [{name: fetch, image: "busybox:1.36", imagePullPolicy: Never, command: [ftech]}]
"#,
        )
        .fails()
        .await;
    step.failed_with("CONFIG", "InitContainerFailed")
        .never_started()
        .why(&["init container fetch: ", r#""ftech": executable file not found"#])
        .explain_says(&["init container fetch: ", "correct what the message names: command"]);
    scene.close().await;
}
