//! What an executor finds when it looks at its cluster for clients that wait (behaviours V1, V8).

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use windlass_api::cluster::v1::{ClusterCheck, ClusterProblemKind as Problem, NamespaceState, RightState};
use windlass_api::dispatch::v1::ClusterCall;
use windlass_api::dispatch::v1::connect_request::Message as FromExecutor;
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_executor::checks::rights::RIGHTS;
use windlass_local_cluster::{Action, Rule};

use crate::common::{Session, World};

async fn check(session: &mut Session, namespace: &str) -> ClusterCheck {
    let call = ClusterCall {
        call: 7,
        namespace: namespace.to_owned(),
        timeout: None,
    };
    session.respond(0, ToExecutor::ClusterCall(call)).await;
    loop {
        match session.next().await {
            (sequence, FromExecutor::ClusterAnswer(answer)) => {
                assert_eq!((sequence, answer.call), (0, 7));
                return answer.check.expect("a check");
            }
            (_, FromExecutor::Observations(observations)) => session.seen.extend(observations.observations),
            _ => {}
        }
    }
}

fn kinds(check: &ClusterCheck) -> Vec<Problem> {
    check.problems.iter().map(|problem| problem.kind()).collect()
}

/// Verbs and resources that are missing.
fn missing(check: &ClusterCheck) -> Vec<String> {
    let missing = check.rights.iter().filter(|right| right.state() == RightState::Missing);
    missing
        .map(|right| format!("{} {}", right.verb, right.resource))
        .collect()
}

/// behaviours V1, V8, O5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_charts_rights_nothing_is_wrong_and_a_right_that_was_taken_away_is_named() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    assert!(session.hello.capabilities.contains(&"cluster-check".to_owned()));
    let namespace = world.namespace.clone();
    let good = check(&mut session, &namespace).await;
    assert_eq!(good.problems, []);
    assert_eq!(good.namespace_state(), NamespaceState::Active);
    assert!(good.server_version.starts_with("v1."), "{good:?}");
    assert!(good.latency.is_some());
    let allowed = good.rights.iter().all(|right| right.state() == RightState::Allowed);
    assert!(allowed && good.rights.len() == RIGHTS.len(), "{:#?}", good.rights);

    let absent = check(&mut session, "nobody-made-this").await;
    assert_eq!(absent.namespace_state(), NamespaceState::Absent);
    assert_eq!(kinds(&absent)[0], Problem::NamespaceAbsent);
    if world.is_local() {
        // It has one user, who may do everything, everywhere.
        let reasons = good
            .rights
            .iter()
            .all(|right| right.reason == "the local cluster has one user");
        assert!(reasons, "{:#?}", good.rights);
        assert_eq!(missing(&absent), [""; 0]);
        return;
    }
    // In a namespace that is not among the chart's, everything that is used there is missing.
    assert_eq!(kinds(&absent), [Problem::NamespaceAbsent, Problem::RightsMissing]);
    let there: Vec<_> = absent
        .rights
        .iter()
        .filter(|right| !right.namespace.is_empty())
        .collect();
    assert_eq!(missing(&absent).len(), there.len());

    let roles: Api<Role> = Api::namespaced(world.kube.clone(), &namespace);
    let mut role = roles.get("windlass-executor").await.expect("the chart's role");
    for rule in role.rules.iter_mut().flatten() {
        if rule.resources.as_ref().is_some_and(|resources| resources == &["pods"]) {
            rule.verbs.retain(|verb| verb != "deletecollection");
        }
    }
    let rules = Patch::Merge(json!({"rules": role.rules}));
    let params = PatchParams::default();
    let patched = roles.patch("windlass-executor", &params, &rules);
    patched.await.expect("a right is taken away");
    // The API server hears of it by its own watch.
    let end = tokio::time::Instant::now() + crate::common::PATIENCE;
    let found = loop {
        let found = check(&mut session, &namespace).await;
        if !found.problems.is_empty() {
            break found;
        }
        assert!(tokio::time::Instant::now() < end, "nothing is missing");
    };
    assert_eq!(missing(&found), ["deletecollection pods"]);
    assert_eq!(kinds(&found), [Problem::RightsMissing]);
    let message = &found.problems[0].message;
    assert!(
        message.contains(&format!("deletecollection pods in {namespace};")),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_is_going_and_a_server_in_trouble_are_told() {
    let mut world = World::start().await;
    let mut session = world.session().await;
    let namespaces: Api<Namespace> = Api::all(world.kube.clone());
    let held = Namespace {
        metadata: ObjectMeta {
            generate_name: Some("going-".to_owned()),
            finalizers: Some(vec!["windlass.dev/test".to_owned()]),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let going = namespaces.create(&PostParams::default(), &held).await.expect("created");
    let going = going.metadata.name.expect("a name");
    namespaces
        .delete(&going, &DeleteParams::default())
        .await
        .expect("deleted");
    let found = check(&mut session, &going).await;
    assert_eq!(found.namespace_state(), NamespaceState::Terminating, "{found:?}");
    assert_eq!(kinds(&found)[0], Problem::NamespaceTerminating);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    namespaces
        .patch(&going, &PatchParams::default(), &free)
        .await
        .expect("it may go");

    // A namespace that cannot be read is not said to be absent.
    world.faults().add(Rule {
        verb: Some("get".to_owned()),
        resource: Some("namespaces".to_owned()),
        ..Rule::new(Action::LoseReply)
    });
    let namespace = world.namespace.clone();
    let found = check(&mut session, &namespace).await;
    assert_eq!(found.namespace_state(), NamespaceState::Unspecified, "{found:?}");
}
