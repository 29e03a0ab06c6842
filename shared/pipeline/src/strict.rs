//! Reads JSON values into types and records every problem instead of stopping at the first.
//!
//! serde gives two holds for this: `deserialize_struct` knows the fields of the type, so that unknown ones are found at any depth,
//! also inside types of k8s-openapi, which ignore them; and whatever is optional can be left out once its problem is recorded.

mod access;
mod error;

use std::cell::RefCell;
use std::collections::HashSet;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

pub(crate) use self::access::camel_case;
use self::access::{Entries, Fields, Items};
pub(crate) use self::error::StrictError;
use crate::fragment::integral;
use crate::path::{OwnedSegment, Path, print, segments};
use crate::quantity;
use crate::violation::{Code, MAX_VIOLATIONS, Violation, Violations, did_you_mean};

/// How names are taken, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Whether the original snake_case names of proto fields are taken, too.
    proto_names: bool,
    violations: RefCell<Violations>,
    /// Paths of values that were blanked because of a recorded problem.
    blanked: RefCell<HashSet<String>>,
}

impl Reader {
    /// A reader that also takes the original snake_case names of proto fields.
    pub(crate) fn with_proto_names() -> Self {
        Self {
            proto_names: true,
            ..Self::default()
        }
    }

    /// Reads `value`, which stands at `path`. None when nothing of it could be read.
    ///
    /// serde stops at the first problem. So the offending value is recorded and blanked, and the rest is read again: bad input costs
    /// more, up to a bound, good input nothing.
    pub(crate) fn read<T: DeserializeOwned>(&self, value: &Value, path: &Path<'_>) -> Option<T> {
        let mut problem = match self.attempt(value, path) {
            Ok(read) => return Some(read),
            Err(problem) => problem,
        };
        let mut rest = value.clone();
        let base = segments(&path.to_string()).len();
        for _ in 0..MAX_VIOLATIONS {
            self.blank(&mut rest, base, problem)?;
            problem = match self.attempt(&rest, path) {
                Ok(read) => return Some(read),
                Err(problem) => problem,
            };
        }
        None
    }

    fn attempt<T: DeserializeOwned>(&self, value: &Value, path: &Path<'_>) -> Result<T, StrictError> {
        let strict = Strict {
            value,
            path,
            reader: self,
            in_list: false,
        };
        T::deserialize(strict).map_err(|error| error.at(path))
    }

    /// Records a problem and replaces the value that has it by null, or what holds it where null did not help. None at the root.
    fn blank(&self, value: &mut Value, base: usize, problem: StrictError) -> Option<()> {
        let mut path = problem.path.unwrap_or_default();
        let mut blanked = self.blanked.borrow_mut();
        if !blanked.contains(&path) {
            let violation = Violation::new(path.clone(), problem.code, problem.message);
            self.violations.borrow_mut().push(violation);
        }
        let mut place = segments(&path);
        while !blanked.insert(path) {
            place.pop();
            path = print(&place);
        }
        (place.len() > base).then_some(())?;
        let target = place[base..].iter().try_fold(value, |value, segment| match segment {
            OwnedSegment::Field(name) => value.get_mut(name.as_str()),
            OwnedSegment::Index(index) => value.get_mut(*index),
        });
        *target? = Value::Null;
        Some(())
    }

    /// What was found.
    pub(crate) fn into_violations(self) -> Violations {
        self.violations.into_inner()
    }

    fn unknown_field(&self, path: &Path<'_>, key: &str, fields: &'static [&'static str]) {
        self.record(path, key, Code::UnknownField, || {
            let hint = did_you_mean(key, fields.iter().copied());
            if hint.is_empty() && fields.len() <= 16 {
                format!("unknown field; fields here are {}", fields.join(", "))
            } else {
                format!("unknown field{hint}")
            }
        });
    }

    /// A field that stands there in both of its spellings: the first one counts, so that the rest can be checked.
    fn repeated_field(&self, path: &Path<'_>, key: &str, field: &str) {
        self.record(path, key, Code::Duplicate, || {
            format!("{field} is given twice, also in its other spelling")
        });
    }

    /// Records that a value which could be read is not allowed.
    pub(crate) fn bad_value(&self, path: &Path<'_>, message: String) {
        let mut violations = self.violations.borrow_mut();
        violations.add(path.to_string(), Code::BadValue, message);
    }

    /// Records a problem of a field that is passed over; once, although values are read again after other problems.
    fn record(&self, path: &Path<'_>, key: &str, code: Code, message: impl FnOnce() -> String) {
        let path = path.field(key).to_string();
        let mut violations = self.violations.borrow_mut();
        let again = violations.as_slice().iter().any(|known| known.path == path);
        if !again {
            let message = if violations.is_full() { String::new() } else { message() };
            violations.add(path, code, message);
        }
    }
}

/// One value to be read.
#[derive(Clone, Copy)]
pub(crate) struct Strict<'de, 'p> {
    value: &'de Value,
    path: &'p Path<'p>,
    reader: &'p Reader,
    /// Elements of lists may not be null.
    in_list: bool,
}

impl<'de> Strict<'de, '_> {
    fn mismatch(&self, expected: &dyn serde::de::Expected) -> StrictError {
        error::mismatch(self.value, &expected.to_string()).at(self.path)
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        let Value::Number(number) = self.value else {
            return Err(self.mismatch(&visitor));
        };
        let number = integral(number.clone());
        let read = match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(unsigned), _, _) => visitor.visit_u64(unsigned),
            (_, Some(signed), _) => visitor.visit_i64(signed),
            (_, _, Some(float)) => visitor.visit_f64(float),
            (None, None, None) => Err(self.mismatch(&visitor)),
        };
        read.map_err(|error| error.at(self.path))
    }

    fn text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.value {
            Value::String(text) => visitor
                .visit_borrowed_str(text)
                .map_err(|error: StrictError| error.at(self.path)),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn items<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.value {
            Value::Array(items) => visitor
                .visit_seq(Items::new(items, self.path, self.reader))
                .map_err(|error| error.at(self.path)),
            _ => Err(self.mismatch(&"a list")),
        }
    }

    fn entries<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.value {
            Value::Object(entries) => visitor
                .visit_map(Entries::new(entries, self.path, self.reader))
                .map_err(|error| error.at(self.path)),
            _ => Err(self.mismatch(&"a map")),
        }
    }
}

macro_rules! like {
    ($how:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
            self.$how(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Strict<'de, '_> {
    type Error = StrictError;

    like!(number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_f32 deserialize_f64);
    like!(text: deserialize_str deserialize_string deserialize_char deserialize_identifier);
    like!(items: deserialize_seq);
    like!(entries: deserialize_map);
    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct enum }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.value {
            Value::Null => visitor.visit_unit().map_err(|error: StrictError| error.at(self.path)),
            Value::Bool(boolean) => visitor
                .visit_bool(*boolean)
                .map_err(|error: StrictError| error.at(self.path)),
            Value::Number(_) => self.number(visitor),
            Value::String(_) => self.text(visitor),
            Value::Array(_) => self.items(visitor),
            Value::Object(_) => self.entries(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.value {
            Value::Bool(boolean) => visitor.visit_bool(*boolean),
            _ => Err(self.mismatch(&"true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.value {
            Value::Null if self.in_list && !self.reader.blanked.borrow().contains(&self.path.to_string()) => {
                Err(self.mismatch(&"a value"))
            }
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, StrictError> {
        if name == "Quantity"
            && let Value::String(text) = self.value
            && !quantity::may_become_valid(text)
        {
            return Err(StrictError::bad_value(quantity::explain(text)).at(self.path));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, StrictError> {
        match self.value {
            Value::Object(entries) => visitor
                .visit_map(Fields::new(entries, fields, self.path, self.reader))
                .map_err(|error| error.at(self.path)),
            _ => Err(self.mismatch(&"a map")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        visitor.visit_unit()
    }
}
