//! Every field of the pipeline file: name, type, default and meaning, for the generated reference, for `windlass schema`, and for the
//! test that keeps file and proto messages equal.

mod table;

use std::fmt;

pub use table::MESSAGES;

/// A group of fields, which is a proto message of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Name of the proto message.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its fields, in the order of the file.
    pub fields: &'static [Field],
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the file, which is the proto field's JSON name.
    pub name: &'static str,
    /// Whether it must be given: a text or list must not be empty either.
    pub required: bool,
    /// Type of its values.
    pub kind: Kind,
    /// What is used when it is absent; none when nothing is.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

/// Type of a field's values.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// Text in base64.
    Base64,
    /// A whole number between these two.
    Integer(i64, i64),
    /// A number between these two.
    Number(f64, f64),
    /// true or false.
    Boolean,
    /// A duration such as `90s`.
    Duration,
    /// A text, a number or a boolean.
    Scalar,
    /// One of these names, which canonical proto JSON writes with this before them.
    OneOf(&'static str, &'static [&'static str]),
    /// A map of texts.
    TextMap,
    /// A map of quantities such as `500m`.
    QuantityMap,
    /// A group of fields, by its name in [`MESSAGES`].
    Message(&'static str),
    /// A Kubernetes object of this type, checked strictly.
    Kubernetes(&'static str),
    /// A list.
    List(&'static Kind),
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => formatter.write_str("string"),
            Self::Base64 => formatter.write_str("base64 string"),
            Self::Integer(..) => formatter.write_str("integer"),
            Self::Number(..) => formatter.write_str("number"),
            Self::Boolean => formatter.write_str("boolean"),
            Self::Duration => formatter.write_str("duration"),
            Self::Scalar => formatter.write_str("string, number or boolean"),
            Self::OneOf(_, names) => formatter.write_str(&names.join(", ")),
            Self::TextMap => formatter.write_str("map of strings"),
            Self::QuantityMap => formatter.write_str("map of quantities"),
            Self::Message(name) => formatter.write_str(name),
            Self::Kubernetes(name) => write!(formatter, "Kubernetes {name}"),
            Self::List(inner) => write!(formatter, "list of {inner}"),
        }
    }
}

/// The group of fields with this name.
pub fn message(name: &str) -> Option<&'static Message> {
    MESSAGES.iter().find(|message| message.name == name)
}

/// Every field below `root` with its whole path, such as `steps[].retries.user.attempts`.
pub fn flattened(root: &str) -> Vec<(String, &'static Field)> {
    let mut fields = Vec::new();
    flatten(root, "", &mut fields);
    fields
}

fn flatten(name: &str, prefix: &str, fields: &mut Vec<(String, &'static Field)>) {
    for field in message(name).map_or(&[][..], |message| message.fields) {
        let mut path = format!("{prefix}{}", field.name);
        fields.push((path.clone(), field));
        let mut kind = &field.kind;
        while let Kind::List(inner) = kind {
            path.push_str("[]");
            kind = inner;
        }
        if let Kind::Message(inner) = kind {
            path.push('.');
            flatten(inner, &path, fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
    use serde::forward_to_deserialize_any;

    use super::*;
    use crate::model::*;

    /// Asks a type for the names of its fields.
    struct Names<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only names are wanted"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn names<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
        let mut names = Vec::new();
        T::deserialize(Names(&mut names)).err();
        names
    }

    #[test]
    fn the_table_has_every_field_of_the_model() {
        let model = [
            ("Pipeline", names::<Pipeline>()),
            ("Parameter", names::<Parameter>()),
            ("Workspace", names::<Workspace>()),
            ("File", names::<File>()),
            ("StepDefaults", names::<StepTemplate>()),
            ("Step", names::<Step>()),
            ("MatrixAxis", names::<MatrixAxis>()),
            ("EnvVar", names::<EnvVar>()),
            ("EnvVarSource", names::<EnvVarSource>()),
            ("KeySelector", names::<KeySelector>()),
            ("FieldSelector", names::<FieldSelector>()),
            ("ResourceFieldSelector", names::<ResourceFieldSelector>()),
            ("RunSecretKeySelector", names::<RunSecretKeySelector>()),
            ("Retries", names::<Retries>()),
            ("RetryBudget", names::<RetryBudget>()),
            ("LostContact", names::<LostContact>()),
            ("Deadlines", names::<Deadlines>()),
            ("Logs", names::<Logs>()),
            ("PodSettings", names::<PodSettings>()),
            ("Resources", names::<Resources>()),
        ];
        assert_eq!(model.len(), MESSAGES.len());
        for (name, fields) in model {
            let documented: Vec<&str> = message(name)
                .expect(name)
                .fields
                .iter()
                .map(|field| field.name)
                .collect();
            assert_eq!(documented, fields, "{name}");
        }
    }

    #[test]
    fn paths_reach_the_bottom() {
        let paths: Vec<String> = flattened("Pipeline").into_iter().map(|(path, _)| path).collect();
        for path in [
            "name",
            "steps[].retries.user.exitCodes",
            "defaults.pod.resources.limits",
            "steps[].env[].valueFrom.secretKeyRef.key",
        ] {
            assert!(paths.iter().any(|known| known == path), "{path}");
        }
    }

    #[test]
    fn defaults_are_those_that_are_applied() {
        use crate::{Policy, RetryPolicy};
        let default = |message: &str, field: &str| {
            let fields = super::message(message).expect(message).fields;
            fields
                .iter()
                .find(|known| known.name == field)
                .and_then(|field| field.default)
        };
        assert_eq!(
            default("RetryBudget", "delay"),
            Some(RetryPolicy::DELAY.to_string().as_str())
        );
        assert_eq!(
            default("RetryBudget", "maxDelay"),
            Some(RetryPolicy::MAX_DELAY.to_string().as_str())
        );
        assert_eq!(
            default("LostContact", "deadline"),
            Some(Policy::LOST_CONTACT.to_string().as_str())
        );
        assert_eq!(
            default("Deadlines", "created"),
            Some(Policy::CREATED.to_string().as_str())
        );
        assert_eq!(
            default("Deadlines", "pulling"),
            Some(Policy::WAITING.to_string().as_str())
        );
        assert_eq!(
            default("StepDefaults", "terminationGrace"),
            Some(Policy::TERMINATION_GRACE.to_string().as_str())
        );
        assert_eq!(default("Step", "runIf"), Some(RunIf::default().as_str()));
        assert_eq!(
            default("Pipeline", "failureMode"),
            Some(FailureMode::default().as_str())
        );
    }
}
