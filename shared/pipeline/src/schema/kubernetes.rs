//! Schemas of Kubernetes objects: those of the types into which the validator reads them, with no further fields and nothing required
//! but what the validator requires.

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, PodSecurityContext, PodSpec, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{or_null, quantity, set};
use crate::fragment::DIRECTIVE;
use crate::kubernetes::{OVERLAY_REFUSED, REQUIRED_OF_SOURCES};

const CORE: &str = "io.k8s.api.core.v1.";

/// A place in a pipeline where a Kubernetes object of this type stands.
pub(super) fn fragment(name: &str) -> Value {
    let of = |name: &str| json!({"$ref": format!("#/$defs/{CORE}{name}"), "type": "object"});
    match name {
        "VolumeSource" => {
            let mut schema = with_sources(of("Volume"));
            set(&mut schema, "propertyNames", json!({"not": {"const": "name"}}));
            set(&mut schema, "minProperties", json!(1));
            schema
        }
        "Volume" => {
            let mut schema = with_sources(of(name));
            set(&mut schema, "required", json!(["name"]));
            schema
        }
        "VolumeMount" => {
            let mut schema = of(name);
            set(&mut schema, "required", json!(["name", "mountPath"]));
            schema
        }
        "Container" => {
            let mut schema = of(name);
            set(&mut schema, "required", json!(["name", "image"]));
            schema
        }
        name => of(name),
    }
}

/// What each source of a volume needs. Beside the reference and not in the definition: an overlay changes volumes, and says less.
fn with_sources(mut volume: Value) -> Value {
    let needs: Map<String, Value> = REQUIRED_OF_SOURCES
        .iter()
        .map(|(source, fields)| ((*source).to_owned(), json!({"required": fields})))
        .collect();
    set(&mut volume, "allOf", json!([{"properties": needs}]));
    volume
}

/// The definitions to which [`fragment`] refers.
pub(super) fn definitions() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.subschema_for::<Affinity>();
    generator.subschema_for::<Container>();
    generator.subschema_for::<EnvFromSource>();
    generator.subschema_for::<PodSecurityContext>();
    generator.subschema_for::<PodSpec>();
    generator.subschema_for::<SecurityContext>();
    generator.subschema_for::<Toleration>();
    generator.subschema_for::<Volume>();
    generator.subschema_for::<VolumeMount>();
    let mut found: Vec<(String, Value)> = generator.take_definitions(true).into_iter().collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
        .into_iter()
        .filter(|(name, _)| scalar(name).is_none())
        .map(|(name, mut schema)| {
            definition(&name, &mut schema);
            (name, schema)
        })
        .collect()
}

/// What a type is that is written as one value.
fn scalar(name: &str) -> Option<Value> {
    match name.rsplit('.').next()? {
        "Quantity" => Some(quantity()),
        "IntOrString" => Some(json!({"type": ["integer", "string"]})),
        "Time" | "MicroTime" => Some(json!({"type": "string", "format": "date-time"})),
        _ => None,
    }
}

fn definition(name: &str, schema: &mut Value) {
    let Some(entries) = schema.as_object_mut() else {
        return;
    };
    // Absent fields are taken as empty; that a definition is a map is said where it is used.
    entries.remove("required");
    let Some(properties) = entries.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    if name.strip_prefix(CORE) == Some("PodSpec") {
        for (refused, _) in OVERLAY_REFUSED {
            properties.shift_remove(refused);
        }
    }
    for (_, property) in properties.iter_mut() {
        place(property);
        or_null(property);
    }
    let directive = json!({
        "type": "string", "enum": ["replace", "delete"],
        "description": "In an overlay: `replace` drops what a map held before, `delete` removes the element of a list with the same key.",
    });
    properties.insert(DIRECTIVE.to_owned(), directive);
    entries.remove("type");
    entries.insert("additionalProperties".to_owned(), json!(false));
}

/// A place inside a Kubernetes object.
fn place(schema: &mut Value) {
    let target = schema.get("$ref").and_then(Value::as_str);
    if let Some(target) = target.and_then(|target| target.strip_prefix("#/$defs/")) {
        match scalar(target) {
            Some(mut scalar) => {
                if let Some(description) = schema.get("description") {
                    set(&mut scalar, "description", description.clone());
                }
                *schema = scalar;
            }
            None => set(schema, "type", json!("object")),
        }
    }
    if let Some(items) = schema.get_mut("items") {
        place(items);
    }
    if let Some(values) = schema.get_mut("additionalProperties") {
        place(values);
        or_null(values);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kubernetes::FREE_MAPS;

    #[test]
    fn the_maps_with_keys_of_the_users_are_known() {
        let definitions = definitions();
        let of_all = definitions
            .values()
            .filter_map(|definition| definition["properties"].as_object());
        let maps = of_all
            .flatten()
            .filter(|(_, schema)| schema["additionalProperties"].is_object());
        let names: BTreeSet<&str> = maps.map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(FREE_MAPS));
    }
}
