//! What an executor does with the Secrets of runs and schedules (behaviours E31, T7, M12, O8).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use windlass_api::dispatch::v1::connect_request::Message as FromExecutor;
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_api::dispatch::v1::run_secret_call::Action;
use windlass_api::dispatch::v1::{
    RunSecretCall, RunSecretDelete, RunSecretMake, ScheduleSecretCall, SecretFault, SecretRefusal, schedule_secret_call,
};
use windlass_ids::{RunId, ScheduleId, ScheduleSecretId};
use windlass_local_cluster::{Action as Fault, FaultConfig, RefusalReason, Rule};
use windlass_manifest::{schedule_secret_name, secret_name};

use crate::common::{Session, World};

const RUN: RunId = RunId::from_bytes([7; 16]);
const NAME: &str = "churn-7k2m";

fn make(value: &str) -> Action {
    Action::Make(RunSecretMake {
        data: [("API_TOKEN".to_owned(), value.as_bytes().to_vec())].into(),
    })
}

fn delete() -> Action {
    Action::Delete(RunSecretDelete {})
}

async fn ask(session: &mut Session, action: Action) -> Option<SecretRefusal> {
    let namespace = session.namespace.clone();
    ask_in(session, &namespace, action).await
}

async fn ask_in(session: &mut Session, namespace: &str, action: Action) -> Option<SecretRefusal> {
    let call = RunSecretCall {
        call: 7,
        run_id: RUN.as_bytes().to_vec(),
        run_name: NAME.to_owned(),
        namespace: namespace.to_owned(),
        action: Some(action),
        ..RunSecretCall::default()
    };
    session.respond(0, ToExecutor::RunSecretCall(call)).await;
    loop {
        match session.next().await {
            (sequence, FromExecutor::RunSecretAnswer(answer)) => {
                assert_eq!((sequence, answer.call), (0, 7));
                return answer.refusal;
            }
            (_, FromExecutor::Observations(observations)) => session.seen.extend(observations.observations),
            _ => {}
        }
    }
}

async fn fault(session: &mut Session, action: Action) -> Option<SecretFault> {
    ask(session, action).await.map(|refusal| refusal.fault())
}

fn on_create(action: Fault) -> Rule {
    Rule {
        verb: Some("create".to_owned()),
        resource: Some("secrets".to_owned()),
        ..Rule::new(action)
    }
}

fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.kube.clone(), &world.namespace)
}

async fn all(world: &World) -> Vec<Secret> {
    secrets(world).list(&ListParams::default()).await.expect("listed").items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e31_the_secret_of_a_run_is_made_once_and_deleted() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    assert!(session.hello.capabilities.contains(&"run-secrets".to_owned()));
    assert_eq!(ask(&mut session, delete()).await, None, "there is nothing yet");
    assert_eq!(ask(&mut session, make("hunter2")).await, None);
    let made = all(&world).await.remove(0);
    assert_eq!(made.metadata.name, Some(secret_name(NAME, RUN)));
    assert_eq!(made.immutable, Some(true));
    assert_eq!(made.data.expect("data")["API_TOKEN"].0, b"hunter2");
    let labels = made.metadata.labels.expect("labels");
    assert_eq!(labels["windlass.dev/run-id"], RUN.to_string());
    assert_eq!(labels["run"], NAME);
    assert!(
        labels.contains_key("windlass.dev/installation"),
        "`cluster purge` finds it"
    );

    // Said again, with whatever values, it stays as it is; so does the answer behind a full quota.
    assert_eq!(ask(&mut session, make("other")).await, None);
    world.faults().add(on_create(Fault::Refuse {
        code: 403,
        reason: RefusalReason::Forbidden,
        message: "secrets \"x\" is forbidden: exceeded quota: q".to_owned(),
    }));
    assert_eq!(ask(&mut session, make("other")).await, None);
    let kept = all(&world).await.remove(0);
    assert_eq!(kept.metadata.uid, made.metadata.uid);
    assert_eq!(ask(&mut session, delete()).await, None);
    assert_eq!(all(&world).await, []);
    assert_eq!(fault(&mut session, make("x")).await, Some(SecretFault::Quota));
    world.faults().set(FaultConfig::default());
    // An answer that is lost leaves open whether it was made; asked again, it is known.
    world.faults().add(Rule {
        count: Some(1),
        ..on_create(Fault::LoseReply)
    });
    assert_eq!(fault(&mut session, make("x")).await, Some(SecretFault::Unreachable));
    assert_eq!(ask(&mut session, make("x")).await, None);
    assert_eq!(all(&world).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e31_a_secret_of_others_with_that_name_is_neither_taken_nor_deleted() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    let theirs = Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(NAME, RUN)),
            labels: Some(BTreeMap::from([("windlass.dev/run-id".to_owned(), RUN.to_string())])),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    secrets(&world)
        .create(&PostParams::default(), &theirs)
        .await
        .expect("created");
    assert_eq!(fault(&mut session, make("x")).await, Some(SecretFault::NotManaged));
    assert_eq!(ask(&mut session, delete()).await, None, "nothing of the run's is there");
    assert_eq!(all(&world).await.len(), 1);
    let missing = ask_in(&mut session, "no-such-namespace", make("x")).await;
    assert_eq!(missing.expect("refused").fault(), SecretFault::NamespaceNotFound);
    assert_eq!(ask_in(&mut session, "no-such-namespace", delete()).await, None);
}

/// behaviours M12: other values have another Secret, each with a life of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e31_m12_a_schedule_has_a_secret_for_each_set_of_values() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    assert!(session.hello.capabilities.contains(&"schedule-secrets".to_owned()));
    let schedule = ScheduleId::from_bytes([8; 16]);
    let ids = [1, 2].map(|number| ScheduleSecretId::from_bytes([number; 16]));
    let namespace = session.namespace.clone();
    let ask = async |session: &mut Session, id: ScheduleSecretId, action| {
        let call = ScheduleSecretCall {
            call: 7,
            secret_id: id.as_bytes().to_vec(),
            schedule_id: schedule.as_bytes().to_vec(),
            schedule: "nightly".to_owned(),
            namespace: namespace.clone(),
            action: Some(action),
            ..ScheduleSecretCall::default()
        };
        session.respond(0, ToExecutor::ScheduleSecretCall(call)).await;
        loop {
            match session.next().await {
                (sequence, FromExecutor::ScheduleSecretAnswer(answer)) => {
                    assert_eq!((sequence, answer.call), (0, 7));
                    return answer.refusal;
                }
                (_, FromExecutor::Observations(observations)) => session.seen.extend(observations.observations),
                _ => {}
            }
        }
    };
    let make = |value: &str| {
        schedule_secret_call::Action::Make(RunSecretMake {
            data: [("API_TOKEN".to_owned(), value.as_bytes().to_vec())].into(),
        })
    };
    let delete = || schedule_secret_call::Action::Delete(RunSecretDelete {});
    // The same values asked for twice are one.
    for (id, value) in [(ids[0], "one"), (ids[1], "two"), (ids[0], "three")] {
        assert_eq!(ask(&mut session, id, make(value)).await, None);
    }
    let found = all(&world).await;
    assert_eq!(found.len(), 2);
    for (id, value) in [(ids[0], "one"), (ids[1], "two")] {
        let name = schedule_secret_name("nightly", id);
        let of_name = |secret: &&Secret| secret.metadata.name.as_ref() == Some(&name);
        let secret = found.iter().find(of_name).expect("made");
        assert_eq!(secret.immutable, Some(true));
        assert_eq!(secret.data.as_ref().expect("data")["API_TOKEN"].0, value.as_bytes());
        let labels = secret.metadata.labels.as_ref().expect("labels");
        assert_eq!(labels["windlass.dev/secret-id"], id.to_string());
        assert_eq!(labels["windlass.dev/schedule-id"], schedule.to_string());
        assert_eq!(labels["windlass.dev/schedule"], "nightly");
        assert!(
            labels.contains_key("windlass.dev/installation"),
            "`cluster purge` finds it"
        );
        assert!(!labels.contains_key("windlass.dev/run-id"), "it is of no run");
    }
    assert_eq!(ask(&mut session, ids[0], delete()).await, None);
    assert_eq!(ask(&mut session, ids[0], delete()).await, None, "it is gone");
    let left = all(&world).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].metadata.name, Some(schedule_secret_name("nightly", ids[1])));
}
