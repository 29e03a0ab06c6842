//! RenderPipeline: pods in a stream, however slow its reader is.

use tonic::Code;
use windlass_api::pipeline::v1 as wire;
use windlass_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use windlass_api::run::v1 as run;

use crate::executor::Play;
use crate::support::{Stage, eventually, pipeline, reason};

/// As many as the server has at a time.
const MOST: usize = 32;

fn request(steps: usize) -> wire::RenderPipelineRequest {
    let names: Vec<String> = (0..steps).map(|index| format!("s{index}")).collect();
    let steps: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    wire::RenderPipelineRequest {
        namespace: "ml".to_owned(),
        pipeline: Some(pipeline(&steps)),
        ..wire::RenderPipelineRequest::default()
    }
}

#[tokio::test]
async fn every_step_is_rendered_in_its_order() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut pipelines = PipelineServiceClient::new(stage.scheduler.channel());
    let mut stream = pipelines
        .render_pipeline(request(50))
        .await
        .expect("rendered")
        .into_inner();
    let mut names = Vec::new();
    while let Some(pod) = stream.message().await.expect("no error") {
        assert!(pod.pod_json.contains("churn:v3"));
        names.push(pod.step);
    }
    let expected: Vec<String> = (0..50).map(|index| format!("s{index}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn i11_slow_readers_of_pods_hold_nobody_up_but_themselves() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut streams = Vec::new();
    for _ in 0..MOST {
        let mut pipelines = PipelineServiceClient::new(stage.scheduler.channel());
        let stream = pipelines.render_pipeline(request(1_000)).await.expect("rendered");
        streams.push(stream.into_inner());
    }
    let mut pipelines = PipelineServiceClient::new(stage.scheduler.channel());
    let status = pipelines.render_pipeline(request(1)).await.expect_err("too many");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_RENDERS")
    );
    let submitted = stage.submit("r1", pipeline(&[("a", &[])])).await;
    let get = run::GetRunRequest {
        namespace: "ml".to_owned(),
        run: submitted.id,
    };
    stage.scheduler.runs().get_run(get).await.expect("the store is read");
    let first = streams[0].message().await.expect("no error").expect("a pod");
    assert_eq!(first.step, "s0");
    drop(streams);
    eventually("room for another one", || {
        let mut pipelines = pipelines.clone();
        async move { pipelines.render_pipeline(request(1)).await.ok() }
    })
    .await;
}
