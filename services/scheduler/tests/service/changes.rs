//! Retries, cancel, confirm-dead, delete.

use std::sync::atomic::{AtomicU32, Ordering};

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::pipeline::v1::{Retries, RetryBudget};
use windlass_api::run::v1 as run;

use crate::executor::Play;
use crate::support::{Stage, config, eventually, pipeline, reason, submission};

/// The run in the details of a status.
fn about(status: &tonic::Status) -> String {
    let info = status.get_details_error_info().expect("details");
    info.metadata["run"].clone()
}

fn soon() -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: 0,
        nanos: 1_000_000,
    })
}

fn budget(attempts: u32) -> RetryBudget {
    RetryBudget {
        attempts: Some(attempts),
        delay: soon(),
        ..RetryBudget::default()
    }
}

/// behaviours E36
#[tokio::test]
async fn a_failed_attempt_is_retried_within_its_budget() {
    let stage = Stage::new(|_, attempt| if attempt == 1 { Play::Fail(75) } else { Play::Succeed }).await;
    let mut retried = pipeline(&[("train", &[])]);
    retried.steps[0].retries = Some(Retries {
        user: Some(budget(2)),
        ..Retries::default()
    });
    let run = stage.submit("r1", retried).await;
    assert_eq!(stage.ended(&run).await.state(), run::RunState::Succeeded);
    let steps = stage.steps(&run).await;
    let codes: Vec<_> = steps[0]
        .attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.exit_code))
        .collect();
    assert_eq!(codes, [(1, Some(75)), (2, Some(0))]);
    assert_eq!(steps[0].max_attempts, 2);
}

/// behaviours X7, X8, U2, E37
#[tokio::test]
async fn i5_a_cancelled_run_stops_what_starts_too_and_leaves_what_has_ended() {
    let data = tempfile::tempdir().expect("a folder");
    let mut keeping = config(data.path());
    // The pod of what has ended is still there.
    keeping.seal_deadline = std::time::Duration::from_secs(600);
    let script = |step: &str, _| match step {
        "ends" => Play::Succeed,
        "runs" => Play::Hold,
        _ => Play::Silent,
    };
    let stage = Stage::with(data, keeping, script).await;
    let steps: &[(&str, &[&str])] = &[("ends", &[]), ("runs", &[]), ("starts", &[]), ("waits", &["runs"])];
    let run = stage.submit("r1", pipeline(steps)).await;
    for (step, state) in [
        ("ends", run::StepState::Succeeded),
        ("runs", run::StepState::Running),
        ("starts", run::StepState::Starting),
    ] {
        stage.step_in(&run, step, state).await;
    }
    let request = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::CancelRunRequest::default()
    };
    stage.scheduler.runs().cancel_run(request).await.expect("cancelled");
    assert_eq!(stage.ended(&run).await.state(), run::RunState::Cancelled);
    let steps = stage.steps(&run).await;
    let states: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.state())).collect();
    assert_eq!(
        states,
        [
            ("ends", run::StepState::Succeeded),
            ("runs", run::StepState::Cancelled),
            ("starts", run::StepState::Cancelled),
            ("waits", run::StepState::Cancelled),
        ]
    );
    assert!(
        steps[2].attempts[0].end_time.is_some(),
        "its end is recorded: {:?}",
        steps[2]
    );
    let seen = stage.executor.seen();
    let stopped = seen.launches.iter().filter(|(pod, ..)| seen.stops.contains(pod));
    let stopped: std::collections::BTreeSet<&str> = stopped.map(|(_, step, _)| step.as_str()).collect();
    assert_eq!(stopped, ["runs", "starts"].into());
}

#[tokio::test]
async fn i5_a_cancelled_run_stops_what_runs_and_says_who_cancelled_it() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let run = stage.submit("r1", pipeline(&[("a", &[]), ("b", &["a"])])).await;
    stage.step_in(&run, "a", run::StepState::Running).await;
    let mut runs = stage.scheduler.runs();
    let request = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "c1".to_owned(),
        reason: "wrong data".to_owned(),
        ..run::CancelRunRequest::default()
    };
    let answered = runs
        .cancel_run(request.clone())
        .await
        .expect("cancelled")
        .into_inner()
        .run
        .expect("a run");
    assert!(matches!(
        answered.state(),
        run::RunState::Cancelling | run::RunState::Cancelled
    ));
    let ended = stage.ended(&run).await;
    assert_eq!(ended.state(), run::RunState::Cancelled);
    assert_eq!(ended.message, "cancelled by ana: wrong data");
    assert_eq!(stage.executor.seen().stops.len(), 1, "only what ran was stopped");
    let again = runs
        .cancel_run(request.clone())
        .await
        .expect("the same request is answered again");
    assert_eq!(again.into_inner().run.expect("a run").state(), run::RunState::Cancelled);

    let other = run::CancelRunRequest {
        request_id: "c2".to_owned(),
        ..request.clone()
    };
    let status = runs.cancel_run(other).await.expect_err("it has ended");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "RUN_ENDED")
    );
    let reused = run::CancelRunRequest {
        reason: "another reason".to_owned(),
        ..request
    };
    let status = runs.cancel_run(reused).await.expect_err("the id was used");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    assert_eq!(about(&status), run.name);
}

#[tokio::test]
async fn i2_a_lost_attempt_is_replaced_only_after_a_person_confirmed_its_death() {
    let stage = Stage::new(|_, attempt| if attempt == 1 { Play::Unreachable } else { Play::Succeed }).await;
    let mut lost = pipeline(&[("train", &[]), ("other", &[])]);
    lost.steps[0].retries = Some(Retries {
        infrastructure: Some(budget(3)),
        ..Retries::default()
    });
    let run = stage.submit("r1", lost).await;
    let step = stage.step_in(&run, "train", run::StepState::LostContact).await;
    assert_eq!(step.attempts.len(), 1, "nothing replaces it");
    let mut runs = stage.scheduler.runs();
    let confirm = |step: &str, request_id: &str| run::ConfirmDeadRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        step: step.to_owned(),
        request_id: request_id.to_owned(),
        ..run::ConfirmDeadRequest::default()
    };
    runs.confirm_dead(confirm("train", "d1")).await.expect("confirmed");
    stage.step_in(&run, "train", run::StepState::Succeeded).await;
    runs.confirm_dead(confirm("train", "d1"))
        .await
        .expect("the same request is answered again");
    let other = run::ConfirmDeadRequest {
        attempt: 2,
        ..confirm("train", "d1")
    };
    let status = runs.confirm_dead(other).await.expect_err("another attempt");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    assert_eq!(about(&status), run.name);
    let status = runs
        .confirm_dead(confirm("train", "d2"))
        .await
        .expect_err("nothing to confirm");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "NOT_LOST_CONTACT")
    );
    let status = runs.confirm_dead(confirm("nobody", "d3")).await.expect_err("unknown");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "STEP_NOT_FOUND")
    );
}

#[tokio::test]
async fn only_an_ended_run_is_deleted_and_then_it_is_gone() {
    let held = AtomicU32::new(1);
    let stage = Stage::new(move |_, _| {
        if held.fetch_sub(1, Ordering::Relaxed) > 0 {
            Play::Hold
        } else {
            Play::Succeed
        }
    })
    .await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    let mut runs = stage.scheduler.runs();
    let delete = run::DeleteRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "x1".to_owned(),
    };
    let status = runs.delete_run(delete.clone()).await.expect_err("it runs");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "RUN_NOT_ENDED")
    );
    stage.step_in(&run, "a", run::StepState::Running).await;
    let cancel = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::CancelRunRequest::default()
    };
    runs.cancel_run(cancel).await.expect("cancelled");
    stage.ended(&run).await;
    let deleted = runs.delete_run(delete.clone()).await.expect("deleted").into_inner();
    assert_eq!(deleted.resource_name, format!("namespaces/ml/runs/{}", run.name));
    let again = runs
        .delete_run(delete.clone())
        .await
        .expect("the same request is answered again")
        .into_inner();
    assert_eq!(again, deleted);
    let by_id = run::DeleteRunRequest {
        run: run.id.clone(),
        ..delete.clone()
    };
    runs.delete_run(by_id).await.expect("the same run by its id");
    let another = run::DeleteRunRequest {
        run: "another".to_owned(),
        ..delete.clone()
    };
    let status = runs.delete_run(another).await.expect_err("another run");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    assert_eq!(about(&status), run.name);
    let status = runs
        .submit_run(submission("r1", pipeline(&[("a", &[])])))
        .await
        .expect_err("the request made a run, and must not make another");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "RUN_DELETED")
    );
    assert_eq!(about(&status), run.id);
    let get = run::GetRunRequest {
        namespace: "ml".to_owned(),
        run: run.id.clone(),
    };
    assert_eq!(runs.get_run(get).await.expect_err("gone").code(), Code::NotFound);
    let other = run::DeleteRunRequest {
        request_id: "x2".to_owned(),
        ..delete
    };
    assert_eq!(runs.delete_run(other).await.expect_err("gone").code(), Code::NotFound);
    eventually("the pod's release", || async {
        (!stage.executor.seen().releases.is_empty()).then_some(())
    })
    .await;
}
