//! Fragments of Kubernetes objects inside a pipeline.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

/// A part of a Kubernetes object, such as an affinity, in normal form: keys sorted, integral numbers as integers, nulls dropped
/// (but for [patches](Fragment::patch)).
///
/// The normal form makes a file and an API message equal: a `google.protobuf.Struct` turns `420` into `420.0` and forgets the order
/// of keys. Whether it fits its Kubernetes type is checked when the pipeline is resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Fragment(Value);

impl Fragment {
    /// Brings `value` into normal form.
    pub fn new(value: Value) -> Self {
        Self(normalise(value, Nulls::Drop))
    }

    /// Brings a patch into normal form: a null in it removes what it is merged over, and stays.
    pub fn patch(value: Value) -> Self {
        Self(normalise(value, Nulls::Keep))
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The value.
    pub fn into_value(self) -> Value {
        self.0
    }

    pub(crate) fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// The text at `key` of an object.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }
}

impl From<Value> for Fragment {
    fn from(value: Value) -> Self {
        Self::new(value)
    }
}

impl<'de> Deserialize<'de> for Fragment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::new)
    }
}

/// Reads a patch, if there is one.
pub(crate) fn optional_patch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fragment>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.map(Fragment::patch))
}

/// The key of a patch that says what becomes of the map that holds it.
pub const DIRECTIVE: &str = "$patch";

/// Lists of a PodSpec that merge by a key; all others are replaced.
const MERGE_KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("resourceClaims", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("ports", "containerPort"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// The key by which the elements of a list of a PodSpec are merged, when they are.
pub fn merge_key(list: &str) -> Option<&'static str> {
    MERGE_KEYS.iter().find(|(name, _)| *name == list).map(|(_, key)| *key)
}

/// What becomes of nulls in maps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    Drop,
    Keep,
}

fn normalise(value: Value, nulls: Nulls) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => value,
        Value::Number(number) => Value::Number(integral(number)),
        Value::Array(items) => items.into_iter().map(|item| normalise(item, nulls)).collect(),
        Value::Object(entries) => {
            let kept = |value: &Value| nulls == Nulls::Keep || !value.is_null();
            let mut entries: Vec<_> = entries.into_iter().filter(|(_, value)| kept(value)).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let entries = entries.into_iter().map(|(key, value)| (key, normalise(value, nulls)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

/// A floating-point number without a fraction as an integer, when it fits exactly.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(crate) fn integral(number: Number) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => Number::from(float as i64),
        _ => number,
    }
}

/// Whether a number is no whole number from 2⁵³ on: those are rounded in floating point.
pub(crate) fn is_exact(number: &Number) -> bool {
    const ROUNDED: f64 = 9_007_199_254_740_992.0;
    number
        .as_f64()
        .is_some_and(|float| float.abs() < ROUNDED || float.fract() != 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// behaviours Z1
    #[test]
    fn a_fragment_from_a_struct_equals_the_one_from_a_file() {
        let from_api = Fragment::new(json!({"items": [{"mode": 420.0, "key": "a"}], "x": null}));
        let from_file = Fragment::new(json!({"items": [{"key": "a", "mode": 420}]}));
        assert_eq!(from_api, from_file);
        assert_eq!(from_api.value()["items"][0]["mode"].as_i64(), Some(420));
        assert_eq!(Fragment::new(json!(0.5)).value().as_f64(), Some(0.5));
    }
}
