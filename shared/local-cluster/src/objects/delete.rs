//! Delete: preconditions, grace, finalizers.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::update::outcome;
use super::{FOREGROUND, ORPHAN};
use crate::clock;
use crate::error::ApiError;
use crate::pods;
use crate::resources::Resource;
use crate::store::{Key, ListPage, Object, Outcome, Store};

/// Namespaces that always exist.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// What a delete asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    /// Seconds between SIGTERM and SIGKILL; the pod's own when `None`.
    pub grace_seconds: Option<i64>,
    /// Precondition on the uid.
    pub uid: Option<String>,
    /// Precondition on the version.
    pub resource_version: Option<String>,
    /// What happens to dependents.
    pub propagation: Propagation,
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

impl DeleteOptions {
    /// Reads the body of the request, an empty object when there is none.
    pub(crate) fn parse(body: &Value) -> Result<Self, ApiError> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        if body["dryRun"].as_array().is_some_and(|d| !d.is_empty()) {
            return Err(ApiError::bad_request("the local cluster does not cover dryRun"));
        }
        let mut options = Self {
            grace_seconds: body["gracePeriodSeconds"].as_i64(),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            propagation: Propagation::default(),
        };
        if let Some(policy) = body["propagationPolicy"].as_str() {
            options.set_propagation(policy)?;
        } else if body["orphanDependents"] == true {
            options.propagation = Propagation::Orphan;
        }
        Ok(options)
    }

    /// Sets the policy by its name.
    pub(crate) fn set_propagation(&mut self, policy: &str) -> Result<(), ApiError> {
        self.propagation = match policy {
            "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                return Err(ApiError::bad_request(format!("unknown propagationPolicy {other:?}")));
            }
        };
        Ok(())
    }
}

/// Deletes an object, or marks it as going when something holds it.
/// The second part of the answer says whether it is gone.
pub(crate) async fn delete(store: &Store, key: &Key, options: &DeleteOptions) -> Result<(Arc<Object>, bool), ApiError> {
    if key.resource.kind == "Namespace" && PROTECTED.contains(&key.name.as_str()) {
        return Err(ApiError::forbidden(
            key.resource,
            &key.name,
            "this namespace may not be deleted",
        ));
    }
    let mut removed = false;
    let object = store
        .update(key, |old, value| {
            check(old, options)?;
            let outcome = mark(key.resource, value, options);
            removed = matches!(outcome, Outcome::Remove);
            Ok(outcome)
        })
        .await?;
    Ok((object, removed))
}

/// Deletes everything on a page; objects that went meanwhile are skipped.
pub(crate) async fn delete_listed(store: &Store, page: &ListPage, options: &DeleteOptions) -> Result<(), ApiError> {
    let deletes = page.items.iter().map(|object| delete(store, &object.key, options));
    for result in futures::future::join_all(deletes).await {
        match result {
            Err(error) if error.reason != "NotFound" => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn check(old: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let Key { resource, name, .. } = &old.key;
    let refuse = |what: &str, asked: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}");
        Err(ApiError::conflict(resource, name, &why))
    };
    match (&options.uid, &options.resource_version) {
        (Some(uid), _) if *uid != old.uid => refuse("UID", uid, &old.uid),
        (_, Some(version)) if *version != old.version.to_string() => {
            refuse("ResourceVersion", version, &old.version.to_string())
        }
        _ => Ok(()),
    }
}

fn mark(resource: &'static Resource, value: &mut Value, options: &DeleteOptions) -> Outcome {
    let grace = match resource.kind {
        "Pod" => pod_grace(value, options.grace_seconds),
        _ => 0,
    };
    let before = value.clone();
    let meta = &mut value["metadata"];
    if !meta["deletionTimestamp"].is_string() {
        add_finalizer(meta, options.propagation);
        set_deadline(meta, grace);
    } else if meta["deletionGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|left| grace < left)
    {
        set_deadline(meta, grace);
    }
    if resource.kind == "Namespace" {
        value["status"]["phase"] = json!("Terminating");
    }
    // Marked just now: judge as if it had been marked before.
    let mut marked = before;
    marked["metadata"]["deletionTimestamp"] = value["metadata"]["deletionTimestamp"].clone();
    outcome(&marked, value)
}

fn set_deadline(meta: &mut Value, grace: i64) {
    let at = crate::clock::timestamp() + SignedDuration::from_secs(grace);
    meta["deletionTimestamp"] = json!(clock::seconds(at));
    meta["deletionGracePeriodSeconds"] = json!(grace);
}

fn add_finalizer(meta: &mut Value, propagation: Propagation) {
    let finalizer = match propagation {
        Propagation::Background => return,
        Propagation::Foreground => FOREGROUND,
        Propagation::Orphan => ORPHAN,
    };
    let mut finalizers = meta["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(finalizer));
    meta["finalizers"] = Value::Array(finalizers);
}

/// No grace for a pod that no node has or that has ended already.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let assigned = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    if !assigned || pods::is_terminal(pod) {
        return 0;
    }
    asked
        .or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0)
}
