//! The calls by which an executor looks at its cluster and at its own rights.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::api::{Api, ApiError, Call};
use super::requests::JSON;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceHead {
    /// It takes objects.
    Active,
    /// It is being deleted.
    Terminating,
}

/// What the API server says of a right.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Review {
    /// Whether it is given.
    pub allowed: bool,
    /// Why, when it says so.
    pub reason: String,
}

impl Api {
    /// The version that the API server says it has, such as `v1.33.1`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn server_version(&self) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let call = Call::new("get", Method::GET, "/version".to_owned()).timeout(TIMEOUT);
        let version: Version = parsed(&self.call(call).await?)?;
        Ok(version.git_version)
    }

    /// How a namespace is; nothing when it is not there.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn namespace(&self, name: &str) -> Result<Option<NamespaceHead>, ApiError> {
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            deletion_timestamp: Option<String>,
        }
        let call = Call::new("get", Method::GET, format!("/api/v1/namespaces/{name}")).timeout(TIMEOUT);
        match self.call(call).await {
            Ok(bytes) => {
                let found: Namespace = parsed(&bytes)?;
                Ok(Some(match found.metadata.deletion_timestamp {
                    Some(_) => NamespaceHead::Terminating,
                    None => NamespaceHead::Active,
                }))
            }
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this client may do something in a namespace, or in the whole cluster when that is empty. The resource is one of the core
    /// group, with its subresource as in `pods/log`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn may(&self, verb: &str, resource: &str, namespace: &str) -> Result<Review, ApiError> {
        #[derive(Deserialize)]
        struct Reviewed {
            #[serde(default)]
            status: Review,
        }
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": verb, "resource": resource, "subresource": subresource, "namespace": namespace,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let call = Call::new("create", Method::POST, path)
            .body(JSON, review.to_string().into_bytes())
            .timeout(TIMEOUT);
        let reviewed: Reviewed = parsed(&self.call(call).await?)?;
        Ok(reviewed.status)
    }
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::Malformed(error.to_string()))
}
