//! Pods are created, watched, let go and swept, with two writes a step.

use crate::common::{IMAGE, World, key};
use serde_json::json;
use windlass_api::dispatch::v1::{AttemptPhase, Observation};
use windlass_api::run::v1::FailureClass;

/// behaviours T9, E23; E21, X10: nothing is read again to find out what has changed, so nothing waits for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_step_costs_two_writes() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.inventory().await;
    session.launch(0..40).await;
    let mut ended = Vec::new();
    for step in 0..40 {
        // A kubelet tells of the container's end before it tells of the pod's.
        let is_dead = |one: &Observation| one.end.as_ref().is_some_and(|end| end.proof_of_death);
        let observation = session.observe(step, is_dead).await;
        let end = observation.end.clone().expect("an end");
        assert!(end.succeeded, "{end:?}");
        assert_eq!((end.exit_code, observation.grant), (Some(0), 5));
        ended.push(observation);
    }
    let pods = world.pod_list().await;
    assert_eq!(pods.len(), 40, "nothing goes before it is released (I4)");
    session.release(&ended).await;
    session.run_finished().await;
    world
        .until(
            "the end of all pods",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
    world
        .until(
            "the end of the owner",
            async |world| world.config_maps().await.len(),
            |left| *left == 0,
        )
        .await;
    // Owner, 40 pods, 40 patches, and two collections are deleted.
    assert_eq!(world.requests.writes(), 1 + 40 + 40 + 2, "{:?}", world.requests);
    let reads: usize = world.requests.reads().values().sum();
    assert!(
        reads <= 4,
        "cluster uid, a list of pods, one of released ones, one of nodes: {:?}",
        world.requests.reads()
    );
}

/// behaviours N10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_step_is_a_user_error_with_evidence() {
    let mut world = World::with(
        windlass_local_cluster::Completion::Instant { exit_code: 3 },
        |_| {},
        |_| {},
    )
    .await;
    let mut session = world.session().await;
    session
        .template(
            2,
            json!({"merged": {"image": IMAGE, "command": ["sh", "-c", "exit 3"]}}),
        )
        .await;
    session.launch_with(2, [0]).await;
    let observation = session.ended(0).await;
    let end = observation.end.clone().expect("an end");
    assert_eq!(end.failure_class(), FailureClass::UserError);
    assert_eq!((end.succeeded, end.exit_code), (false, Some(3)));
    assert!(
        end.evidence.iter().any(|line| line.contains("exit code 3")),
        "{:?}",
        end.evidence
    );
    assert_eq!(observation.containers, ["main"]);
    assert!(!observation.node.is_empty() && observation.create_time.is_some());
    assert_eq!(observation.attempt, Some(key(0)));
    assert_eq!(observation.phase(), AttemptPhase::Ended);
    let pod = world.pods().get(&observation.pod_name).await.expect("a pod");
    let spec = pod.spec.expect("a spec");
    let names: Vec<&str> = spec
        .containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(
        (names.as_slice(), spec.restart_policy.as_deref()),
        (&["main"][..], Some("Never"))
    );
}
