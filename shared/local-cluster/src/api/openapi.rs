//! As much OpenAPI as `kubectl create` and `kubectl apply` look for: that the server validates fields itself.

use serde_json::{Map, Value, json};

use crate::resources::{RESOURCES, Resource};

/// The document at a path below `/openapi/v3`, if it is one.
pub(super) fn document(path: &str) -> Option<Value> {
    let below = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    if below.is_empty() {
        return Some(index());
    }
    let served: Vec<&Resource> = RESOURCES.iter().filter(|r| group_path(r) == below).collect();
    (!served.is_empty()).then(|| group_version(&served))
}

fn group_path(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

fn index() -> Value {
    let mut paths = Map::new();
    for resource in &RESOURCES {
        let path = group_path(resource);
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
        paths.insert(path, url);
    }
    json!({"paths": paths})
}

fn group_version(resources: &[&Resource]) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let namespace = if resource.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let path = format!("/{}/{namespace}{}/{{name}}", group_path(resource), resource.plural);
        let operation = json!({
            "x-kubernetes-group-version-kind": {
                "group": resource.group, "version": resource.version, "kind": resource.kind,
            },
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
            "responses": {},
        });
        paths.insert(path, json!({"patch": operation}));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Windlass local cluster", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}
