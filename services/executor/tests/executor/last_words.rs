//! What containers say at their end, without the values of the Secrets that they use.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::json;
use windlass_api::dispatch::v1::AttemptPhase;
use windlass_local_cluster::{Action, Rule};

use crate::common::{IMAGE, World};

const VALUE: &str = "hunter2-hunter2";

/// An end, as a kubelet writes it, with last words.
fn ended(words: &str) -> serde_json::Value {
    let terminated = json!({"exitCode": 3, "reason": "Error", "message": words});
    json!({
        "phase": "Failed",
        "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}}],
    })
}

/// behaviours E31
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_last_words_are_told_without_values_of_secrets_also_by_an_executor_that_comes_later() {
    let mut world = World::start().await;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("warehouse".to_owned()),
            ..ObjectMeta::default()
        },
        string_data: Some([("password".to_owned(), VALUE.to_owned())].into()),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(world.kube.clone(), &world.namespace);
    secrets.create(&PostParams::default(), &secret).await.expect("created");
    let mut session = world.session().await;
    let env = json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "warehouse", "key": "password"}}}]);
    // No node takes them, so that the test plays the kubelet.
    let pod = json!({"nodeSelector": {"gpu": "a100"}});
    let merged = json!({"image": IMAGE, "command": ["true"], "pod": pod, "env": env});
    session.template(2, json!({"merged": merged})).await;
    session.launch_with(2, 0..2).await;
    let mut pods = Vec::new();
    for step in 0..2 {
        pods.push(session.observe(step, |one| !one.pod_uid.is_empty()).await.pod_name);
    }
    // What is said waits for the values, and nothing overtakes it.
    world.faults().add(Rule {
        verb: Some("get".to_owned()),
        resource: Some("secrets".to_owned()),
        count: Some(2),
        ..Rule::new(Action::Cut)
    });
    world.set_status(&pods[0], ended(&format!("no user {VALUE}"))).await;
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!((&*end.termination_message, end.exit_code), ("no user ***", Some(3)));

    world.kill_executor().await;
    drop(session);
    world.set_status(&pods[1], ended(&format!("and {VALUE}"))).await;
    world.start_executor().await;
    let mut session = world.session().await;
    let inventory = session.inventory().await;
    let phases: Vec<_> = inventory
        .observations
        .iter()
        .map(|one| (one.phase(), one.end.is_some()))
        .collect();
    assert_eq!(
        phases,
        [(AttemptPhase::Created, false); 2],
        "they are there; how they ended comes behind"
    );
    for (step, words) in [(0, "no user ***"), (1, "and ***")] {
        let end = session.ended(step).await.end.expect("an end");
        assert_eq!(end.termination_message, words);
    }
}
