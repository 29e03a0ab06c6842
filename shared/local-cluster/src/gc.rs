//! The controllers of a cluster that Windlass relies on: garbage collection by owner references, and the end of
//! namespaces.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::objects::{DeleteOptions, FOREGROUND, ORPHAN, delete};
use crate::resources::{NAMESPACES, RESOURCES};
use crate::store::{Object, Outcome, Store};

/// Collects garbage until told to stop.
pub(crate) async fn run(store: Store, stop: CancellationToken) {
    loop {
        let uids = tokio::select! {
            () = stop.cancelled() => return,
            uids = store.garbage() => uids,
        };
        for uid in uids {
            if let Err(error) = settle(&store, &uid).await
                && error.reason != "NotFound"
            {
                tracing::warn!(%error, uid, "garbage collection failed");
            }
        }
    }
}

async fn settle(store: &Store, uid: &str) -> Result<(), ApiError> {
    match store.by_uid(uid) {
        None => delete_dependents(store, uid).await,
        Some(owner) if owner.deleting => settle_deleting(store, &owner).await,
        Some(_) => Ok(()),
    }
}

/// The owner is gone: dependents without another living owner go, too.
async fn delete_dependents(store: &Store, uid: &str) -> Result<(), ApiError> {
    for dependent in store.dependents(uid) {
        if dependent.deleting || dependent.owners.iter().any(|o| store.by_uid(o).is_some()) {
            continue;
        }
        let options = DeleteOptions {
            uid: Some(dependent.uid.clone()),
            ..DeleteOptions::default()
        };
        ignore_races(delete(store, &dependent.key, &options).await)?;
    }
    Ok(())
}

async fn settle_deleting(store: &Store, owner: &Object) -> Result<(), ApiError> {
    let has = |finalizer: &str| owner.finalizers.iter().any(|f| f == finalizer);
    if has(ORPHAN) {
        for dependent in store.dependents(&owner.uid) {
            drop_reference(store, &dependent, &owner.uid).await?;
        }
        return drop_finalizer(store, owner, ORPHAN).await;
    }
    if has(FOREGROUND) {
        let dependents = store.dependents(&owner.uid);
        if dependents.is_empty() {
            return drop_finalizer(store, owner, FOREGROUND).await;
        }
        for dependent in dependents.iter().filter(|d| !d.deleting) {
            let options = DeleteOptions {
                uid: Some(dependent.uid.clone()),
                ..DeleteOptions::default()
            };
            ignore_races(delete(store, &dependent.key, &options).await)?;
        }
    }
    if owner.key.resource == NAMESPACES {
        return Box::pin(empty_namespace(store, owner)).await;
    }
    Ok(())
}

/// Deletes what is in a namespace; once nothing is left the namespace may go. Called again as its contents go.
async fn empty_namespace(store: &Store, namespace: &Object) -> Result<(), ApiError> {
    let mut left = 0;
    for resource in RESOURCES.iter().filter(|r| r.namespaced) {
        for object in store.peek_all(resource, Some(&namespace.key.name)) {
            if !object.deleting {
                ignore_races(delete(store, &object.key, &DeleteOptions::default()).await)?;
            }
            left += usize::from(store.by_uid(&object.uid).is_some());
        }
    }
    if left > 0 {
        return Ok(());
    }
    let freed = store
        .update(&namespace.key, |_, value| {
            value["spec"]["finalizers"] = json!([]);
            let held = value["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|f| !f.is_empty());
            Ok(if held { Outcome::Keep } else { Outcome::Remove })
        })
        .await;
    ignore_races(freed)
}

async fn drop_reference(store: &Store, dependent: &Object, uid: &str) -> Result<(), ApiError> {
    let changed = store
        .update(&dependent.key, |_, value| {
            if let Some(owners) = value["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|o| o["uid"] != uid);
            }
            Ok(Outcome::Keep)
        })
        .await;
    ignore_races(changed)
}

async fn drop_finalizer(store: &Store, owner: &Object, finalizer: &str) -> Result<(), ApiError> {
    let changed = store
        .update(&owner.key, |_, value| {
            let finalizers = value["metadata"]["finalizers"].as_array_mut();
            let empty = finalizers.is_none_or(|list| {
                list.retain(|f| f != finalizer);
                list.is_empty()
            });
            let grace = value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            Ok(if empty && grace == 0 && !is_held_namespace(value) {
                Outcome::Remove
            } else {
                Outcome::Keep
            })
        })
        .await;
    ignore_races(changed)
}

fn is_held_namespace(value: &Value) -> bool {
    value["kind"] == "Namespace" && value["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn ignore_races<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if matches!(error.reason, "NotFound" | "Conflict") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
