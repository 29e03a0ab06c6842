//! What becomes of a dead executor's shards: another one gets the pods, and the orders for them.

use std::time::Duration;

use tokio::task::JoinHandle;
use windlass_api::run::v1::{RunState, StepState};

use crate::executor::{Executor, Identity, Play};
use crate::explaining::explain;
use crate::relay::Relay;
use crate::support::{Stage, config, eventually, pipeline};

const LEASE: Duration = Duration::from_secs(1);

/// A scheduler with short leases and one executor; pods wait long for their logs.
async fn stage(executor: u8, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Stage {
    let data = tempfile::tempdir().expect("a folder");
    let mut settings = config(data.path());
    settings.lease = LEASE;
    settings.seal_deadline = Duration::from_secs(600);
    Stage::with_executor(data, settings, Executor::new(Identity::new(executor), script)).await
}

/// Another executor of the same cluster.
fn heir(stage: &Stage, number: u8, play: Play) -> (Executor, JoinHandle<Result<(), tonic::Status>>) {
    let heir = Executor::new(Identity::new(number), move |_, _| play);
    heir.seen().pods = stage.executor.seen().pods.clone();
    let playing = heir.spawn(&stage.scheduler);
    (heir, playing)
}

async fn leases_everything(heir: &Executor) {
    eventually("the takeover", || async {
        let seen = heir.seen();
        (seen.shards == [0xff; 32] && seen.inventories > 0).then_some(())
    })
    .await;
}

/// The executor `dead` is killed, `number` takes its shards: releases and log sources go there.
async fn takes_all_over(dead: u8, number: u8) {
    let stage = stage(dead, |_, _| Play::Hold).await;
    let relay = Relay::new(1, true);
    let following = relay.spawn(&stage.scheduler);
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.step_in(&run, "a", StepState::Running).await;
    stage.playing.abort();
    let (heir, playing) = heir(&stage, number, Play::Hold);
    leases_everything(&heir).await;
    eventually("the source's new executor", || async {
        let told = relay.told();
        let source = told.assigns.last().and_then(|assign| assign.source.as_ref());
        source
            .is_some_and(|source| source.executor == heir.identity.incarnation)
            .then_some(())
    })
    .await;

    let pod = stage.executor.seen().launches[0].0.clone();
    heir.finish(&pod).await;
    assert_eq!(stage.ended(&run).await.state(), RunState::Succeeded);
    eventually("the release", || async {
        (heir.seen().releases.len() == 1).then_some(())
    })
    .await;
    assert_eq!(stage.executor.seen().launches.len() + heir.seen().launches.len(), 1);
    playing.abort();
    following.abort();
}

#[tokio::test]
async fn i3_i7_releases_and_log_sources_follow_the_lease_to_a_younger_executor() {
    takes_all_over(1, 2).await;
}

#[tokio::test]
async fn i3_i7_releases_and_log_sources_follow_the_lease_whatever_the_ids_are() {
    takes_all_over(2, 1).await;
}

#[tokio::test]
async fn i2_a_session_that_was_given_up_is_not_resumed_and_its_launches_are_not_said_again() {
    let stage = stage(1, |_, _| Play::Succeed).await;
    eventually("the executor", || async {
        (stage.executor.seen().shards == [0xff; 32]).then_some(())
    })
    .await;
    // It is told of the launch and never takes it over: its stream breaks.
    stage.executor.mute();
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.step_in(&run, "a", StepState::Starting).await;
    stage.playing.abort();
    eventually("the end of the stream", || async {
        let explained = explain(&stage.scheduler, &run.name, "a").await;
        (explained[0].blocker == "OUT_OF_SIGHT").then_some(())
    })
    .await;
    let (heir, playing) = heir(&stage, 2, Play::Succeed);
    assert_eq!(stage.ended(&run).await.state(), RunState::Succeeded);
    assert_eq!(heir.seen().launches.len(), 1, "it was launched by the heir");

    let inventories = stage.executor.seen().inventories;
    stage.executor.unmute();
    let again = stage.executor.spawn(&stage.scheduler);
    eventually("the inventory of the new session", || async {
        let seen = stage.executor.seen();
        (seen.welcomes.len() == 2 && seen.inventories > inventories).then_some(())
    })
    .await;
    assert!(!stage.executor.seen().welcomes[1].resumed);
    assert!(
        stage.executor.seen().launches.is_empty(),
        "the heir's attempt is launched again"
    );
    for task in [playing, again] {
        task.abort();
    }
}
