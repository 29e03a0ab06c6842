//! Windlass itself stops a step: cancelled runs, timeouts of runs, failure modes.

use crate::support::scene::Scene;

const SLEEPS: &str = "- {name: work, command: [sleep, '1000']}";

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_exits_with_5() {
    let scene = Scene::new("cancelled").await;
    let run = scene.run(SLEEPS);
    scene.running_pod().await;
    scene
        .says(&["cancel", "@latest", "--reason", "wrong data"])
        .has(&["cancel"]);
    let step = run.ends(5).await;
    step.cancelled("RUN_CANCELLED").attempts(1);
    step.run_says(&["CANCELLED", "wrong data"])
        .get_says(&["CANCELLED", "wrong data"])
        .explain_says(&["step work is CANCELLED", "the run was cancelled"]);
    scene.close().await;
}

/// behaviours S2
#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_of_a_run_fails_it_and_cancels_its_steps() {
    let scene = Scene::new("run-timeout").await;
    let step = scene.run_with("timeout: 3s", SLEEPS).ends(1).await;
    step.cancelled("RUN_TIMEOUT");
    step.run_says(&["FAILED", "took longer than the pipeline's timeout"])
        .get_says(&["took longer than the pipeline's timeout"])
        .explain_says(&["step work is CANCELLED", "the run took longer than its timeout"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_stopped_for_the_failure_of_another_is_cancelled() {
    let scene = Scene::new("fail-fast").await;
    let step = scene
        .run_with(
            "failureMode: FAIL_FAST",
            r#"
- {name: work, command: [sleep, "1000"]}
- {name: other, command: [sh, -c, "sleep 1; exit 3"]}
"#,
        )
        .ends(1)
        .await;
    step.cancelled("FAIL_FAST")
        .run_says(&["other", "FAILED USER_ERROR  exit 3"])
        .explain_says(&["step work is CANCELLED", "another step failed (failureMode: FAIL_FAST)"]);
    scene.close().await;
}
