//! Create.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{fold_string_data, validate};
use crate::clock;
use crate::error::{ApiError, Cause};
use crate::names::random_suffix;
use crate::pods;
use crate::resources::{NAMESPACES, Resource, SERVICE_ACCOUNTS};
use crate::store::{Key, Object, Store};
use crate::typed;

const LONGEST_GENERATED_BASE: usize = 58;

/// Creates an object in `namespace` (empty for cluster-wide kinds).
pub(crate) async fn create(
    store: &Store,
    resource: &'static Resource,
    namespace: &str,
    body: Value,
) -> Result<Arc<Object>, ApiError> {
    refuse_what_nothing_serves(resource)?;
    let body = prepare(store, resource, namespace, body)?;
    let object = store.create(resource, body).await?;
    if resource == NAMESPACES {
        create_default_account(store, &object.key.name).await?;
    }
    Ok(object)
}

/// Creates a namespace unless it exists.
pub(crate) async fn ensure_namespace(store: &Store, name: &str) -> Result<(), ApiError> {
    if store.peek(&Key::new(NAMESPACES, "", name)).is_none() {
        create(store, NAMESPACES, "", json!({"metadata": {"name": name}})).await?;
        return Ok(());
    }
    if store.peek(&Key::new(SERVICE_ACCOUNTS, name, "default")).is_none() {
        create_default_account(store, name).await?;
    }
    Ok(())
}

async fn create_default_account(store: &Store, namespace: &str) -> Result<(), ApiError> {
    let account = json!({"metadata": {"name": "default"}});
    let body = prepare(store, SERVICE_ACCOUNTS, namespace, account)?;
    match store.create(SERVICE_ACCOUNTS, body).await {
        Err(error) if error.reason != "AlreadyExists" => Err(error),
        _ => Ok(()),
    }
}

fn refuse_what_nothing_serves(resource: &'static Resource) -> Result<(), ApiError> {
    match resource.kind {
        "Job" => Err(ApiError::not_covered(
            "the local cluster does not run Jobs; create Pods",
        )),
        "PersistentVolumeClaim" => Err(ApiError::not_covered(
            "the local cluster has no persistent volumes; use emptyDir or hostPath",
        )),
        _ => Ok(()),
    }
}

fn prepare(store: &Store, resource: &'static Resource, namespace: &str, mut body: Value) -> Result<Value, ApiError> {
    check_type(resource, &body)?;
    place(resource, namespace, &mut body)?;
    if !body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    generate_name(&mut body);
    if resource.kind == "Secret" {
        fold_string_data(&mut body);
    }
    let mut body = typed::normalise(resource, body)?;
    if let Some(meta) = body["metadata"].as_object_mut() {
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
            "selfLink",
            "generation",
        ] {
            meta.shift_remove(field);
        }
        meta.insert("uid".into(), json!(Uuid::new_v4().to_string()));
        meta.insert("creationTimestamp".into(), json!(clock::now()));
    }
    kind_defaults(resource, &mut body);
    validate(resource, &body, kind_problems(resource, &body))?;
    if resource.kind == "Pod" {
        check_account(store, resource, &body)?;
    }
    Ok(body)
}

pub(super) fn check_type(resource: &'static Resource, body: &Value) -> Result<(), ApiError> {
    if !body.is_object() {
        return Err(ApiError::bad_request("the body is not a JSON object"));
    }
    for (field, expected) in [
        ("kind", resource.kind.to_owned()),
        ("apiVersion", resource.api_version()),
    ] {
        if let Some(found) = body[field].as_str()
            && !found.is_empty()
            && found != expected
        {
            return Err(ApiError::bad_request(format!(
                "{field} in the data ({found}) does not match the expected {field} ({expected})"
            )));
        }
    }
    Ok(())
}

fn place(resource: &'static Resource, namespace: &str, body: &mut Value) -> Result<(), ApiError> {
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    if !resource.namespaced {
        if let Some(meta) = body["metadata"].as_object_mut() {
            meta.shift_remove("namespace");
        }
        return Ok(());
    }
    let named = body["metadata"]["namespace"].as_str().unwrap_or_default();
    if !named.is_empty() && named != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    body["metadata"]["namespace"] = json!(namespace);
    Ok(())
}

fn generate_name(body: &mut Value) {
    let meta = &mut body["metadata"];
    let named = !meta["name"].as_str().unwrap_or_default().is_empty();
    let base = meta["generateName"].as_str().unwrap_or_default();
    if !named && !base.is_empty() {
        let base: String = base.chars().take(LONGEST_GENERATED_BASE).collect();
        meta["name"] = json!(base + &random_suffix());
    }
}

fn kind_defaults(resource: &'static Resource, body: &mut Value) {
    match resource.kind {
        "Namespace" => {
            let name = body["metadata"]["name"].clone();
            body["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            body["spec"] = json!({"finalizers": ["kubernetes"]});
            body["status"] = json!({"phase": "Active"});
        }
        "Pod" => pods::apply_defaults(body),
        "Secret" if body["type"].as_str().unwrap_or_default().is_empty() => body["type"] = json!("Opaque"),
        "CronJob" => {
            for (field, value) in [
                ("concurrencyPolicy", json!("Allow")),
                ("suspend", json!(false)),
                ("successfulJobsHistoryLimit", json!(3)),
                ("failedJobsHistoryLimit", json!(1)),
            ] {
                if body["spec"][field].is_null() {
                    body["spec"][field] = value;
                }
            }
            body["status"] = json!({});
        }
        _ => {}
    }
}

fn kind_problems(resource: &'static Resource, body: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match resource.kind {
        "CronJob" => {
            let schedule = body["spec"]["schedule"].as_str().unwrap_or_default();
            if schedule.is_empty() {
                causes.push(Cause::required("spec.schedule"));
            } else if schedule.split_whitespace().count() != 5 && !schedule.starts_with('@') {
                causes.push(Cause::invalid("spec.schedule", schedule, "expected exactly 5 fields"));
            }
            let restart = body
                .pointer("/spec/jobTemplate/spec/template/spec/restartPolicy")
                .and_then(Value::as_str);
            if !matches!(restart, Some("OnFailure" | "Never")) {
                causes.push(Cause::unsupported(
                    "spec.jobTemplate.spec.template.spec.restartPolicy",
                    restart.unwrap_or_default(),
                    &["OnFailure", "Never"],
                ));
            }
        }
        "RoleBinding" | "ClusterRoleBinding" if body["roleRef"]["name"].as_str().unwrap_or_default().is_empty() => {
            causes.push(Cause::required("roleRef.name"));
        }
        _ => {}
    }
    causes
}

fn check_account(store: &Store, resource: &'static Resource, body: &Value) -> Result<(), ApiError> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let namespace = text(&body["metadata"]["namespace"]);
    let account = text(&body["spec"]["serviceAccountName"]);
    // A missing namespace is reported as such, later.
    if store
        .peek(&Key::new(NAMESPACES, "", &namespace))
        .is_none_or(|n| n.deleting)
        || store.peek(&Key::new(SERVICE_ACCOUNTS, &namespace, &account)).is_some()
    {
        return Ok(());
    }
    let why = format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
    Err(ApiError::forbidden(resource, &text(&body["metadata"]["name"]), &why))
}
