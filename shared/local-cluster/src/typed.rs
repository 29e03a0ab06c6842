//! Objects through their Kubernetes types: wrong types are refused, unknown fields are dropped as an API server does.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::resources::Resource;

/// The object as its type sees it.
pub(crate) fn normalise(resource: &'static Resource, mut body: Value) -> Result<Value, ApiError> {
    body["apiVersion"] = json!(resource.api_version());
    body["kind"] = json!(resource.kind);
    numbers_to_quantities(&mut body);
    let through = match resource.kind {
        "Namespace" => round_trip::<Namespace>,
        "Node" => round_trip::<Node>,
        "Pod" => round_trip::<Pod>,
        "Secret" => round_trip::<Secret>,
        "ConfigMap" => round_trip::<ConfigMap>,
        "ServiceAccount" => round_trip::<ServiceAccount>,
        "Event" => round_trip::<Event>,
        "PersistentVolumeClaim" => round_trip::<PersistentVolumeClaim>,
        "Role" => round_trip::<Role>,
        "RoleBinding" => round_trip::<RoleBinding>,
        "ClusterRole" => round_trip::<ClusterRole>,
        "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>,
        "Job" => round_trip::<Job>,
        "CronJob" => round_trip::<CronJob>,
        _ => round_trip::<Lease>,
    };
    through(body).map_err(|error| {
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            resource.kind, resource.version, resource.kind
        ))
    })
}

/// Paths of the fields that the type does not know.
pub(crate) fn unknown_fields(resource: &'static Resource, body: &Value) -> Result<Vec<String>, ApiError> {
    let known = normalise(resource, body.clone())?;
    let mut unknown = Vec::new();
    compare("", body, &known, &mut unknown);
    Ok(unknown)
}

fn compare(path: &str, given: &Value, known: &Value, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given.iter().filter(|(_, v)| !v.is_null()) {
                let below = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match known.get(key) {
                    Some(known) => compare(&below, value, known, unknown),
                    None => unknown.push(below),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (value, known)) in given.iter().zip(known).enumerate() {
                compare(&format!("{path}[{index}]"), value, known, unknown);
            }
        }
        _ => {}
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(body: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(body)?)
}

/// `cpu: 1` is a valid quantity, but not a string.
fn numbers_to_quantities(body: &mut Value) {
    let spec = match body.pointer_mut("/spec/jobTemplate/spec/template/spec") {
        Some(_) => body.pointer_mut("/spec/jobTemplate/spec/template/spec"),
        None => body.get_mut("spec"),
    };
    let Some(spec) = spec else { return };
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for kind in ["requests", "limits"] {
                let amounts = container.get_mut("resources").and_then(|r| r.get_mut(kind));
                for amount in amounts
                    .and_then(Value::as_object_mut)
                    .into_iter()
                    .flat_map(|m| m.values_mut())
                {
                    if amount.is_number() {
                        *amount = json!(amount.to_string());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::PODS;

    #[test]
    fn unknown_fields_go_and_numbers_become_quantities() {
        let pod = normalise(
            PODS,
            json!({"metadata": {"name": "a"}, "spec": {"hostpath": 1, "containers": [
                {"name": "m", "resources": {"limits": {"cpu": 2}}}]}}),
        )
        .expect("a pod");
        assert!(pod["spec"].get("hostpath").is_none());
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    }

    #[test]
    fn unknown_fields_have_their_paths() {
        let pod = json!({"spec": {"containers": [{"name": "m", "comand": ["x"]}], "volumes": [
            {"name": "v", "hostPath": {"path": "/x", "typ": "File"}}, {"name": "e", "emptyDir": {}}]}});
        let unknown = unknown_fields(PODS, &pod).expect("a pod");
        assert_eq!(unknown, ["spec.containers[0].comand", "spec.volumes[0].hostPath.typ"]);
    }

    #[test]
    fn wrong_types_are_refused() {
        let error = normalise(PODS, json!({"spec": {"containers": "none"}})).expect_err("refused");
        assert_eq!(error.reason, "BadRequest");
    }
}
