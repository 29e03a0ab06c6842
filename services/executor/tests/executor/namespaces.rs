//! Namespaces that are not there.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use windlass_api::dispatch::v1::Observation;
use windlass_api::run::v1::FailureClass;
use windlass_executor::NamespacePolicy;
use windlass_local_cluster::Completion;

use crate::common::World;

/// A world whose run is in a namespace that is not there.
async fn world(policy: NamespacePolicy) -> World {
    let change = |config: &mut windlass_executor::Config| config.namespace_policy = policy;
    let mut world = World::with(Completion::Instant { exit_code: 0 }, change, |_| {}).await;
    world.namespace = format!("absent-{}", &world.installation[..8]);
    world
}

async fn namespaces(world: &World) -> Vec<Namespace> {
    let api: Api<Namespace> = Api::all(world.kube.clone());
    let all = api.list(&ListParams::default()).await.expect("namespaces").items;
    let is_wanted = |one: &Namespace| one.metadata.name.as_ref() == Some(&world.namespace);
    all.into_iter().filter(is_wanted).collect()
}

/// behaviours K6, F8, E40
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_f8_e40_a_namespace_that_is_not_there_is_made_where_the_operator_wants_it() {
    let mut world = world(NamespacePolicy::Create).await;
    let mut session = world.session().await;
    session.inventory().await;
    session.launch(0..3).await;
    let mut ended = Vec::new();
    for step in 0..3 {
        let is_dead = |one: &Observation| one.end.as_ref().is_some_and(|end| end.proof_of_death);
        ended.push(session.observe(step, is_dead).await);
    }
    assert!(
        ended
            .iter()
            .all(|one| one.end.as_ref().is_some_and(|end| end.succeeded)),
        "{ended:?}"
    );
    let made = namespaces(&world).await;
    let [namespace] = made.as_slice() else {
        panic!("{made:?}")
    };
    let labels = namespace.metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels.get("windlass.dev/installation"), Some(&world.installation));
    // It is made once, and outlives the run: others may use it by then.
    session.release(&ended).await;
    session.run_finished().await;
    world
        .until(
            "the end of the owner",
            async |world| world.config_maps().await.len(),
            |left| *left == 0,
        )
        .await;
    assert_eq!(
        world.requests.count("POST /api/v1/namespaces"),
        1,
        "{:?}",
        world.requests
    );
    assert_eq!(namespaces(&world).await.len(), 1);
}

/// behaviours K6, C3: without being told to, an executor makes none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_e40_a_namespace_must_be_there_unless_the_operator_says_otherwise() {
    let mut world = world(NamespacePolicy::default()).await;
    let mut session = world.session().await;
    session.inventory().await;
    session.launch([0]).await;
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!(end.failure_class(), FailureClass::Rejected, "{end:?}");
    assert_eq!(end.reason, "NamespaceNotFound", "{end:?}");
    assert_eq!(namespaces(&world).await.len(), 0);
}
