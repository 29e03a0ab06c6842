//! Strategic merge of pod spec fragments, as Kubernetes does it for the lists of a PodSpec.

use serde_json::{Map, Value};
use windlass_pipeline::fragment::{DIRECTIVE, merge_key};

/// Merges `patch` over `base`: maps merge, `null` removes, scalars replace, lists merge by their key where Kubernetes has one, and
/// are replaced elsewhere. Which lists have a key says [`merge_key`]. `$patch: replace` (in a map) and `$patch: delete` (in a list's element) are honoured.
pub fn strategic_merge(base: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(changes)) = (&mut *base, patch) else {
        *base = patch.clone();
        return;
    };
    if directive(changes) == Some("replace") {
        into.clear();
    }
    for (key, change) in changes.iter().filter(|(key, _)| *key != DIRECTIVE) {
        merge_field(into, key, change);
    }
}

fn merge_field(into: &mut Map<String, Value>, key: &str, change: &Value) {
    if change.is_null() {
        into.remove(key);
        return;
    }
    match (into.get_mut(key), merge_key(key), change) {
        (Some(Value::Array(present)), Some(merge_key), Value::Array(changes)) => {
            merge_list(present, changes, merge_key);
        }
        (Some(present @ Value::Object(_)), _, Value::Object(_)) => strategic_merge(present, change),
        _ => drop(into.insert(key.to_owned(), without_directives(change))),
    }
}

fn merge_list(present: &mut Vec<Value>, changes: &[Value], merge_key: &str) {
    for change in changes {
        let position = present
            .iter()
            .position(|element| change.get(merge_key).is_some() && element.get(merge_key) == change.get(merge_key));
        let delete = change.as_object().and_then(directive) == Some("delete");
        match position {
            Some(position) if delete => drop(present.remove(position)),
            Some(position) => strategic_merge(&mut present[position], change),
            None if delete => {}
            None => present.push(without_directives(change)),
        }
    }
}

fn directive(map: &Map<String, Value>) -> Option<&str> {
    map.get(DIRECTIVE).and_then(Value::as_str)
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, value)| *key != DIRECTIVE && !value.is_null())
            .map(|(key, value)| (key.clone(), without_directives(value)))
            .collect(),
        Value::Array(list) => list.iter().map(without_directives).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(base: Value, patch: &Value) -> Value {
        let mut result = base;
        strategic_merge(&mut result, patch);
        result
    }

    #[test]
    fn lists_with_a_key_merge_and_others_are_replaced() {
        let base = json!({
            "containers": [{"name": "main", "image": "a", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"]}],
            "tolerations": [{"key": "a"}],
        });
        let patch = json!({
            "containers": [{"name": "main", "env": [{"name": "B", "value": "2"}], "args": ["z"]}, {"name": "side"}],
            "tolerations": [{"key": "b"}],
        });
        let expected = json!({
            "containers": [
                {"name": "main", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["z"]},
                {"name": "side"},
            ],
            "tolerations": [{"key": "b"}],
        });
        assert_eq!(merged(base, &patch), expected);
    }

    #[test]
    fn null_and_directives_remove() {
        let base =
            json!({"hostIPC": true, "volumes": [{"name": "a"}, {"name": "b"}], "securityContext": {"runAsUser": 1}});
        let patch = json!({
            "hostIPC": null,
            "volumes": [{"name": "a", "$patch": "delete"}],
            "securityContext": {"$patch": "replace", "fsGroup": 2},
        });
        assert_eq!(
            merged(base, &patch),
            json!({"volumes": [{"name": "b"}], "securityContext": {"fsGroup": 2}})
        );
    }
}
