//! What an update may change in a pod's spec.

use serde_json::Value;

use crate::error::Cause;

/// The causes of a refusal, empty when the change is allowed.
pub(crate) fn check(old: &Value, new: &Value) -> Vec<Cause> {
    let mut allowed = new["spec"].clone();
    let before = &old["spec"];
    for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
        copy(before, &mut allowed, field);
    }
    for list in ["containers", "initContainers"] {
        let olds = before[list].as_array().map_or(&[][..], Vec::as_slice);
        let news = allowed.get_mut(list).and_then(Value::as_array_mut);
        for (new, old) in news.into_iter().flatten().zip(olds) {
            copy(old, new, "image");
        }
    }
    let mut causes = Vec::new();
    if allowed != *before {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let (before, after) = (&before["activeDeadlineSeconds"], &new["spec"]["activeDeadlineSeconds"]);
    if let Some(old) = before.as_i64()
        && after.as_i64().is_none_or(|new| new > old)
    {
        causes.push(Cause::invalid(
            "spec.activeDeadlineSeconds",
            &after.to_string(),
            "must be less than or equal to previous value",
        ));
    }
    let old_tolerations = old["spec"]["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
    let new_tolerations = new["spec"]["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
    if old_tolerations.iter().any(|t| !new_tolerations.contains(t)) {
        causes.push(Cause::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    causes
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => {
            if let Some(to) = to.as_object_mut() {
                to.shift_remove(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_few_fields_may_change() {
        let old = json!({"spec": {"nodeName": "local", "containers": [{"name": "m", "image": "a"}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("b");
        new["spec"]["activeDeadlineSeconds"] = json!(5);
        assert!(check(&old, &new).is_empty());
        new["spec"]["containers"][0]["command"] = json!(["x"]);
        assert_eq!(check(&old, &new)[0].field, "spec");
    }
}
