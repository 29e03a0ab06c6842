//! Which names, labels and annotations Kubernetes accepts.

use serde_json::Value;

use crate::error::Cause;
use crate::resources::Resource;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// At most 63 of `[a-z0-9-]`, with an alphanumeric character at both ends.
pub(crate) fn is_label(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// At most 253 characters of labels joined by dots.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let part = |p: &str| {
        let long_enough = !p.is_empty();
        long_enough
            && p.len() <= 253
            && p.split('-')
                .all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
            && !p.starts_with('-')
            && !p.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

/// `[prefix/]name` as for label keys.
pub(crate) fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified_part(name),
        None => is_qualified_part(key),
    }
}

fn is_qualified_part(name: &str) -> bool {
    !name.is_empty() && is_label_value(name)
}

/// At most 63 of `[A-Za-z0-9-_.]`, alphanumeric at both ends, or nothing.
pub(crate) fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty()
        || (bytes.len() <= 63
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
}

/// What is wrong with the metadata of an object of this kind.
pub(crate) fn metadata_problems(resource: &Resource, body: &Value) -> Vec<Cause> {
    let meta = &body["metadata"];
    let mut causes = Vec::new();
    let name = meta["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::new(
            "FieldValueRequired",
            "metadata.name",
            "Required value: name or generateName is required",
        ));
    } else if let Some(rule) = broken_name_rule(resource, name) {
        causes.push(Cause::invalid("metadata.name", name, rule));
    }
    for (key, value) in meta["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid("metadata.labels", key, QUALIFIED_RULE));
        }
        let value = value.as_str().unwrap_or_default();
        if !is_label_value(value) {
            let rule = if value.len() > 63 {
                "must be no more than 63 bytes"
            } else {
                VALUE_RULE
            };
            causes.push(Cause::invalid("metadata.labels", value, rule));
        }
    }
    let mut size = 0;
    for (key, value) in meta["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().unwrap_or_default().len();
        if !is_qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", key, QUALIFIED_RULE));
        }
    }
    if size > MAX_ANNOTATIONS {
        causes.push(Cause::new(
            "FieldValueTooLong",
            "metadata.annotations",
            format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
        ));
    }
    for (index, finalizer) in meta["finalizers"].as_array().into_iter().flatten().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        if !is_qualified(finalizer) {
            causes.push(Cause::invalid(
                format!("metadata.finalizers[{index}]"),
                finalizer,
                QUALIFIED_RULE,
            ));
        }
    }
    causes
}

fn broken_name_rule(resource: &Resource, name: &str) -> Option<&'static str> {
    match resource.kind {
        "Namespace" => (!is_label(name)).then_some(LABEL_RULE),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            let bad = matches!(name, "." | "..") || name.contains('/') || name.contains('%');
            bad.then_some("may not be '.' or '..' and may not contain '/' or '%'")
        }
        "CronJob" if name.len() > 52 => Some("must be no more than 52 characters"),
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN_RULE),
    }
}

/// Five characters after a `generateName`, without vowels and digits that look like letters.
pub(crate) fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "a-b", "a.b-c.0", &"x".repeat(253)] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", &"x".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_label("a-1") && !is_label("a.b") && !is_label(&"x".repeat(64)));
        assert!(is_qualified("windlass.dev/run-id") && !is_qualified("a/b/c") && !is_qualified("/a"));
        assert!(is_label_value("") && is_label_value("A_b.c-1") && !is_label_value("a b") && !is_label_value("-a"));
    }
}
