//! Walks over every text of a step template in which `$(NAME)` is substituted: all but names, keys of maps and scripts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Fragment;
use crate::model::{EnvVar, PodSettings, Quantity, Resources, StepTemplate};
use crate::path::Path;
use crate::substitute::Expansion;

/// What is done with a text: its path, what happens to it later, the text.
pub(crate) type Visit<'v> = dyn FnMut(&Path<'_>, Expansion, &mut String) + 'v;

/// Calls `visit` for every text of `template`.
pub(crate) fn for_each_text(template: &mut StepTemplate, path: &Path<'_>, visit: &mut Visit<'_>) {
    option(&mut template.image, &path.field("image"), visit);
    list(
        &mut template.command,
        &path.field("command"),
        Expansion::Kubernetes,
        visit,
    );
    list(&mut template.args, &path.field("args"), Expansion::Kubernetes, visit);
    for (index, variable) in template.env.iter_mut().enumerate() {
        environment(variable, &path.field("env").index(index), visit);
    }
    option(&mut template.working_dir, &path.field("workingDir"), visit);
    option(&mut template.cluster, &path.field("cluster"), visit);
    if let Some(pod) = &mut template.pod {
        pod_settings(pod, &path.field("pod"), visit);
    }
}

fn option(text: &mut Option<String>, path: &Path<'_>, visit: &mut Visit<'_>) {
    if let Some(text) = text {
        visit(path, Expansion::Final, text);
    }
}

fn list(texts: &mut [String], path: &Path<'_>, expansion: Expansion, visit: &mut Visit<'_>) {
    for (index, text) in texts.iter_mut().enumerate() {
        visit(&path.index(index), expansion, text);
    }
}

fn map(texts: &mut BTreeMap<String, String>, path: &Path<'_>, visit: &mut Visit<'_>) {
    for (key, text) in texts {
        visit(&path.field(key), Expansion::Final, text);
    }
}

fn environment(variable: &mut EnvVar, path: &Path<'_>, visit: &mut Visit<'_>) {
    if let Some(value) = &mut variable.value {
        visit(&path.field("value"), Expansion::Kubernetes, value);
    }
    let Some(source) = &mut variable.value_from else {
        return;
    };
    let path = path.field("valueFrom");
    if let Some(selector) = &mut source.secret_key_ref {
        let path = path.field("secretKeyRef");
        visit(&path.field("name"), Expansion::Final, &mut selector.name);
        visit(&path.field("key"), Expansion::Final, &mut selector.key);
    }
    if let Some(selector) = &mut source.config_map_key_ref {
        let path = path.field("configMapKeyRef");
        visit(&path.field("name"), Expansion::Final, &mut selector.name);
        visit(&path.field("key"), Expansion::Final, &mut selector.key);
    }
    if let Some(selector) = &mut source.field_ref {
        visit(
            &path.field("fieldRef").field("fieldPath"),
            Expansion::Final,
            &mut selector.field_path,
        );
    }
    if let Some(selector) = &mut source.resource_field_ref {
        let path = path.field("resourceFieldRef");
        visit(&path.field("resource"), Expansion::Final, &mut selector.resource);
        option(&mut selector.divisor, &path.field("divisor"), visit);
    }
}

fn pod_settings(pod: &mut PodSettings, path: &Path<'_>, visit: &mut Visit<'_>) {
    if let Some(Resources { requests, limits }) = &mut pod.resources {
        let path = path.field("resources");
        quantities(requests, &path.field("requests"), visit);
        quantities(limits, &path.field("limits"), visit);
    }
    map(&mut pod.node_selector, &path.field("nodeSelector"), visit);
    map(&mut pod.labels, &path.field("labels"), visit);
    map(&mut pod.annotations, &path.field("annotations"), visit);
    list(
        &mut pod.image_pull_secrets,
        &path.field("imagePullSecrets"),
        Expansion::Final,
        visit,
    );
    option(&mut pod.image_pull_policy, &path.field("imagePullPolicy"), visit);
    option(&mut pod.service_account_name, &path.field("serviceAccountName"), visit);
    option(&mut pod.priority_class_name, &path.field("priorityClassName"), visit);
    option(&mut pod.scheduler_name, &path.field("schedulerName"), visit);
    option(&mut pod.runtime_class_name, &path.field("runtimeClassName"), visit);
    for_each_fragment(pod, path, &mut |path, fragment| {
        fragment_texts(fragment.value_mut(), path, Expansion::Final, visit);
    });
    let containers = [
        ("initContainers", &mut pod.init_containers),
        ("sidecars", &mut pod.sidecars),
    ];
    for (name, containers) in containers {
        let path = path.field(name);
        for (index, container) in containers.iter_mut().enumerate() {
            container_texts(container.value_mut(), &path.index(index), visit);
        }
    }
}

fn quantities(quantities: &mut BTreeMap<String, Quantity>, path: &Path<'_>, visit: &mut Visit<'_>) {
    for (name, Quantity(text)) in quantities {
        visit(&path.field(name), Expansion::Final, text);
    }
}

/// Calls `visit` for every fragment of `pod` but its containers.
pub(crate) fn for_each_fragment(
    pod: &mut PodSettings,
    path: &Path<'_>,
    visit: &mut dyn FnMut(&Path<'_>, &mut Fragment),
) {
    let single = [
        ("affinity", &mut pod.affinity),
        ("securityContext", &mut pod.security_context),
        ("podSecurityContext", &mut pod.pod_security_context),
        ("overlay", &mut pod.overlay),
    ];
    for (name, fragment) in single {
        if let Some(fragment) = fragment {
            visit(&path.field(name), fragment);
        }
    }
    let lists = [
        ("tolerations", &mut pod.tolerations),
        ("volumes", &mut pod.volumes),
        ("volumeMounts", &mut pod.volume_mounts),
        ("envFrom", &mut pod.env_from),
    ];
    for (name, fragments) in lists {
        let path = path.field(name);
        for (index, fragment) in fragments.iter_mut().enumerate() {
            visit(&path.index(index), fragment);
        }
    }
}

/// Calls `visit` for every text below `value`.
pub(crate) fn fragment_texts(value: &mut Value, path: &Path<'_>, expansion: Expansion, visit: &mut Visit<'_>) {
    match value {
        Value::String(text) => visit(path, expansion, text),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fragment_texts(item, &path.index(index), expansion, visit);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                let path = path.field(key);
                match value {
                    Value::Array(containers) if CONTAINER_LISTS.contains(&key.as_str()) => {
                        for (index, container) in containers.iter_mut().enumerate() {
                            container_texts(container, &path.index(index), visit);
                        }
                    }
                    value if key == "subPathExpr" => fragment_texts(value, &path, Expansion::Kubernetes, visit),
                    value => fragment_texts(value, &path, expansion, visit),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Lists of containers in a PodSpec.
const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];

/// As [`fragment_texts`] for a container, whose command, args and env Kubernetes expands, but not the commands of its probes and
/// hooks.
fn container_texts(container: &mut Value, path: &Path<'_>, visit: &mut Visit<'_>) {
    let Value::Object(fields) = container else {
        return fragment_texts(container, path, Expansion::Final, visit);
    };
    for (key, value) in fields.iter_mut() {
        let expansion = match key.as_str() {
            "command" | "args" | "env" => Expansion::Kubernetes,
            _ => Expansion::Final,
        };
        fragment_texts(value, &path.field(key), expansion, visit);
    }
}
