//! What a network, an overloaded API server and other people do.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use windlass_api::dispatch::v1::AttemptPhase;
use windlass_api::run::v1::FailureClass;
use windlass_local_cluster::{Action, Completion, FaultConfig, RefusalReason, Rule};

use crate::common::{IMAGE, Session, World};

fn on_create(count: u32, action: Action) -> Rule {
    Rule {
        count: Some(count),
        ..on_every_create(action)
    }
}

fn on_every_create(action: Action) -> Rule {
    Rule {
        verb: Some("create".to_owned()),
        resource: Some("pods".to_owned()),
        ..Rule::new(action)
    }
}

fn refusal(code: u16, reason: RefusalReason, message: &str) -> Action {
    Action::Refuse {
        code,
        reason,
        message: message.to_owned(),
    }
}

/// A template whose pods no node takes, so that the test plays the kubelet.
async fn nowhere(session: &mut Session) {
    let pod = json!({"nodeSelector": {"gpu": "a100"}});
    session
        .template(2, json!({"merged": {"image": IMAGE, "command": ["true"], "pod": pod}}))
        .await;
}

fn ended_status(code: i32) -> serde_json::Value {
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": "Error"}}}],
    })
}

/// behaviours K8, E29, X3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_create_whose_reply_was_lost_is_adopted() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    world.faults().add(on_create(1, Action::LoseReply));
    session.launch([0]).await;
    let ended = session.ended(0).await;
    assert!(ended.end.is_some_and(|end| end.succeeded));
    assert_eq!(world.pod_list().await.len(), 1);
    assert_eq!(world.requests.count("POST pods"), 1, "a read found it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_another_executor_adopts_what_exists_and_posts_what_is_missing() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let first = session.ended(0).await;
    world.kill_executor().await;
    drop(session);
    let before = world.requests.writes();
    world.start_executor().await;
    let mut session = world.session().await;
    let inventory = session.inventory().await;
    assert_eq!(inventory.observations.len(), 1);
    assert_eq!(inventory.observations[0].pod_uid, first.pod_uid);
    assert!(inventory.observations[0].end.as_ref().is_some_and(|end| end.succeeded));
    assert!(!inventory.resource_version.is_empty());
    assert_eq!(world.requests.writes(), before, "a takeover writes nothing");
    session.launch([0, 1]).await;
    let again = session.observe(0, |one| one.grant == 5).await;
    assert_eq!(again.pod_uid, first.pod_uid);
    session.ended(1).await;
    assert_eq!(world.pod_list().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_full_quota_cannot_hide_a_pod_that_exists() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let first = session.ended(0).await;
    world.kill_executor().await;
    drop(session);
    world.start_executor().await;
    // The new executor cannot list yet, so that it does not know the pod.
    world.faults().add(Rule {
        verb: Some("list".to_owned()),
        resource: Some("pods".to_owned()),
        count: Some(6),
        ..Rule::new(Action::Cut)
    });
    world.faults().add(on_create(
        9,
        refusal(403, RefusalReason::Forbidden, "pods is forbidden: exceeded quota: q"),
    ));
    let mut session = world.session().await;
    session.launch([0]).await;
    let again = session.observe(0, |one| one.grant == 5).await;
    assert_eq!(
        (again.pod_uid.clone(), again.phase()),
        (first.pod_uid, AttemptPhase::Ended)
    );
}

/// behaviours E7, X5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_broken_watches_and_lost_history_fail_no_step() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    nowhere(&mut session).await;
    session.launch_with(2, 0..3).await;
    let mut pods = Vec::new();
    for step in 0..3 {
        pods.push(
            session
                .observe(step, |one| one.reason == "Unschedulable")
                .await
                .pod_name,
        );
    }
    world.faults().break_watches();
    world.set_status(&pods[0], ended_status(0)).await;
    assert!(session.ended(0).await.end.is_some_and(|end| end.succeeded));
    // 410 at every watch: only a new list finds what happened meanwhile.
    world.faults().add(Rule {
        verb: Some("watch".to_owned()),
        resource: Some("pods".to_owned()),
        ..Rule::new(Action::Expire)
    });
    world.faults().break_watches();
    world.set_status(&pods[1], ended_status(3)).await;
    assert_eq!(
        session.ended(1).await.end.expect("an end").failure_class(),
        FailureClass::UserError
    );
    world.faults().set(FaultConfig::default());
    // The API server in trouble for a while.
    world.faults().add(Rule {
        resource: Some("pods".to_owned()),
        verb: Some("watch".to_owned()),
        count: Some(3),
        ..Rule::new(refusal(500, RefusalReason::InternalError, "etcd"))
    });
    world.faults().break_watches();
    world.set_status(&pods[2], ended_status(0)).await;
    assert!(session.ended(2).await.end.is_some_and(|end| end.succeeded));
    let failed: Vec<_> = session
        .seen
        .iter()
        .filter(|one| one.phase() == AttemptPhase::Absent)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// behaviours M6, U16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_for_the_time_being_are_waited_for() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    let faults = world.faults();
    // Until the refusal was told: what succeeds meanwhile would be told in its place.
    faults.add(on_every_create(Action::TooManyRequests { retry_after_seconds: 1 }));
    session.launch([0]).await;
    let refused = session.phase(0, AttemptPhase::Refused).await;
    assert_eq!((refused.reason.as_str(), refused.grant), ("TooManyRequests", 5));
    faults.set(FaultConfig::default());
    session.ended(0).await;
    for (step, code, reason, message, word) in [
        (
            1,
            403,
            RefusalReason::Forbidden,
            "pods is forbidden: exceeded quota: q",
            "QuotaExceeded",
        ),
        (
            2,
            409,
            RefusalReason::Conflict,
            "Operation cannot be fulfilled on resourcequotas",
            "Conflict",
        ),
        (
            3,
            500,
            RefusalReason::InternalError,
            "failed calling webhook \"w\"",
            "WebhookUnreachable",
        ),
    ] {
        faults.add(on_every_create(refusal(code, reason, message)));
        session.launch([step]).await;
        assert_eq!(session.phase(step, AttemptPhase::Refused).await.reason, word);
        faults.set(FaultConfig::default());
        assert!(session.ended(step).await.end.is_some_and(|end| end.succeeded));
    }
}

/// behaviours M6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_refusals_for_good_end_the_attempt() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    let faults = world.faults();
    for (step, code, reason, message, word) in [
        (0, 422, RefusalReason::Invalid, "Pod is invalid", "Invalid"),
        (
            1,
            403,
            RefusalReason::Forbidden,
            "violates PodSecurity \"restricted\"",
            "PolicyDenied",
        ),
        (2, 400, RefusalReason::BadRequest, "no such field", "BadRequest"),
    ] {
        faults.add(on_create(1, refusal(code, reason, message)));
        session.launch([step]).await;
        let observation = session.ended(step).await;
        let end = observation.end.clone().expect("an end");
        assert_eq!(
            (end.failure_class(), end.reason.as_str(), end.proof_of_death),
            (FailureClass::Rejected, word, true)
        );
        assert_eq!((observation.pod_uid.as_str(), observation.grant), ("", 5));
    }
    assert_eq!(world.pod_list().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_an_executor_refuses_its_own_namespace() {
    let mut world = World::with(Completion::Instant { exit_code: 0 }, |_| {}, |_| {}).await;
    // It lives where the pods would be.
    world.kill_executor().await;
    world.config.own_namespace = Some(world.namespace.clone());
    world.start_executor().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!(
        (end.failure_class(), end.reason.as_str()),
        (FailureClass::Rejected, "ExecutorNamespace")
    );
    assert_eq!(world.requests.writes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_a_pod_that_others_delete_stays_until_its_end_is_stored() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let ended = session.ended(0).await;
    world
        .pods()
        .delete(&ended.pod_name, &DeleteParams::default())
        .await
        .expect("a deletion");
    session.observe(0, |one| one.terminating).await;
    assert_eq!(world.pod_list().await.len(), 1);
    assert!(
        session
            .seen
            .iter()
            .all(|one| one.end.as_ref().is_none_or(|end| end.succeeded)),
        "its end does not change"
    );
    session.release(&[ended]).await;
    world
        .until(
            "the end of the pod",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_without_a_scheduler_a_deleted_pod_is_let_go_in_the_end() {
    let mut world = World::with(
        Completion::Instant { exit_code: 0 },
        |config| config.strip_after = Duration::from_secs(1),
        |_| {},
    )
    .await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let ended = session.ended(0).await;
    drop(session);
    world
        .pods()
        .delete(&ended.pod_name, &DeleteParams::default())
        .await
        .expect("a deletion");
    world
        .until(
            "the end of the pod",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_an_executor_that_never_heard_a_scheduler_lets_go_of_deleted_pods_of_its_installation() {
    let mut world = World::with(
        Completion::Instant { exit_code: 0 },
        |config| config.strip_after = Duration::from_secs(1),
        |_| {},
    )
    .await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let ended = session.ended(0).await;
    world.kill_executor().await;
    drop(session);
    world
        .pods()
        .delete(&ended.pod_name, &DeleteParams::default())
        .await
        .expect("a deletion");
    world.config.installation = Some(world.installation.parse().expect("an installation"));
    world.start_executor().await;
    world
        .until(
            "the end of the pod",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
}

/// behaviours E37, U13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_released_pods_are_swept_although_who_released_them_died() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    let ended = session.ended(0).await;
    session.release(&[ended]).await;
    let released = async |world: &World| {
        let pods = world.pod_list().await;
        pods.iter().all(|pod| {
            pod.metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key("windlass.dev/released"))
        })
    };
    world.until("the release", released, |released| *released).await;
    world.kill_executor().await;
    drop(session);
    assert_eq!(world.pod_list().await.len(), 1, "they are swept rarely");
    world.start_executor().await;
    let _session = world.session().await;
    world
        .until(
            "the end of the pod",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_an_owner_that_somebody_deleted_is_made_again() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    session.launch([0]).await;
    session.ended(0).await;
    let first = world.config_maps().await.remove(0).metadata;
    let owners: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(world.kube.clone(), &world.namespace);
    let name = first.name.expect("a name");
    owners
        .delete(&name, &DeleteParams::background())
        .await
        .expect("a deletion");
    // Garbage collection takes the pod, as far as our finalizer lets it.
    session.observe(0, |one| one.terminating).await;
    session.launch([1]).await;
    let second = session.ended(1).await;
    let owner = world.config_maps().await.remove(0).metadata.uid;
    assert_ne!(owner, first.uid);
    let pod = world.pods().get(&second.pod_name).await.expect("a pod");
    let owned_by = pod.metadata.owner_references.unwrap_or_default().remove(0).uid;
    assert_eq!(Some(owned_by), owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_pod_whose_finalizer_somebody_removed_is_absent() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    nowhere(&mut session).await;
    session.launch_with(2, [0]).await;
    let created = session.observe(0, |one| one.reason == "Unschedulable").await;
    let patch = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world
        .pods()
        .patch(&created.pod_name, &kube::api::PatchParams::default(), &patch)
        .await
        .expect("a patch");
    world
        .pods()
        .delete(&created.pod_name, &DeleteParams::default())
        .await
        .expect("a deletion");
    let gone = session
        .observe(0, |one| {
            matches!(one.phase(), AttemptPhase::Absent | AttemptPhase::Ended)
        })
        .await;
    assert_eq!(gone.pod_uid, created.pod_uid);
    assert_eq!(gone.grant, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_step_costs_three_writes() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    nowhere(&mut session).await;
    session.launch_with(2, [0]).await;
    let created = session.observe(0, |one| one.reason == "Unschedulable").await;
    session.stop(0, &created.pod_uid).await;
    session.stop(0, &created.pod_uid).await;
    let ended = session.ended(0).await;
    let end = ended.end.clone().expect("an end");
    assert_eq!(
        (end.failure_class(), end.proof_of_death),
        (FailureClass::PodDeleted, true)
    );
    session.release(&[ended]).await;
    world
        .until(
            "the end of the pod",
            async |world| world.pod_list().await.len(),
            |left| *left == 0,
        )
        .await;
    assert_eq!(world.requests.writes(), 1 + 3, "{:?}", world.requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_installation_is_never_touched() {
    let mut world = World::start().await;
    let foreign: Pod = serde_json::from_value(json!({
        "metadata": {"name": "foreign", "labels": {
            "windlass.dev/installation": "22222222-2222-4222-8222-222222222222", "windlass.dev/released": "true",
            "windlass.dev/run-id": "07070707-0707-0707-0707-070707070707", "windlass.dev/step-index": "0", "windlass.dev/attempt": "1"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": IMAGE, "command": ["true"]}]},
    })).expect("a pod");
    world
        .pods()
        .create(&PostParams::default(), &foreign)
        .await
        .expect("a pod");
    let mut session = world.session().await;
    assert!(session.inventory().await.observations.is_empty());
    session.launch([0]).await;
    let ended = session.ended(0).await;
    session.release(&[ended]).await;
    session.run_finished().await;
    let names = async |world: &World| {
        world
            .pod_list()
            .await
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect::<Vec<_>>()
    };
    world
        .until("only the foreign pod", names, |names| names == &["foreign"])
        .await;
    world
        .until(
            "the end of the owner",
            async |world| world.config_maps().await.len(),
            |left| *left == 0,
        )
        .await;
    assert_eq!(names(&world).await, ["foreign"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_create_without_an_answer_is_not_called_absent_while_it_may_still_be_carried_out() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    nowhere(&mut session).await;
    // The executor gives up after 2 s; the API server does not.
    world.faults().add(on_create(1, Action::Delay { milliseconds: 3000 }));
    session.launch_with(2, [0]).await;
    let created = async |world: &World| world.requests.count("POST pods");
    world.until("the create", created, |posts| *posts == 1).await;
    session.stop(0, "").await;
    let ended = session.ended(0).await;
    assert!(ended.end.is_some_and(|end| end.proof_of_death));
    let absent = session.seen.iter().find(|one| one.phase() == AttemptPhase::Absent);
    assert!(absent.is_none(), "{absent:?}");
}
