//! Discovery: what `kubectl` asks before anything else.

use serde_json::{Value, json};

use crate::resources::{RESOURCES, Resource};

/// The document at a discovery path, if it is one.
pub(super) fn document(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Some(version()),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => Some(resources("", "v1")),
        ["apis", name] if groups().contains(name) => {
            let mut value = group(name);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            Some(value)
        }
        ["apis", name, "v1"] if groups().contains(name) => Some(resources(name, "v1")),
        _ => None,
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": concat!("v1.33.0+windlass-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux",
    })
}

fn groups() -> Vec<&'static str> {
    let mut names: Vec<&str> = RESOURCES.iter().map(|r| r.group).filter(|g| !g.is_empty()).collect();
    names.push("authorization.k8s.io");
    names.sort_unstable();
    names.dedup();
    names
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, version: &str) -> Value {
    let mut list: Vec<Value> = Vec::new();
    for resource in RESOURCES.iter().filter(|r| r.group == group) {
        list.push(describe(resource));
        list.extend(subresources(resource));
    }
    if group == "authorization.k8s.io" {
        list.push(
            json!({"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview",
                         "namespaced": false, "kind": "SelfSubjectAccessReview", "verbs": ["create"]}),
        );
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn describe(resource: &Resource) -> Value {
    let verbs: &[&str] = match resource.kind {
        "Job" | "PersistentVolumeClaim" => &["get", "list", "watch"],
        _ => &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ],
    };
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if resource.kind == "Pod" {
        value["categories"] = json!(["all"]);
    }
    value
}

fn subresources(resource: &Resource) -> Vec<Value> {
    let entry = |name: &str, kind: &str, verbs: &[&str]| {
        json!({"name": format!("{}/{name}", resource.plural), "singularName": "",
               "namespaced": resource.namespaced, "kind": kind, "verbs": verbs})
    };
    let mut list = Vec::new();
    if resource.status {
        list.push(entry("status", resource.kind, &["get", "patch", "update"]));
    }
    if resource.kind == "Pod" {
        list.push(entry("log", "Pod", &["get"]));
        let mut eviction = entry("eviction", "Eviction", &["create"]);
        eviction["group"] = json!("policy");
        eviction["version"] = json!("v1");
        list.push(eviction);
    }
    list
}
