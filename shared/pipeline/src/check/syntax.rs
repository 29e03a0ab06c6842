//! Syntax of names, labels and paths.

use std::collections::BTreeMap;

use crate::path::Path;
use crate::violation::{Code, Violations};

/// Labels that Windlass sets itself (besides those of its own domain).
const RESERVED_LABELS: [&str; 2] = ["run", "pipeline"];
/// Domain of the labels and annotations that Windlass sets itself.
const DOMAIN: &str = "windlass.dev";
/// Longest name of a step.
const MAX_STEP_NAME: usize = 128;

/// Lower-case letters, digits and `-`, at most 63, starting and ending with a letter or digit.
pub(crate) fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// DNS labels joined by dots, at most 253 characters.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// Letters, digits, `_`, `-` and `.`, starting and ending with a letter or digit.
pub(crate) fn is_step_name(name: &str) -> bool {
    name.len() <= MAX_STEP_NAME && is_label_text(name)
}

fn is_label_text(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.iter().copied().all(inner) && end(bytes.first()) && end(bytes.last())
}

/// `name` or `domain/name`.
pub(super) fn is_qualified_name(key: &str) -> bool {
    let name = match key.split_once('/') {
        Some((domain, name)) if is_dns_subdomain(domain) => name,
        Some(_) => return false,
        None => key,
    };
    name.len() <= 63 && is_label_text(name)
}

fn is_own_domain(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(domain, _)| domain == DOMAIN || domain.ends_with(".windlass.dev"))
}

/// Whether Windlass keeps environment variables of this name for itself.
pub(crate) fn is_variable_reserved(name: &str) -> bool {
    name.starts_with("WINDLASS_")
}

/// Whether Windlass keeps this place in the main container for itself.
pub(crate) fn is_place_reserved(path: &str) -> bool {
    mount_place(path).is_some_and(|place| place == "/windlass" || place.starts_with("/windlass/"))
}

/// Labels of pods.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>, path: &Path<'_>, violations: &mut Violations) {
    for key in labels.keys() {
        if RESERVED_LABELS.contains(&key.as_str()) || is_own_domain(key) {
            let message = format!("the label {key} is set by Windlass");
            violations.add(path.field(key).to_string(), Code::Reserved, message);
        }
    }
    check_selector(labels, path, violations);
}

/// Labels that may be any.
pub(super) fn check_selector(labels: &BTreeMap<String, String>, path: &Path<'_>, violations: &mut Violations) {
    for (key, value) in labels {
        if !is_qualified_name(key) {
            violations.add(
                path.field(key).to_string(),
                Code::BadValue,
                format!("`{key}` is no label key: {KEY_RULE}"),
            );
        }
        if !(value.is_empty() || value.len() <= 63 && is_label_text(value)) {
            let message = format!(
                "`{value}` is no label value: at most 63 letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit"
            );
            violations.add(path.field(key).to_string(), Code::BadValue, message);
        }
    }
}

/// Annotations of pods.
pub(crate) fn check_annotations(annotations: &BTreeMap<String, String>, path: &Path<'_>, violations: &mut Violations) {
    for key in annotations.keys() {
        if is_own_domain(key) {
            let message = format!("the annotation {key} is set by Windlass");
            violations.add(path.field(key).to_string(), Code::Reserved, message);
        } else if !is_qualified_name(key) {
            let message = format!("`{key}` is no annotation key: {KEY_RULE}");
            violations.add(path.field(key).to_string(), Code::BadValue, message);
        }
    }
}

const KEY_RULE: &str = "[domain/]name, where name has at most 63 letters, digits, `-`, `_` and `.`";

/// A relative path that stays below its folder.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn relative_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("a file needs a path");
    }
    if path.starts_with('/') {
        return Err("the path must be relative");
    }
    if path.contains('\\') || path.chars().any(char::is_control) {
        return Err("the path must not hold backslashes or control characters");
    }
    if path.len() > 1024 {
        return Err("the path must have at most 1024 bytes");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("the path must not have empty, `.` or `..` parts");
    }
    Ok(())
}

/// Where an absolute path leads, without empty and `.` parts; none when it is relative, the root, or goes up.
pub(crate) fn mount_place(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut place = String::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return None;
        }
        place.push('/');
        place.push_str(part);
    }
    (!place.is_empty()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        assert!(is_dns_label("churn-7"));
        assert!(!is_dns_label("-a") && !is_dns_label("A") && !is_dns_label("") && !is_dns_label(&"a".repeat(64)));
        assert!(is_dns_subdomain("a.b-c") && !is_dns_subdomain("a..b"));
        assert!(is_step_name("train__Model.v2") && !is_step_name("_a") && !is_step_name("a b"));
        assert!(is_qualified_name("nvidia.com/gpu") && is_qualified_name("a_B") && !is_qualified_name("a/b/c"));
    }

    #[test]
    fn paths_stay_below_their_folder() {
        assert_eq!(relative_path("src/train.py"), Ok(()));
        for path in ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a\\b", "a\0"] {
            assert!(relative_path(path).is_err(), "{path}");
        }
    }
}
