//! Values of parameters and matrix axes.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value};

use crate::fragment::{integral, is_exact};
use crate::model::ParameterType;

/// A text, a number or a boolean.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A text.
    String(String),
    /// A number.
    Number(Number),
    /// true or false.
    Boolean(bool),
}

impl Scalar {
    /// From a JSON value; integral numbers become integers.
    ///
    /// # Errors
    /// The value itself when it is null, a list or a map.
    pub fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::String(text) => Ok(Self::String(text)),
            Value::Number(number) => Ok(Self::Number(integral(number))),
            Value::Bool(boolean) => Ok(Self::Boolean(boolean)),
            Value::Null | Value::Array(_) | Value::Object(_) => Err(value),
        }
    }

    /// From a floating-point number; integral numbers become integers. None for infinities and NaN.
    pub fn from_f64(number: f64) -> Option<Self> {
        Number::from_f64(number).map(|number| Self::Number(integral(number)))
    }

    /// Whether it is the same number in a file and in an API message, which holds numbers in floating point: from 2⁵³ on, whole
    /// numbers are rounded there.
    pub fn is_exact(&self) -> bool {
        match self {
            Self::Number(number) => is_exact(number),
            Self::String(_) | Self::Boolean(_) => true,
        }
    }

    /// Its type.
    pub const fn parameter_type(&self) -> ParameterType {
        match self {
            Self::String(_) => ParameterType::String,
            Self::Number(_) => ParameterType::Number,
            Self::Boolean(_) => ParameterType::Boolean,
        }
    }

    /// The value that `text` means for a parameter of this type: what `--param NAME=TEXT` gives.
    ///
    /// # Errors
    /// The text, when it is no value of the type.
    pub fn parse(text: &str, parameter_type: ParameterType) -> Result<Self, String> {
        let parsed = match parameter_type {
            ParameterType::String => Some(Self::String(text.to_owned())),
            ParameterType::Number => text.parse().ok().map(|number| Self::Number(integral(number))),
            ParameterType::Boolean => text.parse().ok().map(Self::Boolean),
        };
        parsed.ok_or_else(|| text.to_owned())
    }
}

impl fmt::Display for Scalar {
    /// As it is substituted for `$(NAME)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => formatter.write_str(text),
            Self::Number(number) => number.fmt(formatter),
            Self::Boolean(boolean) => boolean.fmt(formatter),
        }
    }
}

impl Default for Scalar {
    fn default() -> Self {
        Self::String(String::new())
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, a number or a boolean")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::String(text.to_owned()))
            }

            fn visit_bool<E>(self, boolean: bool) -> Result<Scalar, E> {
                Ok(Scalar::Boolean(boolean))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Scalar, E> {
                Scalar::from_f64(number).ok_or_else(|| E::custom("a number must be finite"))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_from_the_api_prints_as_in_the_file() {
        let text = |value| Scalar::from_value(value).expect("a scalar").to_string();
        assert_eq!(text(json!(5.0)), "5");
        assert_eq!(text(json!(0.01)), "0.01");
        assert_eq!(text(json!(true)), "true");
    }

    #[test]
    fn a_text_is_read_as_the_parameter_wants_it() {
        assert_eq!(Scalar::parse("5", ParameterType::String), Ok("5".into()));
        assert_eq!(Scalar::parse("5", ParameterType::Number), Ok(Scalar::Number(5.into())));
        assert_eq!(Scalar::parse("yes", ParameterType::Boolean), Err("yes".to_owned()));
    }
}
