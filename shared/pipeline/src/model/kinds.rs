//! The enums of the format: canonical proto JSON writes them with a prefix, files without.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::violation::did_you_mean;

macro_rules! wire_enum {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// Every value as it stands in a file.
            pub const NAMES: &'static [&'static str] = &[$($text),*];

            /// What canonical proto JSON writes before each of them.
            pub const PREFIX: &'static str = $prefix;

            /// The value as it stands in a file.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Reads a value with or without its prefix.
            pub fn parse(text: &str) -> Option<Self> {
                match text.strip_prefix(Self::PREFIX).unwrap_or(text) {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameVisitor;

                impl Visitor<'_> for NameVisitor {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(formatter, "one of {}", $name::NAMES.join(", "))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).ok_or_else(|| E::custom(unknown(text, $name::NAMES)))
                    }
                }

                deserializer.deserialize_str(NameVisitor)
            }
        }
    )*};
}

fn unknown(text: &str, names: &[&str]) -> String {
    let hint = did_you_mean(text, names.iter().copied());
    format!("unknown value `{text}`{hint}; allowed are {}", names.join(", "))
}

wire_enum! {
    /// Type of a parameter.
    ParameterType, "PARAMETER_TYPE_" {
        /// Text.
        #[default]
        String = "STRING",
        /// A number.
        Number = "NUMBER",
        /// true or false.
        Boolean = "BOOLEAN",
    }
    /// What a failed step does to the rest of the run.
    FailureMode, "FAILURE_MODE_" {
        /// Siblings go on, descendants are skipped.
        #[default]
        ContinueOnFailure = "CONTINUE_ON_FAILURE",
        /// Nothing new starts, what runs goes on.
        StopOnFailure = "STOP_ON_FAILURE",
        /// What runs is stopped, too.
        FailFast = "FAIL_FAST",
    }
    /// When a step runs, judged on its upstream steps.
    RunIf, "RUN_IF_" {
        /// All upstream steps are SUCCEEDED or CACHED.
        #[default]
        Succeeded = "SUCCEEDED",
        /// All upstream steps are terminal and one FAILED.
        Failed = "FAILED",
        /// All upstream steps are terminal.
        Always = "ALWAYS",
    }
    /// What follows when contact to a pod stays lost.
    LostContactAction, "LOST_CONTACT_ACTION_" {
        /// The step fails with NODE_LOST; it is never replaced without proof of death.
        #[default]
        Fail = "FAIL",
        /// It waits on, visibly, until a person confirms the death.
        Wait = "WAIT",
    }
    /// When the containers of a step are followed by a log relay.
    LogFollow, "LOG_FOLLOW_" {
        /// From their start.
        #[default]
        Always = "ALWAYS",
        /// Only while a client reads.
        OnDemand = "ON_DEMAND",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_with_and_without_its_prefix() {
        assert_eq!(FailureMode::parse("FAIL_FAST"), Some(FailureMode::FailFast));
        assert_eq!(
            FailureMode::parse("FAILURE_MODE_FAIL_FAST"),
            Some(FailureMode::FailFast)
        );
        assert_eq!(FailureMode::parse("FAILURE_MODE_UNSPECIFIED"), None);
        assert_eq!(RunIf::parse("always"), None);
    }
}
