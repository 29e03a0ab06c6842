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

impl Debug for PutSecretRequest {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("PutSecretRequest")
            .field("namespace", &self.namespace)
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .field("mode", &self.mode())
            .field("data", &Sizes(&self.data))
            .field("remove_keys", &self.remove_keys)
            .field("request_id", &self.request_id)
            .finish()
    }
}

impl Debug for SecretPut {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("SecretPut")
            .field("name", &self.name)
            .field("mode", &self.mode())
            .field("data", &Sizes(&self.data))
            .field("remove_keys", &self.remove_keys)
            .field("request_id", &self.request_id)
            .finish()
    }
}

impl Debug for RunSecretMake {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("RunSecretMake")
            .field("data", &Sizes(&self.data))
            .finish()
    }
}

impl Debug for SubmitRunRequest {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("SubmitRunRequest")
            .field("namespace", &self.namespace)
            .field("request_id", &self.request_id)
            .field("pipeline", &self.pipeline)
            .field("parameters", &self.parameters)
            .field("name", &self.name)
            .field("labels", &self.labels)
            .field("secrets", &Sizes(&self.secrets))
            .finish()
    }
}

impl Debug for RetryRunRequest {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("RetryRunRequest")
            .field("namespace", &self.namespace)
            .field("run", &self.run)
            .field("request_id", &self.request_id)
            .field("name", &self.name)
            .field("validate_only", &self.validate_only)
            .field("from_steps", &self.from_steps)
            .field("secrets", &Sizes(&self.secrets))
            .finish()
    }
}

impl Debug for CreateScheduleRequest {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("CreateScheduleRequest")
            .field("namespace", &self.namespace)
            .field("request_id", &self.request_id)
            .field("schedule", &self.schedule)
            .field("spec", &self.spec)
            .field("pipeline", &self.pipeline)
            .field("parameters", &self.parameters)
            .field("paused", &self.paused)
            .field("secrets", &Sizes(&self.secrets))
            .finish()
    }
}

impl Debug for UpdateScheduleRequest {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter
            .debug_struct("UpdateScheduleRequest")
            .field("namespace", &self.namespace)
            .field("request_id", &self.request_id)
            .field("schedule", &self.schedule)
            .field("spec", &self.spec)
            .field("pipeline", &self.pipeline)
            .field("parameters", &self.parameters)
            .field("paused", &self.paused)
            .field("update_mask", &self.update_mask)
            .field("secrets", &Sizes(&self.secrets))
            .finish()
    }
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
