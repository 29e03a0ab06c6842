//! What a container is started with: environment, command, working folder.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::expand::{PathMap, expand};
use super::folders::{RunFolder, work_folder};
use super::process::Launch;
use super::volumes;
use crate::node::NODE_NAME;
use crate::pods::quantity;
use crate::resources::{CONFIG_MAPS, NODES, Resource, SECRETS};
use crate::store::{Key, Store};

/// Variables that a container has from this machine.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Names the file for the termination message, whose usual path cannot be mounted.
pub(super) const TERMINATION_LOG: &str = "WINDLASS_TERMINATION_LOG";

/// Why a container cannot be started now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CannotStart {
    /// A Secret or ConfigMap is missing; it may appear.
    Config(String),
    /// There is no image to take a command from.
    NoCommand,
}

/// Everything that the shim has to know.
pub(super) fn launch_order(
    store: &Store,
    pod_folder: &Path,
    run: &RunFolder,
    pod: &Value,
    container: &Value,
) -> Result<Launch, CannotStart> {
    let mut pairs = volumes::mount_places(pod_folder, pod, container);
    let message = container["terminationMessagePath"]
        .as_str()
        .unwrap_or("/dev/termination-log");
    pairs.push((message.to_owned(), run.termination_message()));
    let paths = PathMap::new(pairs);
    let own = resolve(store, pod, container, &paths)?;
    let known: HashMap<String, String> = own.iter().cloned().collect();
    let words = |field: &str| -> Vec<String> {
        let list = container[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        list.map(|word| paths.rewrite(&expand(word, &known))).collect()
    };
    let mut command = words("command");
    if command.is_empty() {
        return Err(CannotStart::NoCommand);
    }
    command.extend(words("args"));
    let name = container["name"].as_str().unwrap_or_default();
    let working_dir = match container["workingDir"].as_str() {
        Some(path) if !path.is_empty() => paths.place(Path::new(path)),
        _ => work_folder(pod_folder, name),
    };
    let mut env: Vec<(String, String)> = INHERITED
        .iter()
        .filter_map(|n| Some(((*n).to_owned(), std::env::var(n).ok()?)))
        .collect();
    env.push((
        TERMINATION_LOG.to_owned(),
        run.termination_message().to_string_lossy().into_owned(),
    ));
    env.extend(own);
    Ok(Launch {
        command,
        env,
        working_dir: working_dir.to_string_lossy().into_owned(),
    })
}

fn resolve(
    store: &Store,
    pod: &Value,
    container: &Value,
    paths: &PathMap,
) -> Result<Vec<(String, String)>, CannotStart> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut result = Vec::new();
    for source in container["envFrom"].as_array().into_iter().flatten() {
        let prefix = source["prefix"].as_str().unwrap_or_default();
        for (resource, field) in [(SECRETS, "secretRef"), (CONFIG_MAPS, "configMapRef")] {
            let Some(reference) = source.get(field) else { continue };
            let name = reference["name"].as_str().unwrap_or_default();
            let optional = reference["optional"] == true;
            let Some(data) = read(store, resource, namespace, name, optional)? else {
                continue;
            };
            result.extend(data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), text(v))));
        }
    }
    // References see only what `env` defined before them, as in the kubelet.
    let mut known = HashMap::new();
    for env in container["env"].as_array().into_iter().flatten() {
        let name = env["name"].as_str().unwrap_or_default().to_owned();
        let value = match env.get("valueFrom") {
            Some(from) => value_from(store, pod, container, from)?,
            None => {
                let value = expand(env["value"].as_str().unwrap_or_default(), &known);
                Some(paths.rewrite(&value))
            }
        };
        if let Some(value) = value {
            known.insert(name.clone(), value.clone());
            result.push((name, value));
        }
    }
    Ok(result)
}

fn value_from(store: &Store, pod: &Value, container: &Value, from: &Value) -> Result<Option<String>, CannotStart> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    for (resource, field) in [(SECRETS, "secretKeyRef"), (CONFIG_MAPS, "configMapKeyRef")] {
        let Some(reference) = from.get(field) else { continue };
        let (name, key) = (
            reference["name"].as_str().unwrap_or_default(),
            reference["key"].as_str().unwrap_or_default(),
        );
        let optional = reference["optional"] == true;
        let Some(mut data) = read(store, resource, namespace, name, optional)? else {
            return Ok(None);
        };
        return match data.remove(key) {
            Some(value) => Ok(Some(text(value))),
            None if optional => Ok(None),
            None => Err(CannotStart::Config(format!(
                "couldn't find key {key} in {} {namespace}/{name}",
                resource.kind
            ))),
        };
    }
    if let Some(path) = from.get("fieldRef").and_then(|f| f["fieldPath"].as_str()) {
        return match field(pod, path) {
            Some(value) => Ok(Some(value)),
            None => Err(CannotStart::Config(format!("unsupported fieldPath: {path}"))),
        };
    }
    Ok(from
        .get("resourceFieldRef")
        .map(|reference| amount(store, pod, container, reference)))
}

/// A field of the pod as the downward API gives it; `None` for a path that it does not have.
pub(super) fn field(pod: &Value, path: &str) -> Option<String> {
    let meta = &pod["metadata"];
    let own = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        return match map {
            "metadata.labels" => Some(own(&meta["labels"][key])),
            "metadata.annotations" => Some(own(&meta["annotations"][key])),
            _ => None,
        };
    }
    match path {
        "metadata.name" => Some(own(&meta["name"])),
        "metadata.namespace" => Some(own(&meta["namespace"])),
        "metadata.uid" => Some(own(&meta["uid"])),
        "metadata.labels" => Some(listing(&meta["labels"])),
        "metadata.annotations" => Some(listing(&meta["annotations"])),
        "spec.nodeName" => Some(NODE_NAME.to_owned()),
        "spec.serviceAccountName" => Some(own(&pod["spec"]["serviceAccountName"])),
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => Some("127.0.0.1".to_owned()),
        _ => None,
    }
}

fn listing(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    let lines: Vec<String> = pairs
        .map(|(k, v)| format!("{k}={:?}", v.as_str().unwrap_or_default()))
        .collect();
    lines.join("\n")
}

/// A container's limit or request, in units of the divisor, rounded up.
pub(super) fn amount(store: &Store, pod: &Value, container: &Value, reference: &Value) -> String {
    let wanted = reference["containerName"].as_str().unwrap_or_default();
    let container = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["name"] == wanted)
        .unwrap_or(container);
    let (kind, name) = reference["resource"]
        .as_str()
        .and_then(|r| r.split_once('.'))
        .unwrap_or(("limits", ""));
    let of_container = container["resources"][kind][name].as_str().and_then(quantity);
    let of_node = || {
        let node = store.peek(&Key::new(NODES, "", NODE_NAME))?.value();
        quantity(node["status"]["allocatable"][name].as_str()?)
    };
    let found = match kind {
        "limits" => of_container.or_else(of_node),
        _ => of_container,
    };
    let divisor = reference["divisor"]
        .as_str()
        .and_then(quantity)
        .filter(|d| *d > 0.0)
        .unwrap_or(1.0);
    format!("{:.0}", (found.unwrap_or(0.0) / divisor).ceil())
}

/// The data of a Secret or ConfigMap; `None` when it is missing and may be.
pub(super) fn read(
    store: &Store,
    resource: &'static Resource,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<Option<HashMap<String, Vec<u8>>>, CannotStart> {
    match store.peek(&Key::new(resource, namespace, name)) {
        Some(object) => Ok(Some(data_of(resource, &object.value()))),
        None if optional => Ok(None),
        None => Err(CannotStart::Config(format!("{} {name:?} not found", resource.singular))),
    }
}

fn data_of(resource: &Resource, object: &Value) -> HashMap<String, Vec<u8>> {
    let mut data = HashMap::new();
    for field in ["data", "binaryData"] {
        let plain = resource == CONFIG_MAPS && field == "data";
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let bytes = if plain {
                value.as_bytes().to_vec()
            } else {
                STANDARD.decode(value).unwrap_or_default()
            };
            data.insert(key.clone(), bytes);
        }
    }
    data
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
