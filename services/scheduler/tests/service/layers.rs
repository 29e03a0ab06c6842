//! The layers of settings at the public API: which of them a pod gets its values from.

use serde_json::json;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::pipeline::v1 as wire;
use windlass_pipeline::source;

use crate::settings::{rendered, with_requests};

/// A pipeline in which every layer but the operator's says something, with one step of these fields.
fn layered(step: &str) -> wire::Pipeline {
    let text = format!(
        "
name: churn
parameters: [{{name: TAG, default: v3}}]
labels: {{team: ml, tier: pipeline, cost: pipeline}}
defaults:
  image: churn:$(TAG)
  workingDir: /defaults
  terminationGrace: 10s
  pod:
    labels: {{tier: defaults, cost: defaults}}
    nodeSelector: {{gpu: defaults, zone: defaults}}
    tolerations: [{{key: defaults, operator: Exists}}]
    resources: {{requests: {{memory: 1Gi}}, limits: {{memory: 4Gi, cpu: 2}}}}
steps:
  - name: s
{step}"
    );
    let pipeline = source::parse(&text).into_pipeline();
    pipeline_to_proto(&pipeline.expect("a pipeline"))
}

/// behaviours R2, R3, R4, R6, O10, T3
#[tokio::test]
async fn r2_the_step_is_laid_over_the_defaults_the_pipeline_and_what_the_operator_wants() {
    let stage = with_requests(&["memory=400Mi", "cpu=100m"]).await;
    let bare = rendered(&stage, layered("    command: ['true']")).await;
    let labels = &bare.pod["metadata"]["labels"];
    assert_eq!(
        (&labels["team"], &labels["tier"], &labels["cost"]),
        (&json!("ml"), &json!("defaults"), &json!("defaults"))
    );
    assert_eq!(bare.main()["image"], "churn:v3");
    assert_eq!(bare.origin("image"), "PARAMETER");
    assert_eq!(bare.main()["workingDir"], "/defaults");
    assert_eq!(
        bare.main()["resources"],
        json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}})
    );
    assert_eq!(bare.origin("pod.resources.requests.cpu"), "OPERATOR");
    assert_eq!(bare.origin("pod.resources.requests.memory"), "DEFAULTS");

    let step = "
    image: other:v1
    workingDir: /step
    terminationGrace: 20s
    pod:
      labels: {cost: step}
      nodeSelector: {zone: step}
      tolerations: [{key: step, operator: Exists}]
      resources: {limits: {memory: 8Gi}}
";
    let own = rendered(&stage, layered(step)).await;
    let labels = &own.pod["metadata"]["labels"];
    assert_eq!(
        (&labels["team"], &labels["tier"], &labels["cost"]),
        (&json!("ml"), &json!("defaults"), &json!("step"))
    );
    assert_eq!(
        (&own.main()["image"], own.origin("image")),
        (&json!("other:v1"), "STEP")
    );
    assert_eq!(own.main()["workingDir"], "/step");
    assert_eq!(own.spec()["terminationGracePeriodSeconds"], 20);
    assert_eq!(own.spec()["nodeSelector"], json!({"gpu": "defaults", "zone": "step"}));
    assert_eq!(
        own.spec()["tolerations"],
        json!([{"key": "step", "operator": "Exists"}]),
        "lists replace"
    );
    assert_eq!(
        own.main()["resources"],
        json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}})
    );
    assert_eq!(own.origin("pod.nodeSelector.gpu"), "DEFAULTS");
    assert_eq!(own.origin("pod.nodeSelector.zone"), "STEP");
}
