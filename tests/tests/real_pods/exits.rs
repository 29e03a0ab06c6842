//! The main container ends by itself: exit codes, signals, memory, time, and what it leaves to say.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::support::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_0_is_success() {
    let scene = Scene::new("success").await;
    let step = scene.run("- {name: work, command: [echo, done]}").succeeds().await;
    step.succeeded().exit_code(0).attempts(1);
    scene.says(&["logs", "@latest", "work"]).has(&["done"]);
    scene.close().await;
}

/// behaviours E34
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_is_a_user_error_with_its_termination_message() {
    let scene = Scene::new("exit-code").await;
    let step = scene
        .run(r#"- {name: work, command: [sh, -c, "echo no column total > /dev/termination-log; exit 3"]}"#)
        .fails()
        .await;
    step.failed_with("USER_ERROR", "Error")
        .exit_code(3)
        .attempts(1)
        .why(&["exit code 3"])
        .evidence(&["container main terminated with exit code 3: Error"])
        .termination_message("no column total\n");
    step.run_says(&["FAILED USER_ERROR  exit 3 · attempt 1/1", "│ no column total"])
        .get_says(&["exit 3", "attempt 1/1"])
        .step_says(&["class       USER_ERROR", "said        no column total"])
        .explain_says(&[
            "step work is FAILED",
            "exit code 3",
            "help   see its output: windlass logs",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_of_the_list_is_tried_again() {
    let scene = Scene::new("retried").await;
    let step = scene
        .run(
            r#"
- name: work
  retries: {user: {attempts: 2, delay: 100ms, exitCodes: [75]}}
  script: '[ "$WINDLASS_ATTEMPT" = 2 ] || exit 75'
"#,
        )
        .succeeds()
        .await;
    step.succeeded().attempts(2).step_says(&[
        "attempt       1",
        "exit code   75",
        "class       USER_ERROR",
        "attempt       2",
    ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_has_its_name() {
    let scene = Scene::new("signal").await;
    let step = scene
        .run(r#"- {name: work, command: [python3, -c, "import ctypes; ctypes.string_at(0)"], image: "python:3"}"#)
        .fails()
        .await;
    step.failed_with("USER_ERROR", "Error")
        .exit_code(139)
        .why(&["exit code 139 (SIGSEGV)"])
        .explain_says(&["exit code 139 (SIGSEGV)"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_finds_no_command_says_so() {
    let scene = Scene::new("script").await;
    let step = scene.run("- {name: work, script: trian --fast}").fails().await;
    step.failed_with("USER_ERROR", "Error")
        .exit_code(127)
        .why(&["exit code 127 (command not found)"])
        .run_says(&["trian: not found"])
        .explain_says(&["exit code 127 (command not found)", "see its output"]);
    scene.close().await;
}

/// behaviours T1, E17, U1
#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_the_limit_is_oom_killed() {
    let scene = Scene::new("memory").await;
    let step = scene
        .run(
            r#"
- name: work
  image: python:3
  command: [python3, -c, "x = bytearray(10**9)"]
  pod: {resources: {limits: {memory: 32Mi}}}
"#,
        )
        .fails()
        .await;
    step.failed_with("OOM_KILLED", "OOMKilled")
        .exit_code(137)
        .attempts(1)
        .why(&["it used more memory than its limit of 32Mi; exit code 137 (SIGKILL)"])
        .evidence(&["container main terminated with exit code 137: OOMKilled"]);
    step.run_says(&["FAILED OOM_KILLED  exit 137", "limit of 32Mi"])
        .get_says(&["limit of 32Mi"])
        .explain_says(&["limit of 32Mi", "raise pod.resources.limits.memory"]);
    scene.close().await;
}

/// behaviours U20: a step that hangs is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_of_a_step_is_a_deadline_whatever_the_exit_code() {
    let scene = Scene::new("timeout").await;
    let step = scene
        .run(r#"- {name: work, timeout: 2s, command: [sh, -c, "trap 'exit 0' TERM; sleep 1000 & wait"]}"#)
        .fails()
        .await;
    step.failed_with("DEADLINE", "TIMEOUT")
        .exit_code(0)
        .attempts(1)
        .why(&["it ran longer than its timeout of 2s; told to stop, it ended with exit code 0"])
        .evidence(&["deletionTimestamp"]);
    step.run_says(&["FAILED DEADLINE", "it ran longer than its timeout of 2s"])
        .get_says(&["it ran longer than its timeout of 2s"])
        .explain_says(&[
            "TIMEOUT: it ran longer than its timeout of 2s",
            "raise the bound that the message names",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn active_deadline_seconds_of_others_is_a_deadline() {
    let scene = Scene::new("active-deadline").await;
    let run = scene.run(r#"- {name: work, command: [sleep, "1000"]}"#);
    // The pipeline has `timeout` for it; a policy of the cluster may set it all the same.
    let name = scene.running_pod().await.metadata.name.expect("a name");
    scene
        .change::<Pod>(&name, json!({"spec": {"activeDeadlineSeconds": 1}}))
        .await;
    let step = run.fails().await;
    step.failed_with("DEADLINE", "DeadlineExceeded")
        .attempts(1)
        .why(&["Pod was active on the node longer than the specified deadline"])
        .evidence(&["pod Failed: DeadlineExceeded"]);
    step.run_says(&["FAILED DEADLINE", "longer than the specified deadline"])
        .get_says(&["longer than the specified deadline"])
        .explain_says(&[
            "DeadlineExceeded: Pod was active on the node longer",
            "raise the bound that the message names",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_a_configuration_error() {
    let scene = Scene::new("no-command").await;
    let step = scene.run("- {name: work, command: [trian]}").fails().await;
    step.failed_with("CONFIG", "StartError")
        .exit_code(128)
        .attempts(1)
        .never_started()
        .why(&[r#""trian": executable file not found in $PATH"#])
        .evidence(&["container main terminated with exit code 128: StartError"]);
    step.run_says(&["FAILED CONFIG", r#""trian": executable file not found"#])
        .get_says(&[r#""trian": executable file not found"#])
        .explain_says(&[
            r#""trian": executable file not found"#,
            "correct what the message names: command",
        ]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_folder_that_is_a_file_is_a_configuration_error() {
    let scene = Scene::new("no-folder").await;
    let step = scene
        .run("- {name: work, command: [pwd], workingDir: /bin/busybox}")
        .fails()
        .await;
    step.failed_with("CONFIG", "StartError")
        .never_started()
        .why(&["/bin/busybox"])
        .explain_says(&["/bin/busybox", "correct what the message names: command"]);
    scene.close().await;
}
