//! The JSON Schema of the pipeline file, for editors and other tools.
//!
//! It is made of the table of all fields, and for Kubernetes objects of the types into which they are read. What the validator accepts
//! the schema accepts, in the names that this project's documents use; the original snake_case names of proto fields are left out.
//! The reverse cannot hold: a schema knows no graph and no merging, so `validate` finds more.

mod kubernetes;

use serde_json::{Map, Value, json};

use crate::fields::{Field, Kind, MESSAGES, Message};

/// The dialect of the schema.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Durations: `0` or numbers with units.
const DURATION: &str = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$";

/// Quantities, and texts that may become one once `$(NAME)` is substituted in them.
const QUANTITY: &str = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$|\$\(";

/// The schema of a pipeline file: JSON Schema, draft 2020-12.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!(DIALECT));
    root.insert("title".to_owned(), json!("Windlass pipeline"));
    for message in MESSAGES {
        let mut fields = fields_of(message);
        if message.name == "Pipeline" {
            root.insert("type".to_owned(), json!("object"));
            root.append(&mut fields);
        } else {
            definitions.insert(message.name.to_owned(), Value::Object(fields));
        }
    }
    definitions.append(&mut kubernetes::definitions());
    root.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(root)
}

/// The fields of a message; that it is a map is said where it is used, since a field that may be absent may be null, too.
fn fields_of(message: &Message) -> Map<String, Value> {
    let properties: Map<String, Value> = message
        .fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    let mut fields = Map::from_iter([
        ("description".to_owned(), json!(message.doc)),
        ("properties".to_owned(), Value::Object(properties)),
        ("additionalProperties".to_owned(), json!(false)),
    ]);
    let required: Vec<&str> = message
        .fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    if !required.is_empty() {
        fields.insert("required".to_owned(), json!(required));
    }
    fields
}

fn property(field: &Field) -> Value {
    let mut schema = of(&field.kind);
    if field.required {
        match field.kind {
            Kind::Text => set(&mut schema, "minLength", json!(1)),
            Kind::List(_) => set(&mut schema, "minItems", json!(1)),
            _ => {}
        }
    } else {
        or_null(&mut schema);
    }
    set(&mut schema, "description", json!(field.doc));
    if let Some(default) = field.default {
        set(&mut schema, "default", typed(default, &field.kind));
    }
    schema
}

/// A default as a value of its type.
fn typed(default: &str, kind: &Kind) -> Value {
    match kind {
        Kind::Integer(..) | Kind::Number(..) | Kind::Boolean => {
            serde_json::from_str(default).unwrap_or_else(|_| json!(default))
        }
        _ => json!(default),
    }
}

/// Values of a kind, without null.
fn of(kind: &Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Base64 => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Integer(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Number(least, most) => json!({"type": "number", "minimum": least, "maximum": most}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Duration => json!({
            "type": ["string", "integer"], "pattern": DURATION,
            "patternErrorMessage": "write a duration with its unit, such as 90s, 45m or 1h30m",
            // The number 0 is the one that needs no unit.
            "anyOf": [{"type": ["string", "null"]}, {"const": 0}],
        }),
        Kind::Scalar => json!({"type": ["string", "number", "boolean"]}),
        Kind::OneOf("", names) => json!({"type": "string", "anyOf": [{"enum": names}, {"pattern": r"\$\("}]}),
        Kind::OneOf(prefix, names) => {
            let long = format!("^{prefix}({})$", names.join("|"));
            json!({"type": "string", "anyOf": [{"enum": names}, {"pattern": long}]})
        }
        Kind::TextMap => json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}}),
        Kind::QuantityMap => {
            let mut amount = quantity();
            set(&mut amount, "minimum", json!(0));
            json!({"type": "object", "additionalProperties": amount})
        }
        Kind::Message(name) => json!({"$ref": format!("#/$defs/{name}"), "type": "object"}),
        Kind::Kubernetes(name) => kubernetes::fragment(name),
        Kind::List(inner) => json!({"type": "array", "items": of(inner)}),
    }
}

/// A Kubernetes quantity; a number stands for its text.
fn quantity() -> Value {
    json!({
        "type": ["string", "number"], "pattern": QUANTITY,
        "patternErrorMessage": "write a quantity, such as 500m, 2 or 4Gi",
    })
}

/// A field that may be absent may also be null.
fn or_null(schema: &mut Value) {
    let types = match schema.get("type") {
        Some(Value::String(one)) => json!([one, "null"]),
        Some(Value::Array(several)) => several.iter().cloned().chain([json!("null")]).collect(),
        _ => return,
    };
    set(schema, "type", types);
}

fn set(schema: &mut Value, key: &str, value: Value) {
    if let Some(entries) = schema.as_object_mut() {
        entries.insert(key.to_owned(), value);
    }
}
