//! What is stored: the serialised object and the few facts that selectors, watches and garbage collection ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::resources::Resource;
use crate::selectors::{FieldSelector, LabelSelector, selectable_fields};

/// Where an object lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Its kind.
    pub resource: &'static Resource,
    /// Its namespace, empty for cluster-wide kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key from borrowed parts.
    pub(crate) fn new(resource: &'static Resource, namespace: &str, name: &str) -> Self {
        let namespace = if resource.namespaced { namespace } else { "" };
        Self {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn place(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// One version of one object. Immutable; bytes are shared by every reader.
#[derive(Debug)]
pub(crate) struct Object {
    /// Where it lives.
    pub key: Key,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// The uids of `metadata.ownerReferences`.
    pub owners: Vec<String>,
    /// The whole object as JSON.
    pub body: Bytes,
    fields: Vec<(&'static str, String)>,
}

impl Object {
    /// Takes the facts out of `body` and serialises it. `body` has its final metadata already.
    pub(crate) fn new(resource: &'static Resource, version: u64, body: &Value) -> Self {
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        Self::with_bytes(resource, version, body, Bytes::from(bytes))
    }

    /// As [`Object::new`], with the serialised form at hand.
    pub(crate) fn with_bytes(resource: &'static Resource, version: u64, body: &Value, bytes: Bytes) -> Self {
        let meta = &body["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default();
        Self {
            key: Key::new(resource, text("namespace"), text("name")),
            version,
            uid: text("uid").to_owned(),
            labels: string_map(&meta["labels"]),
            deleting: meta["deletionTimestamp"].is_string(),
            finalizers: strings(&meta["finalizers"]),
            owners: meta["ownerReferences"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|o| o["uid"].as_str().map(str::to_owned))
                .collect(),
            fields: field_values(resource, body),
            body: bytes,
        }
    }

    /// The object as a tree, to be changed.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The value of a selectable field, empty when unset.
    pub(crate) fn field(&self, name: &str) -> &str {
        match name {
            "metadata.name" | "name" => &self.key.name,
            "metadata.namespace" => &self.key.namespace,
            other => self
                .fields
                .iter()
                .find(|(field, _)| *field == other)
                .map_or("", |(_, value)| value),
        }
    }

    /// Whether both selectors select it.
    pub(crate) fn selected(&self, labels: &LabelSelector, fields: &FieldSelector) -> bool {
        labels.matches(&self.labels) && fields.matches(|f| self.field(f))
    }

    /// The same content under another resource version, as a watch reports an object that left a selector.
    pub(crate) fn at_version(&self, version: u64) -> Self {
        let mut value = self.value();
        set_version(&mut value, version);
        Self::new(self.key.resource, version, &value)
    }
}

/// Sets `metadata.resourceVersion`.
pub(super) fn set_version(value: &mut Value, version: u64) {
    value["metadata"]["resourceVersion"] = json!(version.to_string());
}

fn field_values(resource: &'static Resource, body: &Value) -> Vec<(&'static str, String)> {
    selectable_fields(resource)
        .iter()
        .filter(|f| !f.starts_with("metadata.") && **f != "name")
        .filter_map(|field| {
            let path = match *field {
                "source" => "source.component",
                "status.successful" => "status.succeeded",
                other => other,
            };
            let value = path.split('.').fold(body, |v, step| &v[step]);
            let text = match value {
                Value::String(s) => s.clone(),
                Value::Bool(b) => b.to_string(),
                Value::Number(n) => n.to_string(),
                _ if matches!(*field, "spec.hostNetwork" | "spec.unschedulable") => "false".to_owned(),
                _ => return None,
            };
            Some((*field, text))
        })
        .collect()
}

fn string_map(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| v.as_str().map(|v| (k.clone(), v.to_owned())))
        .collect()
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// One committed change, shared by all watchers.
#[derive(Debug)]
pub(crate) struct Change {
    /// Resource version of the change.
    pub version: u64,
    /// The object after it; for a removal its last state, at this version.
    pub object: Arc<Object>,
    /// The object before it.
    pub previous: Option<Arc<Object>>,
    /// Whether the object is gone.
    pub removed: bool,
}
