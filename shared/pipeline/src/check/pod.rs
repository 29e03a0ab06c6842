//! Checks of pod settings.

use std::collections::{BTreeMap, HashSet};

use super::fragments::{check_overlay, check_tolerations};
use super::syntax::check_selector;
use super::{check_annotations, check_labels, is_dns_label, is_dns_subdomain, is_place_reserved};
use crate::Fragment;
use crate::kubernetes::{check_fragments, check_source};
use crate::model::{PodSettings, Quantity};
use crate::path::Path;
use crate::quantity;
use crate::substitute::references;
use crate::violation::{Code, Violations};

/// Checks what one part says of the pod.
pub(super) fn check_pod(pod: &PodSettings, path: &Path<'_>, violations: &mut Violations) {
    if let Some(resources) = &pod.resources {
        let path = path.field("resources");
        check_quantities(&resources.requests, &path.field("requests"), violations);
        check_quantities(&resources.limits, &path.field("limits"), violations);
    }
    check_selector(
        &without_references(&pod.node_selector),
        &path.field("nodeSelector"),
        violations,
    );
    check_labels(&without_references(&pod.labels), &path.field("labels"), violations);
    check_annotations(&pod.annotations, &path.field("annotations"), violations);
    check_names(pod, path, violations);
    check_fragments(pod, path, violations);
    check_tolerations(&pod.tolerations, &path.field("tolerations"), violations);
    check_volumes(pod, path, violations);
    if let Some(overlay) = &pod.overlay {
        check_overlay(overlay, &path.field("overlay"), violations);
    }
    check_sidecars(&pod.sidecars, &path.field("sidecars"), violations);
    let containers = [("initContainers", &pod.init_containers), ("sidecars", &pod.sidecars)];
    for (field, containers) in containers {
        check_containers(containers, &path.field(field), violations);
    }
    let inner = pod
        .security_context
        .as_ref()
        .and_then(|context| context.value().get("privileged")?.as_bool());
    if let (Some(shorthand), Some(inner)) = (pod.privileged, inner)
        && shorthand != inner
    {
        let message = "privileged contradicts securityContext.privileged";
        violations.add(path.field("privileged").to_string(), Code::Conflict, message);
    }
}

/// A value that still holds a reference is checked where the reference is known.
fn without_references(texts: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let blank = |text: &String| {
        if references(text).next().is_some() {
            String::new()
        } else {
            text.clone()
        }
    };
    texts.iter().map(|(key, text)| (key.clone(), blank(text))).collect()
}

/// Checks requests or limits by resource.
pub(crate) fn check_quantities(quantities: &BTreeMap<String, Quantity>, path: &Path<'_>, violations: &mut Violations) {
    for (name, Quantity(text)) in quantities {
        let path = path.field(name);
        match quantity::parse(text) {
            None if quantity::may_become_valid(text) => {}
            None => violations.add(path.to_string(), Code::BadValue, quantity::explain(text)),
            Some(amount) if amount.is_negative() => {
                violations.add(path.to_string(), Code::BadValue, format!("{text} is negative"));
            }
            Some(amount) if name.contains('/') && !amount.is_whole() => {
                violations.add(
                    path.to_string(),
                    Code::BadValue,
                    format!("{name} is given in whole numbers"),
                );
            }
            Some(_) => {}
        }
        let (domain, own) = name.split_once('/').unwrap_or(("kubernetes.io", name));
        if own.is_empty() || !is_dns_subdomain(domain) || name.contains(char::is_whitespace) {
            violations.add(
                path.to_string(),
                Code::BadValue,
                format!("`{name}` is no name of a resource"),
            );
        }
    }
}

fn check_names(pod: &PodSettings, path: &Path<'_>, violations: &mut Violations) {
    const POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
    if let Some(policy) = &pod.image_pull_policy
        && !POLICIES.contains(&policy.as_str())
        && references(policy).next().is_none()
    {
        let message = format!("`{policy}` is none of {}", POLICIES.join(", "));
        violations.add(path.field("imagePullPolicy").to_string(), Code::BadValue, message);
    }
    let mut check = |path: &Path<'_>, name: &str| {
        if !is_dns_subdomain(name) && references(name).next().is_none() {
            let message = format!("`{name}` is no name of a Kubernetes object");
            violations.add(path.to_string(), Code::BadValue, message);
        }
    };
    let single = [
        ("serviceAccountName", &pod.service_account_name),
        ("priorityClassName", &pod.priority_class_name),
        ("schedulerName", &pod.scheduler_name),
        ("runtimeClassName", &pod.runtime_class_name),
    ];
    for (field, name) in single {
        if let Some(name) = name {
            check(&path.field(field), name);
        }
    }
    let secrets = path.field("imagePullSecrets");
    for (index, name) in pod.image_pull_secrets.iter().enumerate() {
        check(&secrets.index(index), name);
    }
}

fn check_volumes(pod: &PodSettings, path: &Path<'_>, violations: &mut Violations) {
    let volumes = path.field("volumes");
    let mut names = HashSet::new();
    for (index, volume) in pod.volumes.iter().enumerate() {
        let path = volumes.index(index);
        check_source(volume.value(), &path, violations);
        let path = path.field("name").to_string();
        match volume.text("name") {
            None => violations.add(path, Code::Missing, "a volume needs a name"),
            Some(name) if name.starts_with("windlass-") => {
                violations.add(
                    path,
                    Code::Reserved,
                    "names that start with windlass- are set by Windlass",
                );
            }
            Some(name) if !is_dns_label(name) && references(name).next().is_none() => {
                violations.add(path, Code::BadValue, format!("`{name}` is no name of a volume"));
            }
            Some(name) if !names.insert(name) => {
                violations.add(path, Code::Duplicate, format!("the volume {name} is given twice"));
            }
            Some(_) => {}
        }
    }
    let mounts = path.field("volumeMounts");
    let mut targets = HashSet::new();
    for (index, mount) in pod.volume_mounts.iter().enumerate() {
        let at = mounts.index(index);
        let target = at.field("mountPath").to_string();
        match mount.text("mountPath") {
            None => violations.add(target, Code::Missing, "a mount needs a mountPath"),
            Some(place) if is_place_reserved(place) => {
                violations.add(target, Code::Reserved, "/windlass belongs to Windlass");
            }
            Some(place) if !targets.insert(place) => {
                violations.add(target, Code::Duplicate, format!("{place} is mounted twice"));
            }
            Some(_) => {}
        }
        if mount.text("name").is_none_or(str::is_empty) {
            violations.add(
                at.field("name").to_string(),
                Code::Missing,
                "a mount needs the name of its volume",
            );
        }
    }
}

/// What makes a sidecar one would replace any other policy without a word.
fn check_sidecars(sidecars: &[Fragment], path: &Path<'_>, violations: &mut Violations) {
    for (index, sidecar) in sidecars.iter().enumerate() {
        if sidecar.text("restartPolicy").is_some_and(|policy| policy != "Always") {
            let path = path.index(index).field("restartPolicy").to_string();
            let message = "a sidecar has restartPolicy: Always; what ends belongs to initContainers";
            violations.add(path, Code::BadValue, message);
        }
    }
}

fn check_containers(containers: &[Fragment], path: &Path<'_>, violations: &mut Violations) {
    let mut names = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let at = path.field("name").to_string();
        match container.text("name") {
            None => violations.add(at, Code::Missing, "a container needs a name"),
            Some("main") => violations.add(at, Code::Reserved, "main is the step's own container"),
            Some(name) if !is_dns_label(name) && references(name).next().is_none() => {
                violations.add(at, Code::BadValue, format!("`{name}` is no name of a container"));
            }
            Some(name) if !names.insert(name) => {
                violations.add(at, Code::Duplicate, format!("the container {name} is given twice"));
            }
            Some(_) => {}
        }
        if container.text("image").is_none_or(str::is_empty) {
            violations.add(
                path.field("image").to_string(),
                Code::Missing,
                "a container needs an image",
            );
        }
    }
}
