//! The calls about Secrets. Who makes them decides what may be touched.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use windlass_ids::InstallationId;
use windlass_manifest::{Annotation, Label};

use super::api::{Api, ApiError, Call};
use super::query::Query;
use super::requests::{JSON, STRATEGIC_MERGE};

/// Asks for an object without its data.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a Secret; its values are never taken out of the API server's answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct SecretHead {
    /// Its metadata.
    pub metadata: SecretMeta,
    data: Option<BTreeMap<String, Ignored>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(from = "IgnoredAny")]
struct Ignored;

impl From<IgnoredAny> for Ignored {
    fn from(_: IgnoredAny) -> Self {
        Self
    }
}

/// The metadata of a Secret.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretMeta {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created, as the API server prints it.
    pub creation_timestamp: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl SecretHead {
    /// Its keys in order; none when only the metadata was asked for.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        static NONE: BTreeMap<String, Ignored> = BTreeMap::new();
        self.data.as_ref().unwrap_or(&NONE).keys().map(String::as_str)
    }
}

/// A page of Secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SecretHeads {
    /// The Secrets by name.
    pub items: Vec<SecretHead>,
    metadata: ListMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListMeta {
    r#continue: String,
}

impl SecretHeads {
    /// Where the next page begins; empty on the last one.
    pub fn next(self) -> String {
        self.metadata.r#continue
    }
}

impl Api {
    /// Creates a Secret of the installation.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_secret(
        &self,
        namespace: &str,
        name: &str,
        installation: InstallationId,
        request_id: &str,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<SecretHead, ApiError> {
        let mut metadata = json!({"name": name, "labels": {Label::INSTALLATION: installation.to_string()}});
        if !request_id.is_empty() {
            metadata["annotations"] = json!({Annotation::REQUEST_ID: request_id});
        }
        let encoded: BTreeMap<_, _> = data.iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
        let body =
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encoded});
        let call = Call::new("create", Method::POST, secrets(namespace));
        self.secret(call.body(JSON, body.to_string().into_bytes())).await
    }

    /// Creates a Secret.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn post_secret(&self, namespace: &str, secret: &Secret) -> Result<(), ApiError> {
        // What serde says may quote a value.
        let body = serde_json::to_vec(secret).map_err(|_| ApiError::Malformed("the Secret has no JSON".to_owned()))?;
        let call = Call::new("create", Method::POST, secrets(namespace));
        self.secret(call.body(JSON, body)).await.map(drop)
    }

    /// What is known of a Secret without its data, by quorum; absence is `Ok(None)`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn secret_head(&self, namespace: &str, name: &str) -> Result<Option<SecretHead>, ApiError> {
        let mut call = Call::new("get", Method::GET, secret(namespace, name));
        call.accept = METADATA;
        match self.secret(call).await {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The values of a Secret, to be masked; absence is `Ok(None)`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn secret_values(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, ApiError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Secret {
            data: Option<BTreeMap<String, String>>,
        }
        let call = Call::new("get", Method::GET, secret(namespace, name)).timeout(TIMEOUT);
        let answer = match self.call(call).await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        // What is wrong is not told: it may have a value in it.
        let malformed = || ApiError::Malformed("a Secret".to_owned());
        let found: Secret = serde_json::from_slice(&answer).map_err(|_| malformed())?;
        let decode = |(key, value): (String, String)| Ok((key, STANDARD.decode(value).map_err(|_| malformed())?));
        found
            .data
            .unwrap_or_default()
            .into_iter()
            .map(decode)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// What is known of a Secret with its keys, by quorum; absence is `Ok(None)`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn secret_with_keys(&self, namespace: &str, name: &str) -> Result<Option<SecretHead>, ApiError> {
        match self
            .secret(Call::new("get", Method::GET, secret(namespace, name)))
            .await
        {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets keys of the Secret with this uid and removes others; what is not named stays. An empty value is set like any other.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn change_secret(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        data: &BTreeMap<String, Vec<u8>>,
        remove: &[String],
    ) -> Result<SecretHead, ApiError> {
        let set = data
            .iter()
            .map(|(key, value)| (key.clone(), Value::String(STANDARD.encode(value))));
        let removed = remove.iter().map(|key| (key.clone(), Value::Null));
        let changes: serde_json::Map<_, _> = set.chain(removed).collect();
        let body = json!({"metadata": {"uid": uid}, "data": changes});
        let call = Call::new("patch", Method::PATCH, secret(namespace, name));
        self.secret(call.body(STRATEGIC_MERGE, body.to_string().into_bytes()))
            .await
    }

    /// Deletes the Secret with this uid.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn delete_secret(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}});
        let call = Call::new("delete", Method::DELETE, secret(namespace, name)).timeout(TIMEOUT);
        self.call(call.body(JSON, body.to_string().into_bytes()))
            .await
            .map(drop)
    }

    /// A page of the Secrets of the installation that belong to no run, by name.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list_secrets(
        &self,
        namespace: &str,
        installation: InstallationId,
        limit: u32,
        from: &str,
    ) -> Result<SecretHeads, ApiError> {
        let (run, schedule) = (Label::RUN_ID, Label::SECRET_ID);
        let selector = format!("{}={installation},!{run},!{schedule}", Label::INSTALLATION);
        let mut query = Query::new(secrets(namespace))
            .with("labelSelector", &selector)
            .with("limit", &limit.to_string());
        if !from.is_empty() {
            query = query.with("continue", from);
        }
        let call = Call::new("list", Method::GET, query.build()).timeout(TIMEOUT);
        parsed(&self.call(call).await?)
    }

    async fn secret(&self, call: Call) -> Result<SecretHead, ApiError> {
        parsed(&self.call(call.timeout(TIMEOUT)).await?)
    }
}

/// What serde says of an answer that does not parse may quote it, and so values: it is not told.
fn parsed<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer)
        .map_err(|error| ApiError::Malformed(format!("line {}, column {}", error.line(), error.column())))
}

fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

fn secret(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_keys_are_taken_out_of_an_answer_and_values_are_not() {
        let answer =
            json!({"metadata": {"name": "a", "uid": "u"}, "data": {"b": "aHVudGVyMg==", "empty": null, "a": ""}});
        let head: SecretHead = parsed(answer.to_string().as_bytes()).expect("a secret");
        assert_eq!(head.keys().collect::<Vec<_>>(), ["a", "b", "empty"]);
        assert!(!format!("{head:?}").contains("aHVudGVyMg"));
        let metadata: SecretHead = parsed(br#"{"metadata": {"name": "a"}}"#).expect("metadata");
        assert_eq!(metadata.keys().len(), 0);
        let wrong = parsed::<SecretHead>(br#"{"metadata": "aHVudGVyMg=="}"#).expect_err("no object");
        assert!(!wrong.to_string().contains("aHVudGVyMg"), "{wrong}");
    }
}
