//! The Secrets that a pod uses.

use serde_json::Value;

use super::walk::{Place, Segment, each_field};

/// A Secret that a pod uses, or a key of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SecretUse {
    /// Where the pod names it.
    pub(crate) place: Place,
    pub(crate) name: String,
    /// The keys that must be in it; whatever it has when empty.
    pub(crate) keys: Vec<String>,
    /// Whether the pod does without it.
    pub(crate) optional: bool,
}

/// Every Secret that a pod's spec names, in whichever way Kubernetes has for it.
pub(crate) fn secret_uses(spec: &Value) -> Vec<SecretUse> {
    let mut uses = Vec::new();
    each_field(spec, &mut |place, field, value| match field {
        // A variable.
        "secretKeyRef" => uses.extend(of(place, value, "name")),
        // A volume, alone or in a projected one.
        "secret" => {
            uses.extend(of(place, value, "secretName"));
            uses.extend(of(place, value, "name"));
        }
        // An Azure share; of a volume it is part of `secret`.
        "secretName" if !is_below(place, "secret") => uses.extend(named(place, value)),
        "imagePullSecrets" => {
            let secrets = value.as_array().into_iter().flatten().enumerate();
            uses.extend(secrets.filter_map(|(index, secret)| of(&place.item(field, index, secret), secret, "name")));
        }
        // All keys as variables, or what a driver needs to mount a volume.
        _ if field == "secretRef" || field.ends_with("SecretRef") => uses.extend(of(place, value, "name")),
        _ => {}
    });
    uses
}

fn is_below(place: &Place, field: &str) -> bool {
    let parent = place.0.iter().rev().nth(1);
    matches!(parent, Some(Segment::Field(name)) if name == field)
}

fn named(place: &Place, name: &Value) -> Option<SecretUse> {
    let name = name.as_str().filter(|name| !name.is_empty())?;
    Some(SecretUse {
        place: place.clone(),
        name: name.to_owned(),
        keys: Vec::new(),
        optional: false,
    })
}

/// The Secret that `reference` names in its field `name_field`.
fn of(place: &Place, reference: &Value, name_field: &str) -> Option<SecretUse> {
    let found = named(&place.field(name_field), reference.get(name_field)?)?;
    let items = reference.get("items").and_then(Value::as_array).into_iter().flatten();
    let keys = reference
        .get("key")
        .into_iter()
        .chain(items.filter_map(|item| item.get("key")));
    Some(SecretUse {
        keys: keys.filter_map(Value::as_str).map(str::to_owned).collect(),
        optional: reference.get("optional") == Some(&Value::Bool(true)),
        ..found
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_use_a_secret_is_found() {
        let spec = json!({
            "imagePullSecrets": [{"name": "a"}],
            "nodeSelector": {"secretName": "no"},
            "containers": [{
                "name": "main",
                "env": [
                    {"name": "secretRef", "value": "no"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k", "optional": true}}},
                ],
                "envFrom": [{"configMapRef": {"name": "no"}}, {"secretRef": {"name": "c"}}],
            }],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "d", "optional": true}}]}],
            "volumes": [
                {"name": "e", "secret": {"secretName": "e", "items": [{"key": "x", "path": "no"}]}},
                {"name": "f", "projected": {"sources": [{"secret": {"name": "f"}}, {"configMap": {"name": "no"}}]}},
                {"name": "g", "csi": {"driver": "no", "nodePublishSecretRef": {"name": "g"}, "volumeAttributes": {"secretName": "no"}}},
                {"name": "h", "azureFile": {"secretName": "h", "shareName": "no"}},
                {"name": "i", "cephfs": {"monitors": [], "secretRef": {"name": "i"}}},
                {"name": "j", "flexVolume": {"driver": "no", "secretRef": {"name": "j"}, "options": {"secretName": "no"}}},
            ],
        });
        let uses = secret_uses(&spec);
        let mut names: Vec<_> = uses.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
        let found = |name: &str| uses.iter().find(|one| one.name == name).expect("found");
        assert_eq!(
            (found("b").keys.clone(), found("b").optional),
            (vec!["k".to_owned()], true)
        );
        assert_eq!(
            (found("e").keys.clone(), found("e").optional),
            (vec!["x".to_owned()], false)
        );
        assert!(found("d").optional && !found("c").optional);
    }

    /// A field for Secrets that Kubernetes gets some day must be thought of here.
    #[test]
    fn kubernetes_has_no_other_field_for_a_secret() {
        let schema = windlass_pipeline::schema::json_schema();
        let mut fields = BTreeSet::new();
        gather(&schema, &mut fields);
        let known = [
            "imagePullSecrets",
            "nodePublishSecretRef",
            // The run's own, which is made for it: a `secretKeyRef` by the time that pods are looked at.
            "runSecretKeyRef",
            "secret",
            // Of a Ceph volume: a file of the node.
            "secretFile",
            "secretKeyRef",
            "secretName",
            "secretRef",
        ];
        assert_eq!(fields, BTreeSet::from(known.map(str::to_owned)));
    }

    /// Names of properties that have to do with Secrets.
    fn gather(schema: &Value, fields: &mut BTreeSet<String>) {
        match schema {
            Value::Object(entries) => {
                let properties = entries.get("properties").and_then(Value::as_object);
                let names = properties.into_iter().flat_map(|properties| properties.keys());
                fields.extend(names.filter(|name| name.to_lowercase().contains("secret")).cloned());
                entries.values().for_each(|value| gather(value, fields));
            }
            Value::Array(items) => items.iter().for_each(|item| gather(item, fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
