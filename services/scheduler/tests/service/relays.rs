//! Log relays: who keeps which log, and when pods may go.

use std::time::Duration;

use windlass_api::run::v1 as run;
use windlass_api::run::v1::StepState;

use crate::executor::Play;
use crate::relay::Relay;
use crate::support::{Stage, config, eventually, pipeline};

async fn keeping(seal_deadline: Duration, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Stage {
    let data = tempfile::tempdir().expect("a folder");
    let mut config = config(data.path());
    config.seal_deadline = seal_deadline;
    Stage::with(data, config, script).await
}

/// behaviours X1
#[tokio::test]
async fn i7_a_pod_goes_only_after_its_log_was_sealed() {
    let stage = keeping(Duration::from_secs(600), |_, _| Play::Succeed).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.ended(&run).await;
    assert!(stage.executor.seen().releases.is_empty(), "no relay has the log yet");
    let relay = Relay::new(1, true);
    let following = relay.spawn(&stage.scheduler);
    eventually("the release", || async {
        (stage.executor.seen().releases.len() == 1).then_some(())
    })
    .await;
    {
        let told = relay.told();
        let source = told.assigns[0].source.clone().expect("a source");
        assert_eq!(
            (source.step_name.as_str(), source.namespace.as_str(), source.attempt),
            ("a", "ml", 1)
        );
        assert_eq!(source.containers, ["main"]);
        assert_eq!(source.executor, stage.executor.identity.incarnation);
        assert_eq!(source.relay, relay.id);
        assert_eq!(source.pod_uid, stage.executor.seen().releases[0].pod_uid);
    }
    eventually("the end of the run's objects", || async {
        (stage.executor.seen().finished.len() == 1).then_some(())
    })
    .await;
    eventually("the relays", || async {
        (stage.executor.seen().relays.len() == 1).then_some(())
    })
    .await;
    following.abort();
}

#[tokio::test]
async fn i10_a_pod_is_released_after_the_seal_deadline_even_without_a_relay() {
    let stage = keeping(Duration::from_millis(50), |_, _| Play::Succeed).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.ended(&run).await;
    eventually("the release", || async {
        (stage.executor.seen().releases.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn i7_a_relay_that_did_not_seal_in_time_is_told_until_it_has_heard_and_so_are_readers() {
    let stage = keeping(Duration::from_millis(50), |_, _| Play::Hold).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    let relay = Relay::new(1, false).subscribing(&run.name);
    let following = relay.spawn(&stage.scheduler);
    eventually("the assignment", || async { relay.told().assigns.last().cloned() }).await;
    let cancel = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::CancelRunRequest::default()
    };
    stage.scheduler.runs().cancel_run(cancel).await.expect("cancelled");
    stage.ended(&run).await;
    let abandon = eventually("the order", || async { relay.told().abandoned.last().cloned() }).await;
    let grant = relay.told().assigns[0].grant;
    assert_eq!((abandon.grant, abandon.step, abandon.attempt), (grant, 0, 1));
    // Whoever reads hears that no relay has the log any more.
    eventually("the news of readers", || async {
        let told = relay.told();
        let sources = told.updates.iter().flat_map(|update| &update.sources);
        sources
            .last()
            .is_some_and(|source| source.ended && source.relay.is_empty())
            .then_some(())
    })
    .await;
    following.abort();
    // It was not acknowledged, so it is said again.
    let following = relay.spawn(&stage.scheduler);
    eventually("the order again", || async {
        (relay.told().abandoned.len() == 2).then_some(())
    })
    .await;
    following.abort();
}

#[tokio::test]
async fn a_running_container_is_assigned_and_told_again_at_its_end_and_after_a_reconnect() {
    let stage = keeping(Duration::from_secs(600), |_, _| Play::Hold).await;
    let relay = Relay::new(1, true);
    let following = relay.spawn(&stage.scheduler);
    eventually("the welcome", || async { (relay.told().welcomes == 1).then_some(()) }).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.step_in(&run, "a", StepState::Running).await;
    let first = eventually("the assignment", || async { relay.told().assigns.last().cloned() }).await;
    assert!(!first.source.clone().expect("a source").ended);

    following.abort();
    let following = relay.spawn(&stage.scheduler);
    eventually("the second welcome", || async {
        (relay.told().welcomes == 2).then_some(())
    })
    .await;
    let again = eventually("the assignment again", || async {
        let told = relay.told();
        (told.assigns.len() >= 2).then(|| told.assigns[told.assigns.len() - 1].clone())
    })
    .await;
    assert_eq!(again.grant, first.grant, "the same assignment");

    let cancel = run::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        ..run::CancelRunRequest::default()
    };
    stage.scheduler.runs().cancel_run(cancel).await.expect("cancelled");
    stage.ended(&run).await;
    eventually("the release", || async {
        (stage.executor.seen().releases.len() == 1).then_some(())
    })
    .await;
    assert!(
        relay
            .told()
            .assigns
            .iter()
            .any(|assign| assign.source.as_ref().is_some_and(|source| source.ended))
    );

    let delete = run::DeleteRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "x".to_owned(),
    };
    stage.scheduler.runs().delete_run(delete).await.expect("deleted");
    eventually("the order to forget", || async {
        (relay.told().forgotten.len() == 1).then_some(())
    })
    .await;
    following.abort();
}

#[tokio::test]
async fn a_subscribed_run_shows_all_its_sources_and_its_end() {
    let stage = keeping(Duration::from_secs(600), |step, _| {
        if step == "b" { Play::Hold } else { Play::Succeed }
    })
    .await;
    let run = stage
        .submit("r1", pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]))
        .await;
    stage.step_in(&run, "b", StepState::Running).await;
    let relay = Relay::new(1, true).subscribing(&run.name);
    let following = relay.spawn(&stage.scheduler);
    eventually("the first update", || async {
        relay.told().updates.iter().any(|update| update.synced).then_some(())
    })
    .await;
    {
        let told = relay.told();
        let names: Vec<&str> = told.updates[0].steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let sources: Vec<&str> = told.updates[0]
            .sources
            .iter()
            .map(|source| source.step_name.as_str())
            .collect();
        assert_eq!(sources, ["a", "b"]);
        assert_eq!(told.updates[0].run_name, run.name);
    }
    let key = stage.executor.seen().launches[1].0.clone();
    stage.executor.finish(&key).await;
    stage.ended(&run).await;
    eventually("the end", || async {
        relay
            .told()
            .updates
            .iter()
            .any(|update| update.ended_state == "SUCCEEDED")
            .then_some(())
    })
    .await;
    let sources: std::collections::BTreeSet<String> = relay
        .told()
        .updates
        .iter()
        .flat_map(|update| &update.sources)
        .map(|source| source.step_name.clone())
        .collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    following.abort();

    let unknown = Relay::new(2, true).subscribing("nothing");
    let following = unknown.spawn(&stage.scheduler);
    let refusal = eventually("the refusal", || async { unknown.told().updates.first().cloned() }).await;
    assert_eq!(refusal.code, 5, "NOT_FOUND");
    following.abort();
}

/// More runs than are kept after their end, all of which end at once.
async fn many_runs_that_end_at_once(seal_deadline: Duration) {
    const RUNS: usize = 300;
    let stage = keeping(seal_deadline, |_, _| Play::Hold).await;
    for number in 0..RUNS {
        stage.submit(&format!("r{number}"), pipeline(&[("a", &[])])).await;
    }
    let pods = eventually("the pods", || async {
        let seen = stage.executor.seen();
        (seen.pods.len() == RUNS).then(|| seen.pods.keys().cloned().collect::<Vec<_>>())
    })
    .await;
    stage.executor.finish_all(&pods).await;
    eventually("all releases", || async {
        (stage.executor.seen().releases.len() == RUNS).then_some(())
    })
    .await;
}

#[tokio::test]
async fn i4_pods_of_many_runs_that_end_at_once_are_all_released() {
    many_runs_that_end_at_once(Duration::ZERO).await;
}

#[tokio::test]
async fn i4_pods_of_many_runs_that_end_at_once_are_all_released_after_their_logs() {
    many_runs_that_end_at_once(Duration::from_millis(1)).await;
}
