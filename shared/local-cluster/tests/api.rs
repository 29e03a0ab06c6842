//! The API through the `kube` client.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use support::{Cluster, refusal, shell_pod};
use windlass_local_cluster::{Action, Completion, Rule};

/// Pods that never run, since their node does not exist.
fn idle_pod(name: &str) -> serde_json::Value {
    let mut pod = shell_pod(name, "true");
    pod["spec"]["nodeSelector"] = json!({"no": "such-node"});
    pod
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).expect("a config map")
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let created = maps
        .create(&PostParams::default(), &config_map("one"))
        .await
        .expect("created");
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    let again = maps
        .create(&PostParams::default(), &config_map("one"))
        .await
        .expect_err("a second one");
    let (code, reason, message) = refusal(again);
    assert_eq!((code, reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(message, "configmaps \"one\" already exists");

    let mut changed = created.clone();
    changed.data = Some(BTreeMap::from([("a".to_owned(), "2".to_owned())]));
    let replaced = maps
        .replace("one", &PostParams::default(), &changed)
        .await
        .expect("replaced");
    assert!(replaced.resource_version() > created.resource_version());
    let stale = maps
        .replace("one", &PostParams::default(), &changed)
        .await
        .expect_err("stale");
    assert_eq!(refusal(stale).1, "Conflict");

    let same = maps
        .patch(
            "one",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"a": "2"}})),
        )
        .await
        .expect("nothing to change");
    assert_eq!(
        same.resource_version(),
        replaced.resource_version(),
        "no change, no version"
    );

    maps.delete("one", &DeleteParams::default()).await.expect("deleted");
    let missing = maps.get("one").await.expect_err("gone");
    assert_eq!(
        refusal(missing),
        (404, "NotFound".into(), "configmaps \"one\" not found".into())
    );
}

#[tokio::test]
async fn names_are_generated() {
    let cluster = Cluster::start().await;
    let mut pod = idle_pod("x");
    pod["metadata"] = json!({"generateName": "step-", "namespace": "default"});
    let (a, b) = (cluster.create(pod.clone()).await, cluster.create(pod).await);
    assert!(a.name_any().starts_with("step-") && a.name_any().len() == 10);
    assert_ne!(a.name_any(), b.name_any());
}

#[tokio::test]
async fn bad_pods_are_refused_with_every_field() {
    let cluster = Cluster::start().await;
    let bad: Pod = serde_json::from_value(json!({
        "metadata": {"name": "Bad_Name", "labels": {"a b": "c"}},
        "spec": {"containers": [{"name": "main"}]},
    }))
    .expect("a pod");
    let error = cluster
        .pods()
        .create(&PostParams::default(), &bad)
        .await
        .expect_err("invalid");
    let kube::Error::Api(status) = error else {
        panic!("no status")
    };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let fields: Vec<_> = status
        .details
        .iter()
        .flat_map(|d| &d.causes)
        .map(|c| c.field.as_str())
        .collect();
    assert_eq!(fields, ["metadata.name", "metadata.labels", "spec.containers[0].image"]);

    let pod = cluster.create(idle_pod("fixed")).await;
    let patch = json!({"spec": {"containers": [{"name": "main", "command": ["other"]}]}});
    let error = cluster
        .pods()
        .patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .expect_err("immutable");
    assert!(refusal(error).2.contains("pod updates may not change fields"));
}

#[tokio::test]
async fn a_request_without_the_token_is_unauthorized() {
    let cluster = Cluster::with(|c| c.tls = false).await;
    let mut config = kube::Config::new(cluster.handle.url.parse().expect("url"));
    for token in [None, Some("wrong")] {
        config.auth_info.token = token.map(Into::into);
        let client = kube::Client::try_from(config.clone()).expect("client");
        let error = Api::<Node>::all(client)
            .list(&ListParams::default())
            .await
            .expect_err("refused");
        assert_eq!(refusal(error).0, 401);
    }
    config.auth_info.token = Some(cluster.handle.token.clone().into());
    let client = kube::Client::try_from(config).expect("client");
    let nodes = Api::<Node>::all(client)
        .list(&ListParams::default())
        .await
        .expect("listed");
    let info = nodes.items[0]
        .status
        .as_ref()
        .and_then(|s| s.node_info.clone())
        .expect("node info");
    assert!(!info.boot_id.is_empty());
}

#[tokio::test]
async fn the_release_patch_takes_only_our_finalizer_and_keeps_to_its_uid() {
    let cluster = Cluster::start().await;
    let mut pod = idle_pod("held");
    pod["metadata"]["finalizers"] = json!(["windlass.dev/observed", "example.com/other"]);
    let pod = cluster.create(pod).await;
    let release = |uid: &str| {
        Patch::Strategic(json!({"metadata": {
            "uid": uid,
            "$deleteFromPrimitiveList/finalizers": ["windlass.dev/observed"],
            "labels": {"windlass.dev/released": "true"},
        }}))
    };
    let pods = cluster.pods();
    let error = pods
        .patch("held", &PatchParams::default(), &release("another"))
        .await
        .expect_err("another uid");
    assert_eq!(refusal(error).1, "Invalid");
    let uid = pod.uid().expect("uid");
    let released = pods
        .patch("held", &PatchParams::default(), &release(&uid))
        .await
        .expect("released");
    assert_eq!(released.finalizers(), ["example.com/other"]);

    // Deleted while a finalizer holds it: it stays, marked, until the finalizer goes.
    pods.delete("held", &DeleteParams::default()).await.expect("marked");
    let marked = pods.get("held").await.expect("still there");
    assert!(marked.metadata.deletion_timestamp.is_some());
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/other", "example.com/new"]}}));
    let error = pods
        .patch("held", &PatchParams::default(), &more)
        .await
        .expect_err("no new finalizers");
    assert_eq!(refusal(error).1, "Invalid");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("held", &PatchParams::default(), &free).await.expect("freed");
    assert!(pods.get_opt("held").await.expect("get").is_none());
}

#[tokio::test]
async fn deletes_keep_to_their_preconditions() {
    let cluster = Cluster::start().await;
    let pod = cluster.create(idle_pod("one")).await;
    let with_uid = |uid: &str| DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let error = cluster
        .pods()
        .delete("one", &with_uid("another"))
        .await
        .expect_err("another uid");
    assert_eq!(refusal(error).0, 409);
    cluster
        .pods()
        .delete("one", &with_uid(&pod.uid().expect("uid")))
        .await
        .expect("deleted");
}

#[tokio::test]
async fn lists_select_and_page_at_one_version() {
    let cluster = Cluster::start().await;
    for n in 0..5 {
        let mut pod = idle_pod(&format!("p{n}"));
        pod["metadata"]["labels"] = json!({"even": (n % 2 == 0).to_string()});
        cluster.create(pod).await;
    }
    let pods = cluster.pods();
    let even = pods
        .list(&ListParams::default().labels("even=true"))
        .await
        .expect("listed");
    assert_eq!(even.items.len(), 3);
    let one = pods
        .list(&ListParams::default().fields("metadata.name=p3"))
        .await
        .expect("listed");
    assert_eq!(one.items[0].name_any(), "p3");
    let pending = pods
        .list(&ListParams::default().fields("status.phase=Pending"))
        .await
        .expect("listed");
    assert_eq!(pending.items.len(), 5);
    let first = pods.list(&ListParams::default().limit(2)).await.expect("a page");
    let token = first.metadata.continue_.clone().expect("more");
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    pods.delete("p3", &DeleteParams::default()).await.expect("deleted");
    let rest = pods
        .list(&ListParams::default().continue_token(&token))
        .await
        .expect("the rest");
    assert_eq!(rest.items.len(), 3, "the page shows the first page's moment");
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);

    let deleted = pods
        .delete_collection(&DeleteParams::default(), &ListParams::default().labels("even=true"))
        .await
        .expect("deleted");
    assert!(deleted.left().is_some_and(|list| list.items.len() == 3));
    assert_eq!(pods.list(&ListParams::default()).await.expect("listed").items.len(), 1);
}

#[tokio::test]
async fn watches_see_selectors_change() {
    let cluster = Cluster::start().await;
    let pods = cluster.pods();
    let version = pods
        .list(&ListParams::default())
        .await
        .expect("listed")
        .metadata
        .resource_version
        .expect("version");
    let mut events = pods
        .watch(&WatchParams::default().labels("app=web"), &version)
        .await
        .expect("watch")
        .boxed();
    cluster.create(idle_pod("one")).await;
    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"app": value}}}));
    for value in ["web", "db", "web"] {
        pods.patch("one", &PatchParams::default(), &label(value))
            .await
            .expect("labelled");
    }
    pods.delete("one", &DeleteParams::default()).await.expect("deleted");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let next = tokio::time::timeout(Duration::from_secs(10), events.try_next())
            .await
            .expect("in time");
        match next.expect("no error").expect("an event") {
            WatchEvent::Added(p) => seen.push(("added", p.labels().get("app").cloned())),
            WatchEvent::Modified(_) => {}
            WatchEvent::Deleted(p) => seen.push(("deleted", p.labels().get("app").cloned())),
            other => panic!("unexpected {other:?}"),
        }
    }
    let web = Some("web".to_owned());
    let expected = [("added", &web), ("deleted", &web), ("added", &web), ("deleted", &web)];
    assert_eq!(seen.iter().map(|(k, v)| (*k, v)).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let cluster = Cluster::start().await;
    cluster.create(idle_pod("one")).await;
    let params = WatchParams::default().initial_events();
    let mut events = cluster.pods().watch(&params, "").await.expect("watch").boxed();
    let mut added = 0;
    loop {
        match events.try_next().await.expect("no error").expect("an event") {
            WatchEvent::Added(_) => added += 1,
            WatchEvent::Bookmark(mark) => {
                assert_eq!(
                    mark.metadata
                        .annotations
                        .get("k8s.io/initial-events-end")
                        .map(String::as_str),
                    Some("true")
                );
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(added, 1);
}

#[tokio::test]
async fn a_watch_from_too_long_ago_gets_410() {
    let cluster = Cluster::with(|c| c.history = 4).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let first = maps
        .create(&PostParams::default(), &config_map("first"))
        .await
        .expect("created");
    for n in 0..10 {
        maps.create(&PostParams::default(), &config_map(&format!("n{n}")))
            .await
            .expect("created");
    }
    let version = first.resource_version().expect("version");
    let mut events = maps
        .watch(&WatchParams::default(), &version)
        .await
        .expect("opens")
        .boxed();
    match events.try_next().await.expect("no error") {
        Some(WatchEvent::Error(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"))
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let owner = maps
        .create(&PostParams::default(), &config_map("owner"))
        .await
        .expect("created");
    let reference = OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: "owner".into(),
        uid: owner.uid().expect("uid"),
        controller: Some(true),
        block_owner_deletion: None,
    };
    for name in ["a", "b"] {
        let mut pod = idle_pod(name);
        pod["metadata"]["ownerReferences"] = json!([reference]);
        cluster.create(pod).await;
    }
    maps.delete("owner", &DeleteParams::background())
        .await
        .expect("deleted");
    cluster.wait_gone("a").await;
    cluster.wait_gone("b").await;
    // An object whose owner never was goes as well.
    let mut orphan = idle_pod("c");
    orphan["metadata"]["ownerReferences"] = json!([reference]);
    cluster.create(orphan).await;
    cluster.wait_gone("c").await;
}

#[tokio::test]
async fn a_namespace_takes_its_contents_with_it() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let team: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &team).await.expect("created");
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "team");
    let secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}})).expect("a secret");
    let secret = secrets.create(&PostParams::default(), &secret).await.expect("created");
    assert_eq!(secret.data.expect("data")["k"].0, b"v");
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .expect("deleted");
    for _ in 0..400 {
        if namespaces.get_opt("team").await.expect("get").is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(namespaces.get_opt("team").await.expect("get").is_none());
    assert!(secrets.get_opt("s").await.expect("get").is_none());
    let error = namespaces
        .delete("kube-system", &DeleteParams::default())
        .await
        .expect_err("protected");
    assert_eq!(refusal(error).0, 403);
}

#[tokio::test]
async fn a_lost_reply_leaves_the_pod() {
    let cluster = Cluster::start().await;
    cluster.handle.faults().add(Rule {
        verb: Some("create".into()),
        resource: Some("pods".into()),
        count: Some(1),
        ..Rule::new(Action::LoseReply)
    });
    let pod: Pod = serde_json::from_value(idle_pod("one")).expect("a pod");
    let error = cluster
        .pods()
        .create(&PostParams::default(), &pod)
        .await
        .expect_err("no reply");
    assert!(!matches!(error, kube::Error::Api(_)), "{error}");
    cluster.pods().get("one").await.expect("created all the same");
    let again = cluster
        .pods()
        .create(&PostParams::default(), &pod)
        .await
        .expect_err("there");
    assert_eq!(refusal(again).1, "AlreadyExists");
}

#[tokio::test]
async fn too_many_requests_says_when_to_come_back() {
    let cluster = Cluster::start().await;
    cluster.handle.faults().add(Rule {
        verb: Some("create".into()),
        count: Some(1),
        ..Rule::new(Action::TooManyRequests { retry_after_seconds: 7 })
    });
    let pod: Pod = serde_json::from_value(idle_pod("one")).expect("a pod");
    let error = cluster
        .pods()
        .create(&PostParams::default(), &pod)
        .await
        .expect_err("refused");
    let kube::Error::Api(status) = error else {
        panic!("no status")
    };
    assert_eq!(status.details.as_ref().map(|d| d.retry_after_seconds), Some(7));
    cluster
        .pods()
        .create(&PostParams::default(), &pod)
        .await
        .expect("the next one passes");
}

#[tokio::test]
async fn identity_and_objects_outlive_a_restart() {
    let cluster = Cluster::with(|c| c.completion = Completion::Instant { exit_code: 0 }).await;
    let (uid, ca) = (cluster.handle.cluster_uid.clone(), cluster.handle.ca_pem.clone());
    let created = cluster.create(idle_pod("kept")).await;
    let token = cluster.handle.token.clone();
    let folder = cluster.stop().await;
    let cluster = Cluster::in_folder(folder, |_| {}).await;
    assert_eq!(cluster.handle.cluster_uid, uid);
    assert_eq!(cluster.handle.ca_pem, ca);
    assert_eq!(cluster.handle.token, token);
    assert_eq!(cluster.pods().get("kept").await.expect("there").uid(), created.uid());
}
