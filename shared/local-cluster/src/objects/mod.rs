//! The write verbs, independent of HTTP.

mod create;
mod delete;
mod update;

pub(crate) use create::{create, ensure_namespace};
pub(crate) use delete::{DeleteOptions, delete, delete_listed};
pub(crate) use update::{PatchKind, Subresource, patch, replace};

use serde_json::Value;

use crate::error::{ApiError, Cause};
use crate::names::metadata_problems;
use crate::pods;
use crate::resources::Resource;

const MAX_SECRET: usize = 1024 * 1024;
const DATA_KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Finalizer of an object that waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents shall lose their reference first.
pub(crate) const ORPHAN: &str = "orphan";

/// Fails with every problem of the object at once.
fn validate(resource: &'static Resource, body: &Value, more: Vec<Cause>) -> Result<(), ApiError> {
    let mut causes = metadata_problems(resource, body);
    causes.extend(more);
    causes.extend(owner_problems(body));
    match resource.kind {
        "Pod" => causes.extend(pods::problems(body)),
        "Secret" => causes.extend(secret_problems(body)),
        _ => {}
    }
    if causes.is_empty() {
        return Ok(());
    }
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    Err(ApiError::invalid(resource, name, causes))
}

/// What is wrong with the keys and the size of a Secret.
fn secret_problems(body: &Value) -> Vec<Cause> {
    let (mut causes, mut bytes) = (Vec::new(), 0);
    for (key, value) in body["data"].as_object().into_iter().flatten() {
        if !is_data_key(key) {
            causes.push(Cause::invalid(format!("data[{key}]"), key, DATA_KEY_RULE));
        }
        // It was read as base64 before.
        let encoded = value.as_str().unwrap_or_default();
        bytes += encoded.len() / 4 * 3 - encoded.bytes().rev().take_while(|byte| *byte == b'=').count();
    }
    if bytes > MAX_SECRET {
        let message = format!("Too long: may not be more than {MAX_SECRET} bytes");
        causes.push(Cause::new("FieldValueTooLong", "data", message));
    }
    causes
}

fn is_data_key(key: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !key.is_empty() && key.len() <= 253 && key.bytes().all(good) && key != "." && !key.starts_with("..")
}

fn owner_problems(body: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let owners = body["metadata"]["ownerReferences"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    for (index, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences[{index}].{field}"),
                    "",
                    &format!("{field} must not be empty"),
                ));
            }
        }
    }
    if owners.iter().filter(|o| o["controller"] == true).count() > 1 {
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            "",
            "Only one reference can have Controller set to true",
        ));
    }
    causes
}

/// Turns `stringData` into `data`, as the API does on every write of a Secret.
fn fold_string_data(body: &mut Value) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let Some(Value::Object(plain)) = body.as_object_mut().and_then(|b| b.shift_remove("stringData")) else {
        return;
    };
    if !body["data"].is_object() {
        body["data"] = Value::Object(serde_json::Map::new());
    }
    for (key, value) in plain {
        body["data"][key] = Value::String(STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}
