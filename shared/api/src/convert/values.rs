//! Well-known types: durations, timestamps, JSON values.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::value::Kind;
use serde_json::{Map, Number, Value as Json};
use windlass_ids::Timestamp;
use windlass_pipeline::{Code, Millis, Scalar, Violation, Violations};

/// A point in time as a message.
pub fn timestamp_to_proto(timestamp: Timestamp) -> prost_types::Timestamp {
    let millis = timestamp.as_millis();
    prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

/// A message as a point in time, cut to milliseconds.
pub fn timestamp_from_proto(timestamp: &prost_types::Timestamp) -> Timestamp {
    Timestamp::from_millis(
        timestamp
            .seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(timestamp.nanos) / 1_000_000),
    )
}

/// A duration as a message.
pub fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A message as a duration; nothing when it is negative or not normal.
pub fn std_duration_from_proto(duration: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

/// A message as a duration of the pipeline model, rounded up to milliseconds.
///
/// # Errors
/// A violation at `path` when it is negative or longer than ten years, as in a file.
pub fn millis_from_proto(path: &str, duration: &prost_types::Duration) -> Result<Millis, Violation> {
    let duration = std_duration_from_proto(duration).ok_or_else(|| {
        Violation::new(
            path,
            Code::BadValue,
            "must not be negative; write a duration such as 90s, 45m or 2h",
        )
    })?;
    let millis = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).map(Millis);
    millis
        .ok()
        .filter(|millis| *millis <= Millis::MAX)
        .ok_or_else(|| Violation::new(path, Code::BadValue, "must not be longer than ten years"))
}

/// JSON as a message. Numbers become floating-point numbers, as `google.protobuf.Value` has no others.
pub fn value_from_json(json: &Json) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(boolean) => Kind::BoolValue(*boolean),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.iter().map(value_from_json).collect(),
        }),
        Json::Object(entries) => Kind::StructValue(struct_from_map(entries)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// A message as JSON; what JSON cannot hold (NaN, infinities, nothing at all) becomes null.
pub fn json_from_value(value: prost_types::Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(boolean)) => Json::Bool(boolean),
        Some(Kind::NumberValue(number)) => Number::from_f64(number).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json_from_value).collect(),
        Some(Kind::StructValue(fields)) => json_from_struct(fields),
    }
}

pub(super) fn struct_from_map(entries: &Map<String, Json>) -> prost_types::Struct {
    prost_types::Struct {
        fields: entries
            .iter()
            .map(|(key, value)| (key.clone(), value_from_json(value)))
            .collect(),
    }
}

pub(super) fn json_from_struct(fields: prost_types::Struct) -> Json {
    fields
        .fields
        .into_iter()
        .map(|(key, value)| (key, json_from_value(value)))
        .collect::<Map<_, _>>()
        .into()
}

pub(super) fn scalar_from_value(path: &str, value: prost_types::Value) -> Result<Scalar, Violation> {
    Scalar::from_value(json_from_value(value))
        .map_err(|_| Violation::new(path, Code::WrongType, "must be a text, a number, true or false"))
}

pub(super) fn scalar_to_value(scalar: &Scalar) -> prost_types::Value {
    let kind = match scalar {
        Scalar::String(text) => Kind::StringValue(text.clone()),
        Scalar::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Scalar::Boolean(boolean) => Kind::BoolValue(*boolean),
    };
    prost_types::Value { kind: Some(kind) }
}

/// The parameter values of a submission.
///
/// What is no text, number or boolean has some value, so that the rest can be checked, and a violation at `parameters.NAME`.
pub fn parameters_from_proto(
    parameters: BTreeMap<String, prost_types::Value>,
    problems: &mut Violations,
) -> BTreeMap<String, Scalar> {
    let mut read = |(name, value): (String, _)| {
        let scalar = scalar_from_value(&format!("parameters.{name}"), value).unwrap_or_else(|violation| {
            problems.push(violation);
            Scalar::default()
        });
        (name, scalar)
    };
    parameters.into_iter().map(&mut read).collect()
}

/// Parameter values as messages.
pub fn parameters_to_proto(parameters: &BTreeMap<String, Scalar>) -> BTreeMap<String, prost_types::Value> {
    parameters
        .iter()
        .map(|(name, scalar)| (name.clone(), scalar_to_value(scalar)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_wire() {
        for millis in [0, 1, 999, 1_000, -1, -1_000, 1_790_000_000_123] {
            let timestamp = Timestamp::from_millis(millis);
            assert_eq!(timestamp_from_proto(&timestamp_to_proto(timestamp)), timestamp);
        }
    }

    #[test]
    fn a_negative_or_endless_duration_is_refused_with_its_path() {
        let violation =
            millis_from_proto("timeout", &prost_types::Duration { seconds: -1, nanos: 0 }).expect_err("refused");
        assert_eq!((violation.path.as_str(), violation.code), ("timeout", Code::BadValue));
        let long = prost_types::Duration {
            seconds: 400_000_000,
            nanos: 0,
        };
        let violation = millis_from_proto("timeout", &long).expect_err("refused");
        assert_eq!(violation.message, "must not be longer than ten years");
        let short = prost_types::Duration { seconds: 0, nanos: 1 };
        assert_eq!(millis_from_proto("timeout", &short).expect("valid"), Millis(1));
    }
}
