//! Problems of one value, in words for people.

use std::fmt::{self, Display};

use serde::de::{Error, Expected, Unexpected};
use serde_json::Value;

use crate::path::Path;
use crate::violation::Code;

/// Why a value cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct StrictError {
    /// Where; set where it is first known.
    pub(crate) path: Option<String>,
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl StrictError {
    fn new(code: Code, message: String) -> Self {
        Self {
            path: None,
            code,
            message,
        }
    }

    pub(crate) fn bad_value(message: String) -> Self {
        Self::new(Code::BadValue, message)
    }

    /// The same at `path`, when no deeper place is known.
    pub(crate) fn at(mut self, path: &Path<'_>) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }
}

/// `value` is not what was `expected`.
pub(super) fn mismatch(value: &Value, expected: &str) -> StrictError {
    let expected = in_words(expected);
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(boolean) => format!("the boolean {boolean}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", shorten(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    };
    let hint = match value {
        Value::Bool(_) | Value::Number(_) if expected == "a string" => format!("; put it in quotes: \"{value}\""),
        Value::String(text) if expected == "true or false" && is_yaml_1_1_boolean(text) => {
            "; yes, no, on and off are strings in YAML 1.2".to_owned()
        }
        Value::String(_) if expected == "a list" => "; write it as [a, b]".to_owned(),
        _ => String::new(),
    };
    StrictError::new(Code::WrongType, format!("expected {expected}, found {found}{hint}"))
}

fn is_yaml_1_1_boolean(text: &str) -> bool {
    ["yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str())
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start:?}…")
}

/// Rust's names of types in words that users know.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "IntOrString" => "a number or a string",
        other => other,
    }
}

impl Display for StrictError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for StrictError {}

impl Error for StrictError {
    fn custom<T: Display>(message: T) -> Self {
        Self::bad_value(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let found = match unexpected {
            Unexpected::Map => "a map".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Unit | Unexpected::Option => "null".to_owned(),
            Unexpected::Bool(boolean) => format!("the boolean {boolean}"),
            Unexpected::Unsigned(number) => format!("the number {number}"),
            Unexpected::Signed(number) => format!("the number {number}"),
            Unexpected::Float(number) => format!("the number {number}"),
            Unexpected::Str(text) => format!("the string {}", shorten(text)),
            other => other.to_string(),
        };
        Self::new(
            Code::WrongType,
            format!("expected {}, found {found}", in_words(&expected)),
        )
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let found = match unexpected {
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            other => other.to_string(),
        };
        Self::bad_value(format!("{found} is not {}", in_words(&expected)))
    }
}
