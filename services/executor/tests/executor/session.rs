//! The session with the scheduler: resume, epochs, probes, drain.

use windlass_api::dispatch::v1::connect_request::Message as FromExecutor;
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_api::dispatch::v1::{self as dispatch, AttemptPhase};

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
        pod_uid: String::new(),
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
async fn a_drain_is_announced_and_ends() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    session.ended(0).await;
    // It is acknowledged as soon as it is read; with that the executor has nothing left to say.
    let announced = async {
        while !matches!(session.next().await, (_, FromExecutor::Draining(_))) {}
        session
    };
    let (stopped, _session) = tokio::join!(world.stop_executor(), announced);
    stopped.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_is_introduced_by_its_uid_and_its_sight_is_told() {
    let mut world = World::start().await;
    let mut session = world.stream().await;
    assert_eq!(session.hello.cluster_uid, world.cluster.cluster_uid);
    assert!(session.hello.local_cluster && session.hello.credit > 0);
    session.welcome(1, false, 0).await;
    session.lease().await;
    loop {
        if let (_, FromExecutor::Sight(sight)) = session.next().await {
            assert!(sight.visible);
            break;
        }
    }
}
