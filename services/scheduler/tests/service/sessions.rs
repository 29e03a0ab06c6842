//! Executors' sessions: negotiation, resumption, inventories, refusals.

use tonic::Code;
use windlass_api::run::v1::{RunState, StepState};
use windlass_api::server::v1::server_service_client::ServerServiceClient;
use windlass_api::server::v1::{GetPipelineSchemaRequest, GetServerInfoRequest};

use crate::executor::{Executor, Identity, Play};
use crate::support::{Stage, config, ended as ended_of, eventually, pipeline, reason};

#[tokio::test]
async fn i3_a_dropped_stream_resumes_and_nothing_is_launched_twice() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let run = stage.submit("r1", pipeline(&[("a", &[]), ("b", &[])])).await;
    stage.step_in(&run, "b", StepState::Running).await;
    eventually("acknowledgements", || async {
        let seen = stage.executor.seen();
        (seen.acknowledged == seen.sent).then_some(())
    })
    .await;
    stage.playing.abort();
    let sent = stage.executor.seen().sent;
    let again = stage.executor.spawn(&stage.scheduler);
    eventually("the second welcome", || async {
        (stage.executor.seen().welcomes.len() == 2).then_some(())
    })
    .await;
    {
        let seen = stage.executor.seen();
        assert!(seen.welcomes[1].resumed);
        assert_eq!(seen.welcomes[1].received_sequence, sent, "everything was committed");
    }
    let more = stage.submit("r2", pipeline(&[("c", &[])])).await;
    stage.step_in(&more, "c", StepState::Running).await;
    let seen = stage.executor.seen();
    assert_eq!(seen.launches.len(), 3, "{:?}", seen.launches);
    assert_eq!((seen.contexts, seen.templates), (2, 2), "sent once for each run");
    again.abort();
}

/// behaviours U17
#[tokio::test]
async fn i6_what_an_executor_forgot_is_found_by_its_inventory() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let run = stage.submit("r1", pipeline(&[("a", &[]), ("b", &[])])).await;
    for step in ["a", "b"] {
        stage.step_in(&run, step, StepState::Running).await;
    }
    stage.playing.abort();
    stage.executor.hang_up();
    // Nobody hears of this end but by the list.
    let pods = stage.executor.seen().launches.clone();
    let (a, ..) = pods.iter().find(|(_, step, _)| step == "a").expect("launched");
    stage.executor.finish(a).await;
    // The same process without a memory of its session: it cannot resume, and lists its pods.
    let inventories = {
        let mut seen = stage.executor.seen();
        seen.welcomes.clear();
        seen.inventories
    };
    let again = stage.executor.spawn(&stage.scheduler);
    eventually("an inventory", || async {
        (stage.executor.seen().inventories > inventories).then_some(())
    })
    .await;
    assert!(!stage.executor.seen().welcomes[0].resumed);
    stage.step_in(&run, "a", StepState::Succeeded).await;
    stage.step_in(&run, "b", StepState::Running).await;
    assert_eq!(stage.executor.seen().launches.len(), 2, "its pods were there");
    again.abort();
}

/// behaviours V6
#[tokio::test]
async fn two_clusters_under_one_alias_are_refused() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    eventually("the executor", || async {
        (!stage.executor.seen().welcomes.is_empty()).then_some(())
    })
    .await;
    let imposter = Executor::new(
        Identity {
            cluster_uid: "another-uid".to_owned(),
            ..Identity::new(2)
        },
        |_, _| Play::Hold,
    );
    let status = imposter.run(stage.scheduler.channel()).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "CLUSTER_ALIAS_TAKEN")
    );
}

/// behaviours U24
#[tokio::test]
async fn an_executor_of_another_protocol_is_refused() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let old = Executor::new(
        Identity {
            incarnation: "not a uuid".to_owned(),
            ..Identity::new(3)
        },
        |_, _| Play::Hold,
    );
    let status = old.run(stage.scheduler.channel()).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "BAD_HELLO")
    );
}

#[tokio::test]
async fn launches_go_in_batches_and_within_credit() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let steps: Vec<String> = (0..500).map(|number| format!("s{number}")).collect();
    let names: Vec<(&str, &[&str])> = steps.iter().map(|name| (name.as_str(), &[][..])).collect();
    let run = stage.submit("r1", pipeline(&names)).await;
    assert_eq!(stage.ended(&run).await.state(), RunState::Succeeded);
    let seen = stage.executor.seen();
    assert_eq!(seen.launches.len(), 500);
    assert!(seen.launch_frames <= 10, "{} frames", seen.launch_frames);
    assert_eq!((seen.contexts, seen.templates), (1, 1));
}

/// behaviours P1: the server describes itself and what it takes.
#[tokio::test]
async fn p1_the_server_says_what_it_is_and_describes_the_pipeline_file() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut client = ServerServiceClient::new(stage.scheduler.channel());
    let info = client.get_server_info(GetServerInfoRequest {}).await;
    let info = info.expect("answers").into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert!(
        info.capabilities.iter().any(|name| name == "pipeline-schema"),
        "{info:?}"
    );
    let schema = client.get_pipeline_schema(GetPipelineSchemaRequest {}).await;
    let schema: serde_json::Value =
        serde_json::from_str(&schema.expect("answers").into_inner().json_schema).expect("json");
    assert_eq!(schema, windlass_pipeline::schema::json_schema());
}

#[tokio::test]
async fn the_server_says_which_clusters_are_there() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let info = eventually("the cluster", || async {
        let mut client = ServerServiceClient::new(stage.scheduler.channel());
        let info = client
            .get_server_info(GetServerInfoRequest {})
            .await
            .expect("answers")
            .into_inner();
        (!info.clusters.is_empty()).then_some(info)
    })
    .await;
    assert_eq!(
        (info.clusters[0].alias.as_str(), info.clusters[0].executors),
        ("prod", 1)
    );
    assert_eq!(info.protocol, windlass_api::PUBLIC_PROTOCOL);
    let welcome = eventually("the welcome", || async {
        stage.executor.seen().welcomes.first().cloned()
    })
    .await;
    assert_eq!(info.installation, welcome.installation);
}

#[tokio::test]
async fn i3_an_executor_whose_lease_ended_under_an_open_stream_connects_anew_and_loses_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let mut short = config(data.path());
    // Long enough for a busy machine: before it is muted the executor has to be heard.
    short.lease = std::time::Duration::from_secs(2);
    let stage = Stage::with(data, short, |_, _| Play::Hold).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.step_in(&run, "a", StepState::Running).await;
    stage.executor.mute();
    eventually("the end of the lease", || async {
        let explained = crate::explaining::explain(&stage.scheduler, &run.name, "a").await;
        (explained[0].blocker == "OUT_OF_SIGHT").then_some(())
    })
    .await;
    // The pod ends while the scheduler has given the executor up.
    let key = stage.executor.seen().launches[0].0.clone();
    stage.executor.finish(&key).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), stage.playing).await;
    // With an error or without one: it has to connect anew.
    drop(ended.expect("the stream ends").expect("no panic"));
    stage.executor.unmute();
    let again = stage.executor.spawn(&stage.scheduler);
    assert_eq!(
        ended_of(&mut stage.scheduler.runs(), &run.name).await.state(),
        RunState::Succeeded
    );
    assert_eq!(stage.executor.seen().launches.len(), 1);
    again.abort();
}

#[tokio::test]
async fn i2_frames_to_an_executor_that_is_not_heard_do_not_lengthen_its_lease() {
    let data = tempfile::tempdir().expect("a folder");
    let mut short = config(data.path());
    short.lease = std::time::Duration::from_secs(2);
    let stage = Stage::with(data, short, |_, _| Play::Hold).await;
    let seen = || stage.executor.seen();
    eventually("heartbeats that echo", || async { (seen().heard > 2).then_some(()) }).await;
    stage.executor.mute();
    let frames = seen().frames;
    let clock = seen().clock;
    eventually("more frames", || async { (seen().frames > frames + 3).then_some(()) }).await;
    assert!(seen().heard <= clock, "nothing was heard that was not sent");
}
