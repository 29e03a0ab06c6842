//! What an executor does with Secrets for clients that wait (behaviours K9 to K12, F7).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use windlass_api::dispatch::v1::connect_request::Message as FromExecutor;
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::dispatch::v1::{
    SecretCall, SecretDelete, SecretFault, SecretList, SecretLookup, SecretPage, SecretPut, SecretPutDone,
    SecretRefusal, SecretWanted,
};
use windlass_api::secret::v1::PutSecretMode;
use windlass_local_cluster::{Action, Rule};

use crate::common::{Session, World};

fn put(mode: PutSecretMode, data: &[(&str, &str)]) -> SecretPut {
    SecretPut {
        name: "warehouse".to_owned(),
        mode: mode.into(),
        data: data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
            .collect(),
        ..SecretPut::default()
    }
}

async fn ask(session: &mut Session, kind: CallKind) -> Outcome {
    let namespace = session.namespace.clone();
    ask_in(session, &namespace, kind).await
}

async fn ask_in(session: &mut Session, namespace: &str, kind: CallKind) -> Outcome {
    let call = SecretCall {
        call: 7,
        namespace: namespace.to_owned(),
        call_kind: Some(kind),
        ..SecretCall::default()
    };
    session.respond(0, ToExecutor::SecretCall(call)).await;
    loop {
        match session.next().await {
            (sequence, FromExecutor::SecretAnswer(answer)) => {
                assert_eq!((sequence, answer.call), (0, 7));
                return answer.outcome.expect("an outcome");
            }
            (_, FromExecutor::Observations(observations)) => session.seen.extend(observations.observations),
            _ => {}
        }
    }
}

async fn done(session: &mut Session, put: SecretPut) -> SecretPutDone {
    match ask(session, CallKind::Put(put)).await {
        Outcome::Put(done) => done,
        other => panic!("not put: {other:?}"),
    }
}

async fn refused(session: &mut Session, kind: CallKind) -> SecretRefusal {
    match ask(session, kind).await {
        Outcome::Refusal(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn delete(name: &str) -> CallKind {
    CallKind::Delete(SecretDelete { name: name.to_owned() })
}

fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.kube.clone(), &world.namespace)
}

async fn values(world: &World, name: &str) -> BTreeMap<String, String> {
    let secret = secrets(world).get(name).await.expect("the secret");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let data = secret.data.unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, text(value.0))).collect()
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A Secret that others have made.
async fn of_others(world: &World, name: &str, labels: &[(&str, &str)]) {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(texts(labels)),
            ..ObjectMeta::default()
        },
        string_data: Some(texts(&[("key", "theirs")])),
        ..Secret::default()
    };
    secrets(world)
        .create(&PostParams::default(), &secret)
        .await
        .expect("created");
}

/// behaviours F7: an empty value is a value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_k10_k11_k12_a_secret_is_created_changed_and_deleted() {
    use PutSecretMode::{Create, Update, Upsert};
    let mut world = World::start().await;
    let mut session = world.session().await;
    assert!(session.hello.capabilities.contains(&"secrets".to_owned()));

    // K9. F7 without its fault: an empty value is a value.
    let created = done(
        &mut session,
        put(Create, &[("password", "hunter2"), ("empty", ""), ("old", "x")]),
    )
    .await;
    let secret = created.secret.expect("a secret");
    assert!(created.created && secret.create_time.is_some());
    assert_eq!(
        (secret.name.as_str(), secret.keys.join(" "), secret.key_count),
        ("warehouse", "empty old password".to_owned(), 3)
    );
    assert_eq!(
        values(&world, "warehouse").await,
        texts(&[("empty", ""), ("old", "x"), ("password", "hunter2")])
    );
    let stored = secrets(&world).get("warehouse").await.expect("the secret");
    assert_eq!(stored.type_.as_deref(), Some("Opaque"));
    assert_eq!(
        stored.metadata.labels.expect("labels")["windlass.dev/installation"],
        world.installation
    );
    let again = refused(&mut session, CallKind::Put(put(Create, &[("password", "other")]))).await;
    assert_eq!(again.fault(), SecretFault::Exists);

    // K10: what is not named stays, what is named to go goes, an empty value is set like any other.
    let change = SecretPut {
        remove_keys: vec!["old".to_owned(), "never".to_owned()],
        ..put(Update, &[("password", ""), ("user", "ana")])
    };
    let changed = done(&mut session, change).await;
    assert!(!changed.created);
    assert_eq!(changed.secret.expect("a secret").keys, ["empty", "password", "user"]);
    assert_eq!(
        values(&world, "warehouse").await,
        texts(&[("empty", ""), ("password", ""), ("user", "ana")])
    );

    // K12.
    let deleted = ask(&mut session, delete("warehouse")).await;
    assert!(matches!(deleted, Outcome::Deleted(_)), "{deleted:?}");
    let kinds = [delete("warehouse"), CallKind::Put(put(Update, &[("a", "b")]))];
    for kind in kinds {
        assert_eq!(refused(&mut session, kind).await.fault(), SecretFault::NotFound);
    }

    // K11.
    let first = done(&mut session, put(Upsert, &[("a", "1"), ("b", "2")])).await;
    let second = done(&mut session, put(Upsert, &[("b", "3")])).await;
    assert_eq!((first.created, second.created), (true, false));
    assert_eq!(values(&world, "warehouse").await, texts(&[("a", "1"), ("b", "3")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_others_and_of_runs_are_neither_touched_nor_listed() {
    use PutSecretMode::{Create, Update, Upsert};
    let mut world = World::start().await;
    let mut session = world.session().await;
    let run = [
        ("windlass.dev/installation", world.installation.as_str()),
        ("windlass.dev/run-id", "00000000-0000-4000-8000-000000000001"),
    ];
    for labels in [&[("team", "ml")][..], &[("windlass.dev/installation", "another")], &run] {
        of_others(&world, "warehouse", labels).await;
        for (mode, fault) in [
            (Create, SecretFault::Exists),
            (Update, SecretFault::NotManaged),
            (Upsert, SecretFault::NotManaged),
        ] {
            let refusal = refused(&mut session, CallKind::Put(put(mode, &[("key", "ours")]))).await;
            assert_eq!(refusal.fault(), fault, "{labels:?} {mode:?}");
        }
        assert_eq!(
            refused(&mut session, delete("warehouse")).await.fault(),
            SecretFault::NotManaged
        );
        let listed = ask(
            &mut session,
            CallKind::List(SecretList {
                page_size: 10,
                ..SecretList::default()
            }),
        )
        .await;
        assert_eq!(listed, Outcome::Page(SecretPage::default()), "{labels:?}");
        assert_eq!(values(&world, "warehouse").await, texts(&[("key", "theirs")]));
        secrets(&world)
            .delete("warehouse", &DeleteParams::default())
            .await
            .expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_listed_in_pages_with_their_keys_and_no_values() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    of_others(&world, "s-00-other", &[]).await;
    let names: Vec<String> = (0..45).map(|index| format!("s-{index:02}")).collect();
    for name in &names {
        let put = SecretPut {
            name: name.clone(),
            ..put(PutSecretMode::Create, &[("password", "hunter2")])
        };
        done(&mut session, put).await;
    }
    let (mut listed, mut sizes, mut continue_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let list = SecretList {
            page_size: 30,
            continue_token,
        };
        let Outcome::Page(page) = ask(&mut session, CallKind::List(list)).await else {
            panic!("no page")
        };
        assert!(!format!("{page:?}").contains("hunter2"));
        assert!(
            page.secrets
                .iter()
                .all(|secret| secret.keys == ["password"] && secret.key_count == 1)
        );
        sizes.push(page.secrets.len());
        listed.extend(page.secrets.into_iter().map(|secret| secret.name));
        continue_token = page.continue_token;
        if continue_token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, sizes), (names, vec![30, 15]));
    let list = SecretList {
        page_size: 30,
        continue_token: "no token of Kubernetes".to_owned(),
    };
    let refusal = refused(&mut session, CallKind::List(list)).await;
    assert_eq!(refusal.fault(), SecretFault::Expired, "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_whose_answer_was_lost_succeeds_when_it_is_repeated_with_its_id() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    world.faults().add(Rule {
        verb: Some("create".to_owned()),
        resource: Some("secrets".to_owned()),
        count: Some(1),
        ..Rule::new(Action::LoseReply)
    });
    let create = SecretPut {
        request_id: "one".to_owned(),
        ..put(PutSecretMode::Create, &[("password", "hunter2")])
    };
    let lost = refused(&mut session, CallKind::Put(create.clone())).await;
    assert_eq!(lost.fault(), SecretFault::Unreachable, "{lost:?}");
    let repeated = done(&mut session, create.clone()).await;
    assert!(repeated.created);
    assert_eq!(repeated.secret.expect("a secret").keys, ["password"]);
    let other = SecretPut {
        request_id: "two".to_owned(),
        ..create
    };
    let other = refused(&mut session, CallKind::Put(other)).await;
    assert_eq!(other.fault(), SecretFault::Exists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubernetes_does_not_take_is_told_with_its_field_and_without_values() {
    use PutSecretMode::{Create, Update};
    let mut world = World::start().await;
    let mut session = world.session().await;
    let half = "hunter2 ".repeat(75_000);
    done(&mut session, put(Create, &[("a", &half)])).await;
    let too_large = refused(&mut session, CallKind::Put(put(Update, &[("b", &half)]))).await;
    assert_eq!(
        (too_large.fault(), too_large.fields.as_slice()),
        (SecretFault::Invalid, &["data".to_owned()][..])
    );
    assert!(!too_large.message.contains("hunter2"), "{}", too_large.message);
    assert_eq!(values(&world, "warehouse").await.len(), 1);

    // A namespace that is not there; and one in which an executor has no rights, where there are rights at all.
    let mut places = vec![("no-such-namespace", SecretFault::NamespaceNotFound, "")];
    if !world.is_local() {
        places.push(("default", SecretFault::RightMissing, "create secrets"));
    }
    for (namespace, fault, right) in places {
        let create = CallKind::Put(put(Create, &[("a", "1")]));
        let Outcome::Refusal(refusal) = ask_in(&mut session, namespace, create).await else {
            panic!("not refused in {namespace}")
        };
        assert_eq!((refusal.fault(), refusal.right.as_str()), (fault, right), "{namespace}");
    }
}

/// behaviours R10, R11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_i8_secrets_and_keys_are_looked_for_whoever_has_made_them_and_no_value_is_told() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    done(
        &mut session,
        put(PutSecretMode::Create, &[("password", "hunter2"), ("user", "ana")]),
    )
    .await;
    of_others(&world, "theirs", &[]).await;
    let wanted = |name: &str, keys: &[&str]| SecretWanted {
        name: name.to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let lookup = SecretLookup {
        secrets: vec![
            wanted("warehouse", &["passwd", "password"]),
            wanted("theirs", &["key"]),
            wanted("absent", &["key"]),
            wanted("theirs", &[]),
        ],
    };
    let outcome = ask(&mut session, CallKind::Lookup(lookup.clone())).await;
    assert!(!format!("{outcome:?}").contains("hunter2"), "{outcome:?}");
    let Outcome::Looked(looked) = outcome else {
        panic!("not looked: {outcome:?}")
    };
    let seen = looked.secrets.iter().map(|one| {
        let keys = (one.missing_keys.join(" "), one.keys.join(" "));
        (one.name.as_str(), one.found, one.managed, keys)
    });
    let keys = |missing: &str, has: &str| (missing.to_owned(), has.to_owned());
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("warehouse", true, true, keys("passwd", "password user")),
            ("theirs", true, false, keys("", "")),
            ("absent", false, false, keys("key", "")),
            ("theirs", true, false, keys("", "")),
        ]
    );
    // Nothing is where there is no namespace.
    let nowhere = ask_in(&mut session, "no-such-namespace", CallKind::Lookup(lookup.clone())).await;
    let Outcome::Looked(looked) = nowhere else {
        panic!("not looked: {nowhere:?}")
    };
    assert!(looked.secrets.iter().all(|one| !one.found), "{looked:?}");
    // Where an executor has no rights, as far as there are rights, it says so and names the right.
    if !world.is_local() {
        let Outcome::Refusal(refusal) = ask_in(&mut session, "default", CallKind::Lookup(lookup)).await else {
            panic!("not refused")
        };
        assert_eq!(
            (refusal.fault(), refusal.right.as_str()),
            (SecretFault::RightMissing, "get secrets")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_executors_own_namespace_keeps_its_secrets_to_itself() {
    let mut world = World::with(
        windlass_local_cluster::Completion::Instant { exit_code: 0 },
        |config| config.own_namespace = Some("windlass".to_owned()),
        |_| {},
    )
    .await;
    let mut session = world.session().await;
    let kinds = [
        CallKind::Put(put(PutSecretMode::Upsert, &[("a", "1")])),
        CallKind::List(SecretList::default()),
        delete("windlass-executor-token"),
    ];
    for kind in kinds {
        let Outcome::Refusal(refusal) = ask_in(&mut session, "windlass", kind).await else {
            panic!("not refused")
        };
        assert_eq!(refusal.fault(), SecretFault::OwnNamespace);
    }
}
