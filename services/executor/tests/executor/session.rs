//! The session with the scheduler: resume, epochs, probes, drain.

use windlass_api::dispatch::v1::connect_request::Message as FromExecutor;
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_api::dispatch::v1::{self as dispatch, AttemptPhase};
use windlass_local_cluster::{Action, Rule};

use crate::common::{World, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_a_stream_goes_on_where_it_was() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.inventory().await;
    session.acknowledge = false;
    let committed = session.acknowledged;
    session.launch([0]).await;
    session.ended(0).await;
    let (taken, sent) = (session.sequence, session.acknowledged);
    assert!(sent > committed);
    drop(session);

    let mut session = world.stream().await;
    assert_eq!((session.hello.resume_epoch, session.hello.resume_sequence), (1, taken));
    session.sequence = taken;
    session.welcome(1, true, committed).await;
    // What was not committed comes again, with its numbers, before anything new.
    let mut numbers = Vec::new();
    while numbers.last() != Some(&sent) {
        let (number, message) = session.next().await;
        numbers.push(number);
        if let FromExecutor::Observations(observations) = message {
            session.seen.extend(observations.observations);
        }
    }
    assert_eq!(numbers, (committed + 1..=sent).collect::<Vec<_>>());
    session.ended(0).await;
    // And commands go on, too: the run and its template need not be said again.
    session.launch([1]).await;
    session.ended(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_was_replaced_is_not_obeyed() {
    let mut world = World::start().await;
    let mut session = world.stream().await;
    session.welcome(7, false, 0).await;
    session.lease().await;
    session.inventory().await;
    drop(session);
    let mut old = world.stream().await;
    old.welcome(6, false, 0).await;
    let mut new = world.stream().await;
    assert_eq!(new.hello.resume_epoch, 7);
    new.welcome(8, false, 0).await;
    new.lease().await;
    new.inventory().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_scheduler_says_everything_anew_and_gets_an_inventory() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let first = session.ended(0).await;
    drop(session);
    let mut session = world.stream().await;
    session.welcome(2, false, 0).await;
    session.lease().await;
    let inventory = session.inventory().await;
    assert_eq!(
        inventory
            .observations
            .iter()
            .map(|one| &one.pod_uid)
            .collect::<Vec<_>>(),
        [&first.pod_uid]
    );
    session.run().await;
    session.launch([1]).await;
    session.ended(1).await;
    // What follows the lease may be in the inventory or not; it says up to where it looked.
    assert!(inventory.reflects_sequence >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_stops_of_pods_that_never_were_answer_absent() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.inventory().await;
    session.stop(8, "").await;
    let absent = session.phase(8, AttemptPhase::Absent).await;
    assert_eq!((absent.grant, absent.pod_uid.as_str()), (5, ""));
    let probe = |step| dispatch::Probe {
        attempt: Some(key(step)),
        grant: 6,
        ..dispatch::Probe::default()
    };
    session
        .send(ToExecutor::Probes(dispatch::Probes { probes: vec![probe(9)] }))
        .await;
    assert_eq!(session.phase(9, AttemptPhase::Absent).await.grant, 6);
    session.launch([0]).await;
    session.ended(0).await;
    session
        .send(ToExecutor::Probes(dispatch::Probes { probes: vec![probe(0)] }))
        .await;
    let probed = session.observe(0, |one| one.grant == 6).await;
    assert_eq!(probed.phase(), AttemptPhase::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_during_a_create_is_answered_with_what_the_watch_has_told() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    // The pod ends long before the answer to its create comes.
    let late = Action::LateReply { milliseconds: 1500 };
    world.faults().add(Rule {
        verb: Some("create".to_owned()),
        resource: Some("pods".to_owned()),
        ..Rule::new(late)
    });
    session.launch([0]).await;
    session.ended(0).await;
    let probe = dispatch::Probe {
        attempt: Some(key(0)),
        grant: 6,
        ..dispatch::Probe::default()
    };
    session
        .send(ToExecutor::Probes(dispatch::Probes { probes: vec![probe] }))
        .await;
    let probed = session.observe(0, |one| one.grant == 6).await;
    assert_eq!(probed.phase(), AttemptPhase::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_announced_and_ends() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    session.ended(0).await;
    let announced = async {
        while !matches!(session.next().await, (_, FromExecutor::Draining(_))) {}
        session.until_its_end().await;
    };
    let (stopped, ()) = tokio::join!(world.stop_executor(), announced);
    stopped.expect("an orderly end");
}

/// behaviours V6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_introduced_by_its_uid_and_its_sight_is_told() {
    let mut world = World::start().await;
    let mut session = world.stream().await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(world.kube.clone());
    let system = namespaces.get("kube-system").await.expect("every cluster has it");
    assert_eq!(Some(&session.hello.cluster_uid), system.metadata.uid.as_ref());
    assert_eq!(session.hello.local_cluster, world.is_local());
    assert!(session.hello.credit > 0);
    session.welcome(1, false, 0).await;
    session.lease().await;
    loop {
        if let (_, FromExecutor::Sight(sight)) = session.next().await {
            assert!(sight.visible);
            break;
        }
    }
}

/// Changes labels of a pod, as somebody with kubectl would.
async fn relabel(world: &World, name: &str, labels: serde_json::Value) {
    let patch = kube::api::Patch::Merge(serde_json::json!({"metadata": {"labels": labels}}));
    let params = kube::api::PatchParams::default();
    world.pods().patch(name, &params, &patch).await.expect("a patch");
}

async fn shard_label(world: &World) -> Option<String> {
    let pod = world.pod_list().await.into_iter().next()?;
    pod.metadata.labels?.get("windlass.dev/shard").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_pod_whose_labels_somebody_changed_is_not_absent() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let pod = session.ended(0).await;
    relabel(&world, &pod.pod_name, serde_json::json!({"windlass.dev/shard": null})).await;
    world.until("the label", shard_label, |shard| shard.is_some()).await;
    // Nobody watches when they are taken off again: only its name and uid find it.
    world.kill_executor().await;
    drop(session);
    let nothing =
        serde_json::json!({"windlass.dev/shard": null, "windlass.dev/run-id": null, "windlass.dev/attempt": null});
    relabel(&world, &pod.pod_name, nothing).await;
    world.start_executor().await;
    let mut session = world.session().await;
    assert!(session.inventory().await.observations.is_empty());
    let probe = dispatch::Probe {
        attempt: Some(key(0)),
        grant: 6,
        pod_uid: pod.pod_uid.clone(),
        namespace: world.namespace.clone(),
        pod_name: pod.pod_name.clone(),
    };
    session
        .send(ToExecutor::Probes(dispatch::Probes { probes: vec![probe] }))
        .await;
    let probed = session.observe(0, |one| one.grant == 6).await;
    assert_eq!((probed.phase(), &probed.pod_uid), (AttemptPhase::Ended, &pod.pod_uid));
    world.until("the label", shard_label, |shard| shard.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_a_pod_that_was_let_go_and_is_held_again_is_let_go_again() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let pod = session.ended(0).await;
    let released = async |world: &World| {
        let pod = world.pods().get_opt(&pod.pod_name).await.expect("an answer")?;
        Some((
            pod.metadata.labels?.contains_key("windlass.dev/released"),
            pod.metadata.finalizers.is_none(),
        ))
    };
    session.release(std::slice::from_ref(&pod)).await;
    world
        .until("its release", released, |found| *found == Some((true, true)))
        .await;
    relabel(
        &world,
        &pod.pod_name,
        serde_json::json!({"windlass.dev/released": null}),
    )
    .await;
    // A watch tells in order: with the next pod it has told of the label.
    session.launch([1]).await;
    session.ended(1).await;
    session.release(std::slice::from_ref(&pod)).await;
    world
        .until("its release", released, |found| *found == Some((true, true)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_release_that_is_repeated_costs_no_request() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let ended = session.ended(0).await;
    session.release(std::slice::from_ref(&ended)).await;
    let held = async |world: &World, name: &str| {
        let pod = world.pods().get(name).await.expect("the pod");
        pod.metadata.finalizers.is_some()
    };
    let name = ended.pod_name.clone();
    let first = async |world: &World| held(world, &name).await;
    world.until("the release", first, |held| !held).await;
    let delete = kube::api::DeleteParams::default().grace_period(0);
    world.pods().delete(&ended.pod_name, &delete).await.expect("a deletion");
    world
        .until(
            "the end of the pod",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
    session.release(&[ended]).await;
    // Commands are taken in their order.
    session.launch([1]).await;
    let other = session.ended(1).await;
    session.release(std::slice::from_ref(&other)).await;
    let next = async |world: &World| held(world, &other.pod_name).await;
    world.until("the next release", next, |held| !held).await;
    assert_eq!(world.requests.count("PATCH pods"), 2);
}
