//! Replace and patch.

use std::sync::Arc;

use serde_json::Value;

use super::create::check_type;
use super::{fold_string_data, validate};
use crate::error::{ApiError, Cause};
use crate::patch as patches;
use crate::pods;
use crate::resources::Resource;
use crate::store::{Key, Object, Outcome, Store};
use crate::typed;

/// The part of an object that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subresource {
    /// Everything but the status.
    Main,
    /// The status, labels and annotations.
    Status,
}

/// How a patch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
}

/// Replaces an object.
pub(crate) async fn replace(store: &Store, key: &Key, sub: Subresource, body: Value) -> Result<Arc<Object>, ApiError> {
    check_type(key.resource, &body)?;
    store
        .update(key, |old, value| {
            check_preconditions(old, &body)?;
            let before = std::mem::replace(value, body.clone());
            finish(old, &before, value, sub)
        })
        .await
}

/// Patches an object. A resource version in the patch is a precondition, and its uid cannot change.
pub(crate) async fn patch(
    store: &Store,
    key: &Key,
    sub: Subresource,
    kind: PatchKind,
    patch: Value,
) -> Result<Arc<Object>, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("the patch is not a JSON object"));
    }
    store
        .update(key, |old, value| {
            check_uid(old, &patch)?;
            check_preconditions(old, &patch)?;
            let before = value.clone();
            match kind {
                PatchKind::Merge => patches::merge(value, &patch),
                PatchKind::Strategic => patches::strategic(value, &patch)?,
            }
            finish(old, &before, value, sub)
        })
        .await
}

/// A patch that names another uid would change it: 422, where a replacement gets 409.
fn check_uid(old: &Object, patch: &Value) -> Result<(), ApiError> {
    let Key { resource, name, .. } = &old.key;
    match patch["metadata"]["uid"].as_str() {
        Some(uid) if !uid.is_empty() && uid != old.uid => {
            let cause = Cause::invalid("metadata.uid", uid, "field is immutable");
            Err(ApiError::invalid(resource, name, vec![cause]))
        }
        _ => Ok(()),
    }
}

fn check_preconditions(old: &Object, body: &Value) -> Result<(), ApiError> {
    let Key { resource, name, .. } = &old.key;
    let meta = &body["metadata"];
    if let Some(uid) = meta["uid"].as_str()
        && !uid.is_empty()
        && uid != old.uid
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.uid
        );
        return Err(ApiError::conflict(resource, name, &why));
    }
    if let Some(version) = meta["resourceVersion"].as_str()
        && !version.is_empty()
        && version != old.version.to_string()
    {
        return Err(ApiError::modified(resource, name));
    }
    if let Some(other) = meta["name"].as_str()
        && other != name
    {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// Brings a changed object into a form that may be stored, and says whether it is to be stored or to go.
fn finish(old: &Object, before: &Value, after: &mut Value, sub: Subresource) -> Result<Outcome, ApiError> {
    let resource = old.key.resource;
    keep_parts(resource, before, after, sub);
    keep_identity(before, after);
    if resource.kind == "Secret" {
        fold_string_data(after);
    }
    let mut typed = typed::normalise(resource, std::mem::take(after))?;
    // The type's order of fields, without which an unchanged object would look changed.
    keep_identity(before, &mut typed);
    validate(resource, &typed, update_problems(resource, before, &typed))?;
    *after = typed;
    Ok(outcome(before, after))
}

/// An object whose deletion was asked for goes with its last finalizer, pods only when their processes have ended.
pub(super) fn outcome(before: &Value, after: &Value) -> Outcome {
    let meta = &after["metadata"];
    let deleting = before["metadata"]["deletionTimestamp"].is_string();
    let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty())
        || meta["deletionGracePeriodSeconds"].as_i64().is_some_and(|s| s > 0)
        || (after["kind"] == "Namespace" && after["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()));
    if deleting && !held {
        Outcome::Remove
    } else {
        Outcome::Keep
    }
}

fn keep_parts(resource: &'static Resource, before: &Value, after: &mut Value, sub: Subresource) {
    match sub {
        Subresource::Main if resource.status => restore(before, after, "status"),
        Subresource::Main => {}
        Subresource::Status => {
            let status = after["status"].take();
            let meta = after["metadata"].take();
            *after = before.clone();
            after["status"] = status;
            for field in ["labels", "annotations", "finalizers"] {
                restore(&meta, &mut after["metadata"], field);
            }
        }
    }
}

fn keep_identity(before: &Value, after: &mut Value) {
    if !after["metadata"].is_object() {
        after["metadata"] = serde_json::json!({});
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generateName",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        restore(&before["metadata"], &mut after["metadata"], field);
    }
    if let Some(meta) = after["metadata"].as_object_mut() {
        meta.shift_remove("managedFields");
    }
}

fn restore(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) if !value.is_null() => to[field] = value.clone(),
        _ => {
            if let Some(to) = to.as_object_mut() {
                to.shift_remove(field);
            }
        }
    }
}

fn update_problems(resource: &'static Resource, before: &Value, after: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if before["metadata"]["deletionTimestamp"].is_string() {
        let list = |v: &Value| v["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let old = list(before);
        let new: Vec<_> = list(after).into_iter().filter(|f| !old.contains(f)).collect();
        if !new.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {}",
                Value::Array(new)
            );
            causes.push(Cause::forbidden("metadata.finalizers", &why));
        }
    }
    match resource.kind {
        "Pod" => causes.extend(pods::check_update(before, after)),
        "ConfigMap" | "Secret" if before["immutable"] == true => {
            for field in ["data", "binaryData", "immutable"] {
                if before[field] != after[field] {
                    causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
                }
            }
        }
        _ => {}
    }
    for (kind, field) in [
        ("Secret", "type"),
        ("RoleBinding", "roleRef"),
        ("ClusterRoleBinding", "roleRef"),
    ] {
        if resource.kind == kind && before[field] != after[field] {
            causes.push(Cause::invalid(field, &after[field].to_string(), "field is immutable"));
        }
    }
    causes
}
