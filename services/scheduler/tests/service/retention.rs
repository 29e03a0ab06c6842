//! Ended runs go when their time is over, or when somebody asks for it; what refers to them afterwards is told so.

use std::time::Duration;

use tonic::Code;
use windlass_api::run::v1 as run;
use windlass_api::run::v1::watch_run_response::Message;
use windlass_scheduler::{Config, RunRetention};

use crate::executor::Play;
use crate::relay::Relay;
use crate::support::{Scheduler, Stage, config, eventually, pipeline, reason, submission};

fn keeping(data: &std::path::Path, seconds: u64) -> Config {
    Config {
        run_retention: RunRetention(Some(Duration::from_secs(seconds))),
        ..config(data)
    }
}

fn get(run: &str) -> run::GetRunRequest {
    run::GetRunRequest {
        namespace: "ml".to_owned(),
        run: run.to_owned(),
    }
}

fn delete(run: &str) -> run::DeleteRunRequest {
    run::DeleteRunRequest {
        namespace: "ml".to_owned(),
        run: run.to_owned(),
        ..run::DeleteRunRequest::default()
    }
}

/// What is said of a run that is not there.
async fn gone(scheduler: &Scheduler, run: &str) -> Option<tonic::Status> {
    scheduler.runs().get_run(get(run)).await.err()
}

/// behaviours E37, U13
#[tokio::test]
async fn an_ended_run_expires_and_one_that_runs_does_not() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = keeping(data.path(), 1);
    let script = |step: &str, _| if step == "hold" { Play::Hold } else { Play::Succeed };
    let stage = Stage::with(data, settings.clone(), script).await;
    let running = stage.submit("r1", pipeline(&[("hold", &[])])).await;
    let ended = stage.submit("r2", pipeline(&[("a", &[])])).await;
    let expired = eventually("the run to expire", || gone(&stage.scheduler, &ended.id)).await;
    let said = |status: &tonic::Status| (status.code(), reason(status));
    let expected = (Code::NotFound, "RUN_EXPIRED".to_owned());
    assert_eq!(said(&expired), expected);
    assert!(
        expired.message().starts_with(&format!(
            "run {} of namespace ml has expired: it was deleted at 20",
            ended.name
        )),
        "{expired}"
    );
    let mut runs = stage.scheduler.runs();
    let watch = run::WatchRunRequest {
        namespace: "ml".to_owned(),
        run: ended.name.clone(),
        ..run::WatchRunRequest::default()
    };
    assert_eq!(said(&runs.watch_run(watch).await.expect_err("gone")), expected);
    assert_eq!(
        said(&runs.delete_run(delete(&ended.name)).await.expect_err("gone")),
        expected
    );
    // A request that made it must not make another; its name is free.
    let again = runs.submit_run(submission("r2", pipeline(&[("a", &[])]))).await;
    let again = again.expect_err("it made a run");
    assert_eq!(said(&again), (Code::FailedPrecondition, "RUN_DELETED".to_owned()));
    assert!(runs.get_run(get(&running.id)).await.is_ok(), "it has not ended");

    let Stage { scheduler, data, .. } = stage;
    scheduler.stop().await;
    let scheduler = Scheduler::start(settings).await;
    let status = gone(&scheduler, &ended.id).await.expect("still gone");
    assert_eq!(said(&status), expected);
    let named = run::SubmitRunRequest {
        name: ended.name.clone(),
        ..submission("r3", pipeline(&[("hold", &[])]))
    };
    let named = scheduler
        .runs()
        .submit_run(named)
        .await
        .expect("its name is free")
        .into_inner();
    let found = scheduler
        .runs()
        .get_run(get(&ended.name))
        .await
        .expect("the new one")
        .into_inner();
    assert_eq!(found.run.expect("a run").id, named.run.expect("a run").id);
    scheduler.stop().await;
    drop(data);
}

#[tokio::test]
async fn i7_a_run_whose_log_is_not_kept_yet_does_not_expire() {
    let data = tempfile::tempdir().expect("a folder");
    let mut settings = keeping(data.path(), 1);
    settings.seal_deadline = Duration::from_secs(600);
    let stage = Stage::with(data, settings, |_, _| Play::Succeed).await;
    // No relay: its log is with the pod alone.
    let unsealed = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.ended(&unsealed).await;
    // This one never had a pod, and ends later.
    let mut elsewhere = pipeline(&[("a", &[])]);
    elsewhere.cluster = Some("elsewhere".to_owned());
    let later = stage.submit("r2", elsewhere).await;
    let cancel = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: later.id.clone(),
        ..run::CancelRunRequest::default()
    };
    stage.scheduler.runs().cancel_run(cancel).await.expect("cancelled");
    eventually("the later run to expire", || gone(&stage.scheduler, &later.id)).await;
    assert!(
        gone(&stage.scheduler, &unsealed.id).await.is_none(),
        "it waits for its log"
    );
    let following = Relay::new(1, true).spawn(&stage.scheduler);
    eventually("the first run to expire", || gone(&stage.scheduler, &unsealed.id)).await;
    following.abort();
}

#[tokio::test]
async fn i6_a_relay_that_was_away_hears_what_was_deleted_meanwhile() {
    let data = tempfile::tempdir().expect("a folder");
    let settings = config(data.path());
    let stage = Stage::with(data, settings.clone(), |_, _| Play::Succeed).await;
    let mut deleted = Vec::new();
    for request in ["r1", "r2", "r3"] {
        let run = stage.submit(request, pipeline(&[("a", &[])])).await;
        deleted.push(stage.ended(&run).await);
    }
    let kept = deleted.pop().expect("three");
    let mut runs = stage.scheduler.runs();
    for run in &deleted {
        runs.delete_run(delete(&run.id)).await.expect("deleted");
    }
    let status = gone(&stage.scheduler, &deleted[0].name).await.expect("gone");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "RUN_DELETED")
    );
    // Neither the scheduler nor the relay remembers a word of it.
    let Stage { scheduler, data, .. } = stage;
    scheduler.stop().await;
    let scheduler = Scheduler::start(settings).await;
    let unknown = "01900000-0000-7000-8000-000000000000";
    let of = |run: &str| uuid(run).to_vec();
    let archived = [&kept.id, &deleted[0].id, &deleted[1].id].map(|id| of(id));
    let relay = Relay::new(1, true).keeping(archived.into_iter().chain([of(unknown)]));
    let following = relay.spawn(&scheduler);
    let mut forgotten = eventually("both orders", || async {
        let forgotten = relay.told().forgotten.clone();
        (forgotten.len() >= 2).then_some(forgotten)
    })
    .await;
    forgotten.sort();
    let mut expected = Vec::from_iter(deleted.iter().map(|run| of(&run.id)));
    expected.sort();
    assert_eq!(forgotten, expected, "neither what is there nor what nobody knows");
    following.abort();
    scheduler.stop().await;
    drop(data);
}

fn uuid(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    u128::from_str_radix(&digits, 16).expect("a UUID").to_be_bytes()
}

#[tokio::test]
async fn who_reads_the_logs_of_a_run_that_is_deleted_is_told() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.ended(&run).await;
    let relay = Relay::new(1, true).subscribing(&run.name);
    let following = relay.spawn(&stage.scheduler);
    eventually("the end of the run", || async {
        let told = relay.told();
        told.updates
            .iter()
            .any(|update| !update.ended_state.is_empty())
            .then_some(())
    })
    .await;
    stage
        .scheduler
        .runs()
        .delete_run(delete(&run.name))
        .await
        .expect("deleted");
    let refusal = eventually("the news", || async {
        relay.told().updates.iter().find(|update| update.code != 0).cloned()
    })
    .await;
    assert_eq!(
        (refusal.code, refusal.subscription, refusal.message),
        (5, 1, format!("run {} of namespace ml was deleted", run.name))
    );
    following.abort();
}

/// A client that is behind, and reads on after the run was deleted.
#[tokio::test]
async fn a_watch_that_replays_a_run_which_is_deleted_ends_with_that() {
    const STEPS: usize = 4_000;
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let names = Vec::from_iter((0..STEPS).map(|number| format!("s{number}")));
    let steps = Vec::from_iter(names.iter().map(|name| (name.as_str(), &[] as &[&str])));
    let run = stage.submit("r1", pipeline(&steps)).await;
    let mut runs = stage.scheduler.runs();
    let mut watch = run::WatchRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::WatchRunRequest::default()
    };
    let mut stream = runs.watch_run(watch.clone()).await.expect("watched").into_inner();
    loop {
        match stream.message().await.expect("no error").expect("a message").message {
            Some(Message::Synced(synced)) => break watch.resume_token = synced.resume_token,
            _ => continue,
        }
    }
    stage.ended(&run).await;
    let mut stream = runs.watch_run(watch).await.expect("watched").into_inner();
    stream.message().await.expect("no error").expect("an event");
    runs.delete_run(delete(&run.name)).await.expect("deleted");
    let mut events = 1;
    let end = loop {
        match stream.message().await.expect("no error").expect("an end").message {
            Some(Message::Event(_)) => events += 1,
            Some(Message::End(end)) => break end,
            _ => {}
        }
    };
    assert_eq!(end.reason(), run::WatchEndReason::RunDeleted, "after {events} events");
    assert_eq!(end.resume_token, "", "nothing is left to be resumed");
}
