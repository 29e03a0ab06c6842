//! How messages with secret values look when they are printed: keys and sizes, no values (I8).

use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter, Result};

use crate::dispatch::v1::{RunSecretMake, SecretPut};
use crate::run::v1::{RetryRunRequest, SubmitRunRequest};
use crate::schedule::v1::{CreateScheduleRequest, UpdateScheduleRequest};
use crate::secret::v1::PutSecretRequest;

/// Values by key, of which only the keys and sizes are shown.
struct Sizes<'a>(&'a BTreeMap<String, Vec<u8>>);

impl Debug for Sizes<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let sizes = self.0.iter().map(|(key, value)| (key, Size(value.len())));
        formatter.debug_map().entries(sizes).finish()
    }
}

struct Size(usize);

impl Debug for Size {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        write!(formatter, "<{} bytes>", self.0)
    }
}

/// Shows a message: fields as they are, of the one with values the sizes, and enumerations by their names.
macro_rules! redacted {
    ($($message:ident { $($field:ident),*; $values:ident $(; $enumeration:ident)? })*) => {$(
        impl Debug for $message {
            fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
                formatter
                    .debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    $(.field(stringify!($enumeration), &self.$enumeration()))?
                    .field(stringify!($values), &Sizes(&self.$values))
                    .finish()
            }
        }
    )*};
}

redacted! {
    PutSecretRequest { namespace, cluster, name, remove_keys, request_id; data; mode }
    SecretPut { name, remove_keys, request_id; data; mode }
    RunSecretMake { ; data }
    SubmitRunRequest { namespace, request_id, pipeline, parameters, name, labels; secrets }
    RetryRunRequest { namespace, run, request_id, name, validate_only, from_steps; secrets }
    CreateScheduleRequest { namespace, request_id, schedule, spec, pipeline, parameters, paused; secrets }
    UpdateScheduleRequest { namespace, request_id, schedule, spec, pipeline, parameters, paused, update_mask; secrets }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::v1::{ConnectResponse, SecretCall, connect_response, secret_call};

    #[test]
    fn i8_printed_messages_show_keys_and_sizes_and_no_values() {
        let data = BTreeMap::from([("password".to_owned(), b"hunter2".to_vec())]);
        let request = PutSecretRequest {
            name: "warehouse".to_owned(),
            data: data.clone(),
            ..PutSecretRequest::default()
        };
        let put = SecretPut {
            data: data.clone(),
            ..SecretPut::default()
        };
        let submitted = SubmitRunRequest {
            secrets: data.clone(),
            ..SubmitRunRequest::default()
        };
        let retried = RetryRunRequest {
            secrets: data.clone(),
            ..RetryRunRequest::default()
        };
        let scheduled = CreateScheduleRequest {
            secrets: data.clone(),
            ..CreateScheduleRequest::default()
        };
        let updated = UpdateScheduleRequest {
            secrets: data.clone(),
            ..UpdateScheduleRequest::default()
        };
        let make = RunSecretMake { data: data.clone() };
        let frame = ConnectResponse {
            message: Some(connect_response::Message::SecretCall(SecretCall {
                call_kind: Some(secret_call::CallKind::Put(put)),
                ..SecretCall::default()
            })),
            ..ConnectResponse::default()
        };
        let bytes = format!("{:?}", b"hunter2".to_vec());
        for text in [
            format!("{request:?}"),
            format!("{frame:?}"),
            format!("{request:#?}"),
            format!("{submitted:?}"),
            format!("{retried:?}"),
            format!("{scheduled:?}"),
            format!("{updated:?}"),
            format!("{make:?}"),
        ] {
            assert!(text.contains("\"password\": <7 bytes>"), "{text}");
            assert!(!text.contains("hunter2") && !text.contains(&bytes), "{text}");
        }
    }
}
