//! Checks of Kubernetes fragments beyond their types: what the API server would refuse later.

use serde_json::Value;

use super::syntax::is_qualified_name;
use super::{is_place_reserved, is_variable_reserved};
use crate::Fragment;
use crate::fragment::DIRECTIVE;
use crate::path::Path;
use crate::substitute::references;
use crate::violation::{Code, Violations};

/// Checks tolerations by the rules of the API server.
pub(super) fn check_tolerations(tolerations: &[Fragment], path: &Path<'_>, violations: &mut Violations) {
    const OPERATORS: [&str; 4] = ["Exists", "Equal", "Lt", "Gt"];
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        // A value that still holds a reference is checked where the reference is known.
        let text = |field: &str| toleration.text(field).filter(|text| !text.is_empty());
        let known = |field: &str| text(field).filter(|text| references(text).next().is_none());
        let mut bad = |field: &str, message: String| {
            violations.add(path.field(field).to_string(), Code::BadValue, message);
        };
        if let Some(operator) = known("operator").filter(|operator| !OPERATORS.contains(operator)) {
            bad("operator", format!("`{operator}` is none of {}", OPERATORS.join(", ")));
        }
        if let Some(effect) = known("effect").filter(|effect| !EFFECTS.contains(effect)) {
            bad(
                "effect",
                format!(
                    "`{effect}` is none of {}; leave it out for all of them",
                    EFFECTS.join(", ")
                ),
            );
        }
        match (text("key"), known("key"), text("operator")) {
            (None, _, Some("Exists")) => {}
            (None, _, _) => bad(
                "key",
                "a toleration without a key tolerates all taints and needs operator: Exists".to_owned(),
            ),
            (_, Some(key), _) if !is_qualified_name(key) => bad("key", format!("`{key}` is no key of a taint")),
            (Some(_), _, _) => {}
        }
        if text("operator") == Some("Exists") && text("value").is_some() {
            bad("value", "operator: Exists takes no value".to_owned());
        }
        let seconds = toleration.value().get("tolerationSeconds");
        if seconds.is_some() && text("effect") != Some("NoExecute") {
            bad("tolerationSeconds", "only effect: NoExecute takes a time".to_owned());
        }
    }
}

/// Refuses in an overlay what Windlass keeps for itself elsewhere, too.
pub(super) fn check_overlay(overlay: &Fragment, path: &Path<'_>, violations: &mut Violations) {
    if overlay.value().get(DIRECTIVE).is_some() {
        let message = "the pod cannot be replaced as a whole";
        violations.add(path.field(DIRECTIVE).to_string(), Code::Reserved, message);
    }
    check_kept(overlay.value(), &["containers", "volumes"], path, violations);
    let list = path.field("volumes");
    for (index, volume) in elements(overlay.value(), "volumes") {
        if volume
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| name.starts_with("windlass-"))
        {
            let message = "names that start with windlass- are set by Windlass";
            violations.add(list.index(index).field("name").to_string(), Code::Reserved, message);
        }
    }
    let list = path.field("containers");
    for (index, container) in elements(overlay.value(), "containers") {
        if container.get("name").and_then(Value::as_str) == Some("main") {
            check_main(container, &list.index(index), violations);
        }
    }
}

/// Windlass has something of its own in these lists.
fn check_kept(value: &Value, lists: &[&str], path: &Path<'_>, violations: &mut Violations) {
    for list in lists
        .iter()
        .filter(|list| value.get(**list).is_some_and(Value::is_null))
    {
        let message = "Windlass' own are in it; remove single elements of it, such as {name: A, $patch: delete}";
        violations.add(path.field(list).to_string(), Code::Reserved, message);
    }
}

fn check_main(container: &Value, path: &Path<'_>, violations: &mut Violations) {
    if container.get(DIRECTIVE).is_some() {
        let message = "main is the step's own container";
        violations.add(path.field(DIRECTIVE).to_string(), Code::Reserved, message);
    }
    check_kept(container, &["env", "volumeMounts"], path, violations);
    let list = path.field("env");
    for (index, variable) in elements(container, "env") {
        if variable
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(is_variable_reserved)
        {
            let message = "names that start with WINDLASS_ are set by Windlass";
            violations.add(list.index(index).field("name").to_string(), Code::Reserved, message);
        }
    }
    let list = path.field("volumeMounts");
    for (index, mount) in elements(container, "volumeMounts") {
        if mount
            .get("mountPath")
            .and_then(Value::as_str)
            .is_some_and(is_place_reserved)
        {
            let path = list.index(index).field("mountPath").to_string();
            violations.add(path, Code::Reserved, "/windlass belongs to Windlass");
        }
    }
}

fn elements<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    let elements = value.get(list).and_then(Value::as_array);
    elements.into_iter().flatten().enumerate()
}
