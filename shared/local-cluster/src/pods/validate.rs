//! What makes a pod invalid, with the path of every offending field.

use std::collections::HashSet;

use serde_json::Value;

use super::all_containers;
use crate::error::Cause;
use crate::names::{is_label, is_qualified, is_subdomain};

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const QUANTITY_RULE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const PORTABLE_RESTARTS: &[&str] = &["Always", "OnFailure", "Never"];

/// Everything that is wrong with the spec.
pub(crate) fn problems(pod: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &pod["spec"];
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.containers"));
    }
    let volumes = volume_names(spec, &mut causes);
    let mut names = HashSet::new();
    for (list, index, container) in all_containers(pod) {
        let path = format!("spec.{list}[{index}]");
        check_container(list, &path, container, &volumes, &mut names, &mut causes);
    }
    let restart = spec["restartPolicy"].as_str().unwrap_or("Always");
    if !PORTABLE_RESTARTS.contains(&restart) {
        causes.push(Cause::unsupported("spec.restartPolicy", restart, PORTABLE_RESTARTS));
    }
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s < 1) {
        let value = spec["activeDeadlineSeconds"].to_string();
        causes.push(Cause::invalid(
            "spec.activeDeadlineSeconds",
            &value,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
        let value = spec["terminationGracePeriodSeconds"].to_string();
        causes.push(Cause::invalid(
            "spec.terminationGracePeriodSeconds",
            &value,
            "must be greater than or equal to 0",
        ));
    }
    for (key, _) in spec["nodeSelector"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid(
                "spec.nodeSelector",
                key,
                "name part must consist of alphanumeric characters",
            ));
        }
    }
    check_tolerations(spec, &mut causes);
    causes
}

fn volume_names<'a>(spec: &'a Value, causes: &mut Vec<Cause>) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (index, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.volumes[{index}]");
        let name = volume["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name")));
        } else if !is_label(name) {
            causes.push(Cause::invalid(format!("{path}.name"), name, LABEL_RULE));
        } else if !names.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), name));
        }
        match volume.as_object().map_or(0, |v| v.len()) {
            0 | 1 => causes.push(Cause::new(
                "FieldValueRequired",
                path,
                "Required value: must specify a volume type",
            )),
            2 => {}
            _ => causes.push(Cause::forbidden(path, "may not specify more than 1 volume type")),
        }
    }
    names
}

fn check_container<'a>(
    list: &str,
    path: &str,
    container: &'a Value,
    volumes: &HashSet<&str>,
    names: &mut HashSet<&'a str>,
    causes: &mut Vec<Cause>,
) {
    let name = container["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::required(format!("{path}.name")));
    } else if !is_label(name) {
        causes.push(Cause::invalid(format!("{path}.name"), name, LABEL_RULE));
    } else if !names.insert(name) {
        causes.push(Cause::duplicate(format!("{path}.name"), name));
    }
    let image = container["image"].as_str().unwrap_or_default();
    if image.is_empty() {
        causes.push(Cause::required(format!("{path}.image")));
    } else if image.trim() != image {
        causes.push(Cause::invalid(
            format!("{path}.image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    if let Some(policy) = container["restartPolicy"].as_str() {
        let field = format!("{path}.restartPolicy");
        if list == "containers" {
            causes.push(Cause::forbidden(field, "may not be set for non-init containers"));
        } else if policy != "Always" {
            causes.push(Cause::unsupported(field, policy, &["Always"]));
        }
    }
    check_choice(
        path,
        container,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        causes,
    );
    check_choice(
        path,
        container,
        "terminationMessagePolicy",
        &["FallbackToLogsOnError", "File"],
        causes,
    );
    check_env(path, container, causes);
    check_mounts(path, container, volumes, causes);
    check_amounts(path, container, causes);
}

fn check_choice(path: &str, container: &Value, field: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    if let Some(value) = container[field].as_str()
        && !allowed.contains(&value)
    {
        causes.push(Cause::unsupported(format!("{path}.{field}"), value, allowed));
    }
}

fn check_env(path: &str, container: &Value, causes: &mut Vec<Cause>) {
    for (index, env) in container["env"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = env["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name")));
        } else if name.contains('=') {
            causes.push(Cause::invalid(
                format!("{path}.name"),
                name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            ));
        }
        let Some(from) = env["valueFrom"].as_object() else {
            continue;
        };
        if env["value"].as_str().is_some_and(|v| !v.is_empty()) {
            causes.push(Cause::invalid(
                format!("{path}.valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            ));
        }
        if from.len() != 1 {
            causes.push(Cause::invalid(
                format!("{path}.valueFrom"),
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            ));
        }
        for kind in ["secretKeyRef", "configMapKeyRef"] {
            let Some(reference) = from.get(kind) else {
                continue;
            };
            for field in ["name", "key"] {
                if reference[field].as_str().unwrap_or_default().is_empty() {
                    causes.push(Cause::required(format!("{path}.valueFrom.{kind}.{field}")));
                }
            }
        }
    }
    for (index, source) in container["envFrom"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        let reference = source.get("secretRef").or_else(|| source.get("configMapRef"));
        match reference {
            None => causes.push(Cause::invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            Some(r) if !is_subdomain(r["name"].as_str().unwrap_or_default()) => {
                causes.push(Cause::required(format!("{path}.name")));
            }
            Some(_) => {}
        }
    }
}

fn check_mounts(path: &str, container: &Value, volumes: &HashSet<&str>, causes: &mut Vec<Cause>) {
    let mut paths = HashSet::new();
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        let name = mount["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name")));
        } else if !volumes.contains(name) {
            causes.push(Cause::new(
                "FieldValueNotFound",
                format!("{path}.name"),
                format!("Not found: {name:?}"),
            ));
        }
        let at = mount["mountPath"].as_str().unwrap_or_default();
        if at.is_empty() {
            causes.push(Cause::required(format!("{path}.mountPath")));
        } else if !paths.insert(at) {
            causes.push(Cause::invalid(format!("{path}.mountPath"), at, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = mount[field].as_str().unwrap_or_default();
            if sub.starts_with('/') || sub.split('/').any(|p| p == "..") {
                causes.push(Cause::invalid(
                    format!("{path}.{field}"),
                    sub,
                    "must be a relative path and must not contain '..'",
                ));
            }
        }
    }
}

fn check_amounts(path: &str, container: &Value, causes: &mut Vec<Cause>) {
    let resources = &container["resources"];
    for kind in ["limits", "requests"] {
        for (name, amount) in resources[kind].as_object().into_iter().flatten() {
            let field = format!("{path}.resources.{kind}.{name}");
            let text = amount.as_str().unwrap_or_default();
            match quantity(text) {
                None => causes.push(Cause::invalid(field, text, QUANTITY_RULE)),
                Some(n) if n < 0.0 => causes.push(Cause::invalid(field, text, "must be greater than or equal to 0")),
                Some(n) => check_limit(path, resources, kind, name, text, n, causes),
            }
        }
    }
}

fn check_limit(
    path: &str,
    resources: &Value,
    kind: &str,
    name: &str,
    text: &str,
    amount: f64,
    causes: &mut Vec<Cause>,
) {
    if kind != "requests" {
        return;
    }
    let limit = resources["limits"][name].as_str().and_then(quantity);
    if limit.is_some_and(|limit| amount > limit) {
        let limit = resources["limits"][name].as_str().unwrap_or_default();
        causes.push(Cause::invalid(
            format!("{path}.resources.requests"),
            text,
            &format!("must be less than or equal to {name} limit of {limit}"),
        ));
    }
}

/// The number that a quantity stands for.
pub(crate) fn quantity(text: &str) -> Option<f64> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    let factor = match &text[split..] {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

fn check_tolerations(spec: &Value, causes: &mut Vec<Cause>) {
    for (index, toleration) in spec["tolerations"].as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.tolerations[{index}]");
        let operator = toleration["operator"].as_str().unwrap_or("Equal");
        if !["", "Equal", "Exists"].contains(&operator) {
            causes.push(Cause::unsupported(
                format!("{path}.operator"),
                operator,
                &["Equal", "Exists"],
            ));
        }
        if toleration["key"].as_str().unwrap_or_default().is_empty() && operator != "Exists" {
            causes.push(Cause::invalid(
                format!("{path}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(pod: &Value) -> Vec<String> {
        problems(pod).into_iter().map(|c| c.field).collect()
    }

    #[test]
    fn every_problem_has_its_path() {
        let pod = json!({"spec": {
            "restartPolicy": "Sometimes",
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}],
            "containers": [
                {"name": "Main"},
                {"name": "a", "image": "i", "env": [{"value": "x"}],
                 "volumeMounts": [{"name": "missing", "mountPath": "/m"}],
                 "resources": {"limits": {"memory": "100Mi"}, "requests": {"memory": "400Mi", "cpu": "lots"}}},
            ],
        }});
        let mut found = fields(&pod);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.containers[0].image",
                "spec.containers[0].name",
                "spec.containers[1].env[0].name",
                "spec.containers[1].resources.requests",
                "spec.containers[1].resources.requests.cpu",
                "spec.containers[1].volumeMounts[0].name",
                "spec.restartPolicy",
                "spec.volumes[1].name",
            ]
        );
    }

    #[test]
    fn a_plain_pod_is_fine() {
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}});
        assert!(fields(&pod).is_empty());
    }

    #[test]
    fn quantities_parse() {
        for (text, value) in [
            ("1", 1.0),
            ("500m", 0.5),
            ("1Gi", 1_073_741_824.0),
            ("1e3", 1000.0),
            ("0.5", 0.5),
        ] {
            assert_eq!(quantity(text), Some(value), "{text}");
        }
        assert_eq!(quantity("lots"), None);
        assert_eq!(quantity("1Zi"), None);
    }
}
