//! Secrets of runs: PREPARING before QUEUED, where the Secrets are, and that none stays (behaviours E31, T7, O8, M12, I8).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::dispatch::v1::SecretFault;
use windlass_api::dispatch::v1::run_secret_call::Action;
use windlass_api::pipeline::v1 as model;
use windlass_api::run::v1 as run;
use windlass_api::run::v1::{RunState, StepState};
use windlass_ids::Timestamp;

use crate::executor::{Executor, Identity, Play, Reply};
use crate::support::{Scheduler, config, ended, eventually, pipeline, reason, submission};

pub(crate) const CANARY: &str = "canary-9f0a2c";
/// Its beginning in base64.
pub(crate) const ENCODED: &[u8] = b"Y2FuYXJ5LTlmMGEy";
/// A time of a test's clock, and one after that at which no run is PREPARING any more, and later no create under way.
const NOON: Timestamp = Timestamp::from_millis(1_796_040_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_796_040_000_000 + 301_000);
const MUCH_LATER: Timestamp = Timestamp::from_millis(1_796_040_000_000 + 600_000);

pub(crate) fn uses(variable: &str, key: &str) -> model::EnvVar {
    model::EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(model::EnvVarSource {
            run_secret_key_ref: Some(model::RunSecretKeySelector { key: key.to_owned() }),
            ..model::EnvVarSource::default()
        }),
    }
}

/// Steps `a` and `b` after it, of which `a` uses a secret.
pub(crate) fn uses_token() -> model::Pipeline {
    let mut pipeline = pipeline(&[("a", &[]), ("b", &["a"])]);
    pipeline.steps[0].env = vec![uses("TOKEN", "API_TOKEN")];
    pipeline
}

pub(crate) fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

fn with_token(request_id: &str) -> run::SubmitRunRequest {
    run::SubmitRunRequest {
        secrets: secrets(&[("API_TOKEN", CANARY)]),
        ..submission(request_id, uses_token())
    }
}

async fn submitted(scheduler: &Scheduler, request: run::SubmitRunRequest) -> run::Run {
    let submitted = scheduler.runs().submit_run(request).await;
    submitted.expect("accepted").into_inner().run.expect("a run")
}

async fn all_runs(scheduler: &Scheduler) -> Vec<run::Run> {
    let request = run::ListRunsRequest {
        namespace: "ml".to_owned(),
        ..run::ListRunsRequest::default()
    };
    scheduler
        .runs()
        .list_runs(request)
        .await
        .expect("listed")
        .into_inner()
        .runs
}

/// Waits until no Secret of a run is in the executor's cluster.
async fn gone(executor: &Executor) {
    eventually("the Secret to be deleted", || async {
        executor.seen().run_secrets.is_empty().then_some(())
    })
    .await;
}

/// How often a Secret was asked for, and how often its deletion.
fn calls(executor: &Executor) -> (usize, usize) {
    let seen = executor.seen();
    let makes = seen
        .run_secret_calls
        .iter()
        .filter(|call| matches!(call.action, Some(Action::Make(_))));
    (makes.clone().count(), seen.run_secret_calls.len() - makes.count())
}

/// The fields that a refusal names.
pub(crate) fn fields(status: &tonic::Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("fields");
    details.field_violations.into_iter().map(|one| one.field).collect()
}

pub(crate) fn is_in_files(folder: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files.into_iter().any(|entry| match entry.path() {
        path if path.is_dir() => is_in_files(&path, bytes),
        path => std::fs::read(path).is_ok_and(|content| content.windows(bytes.len()).any(|part| part == bytes)),
    })
}

/// behaviours T7, O8: it is there before the submission is acknowledged, of the run and of nothing else; M12: it goes with the run.
#[tokio::test]
async fn e31_i8_a_secret_of_the_run_is_made_before_the_answer_and_deleted_after_the_end() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::new(Identity::new(1), |step, _| match step {
        "b" => Play::Hold,
        _ => Play::Succeed,
    });
    executor.spawn(&scheduler);
    scheduler.connected(1).await;

    let first = submitted(&scheduler, with_token("r1")).await;
    let id = first
        .id
        .parse::<windlass_ids::RunId>()
        .expect("an id")
        .as_bytes()
        .to_vec();
    assert_ne!(first.state(), RunState::Preparing);
    let call = executor.seen().run_secret_calls[0].clone();
    assert_eq!(
        (call.run_id, call.run_name, call.namespace.as_str()),
        (id.clone(), first.name.clone(), "ml")
    );
    assert_eq!(executor.seen().run_secrets[&id], secrets(&[("API_TOKEN", CANARY)]));
    // Another run of the pipeline has one of its own.
    let second = submitted(&scheduler, with_token("r2")).await;
    assert_eq!(executor.seen().run_secrets.len(), 2);
    // The same submission once more makes neither.
    let again = scheduler
        .runs()
        .submit_run(with_token("r1"))
        .await
        .expect("known")
        .into_inner();
    assert_eq!((again.created, again.run.expect("a run").id), (false, first.id.clone()));
    let other = run::SubmitRunRequest {
        secrets: secrets(&[("API_TOKEN", "x"), ("MORE", "y")]),
        ..with_token("r1")
    };
    let other = scheduler.runs().submit_run(other).await.expect_err("other content");
    assert_eq!(reason(&other), "REQUEST_ID_REUSED");

    // It stays as long as a step may need it, and no longer.
    eventually("both to hold", || async {
        (executor.seen().pods.len() == 2).then_some(())
    })
    .await;
    assert_eq!((calls(&executor), executor.seen().run_secrets.len()), ((2, 0), 2));
    let pods: Vec<_> = executor.seen().pods.keys().cloned().collect();
    executor.finish_all(&pods).await;
    for run in [&first, &second] {
        assert_eq!(
            ended(&mut scheduler.runs(), &run.name).await.state(),
            RunState::Succeeded
        );
    }
    gone(&executor).await;
    assert_eq!(calls(&executor), (2, 2));
    scheduler.stop().await;
    let canary = CANARY.as_bytes();
    assert!(!is_in_files(data.path(), canary) && !is_in_files(data.path(), ENCODED));
    assert!(
        is_in_files(data.path(), b"API_TOKEN"),
        "this search finds what is there"
    );
}

/// behaviours T7: the KeyError.
#[tokio::test]
async fn i9_keys_that_are_not_given_not_used_or_none_are_refused_with_their_paths() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::of(1, "prod");
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let mut pipeline = uses_token();
    pipeline.steps[1].env = vec![uses("A", "FIRST"), uses("B", "SECOND")];
    pipeline.defaults.as_mut().expect("defaults").env = vec![uses("C", "THIRD")];
    let refused = async |pipeline: &model::Pipeline, pairs: &[(&str, &str)]| {
        let request = run::SubmitRunRequest {
            secrets: secrets(pairs),
            ..submission("r", pipeline.clone())
        };
        let status = scheduler.runs().submit_run(request).await.expect_err("refused");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_PIPELINE")
        );
        assert!(!format!("{status:?}").contains(CANARY), "{status:?}");
        fields(&status)
    };
    let at = |place: &str| format!("pipeline.{place}.valueFrom.runSecretKeyRef.key");
    assert_eq!(
        refused(&pipeline, &[("FIRST", CANARY)]).await,
        [at("steps[0].env[0]"), at("steps[1].env[1]"), at("defaults.env[0]")]
    );
    let all = [("API_TOKEN", CANARY), ("FIRST", ""), ("SECOND", ""), ("THIRD", "")];
    let mut more = all.to_vec();
    more.push(("MORE", CANARY));
    assert_eq!(refused(&pipeline, &more).await, ["secrets[MORE]"]);
    assert_eq!(refused(&pipeline, &[("a b", CANARY)]).await[0], "secrets[a b]");
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(refused(&pipeline, &[("FIRST", &large)]).await[0], "secrets");
    // Of the pipeline, with or without secrets.
    pipeline.steps[0].env = vec![uses("TOKEN", "$(NAME)")];
    assert_eq!(refused(&pipeline, &all[1..]).await, [at("steps[0].env[0]")]);
    assert_eq!((calls(&executor), all_runs(&scheduler).await.len()), ((0, 0), 0));
    scheduler.stop().await;
}

#[tokio::test]
async fn i10_without_an_executor_nothing_is_taken_in_and_clusters_must_be_clear() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let refusal = async |request| {
        let status = scheduler.runs().submit_run(request).await.expect_err("refused");
        (status.code(), reason(&status))
    };
    let no_executor = (Code::Unavailable, "NO_EXECUTOR".to_owned());
    assert_eq!(refusal(with_token("r1")).await, no_executor);
    let mut old = Executor::of(1, "old");
    old.capabilities
        .retain(|known| known != windlass_api::RUN_SECRETS_CAPABILITY);
    let playing = old.spawn(&scheduler);
    scheduler.connected(1).await;
    let too_old = (Code::FailedPrecondition, "EXECUTOR_TOO_OLD".to_owned());
    assert_eq!(refusal(with_token("r1")).await, too_old);
    playing.abort();
    old.hang_up();
    scheduler.connected(0).await;

    let (prod, dev) = (Executor::of(2, "prod"), Executor::of(3, "dev"));
    prod.spawn(&scheduler);
    dev.spawn(&scheduler);
    scheduler.connected(2).await;
    let ambiguous = scheduler.runs().submit_run(with_token("r1")).await.expect_err("which?");
    assert_eq!(fields(&ambiguous), ["pipeline.cluster"]);
    assert!(ambiguous.message().contains("dev, prod"), "{ambiguous}");
    assert_eq!(all_runs(&scheduler).await, []);

    // In each cluster whose steps use them, and in no other.
    let mut both = with_token("r1");
    let pipeline = both.pipeline.as_mut().expect("a pipeline");
    pipeline.cluster = Some("prod".to_owned());
    pipeline.steps[1].cluster = Some("dev".to_owned());
    let only_prod = both.clone();
    both.request_id = "r2".to_owned();
    both.pipeline.as_mut().expect("a pipeline").steps[1].env = vec![uses("TOKEN", "API_TOKEN")];
    for (request, expected) in [(only_prod, (1, 0)), (both, (2, 1))] {
        let run = submitted(&scheduler, request).await;
        assert_eq!(
            ended(&mut scheduler.runs(), &run.name).await.state(),
            RunState::Succeeded
        );
        assert_eq!((calls(&prod).0, calls(&dev).0), expected);
        gone(&prod).await;
        gone(&dev).await;
    }
    scheduler.stop().await;
}

/// behaviours E31: leaked when the orchestrator never starts or is killed.
#[tokio::test]
async fn e31_a_submission_that_is_repeated_goes_on_and_one_that_is_not_leaves_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), NOON).await;
    // First it refuses, then the answer is lost with the executor.
    let (turn, turns) = (
        Arc::new(AtomicU8::new(0)),
        [Reply::Refused(SecretFault::Quota), Reply::Lost],
    );
    let script = Arc::clone(&turn);
    let executor = Executor::of(1, "prod").with_run_secrets(move |call| match &call.action {
        Some(Action::Make(_)) => turns
            .get(usize::from(script.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or(Reply::Done),
        _ => Reply::Done,
    });
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let refused = scheduler
        .runs()
        .submit_run(with_token("r1"))
        .await
        .expect_err("a quota");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "QUOTA_EXCEEDED")
    );
    let runs = all_runs(&scheduler).await;
    assert_eq!((runs.len(), runs[0].state()), (1, RunState::Preparing));
    assert_eq!(runs[0].message, "its secrets are being made");
    assert!(refused.message().contains(&runs[0].name), "{refused}");
    assert_eq!(
        refused.get_details_error_info().expect("info").metadata["run"],
        runs[0].name
    );

    turn.store(1, Ordering::Relaxed);
    let mut client = scheduler.runs();
    let asking = tokio::spawn(async move { client.submit_run(with_token("r1")).await });
    eventually("the Secret", || async {
        (!executor.seen().run_secrets.is_empty()).then_some(())
    })
    .await;
    playing.abort();
    executor.hang_up();
    let lost = asking.await.expect("no panic").expect_err("no answer");
    assert_eq!(
        (lost.code(), reason(&lost).as_str()),
        (Code::Unavailable, "EXECUTOR_LOST")
    );
    scheduler.stop().await;

    // The next scheduler knows of it: the request goes on with the run and the Secret that are there.
    turn.store(2, Ordering::Relaxed);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), NOON).await;
    assert_eq!(all_runs(&scheduler).await[0].state(), RunState::Preparing);
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let done = scheduler
        .runs()
        .submit_run(with_token("r1"))
        .await
        .expect("accepted")
        .into_inner();
    let run = done.run.expect("a run");
    assert_eq!((done.created, &run.id), (false, &runs[0].id));
    assert_eq!(
        ended(&mut scheduler.runs(), &run.name).await.state(),
        RunState::Succeeded
    );
    gone(&executor).await;

    // One that nobody repeats: made, but never acknowledged.
    turn.store(1, Ordering::Relaxed);
    let mut client = scheduler.runs();
    let asking = tokio::spawn(async move { client.submit_run(with_token("r2")).await });
    eventually("the Secret", || async {
        (!executor.seen().run_secrets.is_empty()).then_some(())
    })
    .await;
    playing.abort();
    executor.hang_up();
    asking.await.expect("no panic").expect_err("no answer");
    scheduler.stop().await;
    let (scheduler, _) = Scheduler::start_at(config(data.path()), LATER).await;
    let late = all_runs(&scheduler).await.remove(0);
    let late = ended(&mut scheduler.runs(), &late.name).await;
    assert_eq!((late.state(), late.reason.as_str()), (RunState::Failed, "NOT_PREPARED"));
    assert!(late.message.contains("nothing of it ran"), "{}", late.message);
    assert!(!executor.seen().run_secrets.is_empty(), "nobody could delete it yet");
    executor.spawn(&scheduler);
    gone(&executor).await;
    // What was said once is said again.
    let again = scheduler
        .runs()
        .submit_run(with_token("r2"))
        .await
        .expect("known")
        .into_inner();
    assert_eq!(again.run.expect("a run").state(), RunState::Failed);
    scheduler.stop().await;
}

#[tokio::test]
async fn a_run_that_is_being_prepared_is_explained_and_cancelled_and_its_secret_goes() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), NOON).await;
    let executor = Executor::of(1, "prod").with_run_secrets(|call| match &call.action {
        Some(Action::Make(_)) => Reply::Lost,
        _ => Reply::Done,
    });
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let mut client = scheduler.runs();
    let asking = tokio::spawn(async move { client.submit_run(with_token("r1")).await });
    eventually("the Secret", || async {
        (!executor.seen().run_secrets.is_empty()).then_some(())
    })
    .await;
    let run = all_runs(&scheduler).await.remove(0);
    let steps = run::ListStepsRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::ListStepsRequest::default()
    };
    let steps = scheduler
        .runs()
        .list_steps(steps)
        .await
        .expect("listed")
        .into_inner()
        .steps;
    assert_eq!(
        (steps[0].state(), steps[0].reason.as_str(), steps[0].message.as_str()),
        (StepState::Waiting, "RUN_SECRETS", "after the secrets of the run")
    );
    let explain = run::ExplainRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::ExplainRunRequest::default()
    };
    let explained = scheduler
        .runs()
        .explain_run(explain)
        .await
        .expect("explained")
        .into_inner();
    let explained = &explained.explanations[0];
    assert_eq!(
        (explained.state.as_str(), explained.blocker.as_str()),
        ("PREPARING", "RUN_SECRETS")
    );
    assert_eq!(explained.then, "the run fails with NOT_PREPARED");
    assert!(explained.until.is_some());

    let cancel = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "c1".to_owned(),
        ..run::CancelRunRequest::default()
    };
    scheduler.runs().cancel_run(cancel).await.expect("cancelled");
    gone(&executor).await;
    assert_eq!(
        ended(&mut scheduler.runs(), &run.name).await.state(),
        RunState::Cancelled
    );
    assert_eq!(executor.seen().launches.len(), 0);
    playing.abort();
    executor.hang_up();
    asking.await.expect("no panic").expect_err("it was not made in time");
    scheduler.stop().await;
}

/// A create that the API server carries out after its run's end: what is deleted once is looked after once more.
#[tokio::test]
async fn i8_a_secret_that_comes_late_is_found_also_by_the_next_scheduler() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), NOON).await;
    let executor = Executor::of(1, "prod");
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let run = submitted(&scheduler, with_token("r1")).await;
    let made = executor.seen().run_secrets.clone();
    ended(&mut scheduler.runs(), &run.name).await;
    gone(&executor).await;
    playing.abort();
    executor.hang_up();
    scheduler.stop().await;

    executor.seen().run_secrets = made.clone();
    let (scheduler, _) = Scheduler::start_at(config(data.path()), MUCH_LATER).await;
    let playing = executor.spawn(&scheduler);
    gone(&executor).await;
    let deletions = calls(&executor).1;
    playing.abort();
    executor.hang_up();
    scheduler.stop().await;
    // Its record is not forgotten before nobody can be at it any more, also when the run itself is deleted.
    let (scheduler, clock) = Scheduler::start_at(config(data.path()), MUCH_LATER).await;
    let playing = executor.spawn(&scheduler);
    let delete = run::DeleteRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "d1".to_owned(),
    };
    scheduler.runs().delete_run(delete).await.expect("deleted");
    eventually("another look", || async {
        (calls(&executor).1 > deletions).then_some(())
    })
    .await;
    executor.seen().run_secrets = made;
    clock.advance_to(MUCH_LATER.saturating_add(std::time::Duration::from_secs(91)));
    // Its lease is over; and any end of a run with secrets has the clock looked at.
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let other = submitted(&scheduler, with_token("r2")).await;
    ended(&mut scheduler.runs(), &other.name).await;
    gone(&executor).await;
    playing.abort();
    scheduler.stop().await;
}

/// A retried run has secrets of its own, as far as its steps need any.
#[tokio::test]
async fn a_retry_wants_the_secrets_of_what_runs_again_and_no_others() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::new(Identity::new(1), |step, _| match step {
        "a" => Play::Succeed,
        _ => Play::Fail(3),
    });
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let mut pipeline = uses_token();
    pipeline.steps[1].env = vec![uses("PIN", "PIN")];
    pipeline.defaults.as_mut().expect("defaults").retries = Some(model::Retries {
        user: Some(model::RetryBudget {
            attempts: Some(1),
            ..model::RetryBudget::default()
        }),
        ..model::Retries::default()
    });
    let request = run::SubmitRunRequest {
        secrets: secrets(&[("API_TOKEN", CANARY), ("PIN", "4711")]),
        ..submission("r1", pipeline)
    };
    let first = submitted(&scheduler, request).await;
    assert_eq!(
        ended(&mut scheduler.runs(), &first.name).await.state(),
        RunState::Failed
    );
    gone(&executor).await;

    let retry = async |request_id: &str, from: &[&str], pairs: &[(&str, &str)]| {
        let request = run::RetryRunRequest {
            namespace: "ml".to_owned(),
            run: first.name.clone(),
            request_id: request_id.to_owned(),
            from_steps: from.iter().map(|step| (*step).to_owned()).collect(),
            secrets: secrets(pairs),
            ..run::RetryRunRequest::default()
        };
        scheduler
            .runs()
            .retry_run(request)
            .await
            .map(tonic::Response::into_inner)
    };
    for (from, pairs, expected) in [
        (&[][..], &[][..], "secrets[PIN]"),
        (&["a"], &[("PIN", "4711")], "secrets[API_TOKEN]"),
        (&[], &[("PIN", "4711"), ("MORE", "x")], "secrets[MORE]"),
    ] {
        let refused = retry("t1", from, pairs).await.expect_err("refused");
        assert_eq!(
            (reason(&refused).as_str(), fields(&refused)),
            ("INVALID_REQUEST", vec![expected.to_owned()])
        );
    }
    let asked = run::RetryRunRequest {
        namespace: "ml".to_owned(),
        run: first.name.clone(),
        validate_only: true,
        ..run::RetryRunRequest::default()
    };
    let asked = scheduler.runs().retry_run(asked).await.expect("a plan").into_inner();
    assert_eq!(asked.secret_keys, ["PIN"]);
    assert_eq!(calls(&executor).0, 1, "nothing was made");
    let retried = retry("t1", &[], &[("PIN", "0815")]).await.expect("retried");
    assert_eq!((retried.created, retried.reused_count), (true, 1));
    let made = executor.seen().run_secret_calls.last().cloned().expect("a call");
    let Some(Action::Make(make)) = made.action else {
        panic!("not made: {made:?}")
    };
    assert_eq!(make.data, secrets(&[("PIN", "0815")]));
    let again = retry("t1", &[], &[("PIN", "0815")]).await.expect("known");
    assert!(!again.created);
    ended(&mut scheduler.runs(), &retried.run.expect("a run").name).await;
    gone(&executor).await;
    scheduler.stop().await;
}
