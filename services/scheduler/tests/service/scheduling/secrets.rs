//! Secrets of schedules: made before the schedule is there, shared by its runs, and gone after the last of them (behaviours M12, E31, I8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tonic::Code;
use windlass_api::dispatch::v1::SecretFault;
use windlass_api::dispatch::v1::schedule_secret_call::Action;
use windlass_api::pipeline::v1::Pipeline;
use windlass_api::run::v1 as run;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_ids::Timestamp;

use super::{creation, minute, outcomes, spec, trigger, update};
use crate::executor::{Executor, Identity, Key, Play, Reply};
use crate::run_secrets::{CANARY, ENCODED, fields, is_in_files, secrets, uses, uses_token};
use crate::support::{Scheduler, config, ended, eventually, reason};

const KEY: &str = "pipeline.steps[0].env[0].valueFrom.runSecretKeyRef.key";

/// A schedule that does not fire by itself, of a pipeline whose first step uses a secret.
fn with_token(value: &str) -> wire::CreateScheduleRequest {
    wire::CreateScheduleRequest {
        pipeline: Some(uses_token()),
        secrets: secrets(&[("API_TOKEN", value)]),
        ..creation("nightly", spec("0 4 1 1 *"))
    }
}

/// Other values.
fn rotation(request_id: &str, pairs: &[(&str, &str)]) -> wire::UpdateScheduleRequest {
    wire::UpdateScheduleRequest {
        request_id: request_id.to_owned(),
        secrets: secrets(pairs),
        ..update("nightly", &["secrets"], None)
    }
}

/// Another pipeline.
fn exchange(pipeline: Pipeline) -> wire::UpdateScheduleRequest {
    wire::UpdateScheduleRequest {
        pipeline: Some(pipeline),
        ..update("nightly", &["pipeline"], None)
    }
}

impl Scheduler {
    async fn create(&self, request: wire::CreateScheduleRequest) -> wire::CreateScheduleResponse {
        let created = self.schedules().create_schedule(request).await;
        created.expect("made").into_inner()
    }

    async fn change(&self, request: wire::UpdateScheduleRequest) -> wire::Schedule {
        let changed = self.schedules().update_schedule(request).await;
        changed.expect("changed").into_inner().schedule.expect("a schedule")
    }

    async fn triggered(&self, id: &str) -> run::Run {
        let triggered = self.schedules().trigger_schedule(trigger("nightly", id)).await;
        triggered.expect("triggered").into_inner().run.expect("a run")
    }

    async fn delete(&self) {
        let delete = wire::DeleteScheduleRequest {
            namespace: "ml".to_owned(),
            schedule: "nightly".to_owned(),
            ..wire::DeleteScheduleRequest::default()
        };
        self.schedules().delete_schedule(delete).await.expect("deleted");
    }

    async fn list(&self) -> Vec<wire::Schedule> {
        let request = wire::ListSchedulesRequest {
            namespace: "ml".to_owned(),
            ..wire::ListSchedulesRequest::default()
        };
        let page = self.schedules().list_schedules(request).await.expect("listed");
        page.into_inner().schedules
    }
}

/// The Secrets that are there: names, and the value of `API_TOKEN`.
fn there(executor: &Executor) -> BTreeMap<String, String> {
    let seen = executor.seen();
    let all = seen.schedule_secrets.iter();
    let value = |data: &BTreeMap<String, Vec<u8>>| String::from_utf8_lossy(&data["API_TOKEN"]).into_owned();
    all.map(|(name, data)| (name.clone(), value(data))).collect()
}

fn only(executor: &Executor) -> String {
    let there = there(executor);
    assert_eq!(there.len(), 1, "{there:?}");
    there.into_keys().next().expect("one")
}

/// Waits until the Secrets with these values are there, and no others.
async fn remain(executor: &Executor, values: &[&str]) {
    eventually("Secrets to go", || async {
        there(executor).into_values().eq(values.iter().copied()).then_some(())
    })
    .await;
}

/// How often one was to be made.
fn makes(executor: &Executor) -> usize {
    let seen = executor.seen();
    let makes = seen.schedule_secret_calls.iter();
    makes
        .filter(|call| matches!(call.action, Some(Action::Make(_))))
        .count()
}

/// The Secrets that the templates of all launches name.
fn used(executor: &Executor) -> Vec<String> {
    let templates = executor.seen().template_texts.clone();
    let templates = templates.iter().map(|text| serde_json::from_str(text).expect("JSON"));
    let of = |template: serde_json::Value| {
        let source = &template["merged"]["env"][0]["valueFrom"];
        assert!(source.get("runSecretKeyRef").is_none(), "{source}");
        let reference = source["secretKeyRef"].as_object()?;
        assert_eq!(reference["key"], "API_TOKEN");
        reference["name"].as_str().map(str::to_owned)
    };
    templates.filter_map(of).collect()
}

/// Pods of step `b`, which hold.
fn holds(executor: &Executor) -> Vec<Key> {
    let seen = executor.seen();
    let launches = seen.launches.iter().filter(|(_, step, _)| step == "b");
    let pods = launches.map(|(pod, ..)| pod.clone());
    pods.filter(|pod| seen.pods.contains_key(pod)).collect()
}

async fn held(executor: &Executor, count: usize) {
    eventually("steps to hold", || async {
        (holds(executor).len() == count).then_some(())
    })
    .await;
}

async fn finish_all(executor: &Executor) {
    executor.finish_all(&holds(executor)).await;
}

async fn started(executor: Executor) -> (tempfile::TempDir, Scheduler, Executor) {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    (data, scheduler, executor)
}

fn holding(name: &'static str) -> Executor {
    Executor::new(Identity::new(1), move |step, _| match step == name {
        true => Play::Hold,
        false => Play::Succeed,
    })
}

/// behaviours M12: it stays as long as the schedule, and the end of a run does not delete it; E31: it is made once, of the schedule, and
/// goes with it.
#[tokio::test]
async fn m12_e31_i8_the_secrets_of_a_schedule_are_there_before_it_and_until_after_its_last_run() {
    let (data, scheduler, executor) = started(holding("b")).await;
    let made = scheduler.create(with_token(CANARY)).await;
    let schedule = made.schedule.expect("a schedule");
    assert_eq!(
        (made.created, &schedule.secret_keys[..]),
        (true, &["API_TOKEN".to_owned()][..])
    );
    let call = executor.seen().schedule_secret_calls[0].clone();
    assert_eq!((call.schedule.as_str(), call.namespace.as_str()), ("nightly", "ml"));
    let id = schedule.id.parse::<windlass_ids::ScheduleId>().expect("an id");
    assert_eq!(call.schedule_id, id.as_bytes());
    let name = only(&executor);
    assert_eq!(there(&executor)[&name], CANARY);
    // The same request once more makes none; with other keys it is another request.
    assert!(!scheduler.create(with_token("other")).await.created);
    let mut other = with_token(CANARY);
    other.secrets.insert("MORE".to_owned(), Vec::new());
    let other = scheduler
        .schedules()
        .create_schedule(other)
        .await
        .expect_err("other content");
    assert_eq!(reason(&other), "REQUEST_ID_REUSED");
    let taken = wire::CreateScheduleRequest {
        request_id: "another".to_owned(),
        ..with_token(CANARY)
    };
    let taken = scheduler.schedules().create_schedule(taken).await.expect_err("taken");
    assert_eq!(reason(&taken), "SCHEDULE_EXISTS");
    assert_eq!(makes(&executor), 1);

    // Two runs share it, and their ends leave it.
    for id in ["t1", "t2"] {
        let run = scheduler.triggered(id).await;
        assert_ne!(run.state(), RunState::Preparing, "nothing has to be made for it");
        held(&executor, 1).await;
        finish_all(&executor).await;
        ended(&mut scheduler.runs(), &run.name).await;
    }
    assert_eq!(used(&executor), [name.clone(), name.clone()]);
    let retimed = scheduler
        .change(update("nightly", &["spec.cron"], Some(spec("0 5 1 1 *"))))
        .await;
    assert_eq!(retimed.secret_keys, ["API_TOKEN"]);

    // Deleted while a run goes on.
    let last = scheduler.triggered("t3").await;
    held(&executor, 1).await;
    scheduler.delete().await;
    assert_eq!(only(&executor), name, "step b of the run is not over");
    finish_all(&executor).await;
    assert_eq!(
        ended(&mut scheduler.runs(), &last.name).await.state(),
        RunState::Succeeded
    );
    remain(&executor, &[]).await;
    assert_eq!((makes(&executor), executor.seen().run_secret_calls.len()), (1, 0));
    scheduler.stop().await;
    let canary = CANARY.as_bytes();
    assert!(!is_in_files(data.path(), canary) && !is_in_files(data.path(), ENCODED));
    assert!(
        is_in_files(data.path(), b"API_TOKEN"),
        "this search finds what is there"
    );
}

/// A fire needs no executor: its run waits for one, and finds its secrets.
#[tokio::test]
async fn m12_a_fire_uses_the_secrets_of_its_schedule_also_after_a_restart() {
    let data = tempfile::tempdir().expect("a folder");
    let just_before = Timestamp::from_millis(minute(1).as_millis() - 300);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let executor = Executor::of(1, "prod");
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let often = wire::CreateScheduleRequest {
        spec: Some(spec("* * * * *")),
        ..with_token(CANARY)
    };
    scheduler.create(often).await;
    playing.abort();
    executor.hang_up();
    scheduler.stop().await;

    let (scheduler, _) = Scheduler::start_at(config(data.path()), just_before).await;
    assert_eq!(scheduler.times_of("nightly", 1).await, [1]);
    let schedule = scheduler.schedule("nightly").await;
    assert_eq!(outcomes(&schedule), [(wire::FireOutcome::Started, 1)]);
    let playing = executor.spawn(&scheduler);
    let run = scheduler.found("schedule=nightly").await;
    assert_eq!(
        ended(&mut scheduler.runs(), &run.name).await.state(),
        RunState::Succeeded
    );
    assert_eq!(used(&executor), [only(&executor)]);
    scheduler.delete().await;
    remain(&executor, &[]).await;
    playing.abort();
    scheduler.stop().await;
}

#[tokio::test]
async fn e31_new_values_are_another_secret_and_runs_that_have_begun_keep_theirs() {
    let (_data, scheduler, executor) = started(holding("b")).await;
    scheduler.create(with_token("one")).await;
    let old = only(&executor);
    let running = scheduler.triggered("t1").await;
    held(&executor, 1).await;
    scheduler.change(rotation("u1", &[("API_TOKEN", "two")])).await;
    // Said again it makes no third one.
    scheduler.change(rotation("u1", &[("API_TOKEN", "two")])).await;
    assert_eq!(makes(&executor), 2);
    let new = there(&executor)
        .into_iter()
        .find(|(_, value)| value == "two")
        .expect("made")
        .0;
    assert_ne!(old, new);
    let next = scheduler.triggered("t2").await;
    held(&executor, 2).await;
    assert_eq!(used(&executor), [old.clone(), new.clone()]);
    assert_eq!(there(&executor).len(), 2, "the first run is not over");
    finish_all(&executor).await;
    for run in [running, next] {
        ended(&mut scheduler.runs(), &run.name).await;
    }
    remain(&executor, &["two"]).await;

    // Without values the present ones stay, for a pipeline whose keys are all in them.
    let mut other = uses_token();
    other.name = "other".to_owned();
    scheduler.change(exchange(other.clone())).await;
    other.steps[1].env = vec![uses("PIN", "PIN")];
    let refused = scheduler.schedules().update_schedule(exchange(other.clone())).await;
    let refused = refused.expect_err("not all of them");
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("INVALID_SCHEDULE", vec![KEY.replace("[0].env", "[1].env")])
    );
    assert!(refused.message().contains("--secret-file PIN=PATH"), "{refused}");
    let elsewhere = Pipeline {
        cluster: Some("elsewhere".to_owned()),
        ..uses_token()
    };
    let refused = scheduler.schedules().update_schedule(exchange(elsewhere)).await;
    let refused = refused.expect_err("not there");
    assert_eq!(fields(&refused), ["secrets"]);
    assert!(refused.message().contains("cluster elsewhere"), "{refused}");
    // What is given is all that is needed, and is named.
    for (pairs, field) in [
        (&[("PIN", "1")][..], "secrets[PIN]"),
        (&[("API_TOKEN", "x"), ("a b", "1")], "secrets[a b]"),
        (&[], KEY),
    ] {
        let refused = scheduler.schedules().update_schedule(rotation("u2", pairs)).await;
        assert_eq!(fields(&refused.expect_err("refused"))[0], field);
    }
    let unnamed = wire::UpdateScheduleRequest {
        update_mask: update("nightly", &["pipeline"], None).update_mask,
        pipeline: Some(uses_token()),
        ..rotation("u2", &[("API_TOKEN", "x")])
    };
    let refused = scheduler.schedules().update_schedule(unnamed).await;
    assert_eq!(fields(&refused.expect_err("refused")), ["secrets"]);
    assert_eq!(there(&executor).into_values().collect::<Vec<_>>(), ["two"]);

    // With the pipeline, and without any use they go.
    let both = wire::UpdateScheduleRequest {
        secrets: secrets(&[("API_TOKEN", "three"), ("PIN", "4711")]),
        pipeline: Some(other),
        ..update("nightly", &["pipeline", "secrets"], None)
    };
    assert_eq!(scheduler.change(both).await.secret_keys, ["API_TOKEN", "PIN"]);
    remain(&executor, &["three"]).await;
    let plain = crate::support::pipeline(&[("a", &[])]);
    assert_eq!(
        scheduler.change(exchange(plain)).await.secret_keys,
        Vec::<String>::new()
    );
    remain(&executor, &[]).await;
    scheduler.stop().await;
}

/// behaviours E31: leaked when the orchestrator never starts or is killed.
#[tokio::test]
async fn e31_i10_without_its_secrets_there_is_no_schedule_and_nothing_of_it_stays() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let refusal = async |scheduler: &Scheduler, request| {
        let status = scheduler.schedules().create_schedule(request).await;
        let status = status.expect_err("refused");
        assert!(!format!("{status:?}").contains(CANARY), "{status:?}");
        (status.code(), reason(&status))
    };
    let no_executor = (Code::Unavailable, "NO_EXECUTOR".to_owned());
    assert_eq!(refusal(&scheduler, with_token(CANARY)).await, no_executor);
    let without = wire::CreateScheduleRequest {
        secrets: BTreeMap::new(),
        ..with_token(CANARY)
    };
    let missing = scheduler
        .schedules()
        .create_schedule(without)
        .await
        .expect_err("refused");
    assert_eq!(
        (reason(&missing).as_str(), fields(&missing)),
        ("INVALID_SCHEDULE", vec![KEY.to_owned()])
    );
    let mut old = Executor::of(1, "old");
    old.capabilities
        .retain(|known| known != windlass_api::SCHEDULE_SECRETS_CAPABILITY);
    let playing = old.spawn(&scheduler);
    scheduler.connected(1).await;
    let too_old = (Code::FailedPrecondition, "EXECUTOR_TOO_OLD".to_owned());
    assert_eq!(refusal(&scheduler, with_token(CANARY)).await, too_old);
    playing.abort();
    old.hang_up();
    scheduler.connected(0).await;

    // First it refuses, then the answer is lost with the executor.
    let (turn, turns) = (
        Arc::new(AtomicU8::new(0)),
        [Reply::Refused(SecretFault::Quota), Reply::Lost],
    );
    let script = Arc::clone(&turn);
    let executor = Executor::of(2, "prod").with_schedule_secrets(move |call| match &call.action {
        Some(Action::Make(_)) => turns
            .get(usize::from(script.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or(Reply::Done),
        _ => Reply::Done,
    });
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let quota = (Code::ResourceExhausted, "QUOTA_EXCEEDED".to_owned());
    assert_eq!(refusal(&scheduler, with_token(CANARY)).await, quota);
    eventually("a look whether it is there", || async {
        (executor.seen().schedule_secret_calls.len() == 2).then_some(())
    })
    .await;
    turn.store(1, Ordering::Relaxed);
    let mut client = scheduler.schedules();
    let asking = tokio::spawn(async move { client.create_schedule(with_token(CANARY)).await });
    eventually("the Secret", || async {
        (!executor.seen().schedule_secrets.is_empty()).then_some(())
    })
    .await;
    playing.abort();
    executor.hang_up();
    let lost = asking.await.expect("no panic").expect_err("no answer");
    assert_eq!(
        (lost.code(), reason(&lost).as_str()),
        (Code::Unavailable, "EXECUTOR_LOST")
    );
    assert_eq!(scheduler.list().await, []);
    scheduler.stop().await;

    // The next scheduler knows of what may be there. The request begins anew.
    turn.store(2, Ordering::Relaxed);
    let left = only(&executor);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(1)).await;
    let playing = executor.spawn(&scheduler);
    remain(&executor, &[]).await;
    assert!(scheduler.create(with_token(CANARY)).await.created);
    assert_ne!(only(&executor), left);
    scheduler.delete().await;
    remain(&executor, &[]).await;
    playing.abort();
    scheduler.stop().await;
}

/// The retry of a run of a schedule has the secrets of that run while they are there, then those of the schedule, and else wants some.
#[tokio::test]
async fn a_retry_of_a_schedules_run_has_its_secrets_and_those_of_the_schedule_when_they_are_gone() {
    let executor = Executor::new(Identity::new(1), |_, _| Play::Fail(3));
    let (_data, scheduler, executor) = started(executor).await;
    let retry = async |run: &str, request: run::RetryRunRequest| {
        let request = run::RetryRunRequest {
            namespace: "ml".to_owned(),
            run: run.to_owned(),
            ..request
        };
        let retried = scheduler.runs().retry_run(request).await;
        retried.map(tonic::Response::into_inner)
    };
    let with_id = |request_id: &str| run::RetryRunRequest {
        request_id: request_id.to_owned(),
        ..run::RetryRunRequest::default()
    };
    let dry = || run::RetryRunRequest {
        validate_only: true,
        ..run::RetryRunRequest::default()
    };
    let mut once = uses_token();
    once.steps[0].retries = Some(windlass_api::pipeline::v1::Retries {
        user: Some(windlass_api::pipeline::v1::RetryBudget {
            attempts: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    });
    let creation = wire::CreateScheduleRequest {
        pipeline: Some(once),
        ..with_token("one")
    };
    scheduler.create(creation).await;
    let old = only(&executor);
    let first = scheduler.triggered("t1").await.name;
    ended(&mut scheduler.runs(), &first).await;
    assert_eq!(
        retry(&first, dry()).await.expect("a plan").secret_keys,
        Vec::<String>::new()
    );
    let same = retry(&first, with_id("a"))
        .await
        .expect("retried")
        .run
        .expect("a run")
        .name;
    ended(&mut scheduler.runs(), &same).await;
    assert_eq!(used(&executor), [old.clone(), old.clone()]);

    // Its values were replaced: a retry of the retry has the present ones.
    scheduler.change(rotation("u1", &[("API_TOKEN", "two")])).await;
    remain(&executor, &["two"]).await;
    let new = only(&executor);
    let later = retry(&same, with_id("b"))
        .await
        .expect("retried")
        .run
        .expect("a run")
        .name;
    ended(&mut scheduler.runs(), &later).await;
    assert_eq!(used(&executor).last(), Some(&new));
    // Values that are given are the run's own.
    let own = run::RetryRunRequest {
        secrets: secrets(&[("API_TOKEN", "mine")]),
        ..with_id("c")
    };
    executor.seen().template_texts.clear();
    let own = retry(&first, own).await.expect("retried").run.expect("a run").name;
    ended(&mut scheduler.runs(), &own).await;
    assert!(executor.seen().template_texts[0].contains("runSecretKeyRef"));
    assert_eq!(executor.seen().run_secret_calls[0].run_name, own);

    scheduler.delete().await;
    remain(&executor, &[]).await;
    let refused = retry(&first, with_id("d")).await.expect_err("they are gone");
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("INVALID_REQUEST", vec!["secrets[API_TOKEN]".to_owned()])
    );
    assert!(
        refused.message().contains("the secrets of its schedule are gone"),
        "{refused}"
    );
    assert_eq!(retry(&first, dry()).await.expect("a plan").secret_keys, ["API_TOKEN"]);
    scheduler.stop().await;
}
