//! Checks of environment variables.

use std::collections::HashSet;

use super::{is_dns_subdomain, is_variable_reserved};
use crate::model::{EnvVar, EnvVarSource, KeySelector, ResourceFieldSelector};
use crate::path::Path;
use crate::substitute::references;
use crate::violation::{Code, Violations};

/// Checks environment variables.
pub(super) fn check_env(env: &[EnvVar], path: &Path<'_>, violations: &mut Violations) {
    let mut names = HashSet::new();
    for (index, variable) in env.iter().enumerate() {
        let path = path.index(index);
        let name = path.field("name").to_string();
        if variable.name.is_empty() {
            violations.add(name, Code::Missing, "a variable needs a name");
        } else if !is_env_name(&variable.name) {
            let message = format!("`{}` is no name of a variable", variable.name);
            violations.add(name, Code::BadValue, message);
        } else if is_variable_reserved(&variable.name) {
            violations.add(
                name,
                Code::Reserved,
                "names that start with WINDLASS_ are set by Windlass",
            );
        } else if !names.insert(&variable.name) {
            violations.add(name, Code::Duplicate, format!("{} is given twice", variable.name));
        }
        match (&variable.value, &variable.value_from) {
            (Some(_), Some(_)) => {
                let message = "a variable has either value or valueFrom";
                violations.add(path.to_string(), Code::Conflict, message);
            }
            (None, Some(source)) => check_source(source, &path.field("valueFrom"), violations),
            (None, None) => violations.add(path.to_string(), Code::Missing, "value or valueFrom is missing"),
            (Some(_), None) => {}
        }
    }
}

fn is_env_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    name.bytes().all(inner) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn check_source(source: &EnvVarSource, path: &Path<'_>, violations: &mut Violations) {
    let EnvVarSource {
        secret_key_ref,
        config_map_key_ref,
        field_ref,
        resource_field_ref,
        run_secret_key_ref,
    } = source;
    let given = [
        secret_key_ref.is_some(),
        config_map_key_ref.is_some(),
        field_ref.is_some(),
        resource_field_ref.is_some(),
        run_secret_key_ref.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        let message =
            "exactly one of secretKeyRef, configMapKeyRef, runSecretKeyRef, fieldRef and resourceFieldRef is wanted";
        violations.add(path.to_string(), Code::BadValue, message);
    }
    let secret = secret_key_ref.as_ref().map(|selector| ("secretKeyRef", selector));
    let config_map = config_map_key_ref
        .as_ref()
        .map(|selector| ("configMapKeyRef", selector));
    for (field, selector) in secret.into_iter().chain(config_map) {
        check_key(selector, &path.field(field), violations);
    }
    if let Some(selector) = run_secret_key_ref {
        let path = path.field("runSecretKeyRef");
        // Which keys a run needs is known before its parameters are.
        if references(&selector.key).next().is_some() {
            let message = "parameters are not substituted here: write the key itself";
            violations.add(path.field("key").to_string(), Code::BadValue, message);
        } else {
            check_text(&selector.key, is_data_key, KEY_RULE, &path.field("key"), violations);
        }
    }
    if let Some(selector) = field_ref {
        let path = path.field("fieldRef");
        let path = path.field("fieldPath");
        check_text(&selector.field_path, is_pod_field, FIELD_RULE, &path, violations);
    }
    if let Some(selector) = resource_field_ref {
        check_resource(selector, &path.field("resourceFieldRef"), violations);
    }
}

fn check_key(selector: &KeySelector, path: &Path<'_>, violations: &mut Violations) {
    let name_rule = "the name of a Kubernetes object: lower-case letters, digits, `-` and `.`";
    check_text(
        &selector.name,
        is_dns_subdomain,
        name_rule,
        &path.field("name"),
        violations,
    );
    check_text(&selector.key, is_data_key, KEY_RULE, &path.field("key"), violations);
}

const KEY_RULE: &str = "a key: at most 253 letters, digits, `-`, `_` and `.`";

/// Whether it can be a key of a Secret or ConfigMap: 1 to 253 letters, digits, `-`, `_` and `.`, but not `.` nor `..` in front.
pub fn is_data_key(key: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !key.is_empty() && key.len() <= 253 && key.bytes().all(good) && key != "." && !key.starts_with("..")
}

const FIELD_RULE: &str = "one of metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], \
     spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP, status.podIPs";

/// Fields of a pod that a variable may hold.
fn is_pod_field(path: &str) -> bool {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let keyed = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    FIELDS.contains(&path) || keyed.is_some_and(|key| key.len() > 2 && key.ends_with("']"))
}

fn check_resource(selector: &ResourceFieldSelector, path: &Path<'_>, violations: &mut Violations) {
    let rule = "limits. or requests. with cpu, memory, ephemeral-storage or hugepages-SIZE, such as limits.memory";
    check_text(
        &selector.resource,
        |text| resource(text).is_some(),
        rule,
        &path.field("resource"),
        violations,
    );
    let Some(divisor) = &selector.divisor else {
        return;
    };
    const OF_CPU: &[&str] = &["0", "1m", "1"];
    const OF_BYTES: &[&str] = &[
        "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
    ];
    let allowed = match resource(&selector.resource) {
        Some("cpu") => OF_CPU,
        Some(_) => OF_BYTES,
        None => return,
    };
    let rule = format!("one of {}", allowed.join(", "));
    check_text(
        divisor,
        |text| allowed.contains(&text),
        &rule,
        &path.field("divisor"),
        violations,
    );
}

/// The resource without `limits.` or `requests.`.
fn resource(text: &str) -> Option<&str> {
    let name = text
        .strip_prefix("limits.")
        .or_else(|| text.strip_prefix("requests."))?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    known.then_some(name)
}

/// A text that still holds a reference is checked where the reference is known.
fn check_text(text: &str, is_good: impl Fn(&str) -> bool, rule: &str, path: &Path<'_>, violations: &mut Violations) {
    if text.is_empty() {
        violations.add(path.to_string(), Code::Missing, format!("is missing; wanted is {rule}"));
    } else if references(text).next().is_none() && !is_good(text) {
        violations.add(path.to_string(), Code::BadValue, format!("`{text}` is not {rule}"));
    }
}
