//! Messages as JSON, in the forms that pipeline files use: durations `90s`, enum values without their prefix, numbers as numbers.
//!
//! It walks the descriptors, so that a field that the API gains is printed without a change here.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, ReflectMessage as _, Value};
use serde_json::{Map, Number, Value as Json};

use crate::output::time_rfc3339;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(windlass_api::DESCRIPTORS).ok());

/// A message as JSON; fields that are not set are left out.
pub fn to_json<M: Message + Name>(message: &M) -> Json {
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&M::full_name()));
    let decoded =
        descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok());
    decoded.map_or(Json::Null, |message| message_json(&message))
}

fn message_json(message: &DynamicMessage) -> Json {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => {
            let time = prost_types::Timestamp {
                seconds: integer(message, "seconds"),
                nanos: i32::try_from(integer(message, "nanos")).unwrap_or(0),
            };
            Json::String(time_rfc3339(crate::output::millis(time)))
        }
        "google.protobuf.Duration" => {
            Json::String(duration_text(integer(message, "seconds"), integer(message, "nanos")))
        }
        "google.protobuf.Value" => message
            .fields()
            .next()
            .map_or(Json::Null, |(field, value)| match field.name() {
                "null_value" => Json::Null,
                _ => value_json(&field, value),
            }),
        "google.protobuf.Struct" => first_field(message, Json::Object(Map::new())),
        "google.protobuf.ListValue" => first_field(message, Json::Array(Vec::new())),
        _ => Json::Object(
            message
                .fields()
                .map(|(field, value)| (field.json_name().to_owned(), value_json(&field, value)))
                .collect(),
        ),
    }
}

fn first_field(message: &DynamicMessage, empty: Json) -> Json {
    message
        .fields()
        .next()
        .map_or(empty, |(field, value)| value_json(&field, value))
}

fn value_json(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::I32(value) => Json::from(*value),
        Value::I64(value) => Json::from(*value),
        Value::U32(value) => Json::from(*value),
        Value::U64(value) => Json::from(*value),
        Value::F32(value) => float(f64::from(*value)),
        Value::F64(value) => float(*value),
        Value::String(value) => Json::String(value.clone()),
        Value::Bytes(value) => {
            use base64::Engine as _;
            Json::String(base64::engine::general_purpose::STANDARD.encode(value))
        }
        Value::EnumNumber(number) => enum_json(field, *number),
        Value::Message(message) => message_json(message),
        Value::List(values) => Json::Array(values.iter().map(|value| value_json(field, value)).collect()),
        Value::Map(entries) => {
            let kind = field.kind();
            let value_field = kind.as_message().map_or_else(
                || field.clone(),
                prost_reflect::MessageDescriptor::map_entry_value_field,
            );
            let mut entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| (key_text(key), value_json(&value_field, value)))
                .collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            Json::Object(entries.into_iter().collect())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

// `420.0` of a Struct was 420 in the file.
#[expect(clippy::cast_possible_truncation, reason = "the bounds are checked")]
fn float(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        Json::from(value as i64)
    } else {
        Number::from_f64(value).map_or(Json::Null, Json::Number)
    }
}

fn enum_json(field: &FieldDescriptor, number: i32) -> Json {
    let kind = field.kind();
    let Some(descriptor) = kind.as_enum() else {
        return Json::from(number);
    };
    let name = descriptor.get_value(number).map(|value| value.name().to_owned());
    let prefix = screaming_snake(descriptor.name());
    name.map_or_else(
        || Json::from(number),
        |name| Json::String(name.strip_prefix(&prefix).unwrap_or(&name).to_owned()),
    )
}

fn screaming_snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text.push('_');
    text
}

fn integer(message: &DynamicMessage, field: &str) -> i64 {
    match message.get_field_by_name(field).as_deref() {
        Some(Value::I64(value)) => *value,
        Some(Value::I32(value)) => i64::from(*value),
        _ => 0,
    }
}

fn duration_text(seconds: i64, nanos: i64) -> String {
    if nanos == 0 {
        return format!("{seconds}s");
    }
    let fraction = format!("{:09}", nanos.abs());
    format!("{seconds}.{}s", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost_types::value::Kind;
    use windlass_api::run::v1::{Explanation, Run, RunState, StepCount, StepState};

    use super::*;

    #[test]
    fn messages_are_printed_as_files_write_them() {
        let run = Run {
            name: "churn-7k2m".to_owned(),
            state: RunState::Succeeded as i32,
            parameters: BTreeMap::from([(
                "EPOCHS".to_owned(),
                prost_types::Value {
                    kind: Some(Kind::NumberValue(20.0)),
                },
            )]),
            create_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            step_counts: vec![StepCount {
                state: StepState::LostContact as i32,
                count: 2,
            }],
            last_sequence: 9,
            ..Run::default()
        };
        assert_eq!(
            to_json(&run),
            serde_json::json!({
                "name": "churn-7k2m",
                "state": "SUCCEEDED",
                "parameters": {"EPOCHS": 20},
                "createTime": "2023-11-14T22:13:20.000Z",
                "stepCounts": [{"state": "LOST_CONTACT", "count": 2}],
                "lastSequence": 9,
            })
        );
        let explanation = Explanation {
            waited: Some(prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
            ..Explanation::default()
        };
        assert_eq!(to_json(&explanation), serde_json::json!({"waited": "1.5s"}));
    }
}
