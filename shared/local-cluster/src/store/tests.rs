use serde_json::json;

use super::*;
use crate::resources::{CONFIG_MAPS, NAMESPACES};

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": name}})
}

async fn open(folder: &Path) -> Store {
    let store = Store::open(&folder.join("objects.db"), 8).expect("opens");
    if store.peek(&Key::new(NAMESPACES, "", "default")).is_none() {
        let namespace = json!({"metadata": {"name": "default", "uid": "ns"}});
        store.create(NAMESPACES, namespace).await.expect("namespace");
    }
    store
}

#[tokio::test]
async fn i1_what_was_acknowledged_is_there_after_a_reopen() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let created = store.create(CONFIG_MAPS, config_map("a")).await.expect("created");
    store.create(CONFIG_MAPS, config_map("b")).await.expect("created");
    store
        .update(&Key::new(CONFIG_MAPS, "default", "b"), |_, _| Ok(Outcome::Remove))
        .await
        .expect("removed");
    let last = store.committed();
    // No orderly end: the second store reads what the first one acknowledged.
    let again = open(folder.path()).await;
    let names: Vec<_> = again
        .peek_all(CONFIG_MAPS, None)
        .iter()
        .map(|o| o.key.name.clone())
        .collect();
    assert_eq!(names, ["a"]);
    assert_eq!(again.peek(&created.key).expect("there").version, created.version);
    assert_eq!(again.committed(), last);
}

#[tokio::test]
async fn pages_show_one_moment() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    for name in ["a", "b", "c"] {
        store.create(CONFIG_MAPS, config_map(name)).await.expect("created");
    }
    let (labels, fields) = (LabelSelector::default(), FieldSelector::default());
    let request = |token| ListRequest {
        resource: CONFIG_MAPS,
        namespace: Some("default"),
        labels: &labels,
        fields: &fields,
        limit: 2,
        token,
    };
    let first = store.list(&request("")).await.expect("first page");
    assert_eq!((first.items.len(), first.remaining), (2, 1));
    store.create(CONFIG_MAPS, config_map("bb")).await.expect("created");
    store.create(CONFIG_MAPS, config_map("d")).await.expect("created");
    let second = store.list(&request(&first.token)).await.expect("second page");
    assert_eq!(second.version, first.version);
    assert_eq!(
        second.items.iter().map(|o| o.key.name.as_str()).collect::<Vec<_>>(),
        ["c"]
    );
    assert!(second.token.is_empty());
    store.forget_snapshots();
    let late = store.list(&request(&first.token)).await.expect_err("too late");
    assert_eq!(late.reason, "Expired");
}

#[tokio::test]
async fn a_cursor_that_fell_behind_gets_410() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let start = store.committed();
    let mut behind = store.cursor(CONFIG_MAPS, start);
    for n in 0..8 {
        store
            .create(CONFIG_MAPS, config_map(&format!("n{n}")))
            .await
            .expect("created");
    }
    assert_eq!(behind.next(3).await.expect("changes").len(), 3);
    for n in 8..20 {
        store
            .create(CONFIG_MAPS, config_map(&format!("n{n}")))
            .await
            .expect("created");
    }
    assert_eq!(behind.next(3).await.expect_err("gone").reason, "Expired");
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_missing_or_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut elsewhere = config_map("x");
    elsewhere["metadata"]["namespace"] = json!("nowhere");
    let error = store.create(CONFIG_MAPS, elsewhere).await.expect_err("no namespace");
    assert_eq!(
        (error.reason, error.message.as_str()),
        ("NotFound", "namespaces \"nowhere\" not found")
    );
    store
        .update(&Key::new(NAMESPACES, "", "default"), |_, value| {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            Ok(Outcome::Keep)
        })
        .await
        .expect("terminating");
    let error = store
        .create(CONFIG_MAPS, config_map("x"))
        .await
        .expect_err("terminating");
    assert_eq!(error.causes[0].reason, "NamespaceTerminating");
}
