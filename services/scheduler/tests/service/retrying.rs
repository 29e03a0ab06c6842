//! Runs that go on where an earlier one failed: behaviours U4.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;
use tonic::{Code, Status};
use windlass_api::pipeline::v1::{MatrixAxis, Pipeline, RunIf};
use windlass_api::run::v1 as run;
use windlass_api::run::v1::{RunState, StepState};

use crate::executor::Play;
use crate::support::{Scheduler, Stage, config, ended, pipeline, reason};

/// Steps named `bad…` fail until they are mended, and those named `stuck…` run until they are stopped.
struct Mended {
    stage: Stage,
    mended: Arc<AtomicBool>,
}

impl Mended {
    async fn new() -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = Arc::clone(&mended);
        let stage = Stage::new(move |step, _| match is_mended.load(Ordering::SeqCst) {
            false if step.starts_with("bad") => Play::Fail(3),
            false if step.starts_with("stuck") => Play::Hold,
            _ => Play::Succeed,
        })
        .await;
        Self { stage, mended }
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    async fn retry(&self, run: &run::Run, request_id: &str) -> Result<run::RetryRunResponse, Status> {
        retry(&self.stage.scheduler, request(&run.name, request_id)).await
    }

    /// Names of the steps that were launched for a run, in order.
    fn launched(&self, run: &run::Run) -> Vec<String> {
        let id: windlass_ids::RunId = run.id.parse().expect("an id");
        let seen = self.stage.executor.seen();
        let of_run = seen.launches.iter().filter(|(key, ..)| key.0 == id.as_bytes());
        of_run.map(|(_, step, _)| step.clone()).collect()
    }

    /// Everything that is shown of a run.
    async fn shown(&self, run: &run::Run) -> Vec<Vec<u8>> {
        let mut runs = self.stage.scheduler.runs();
        let request = run::GetRunRequest {
            namespace: "ml".to_owned(),
            run: run.id.clone(),
        };
        let shown = runs.get_run(request).await.expect("answers").into_inner();
        let mut all = vec![shown.encode_to_vec()];
        all.extend(self.stage.steps(run).await.iter().map(run::Step::encode_to_vec));
        let request = run::GetRunPipelineRequest {
            namespace: "ml".to_owned(),
            run: run.id.clone(),
        };
        let mut chunks = runs.get_run_pipeline(request).await.expect("answers").into_inner();
        while let Some(chunk) = chunks.message().await.expect("goes on") {
            all.push(chunk.chunk);
        }
        all
    }
}

fn request(run: &str, request_id: &str) -> run::RetryRunRequest {
    run::RetryRunRequest {
        namespace: "ml".to_owned(),
        run: run.to_owned(),
        request_id: request_id.to_owned(),
        ..run::RetryRunRequest::default()
    }
}

async fn retry(scheduler: &Scheduler, request: run::RetryRunRequest) -> Result<run::RetryRunResponse, Status> {
    let answered = scheduler.runs().retry_run(request).await?;
    Ok(answered.into_inner())
}

/// `extract` → `bad` → `report`; `notify` if something fails; `cleanup` in any case; `extract` → `side`.
fn churn() -> Pipeline {
    let mut churn = pipeline(&[
        ("extract", &[]),
        ("bad", &["extract"]),
        ("report", &["bad"]),
        ("notify", &["bad"]),
        ("cleanup", &["bad"]),
        ("side", &["extract"]),
    ]);
    churn.steps[3].run_if = RunIf::Failed.into();
    churn.steps[4].run_if = RunIf::Always.into();
    churn
}

fn axis(values: &[&str]) -> MatrixAxis {
    let value = |value: &&str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue((*value).to_owned())),
    };
    MatrixAxis {
        name: "FOLD".to_owned(),
        values: values.iter().map(value).collect(),
    }
}

fn states(steps: &[run::Step]) -> Vec<(&str, StepState)> {
    steps.iter().map(|step| (step.name.as_str(), step.state())).collect()
}

/// behaviours U4
#[tokio::test]
async fn a_retry_reuses_what_succeeded_and_says_which_and_leaves_the_old_run_as_it_was() {
    let mended = Mended::new().await;
    let old = mended.stage.submit("r1", churn()).await;
    let old = mended.stage.ended(&old).await;
    assert_eq!(old.state(), RunState::Failed);
    let before = mended.shown(&old).await;
    mended.mend();

    let answer = mended.retry(&old, "t1").await.expect("accepted");
    assert!(answer.created);
    assert_eq!((answer.reused_count, answer.rerun_count), (2, 4));
    assert_eq!(answer.reused_steps, ["extract", "side"]);
    // Clean-up and notices ran because of the failure, so they run again.
    assert_eq!(answer.rerun_steps, ["bad", "report", "notify", "cleanup"]);
    let new = answer.run.expect("a run");
    assert_ne!((&new.id, &new.name), (&old.id, &old.name));
    let retried = new.retry_of.clone().expect("where it comes from");
    assert_eq!((&retried.name, &retried.id), (&old.name, &old.id));

    let ended = mended.stage.ended(&new).await;
    assert_eq!(ended.state(), RunState::Succeeded);
    assert_eq!(ended.retry_of, Some(retried));
    let steps = mended.stage.steps(&new).await;
    assert_eq!(
        states(&steps),
        [
            ("extract", StepState::Cached),
            ("bad", StepState::Succeeded),
            ("report", StepState::Succeeded),
            ("notify", StepState::Skipped),
            ("cleanup", StepState::Succeeded),
            ("side", StepState::Cached),
        ]
    );
    let source = steps[0].reused_from.clone().expect("where it comes from");
    assert_eq!(
        source.resource_name,
        format!("namespaces/ml/runs/{}/steps/extract/attempts/1", old.name)
    );
    assert_eq!(source.run.expect("a run").id, old.id);
    assert_eq!(
        (steps[0].reason.as_str(), steps[0].message.as_str()),
        ("REUSED", format!("reused from {}", old.name).as_str())
    );
    assert!(steps[0].attempts.is_empty(), "nothing of it ran here");
    assert_eq!(mended.launched(&new), ["bad", "report", "cleanup"]);
    let cached = ended
        .step_counts
        .iter()
        .find(|count| count.state() == StepState::Cached);
    assert_eq!(cached.map(|count| count.count), Some(2));
    assert!(mended.shown(&old).await == before, "the old run has changed");
}

#[tokio::test]
async fn a_retry_of_a_retry_names_the_attempts_that_did_the_work_and_stays_in_the_first_workspace() {
    let mended = Mended::new().await;
    let shared = windlass_pipeline::source::parse(
        "
name: churn
workspace: {volume: {persistentVolumeClaim: {claimName: team}}}
defaults: {image: churn:v3, command: [\"true\"]}
steps:
  - {name: a}
  - {name: bad-b, upstream: [a]}
  - {name: bad-c, upstream: [bad-b]}
",
    );
    let shared = windlass_api::convert::pipeline_to_proto(&shared.into_pipeline().expect("a pipeline"));
    let first = mended.stage.submit("r1", shared).await;
    mended.stage.ended(&first).await;
    let second = mended.retry(&first, "t1").await.expect("accepted").run.expect("a run");
    assert_eq!(mended.stage.ended(&second).await.state(), RunState::Failed);
    mended.mend();
    let third = mended.retry(&second, "t2").await.expect("accepted").run.expect("a run");
    assert_eq!(mended.stage.ended(&third).await.state(), RunState::Succeeded);
    assert_eq!(third.retry_of.clone().expect("a run").id, second.id);
    let steps = mended.stage.steps(&third).await;
    let source = steps[0]
        .reused_from
        .clone()
        .and_then(|source| source.run)
        .expect("a run");
    assert_eq!((source.id, source.name), (first.id.clone(), first.name.clone()));
    assert_eq!(mended.launched(&third), ["bad-b", "bad-c"]);
    for (run, folder) in [(&first, None), (&second, Some(&first.id)), (&third, Some(&first.id))] {
        let seen = mended.stage.executor.seen();
        let context: serde_json::Value = serde_json::from_slice(&seen.context_json[&run.id]).expect("JSON");
        assert_eq!(context["workspace"]["folderOf"].as_str(), folder.map(String::as_str));
    }
}

#[tokio::test]
async fn each_instance_of_a_matrix_is_reused_by_its_own() {
    let mended = Mended::new().await;
    let mut matrix = pipeline(&[("all", &[]), ("some", &["all"]), ("bad", &["all"]), ("last", &["some"])]);
    matrix.steps[0].matrix = vec![axis(&["0", "1", "2"])];
    matrix.steps[1].matrix = vec![axis(&["0", "1"])];
    let old = mended.stage.submit("r1", matrix).await;
    mended.stage.ended(&old).await;
    let plan = run::RetryRunRequest {
        validate_only: true,
        ..request(&old.name, "")
    };
    let plan = retry(&mended.stage.scheduler, plan).await.expect("a plan");
    assert!(plan.run.is_none() && !plan.created);
    // A matrix step that is reused as a whole is named as in the file.
    assert_eq!(
        (plan.reused_count, plan.reused_steps.join(" ")),
        (6, "all some last".to_owned())
    );
    assert_eq!(plan.rerun_steps, ["bad"]);
    assert_eq!(mended.launched(&old).len(), 7, "a plan launches nothing");

    // Cancelled while one instance runs: the others are reused, and it runs again.
    let mended = Mended::new().await;
    let mut matrix = pipeline(&[("quick", &[]), ("stuck", &["quick"]), ("last", &["stuck"])]);
    matrix.steps[1].matrix = vec![axis(&["0", "1"])];
    let old = mended.stage.submit("r1", matrix).await;
    mended.stage.step_in(&old, "stuck.0", StepState::Running).await;
    mended.stage.step_in(&old, "stuck.1", StepState::Running).await;
    let first = mended.stage.executor.seen().launches[1].0.clone();
    mended.stage.executor.finish(&first).await;
    let done = |step: &run::Step| step.state() == StepState::Succeeded && step.name.starts_with("stuck");
    crate::support::eventually("an instance to succeed", || async {
        mended.stage.steps(&old).await.iter().any(done).then_some(())
    })
    .await;
    let cancel = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: old.name.clone(),
        ..run::CancelRunRequest::default()
    };
    mended
        .stage
        .scheduler
        .runs()
        .cancel_run(cancel)
        .await
        .expect("cancelled");
    assert_eq!(mended.stage.ended(&old).await.state(), RunState::Cancelled);
    mended.mend();
    let answer = mended.retry(&old, "t1").await.expect("accepted");
    assert_eq!((answer.reused_count, answer.rerun_count), (2, 2));
    let new = answer.run.expect("a run");
    assert_eq!(mended.stage.ended(&new).await.state(), RunState::Succeeded);
    assert_eq!(mended.launched(&new), answer.rerun_steps);
}

#[tokio::test]
async fn steps_that_succeeded_run_again_when_they_are_named() {
    let mended = Mended::new().await;
    let mut matrix = pipeline(&[
        ("a", &[]),
        ("b", &["a"]),
        ("c", &["b"]),
        ("side", &["a"]),
        ("bad", &["c"]),
    ]);
    matrix.steps[1].matrix = vec![axis(&["0", "1"])];
    let old = mended.stage.submit("r1", matrix).await;
    mended.stage.ended(&old).await;
    mended.mend();
    let from = |steps: &[&str], request_id: &str| run::RetryRunRequest {
        from_steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        ..request(&old.name, request_id)
    };
    let plan = async |steps: &[&str]| {
        let plan = run::RetryRunRequest {
            validate_only: true,
            ..from(steps, "")
        };
        retry(&mended.stage.scheduler, plan)
            .await
            .map(|plan| plan.rerun_steps.join(" "))
    };
    assert_eq!(plan(&[]).await.expect("a plan"), "bad");
    assert_eq!(plan(&["b.1"]).await.expect("a plan"), "b.1 c bad");
    assert_eq!(plan(&["b", "side"]).await.expect("a plan"), "b c side bad");
    assert_eq!(plan(&["a"]).await.expect("a plan"), "a b c side bad");
    let unknown = plan(&["b", "d"]).await.expect_err("no such step");
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::NotFound, "STEP_NOT_FOUND")
    );

    let answer = retry(&mended.stage.scheduler, from(&["c"], "t1"))
        .await
        .expect("accepted");
    let new = answer.run.expect("a run");
    assert_eq!(mended.stage.ended(&new).await.state(), RunState::Succeeded);
    assert_eq!(mended.launched(&new), ["c", "bad"]);
    let other = retry(&mended.stage.scheduler, from(&["b"], "t1"))
        .await
        .expect_err("other content");
    assert_eq!(reason(&other), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn i1_a_retry_is_made_once_for_each_request_id() {
    let mended = Mended::new().await;
    let old = mended.stage.submit("r1", churn()).await;
    mended.stage.ended(&old).await;
    mended.mend();
    let latest = |request_id: &str| request("@latest", request_id);
    let first = retry(&mended.stage.scheduler, latest("t1")).await.expect("accepted");
    let new = first.run.expect("a run");
    // Now the newest run is another one, and the request still means the same.
    let again = retry(&mended.stage.scheduler, latest("t1")).await.expect("known");
    assert!(!again.created);
    assert_eq!(again.run.expect("a run").id, new.id);
    assert_eq!((again.reused_count, again.rerun_count), (2, 4));
    let other = mended.retry(&new, "t1").await.expect_err("the id was used");
    assert_eq!(
        (other.code(), reason(&other).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let submission = crate::support::submission("t1", churn());
    let other = mended.stage.scheduler.runs().submit_run(submission).await;
    assert_eq!(reason(&other.expect_err("the id was used")), "REQUEST_ID_REUSED");
    let named = run::RetryRunRequest {
        name: old.name.clone(),
        ..request(&old.name, "t2")
    };
    let taken = retry(&mended.stage.scheduler, named)
        .await
        .expect_err("the name is taken");
    assert_eq!(reason(&taken), "NAME_TAKEN");
    let bad = run::RetryRunRequest {
        name: "Not A Name".to_owned(),
        ..request(&old.name, "")
    };
    let bad = retry(&mended.stage.scheduler, bad).await.expect_err("two faults");
    assert_eq!(
        (bad.code(), reason(&bad).as_str()),
        (Code::InvalidArgument, "INVALID_REQUEST")
    );
    assert!(
        bad.message().contains("requestId: ") && bad.message().contains("name: "),
        "{bad:?}"
    );
}

#[tokio::test]
async fn only_a_run_that_failed_or_was_cancelled_can_be_retried() {
    let mended = Mended::new().await;
    let stuck = mended.stage.submit("r1", pipeline(&[("stuck", &[])])).await;
    mended.stage.step_in(&stuck, "stuck", StepState::Running).await;
    let status = mended.retry(&stuck, "t1").await.expect_err("it runs");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "RUN_NOT_ENDED")
    );
    let good = mended.stage.submit("r2", pipeline(&[("good", &[])])).await;
    mended.stage.ended(&good).await;
    let status = mended.retry(&good, "t1").await.expect_err("it succeeded");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "NOTHING_TO_RETRY")
    );
    let plan = run::RetryRunRequest {
        validate_only: true,
        ..request(&good.name, "")
    };
    let status = retry(&mended.stage.scheduler, plan).await.expect_err("it succeeded");
    assert_eq!(reason(&status), "NOTHING_TO_RETRY");
    let status = retry(&mended.stage.scheduler, request("nobody", "t1")).await;
    assert_eq!(reason(&status.expect_err("no such run")), "RUN_NOT_FOUND");
}

#[tokio::test]
async fn i1_a_retried_run_goes_on_after_a_restart_and_reused_steps_stay_reused() {
    let mended = Mended::new().await;
    let chain = pipeline(&[("a", &[]), ("bad-b", &["a"]), ("c", &["bad-b"])]);
    let old = mended.stage.submit("r1", chain).await;
    mended.stage.ended(&old).await;
    mended.mend();
    // Nobody runs it before the restart.
    mended.stage.executor.mute();
    let answer = mended.retry(&old, "t1").await.expect("accepted");
    let new = answer.run.clone().expect("a run");
    let Mended { stage, .. } = mended;
    let Stage {
        scheduler,
        executor,
        playing,
        data,
    } = stage;
    scheduler.stop().await;
    playing.await.expect("no panic").expect_err("the scheduler went away");

    let scheduler = Scheduler::start(config(data.path())).await;
    let again = retry(&scheduler, request(&old.name, "t1")).await.expect("known");
    assert!(!again.created);
    assert_eq!(
        (
            &again.run.as_ref().expect("a run").id,
            &again.reused_steps,
            &again.rerun_steps
        ),
        (&new.id, &answer.reused_steps, &answer.rerun_steps)
    );
    executor.unmute();
    let playing = executor.spawn(&scheduler);
    let ended = ended(&mut scheduler.runs(), &new.name).await;
    assert_eq!(ended.state(), RunState::Succeeded);
    assert_eq!(ended.retry_of, new.retry_of);
    let launched: Vec<String> = executor
        .seen()
        .launches
        .iter()
        .map(|(_, step, _)| step.clone())
        .collect();
    assert!(launched.iter().filter(|step| *step == "a").count() == 1, "{launched:?}");

    // It has ended, and its steps are read back from the history.
    scheduler.stop().await;
    playing.await.expect("no panic").expect_err("the scheduler went away");
    let scheduler = Scheduler::start(config(data.path())).await;
    let steps = run::ListStepsRequest {
        namespace: "ml".to_owned(),
        run: new.id.clone(),
        ..run::ListStepsRequest::default()
    };
    let steps = scheduler
        .runs()
        .list_steps(steps)
        .await
        .expect("listed")
        .into_inner()
        .steps;
    assert_eq!(steps[0].state(), StepState::Cached);
    assert_eq!(steps[0].message, format!("reused from {}", old.name));
    scheduler.stop().await;
}

#[tokio::test]
async fn a_deleted_run_cannot_be_retried_and_what_was_reused_of_it_stays_reused() {
    let mended = Mended::new().await;
    let old = mended.stage.submit("r1", churn()).await;
    mended.stage.ended(&old).await;
    mended.mend();
    let new = mended.retry(&old, "t1").await.expect("accepted").run.expect("a run");
    mended.stage.ended(&new).await;
    let delete = run::DeleteRunRequest {
        namespace: "ml".to_owned(),
        run: old.id.clone(),
        request_id: "d1".to_owned(),
    };
    mended.stage.scheduler.runs().delete_run(delete).await.expect("deleted");
    let steps = mended.stage.steps(&new).await;
    let source = steps[0]
        .reused_from
        .clone()
        .and_then(|source| source.run)
        .expect("a run");
    assert_eq!((source.id, source.name), (old.id.clone(), old.name.clone()));
    let again = mended.retry(&old, "t1").await.expect("known");
    assert_eq!(again.run.expect("a run").id, new.id);
    let gone = mended.retry(&old, "t2").await.expect_err("it is gone");
    assert_eq!(reason(&gone), "RUN_DELETED");
}

#[tokio::test]
async fn watchers_see_reused_steps_from_the_start() {
    let mended = Mended::new().await;
    let old = mended.stage.submit("r1", churn()).await;
    mended.stage.ended(&old).await;
    let new = mended.retry(&old, "t1").await.expect("accepted").run.expect("a run");
    let request = run::WatchRunRequest {
        namespace: "ml".to_owned(),
        run: new.id.clone(),
        ..run::WatchRunRequest::default()
    };
    let mut watch = mended
        .stage
        .scheduler
        .runs()
        .watch_run(request)
        .await
        .expect("a watch")
        .into_inner();
    let mut reused = Vec::new();
    while let Some(message) = watch.message().await.expect("goes on") {
        match message.message {
            Some(run::watch_run_response::Message::Snapshot(chunk)) => {
                let cached = chunk.steps.into_iter().filter(|step| step.state() == StepState::Cached);
                reused.extend(cached.map(|step| (step.name, step.reused_from.is_some())));
            }
            Some(run::watch_run_response::Message::Synced(_)) => break,
            _ => {}
        }
    }
    assert_eq!(reused, [("extract".to_owned(), true), ("side".to_owned(), true)]);
}
