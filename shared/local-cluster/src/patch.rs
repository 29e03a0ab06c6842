//! Merge patches (RFC 7386) and Kubernetes' strategic merge patches.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// Deepest patch that is followed.
const MAX_DEPTH: usize = 64;

/// Applies an RFC 7386 merge patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// How a list is merged, by the name of its field.
enum ListRule {
    ByKey(&'static str),
    Set,
    Replace,
}

/// The merge keys of the served kinds. `parent` is the field that holds the object with the list.
fn list_rule(parent: &str, field: &str) -> ListRule {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => ListRule::ByKey("name"),
        "secrets" if parent.is_empty() => ListRule::ByKey("name"),
        "ports" => ListRule::ByKey("containerPort"),
        "volumeMounts" => ListRule::ByKey("mountPath"),
        "volumeDevices" => ListRule::ByKey("devicePath"),
        "hostAliases" | "podIPs" | "hostIPs" => ListRule::ByKey("ip"),
        "topologySpreadConstraints" => ListRule::ByKey("topologyKey"),
        "conditions" | "addresses" => ListRule::ByKey("type"),
        "taints" if parent == "spec" => ListRule::Replace,
        "ownerReferences" => ListRule::ByKey("uid"),
        "finalizers" | "podCIDRs" => ListRule::Set,
        _ => ListRule::Replace,
    }
}

/// Applies a strategic merge patch.
pub(crate) fn strategic(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("a strategic merge patch is an object"));
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match target.as_object_mut() {
        Some(target) => merge_object("", target, patch, 0),
        None => Ok(()),
    }
}

fn merge_object(
    field: &str,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    depth: usize,
) -> Result<(), ApiError> {
    if depth > MAX_DEPTH {
        return Err(ApiError::bad_request("the patch is nested too deeply"));
    }
    match directive(patch)? {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        _ => {}
    }
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        target.retain(|key, _| kept.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_from_list(target, list, value)?;
        } else if key.starts_with("$setElementOrder/") || key == "$retainKeys" || key == "$patch" {
        } else if value.is_null() {
            target.shift_remove(key);
        } else {
            merge_field(field, key, target, value, depth)?;
        }
    }
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix("$setElementOrder/") {
            order_list(field, target, list, order);
        }
    }
    Ok(())
}

fn merge_field(
    parent: &str,
    key: &str,
    target: &mut Map<String, Value>,
    value: &Value,
    depth: usize,
) -> Result<(), ApiError> {
    match value {
        Value::Object(patch) => {
            let slot = target.entry(key).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            match slot.as_object_mut() {
                Some(slot) => merge_object(key, slot, patch, depth + 1),
                None => Ok(()),
            }
        }
        Value::Array(patch) => {
            let slot = target.entry(key).or_insert(Value::Null);
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            match slot.as_array_mut() {
                Some(slot) => merge_list(parent, key, slot, patch, depth + 1),
                None => Ok(()),
            }
        }
        scalar => {
            target.insert(key.to_owned(), scalar.clone());
            Ok(())
        }
    }
}

fn merge_list(
    parent: &str,
    field: &str,
    target: &mut Vec<Value>,
    patch: &[Value],
    depth: usize,
) -> Result<(), ApiError> {
    match list_rule(parent, field) {
        ListRule::Replace => {
            *target = patch.to_vec();
            Ok(())
        }
        ListRule::Set => {
            for value in patch {
                if !target.contains(value) {
                    target.push(value.clone());
                }
            }
            Ok(())
        }
        ListRule::ByKey(key) => merge_keyed_list(field, key, target, patch, depth),
    }
}

fn merge_keyed_list(
    field: &str,
    key: &str,
    target: &mut Vec<Value>,
    patch: &[Value],
    depth: usize,
) -> Result<(), ApiError> {
    if patch.iter().any(|item| item["$patch"] == "replace") {
        *target = patch
            .iter()
            .filter(|item| item["$patch"] != "replace")
            .cloned()
            .collect();
        return Ok(());
    }
    for item in patch {
        let Value::Object(item) = item else {
            return Err(ApiError::bad_request(format!("the elements of {field} are objects")));
        };
        let Some(id) = item.get(key) else {
            return Err(ApiError::bad_request(format!(
                "map: {field} does not contain declared merge key: {key}"
            )));
        };
        let place = target.iter().position(|t| t.get(key) == Some(id));
        match (directive(item)?, place) {
            (Some("delete"), Some(at)) => {
                target.remove(at);
            }
            (Some("delete"), None) => {}
            (_, Some(at)) => {
                if let Some(old) = target[at].as_object_mut() {
                    merge_object(field, old, item, depth)?;
                }
            }
            (_, None) => {
                let mut fresh = Map::new();
                merge_object(field, &mut fresh, item, depth)?;
                target.push(Value::Object(fresh));
            }
        }
    }
    Ok(())
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, ApiError> {
    match patch.get("$patch") {
        None => Ok(None),
        Some(Value::String(word)) if ["replace", "delete", "merge"].contains(&word.as_str()) => Ok(Some(word)),
        Some(other) => Err(ApiError::bad_request(format!("unknown patch directive {other}"))),
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(k, _)| *k != "$patch")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn delete_from_list(target: &mut Map<String, Value>, list: &str, gone: &Value) -> Result<(), ApiError> {
    let Value::Array(gone) = gone else {
        return Err(ApiError::bad_request(format!(
            "$deleteFromPrimitiveList/{list} is a list"
        )));
    };
    if let Some(Value::Array(values)) = target.get_mut(list) {
        values.retain(|value| !gone.contains(value));
        if values.is_empty() {
            target.shift_remove(list);
        }
    }
    Ok(())
}

fn order_list(parent: &str, target: &mut Map<String, Value>, list: &str, order: &Value) {
    let (Some(Value::Array(values)), Value::Array(order)) = (target.get_mut(list), order) else {
        return;
    };
    let rank = |value: &Value| match list_rule(parent, list) {
        ListRule::ByKey(key) => order.iter().position(|o| o.get(key) == value.get(key)),
        _ => order.iter().position(|o| o == value),
    };
    values.sort_by_key(|value| rank(value).unwrap_or(usize::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn strategic_of(mut target: Value, patch: Value) -> Value {
        strategic(&mut target, &patch).expect("applies");
        target
    }

    #[test]
    fn only_our_finalizer_goes() {
        let pod = json!({"metadata": {"finalizers": ["other/one", "windlass.dev/observed"], "labels": {"a": "b"}}});
        let patch = json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["windlass.dev/observed"],
            "labels": {"windlass.dev/released": "true"},
        }});
        assert_eq!(
            strategic_of(pod, patch),
            json!({"metadata": {"finalizers": ["other/one"], "labels": {"a": "b", "windlass.dev/released": "true"}}})
        );
    }

    #[test]
    fn finalizers_are_added_once() {
        let pod = json!({"metadata": {"finalizers": ["a"]}});
        let merged = strategic_of(pod, json!({"metadata": {"finalizers": ["a", "b"]}}));
        assert_eq!(merged["metadata"]["finalizers"], json!(["a", "b"]));
    }

    #[test]
    fn conditions_and_environments_merge_by_key() {
        let pod = json!({
            "spec": {"containers": [{"name": "main", "image": "x", "env": [{"name": "A", "value": "1"}]}]},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]},
        });
        let patch = json!({
            "spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]}]},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]},
        });
        let merged = strategic_of(pod, patch);
        assert_eq!(
            merged["spec"]["containers"],
            json!([{"name": "main", "image": "x", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]}])
        );
        assert_eq!(merged["status"]["conditions"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn list_elements_can_be_deleted_and_replaced() {
        let target = json!({"spec": {"volumes": [{"name": "a"}, {"name": "b"}], "tolerations": [{"key": "x"}]}});
        let patch = json!({"spec": {
            "volumes": [{"name": "a", "$patch": "delete"}],
            "tolerations": [{"key": "y"}],
        }});
        assert_eq!(
            strategic_of(target, patch),
            json!({"spec": {"volumes": [{"name": "b"}], "tolerations": [{"key": "y"}]}})
        );
    }

    #[test]
    fn null_removes_and_bad_directives_are_refused() {
        let merged = strategic_of(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null}}));
        assert_eq!(merged, json!({"a": {"c": 2}}));
        let mut target = json!({});
        assert!(strategic(&mut target, &json!({"a": {"$patch": "explode"}})).is_err());
    }

    #[test]
    fn a_merge_patch_replaces_lists() {
        let mut target = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "y"}}});
        merge(
            &mut target,
            &json!({"metadata": {"finalizers": ["b"], "labels": {"x": null}}}),
        );
        assert_eq!(target, json!({"metadata": {"finalizers": ["b"], "labels": {}}}));
    }
}
