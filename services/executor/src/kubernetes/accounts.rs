//! Service accounts that somebody asked for, and their bindings; each with the installation's label.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_ids::InstallationId;
use windlass_manifest::Label;

use super::api::{Api, ApiError, Call};
use super::requests::{JSON, gone_is_fine};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A service account that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its uid.
    pub uid: String,
    /// Whether this installation has made it.
    pub is_ours: bool,
}

/// What came of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made now.
    Now,
    /// It was there, as it was to be made.
    Before,
    /// Something else of that name is there.
    Other,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

impl Api {
    /// A service account; absence is `Ok(None)`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn service_account(
        &self,
        namespace: &str,
        name: &str,
        installation: InstallationId,
    ) -> Result<Option<Account>, ApiError> {
        let found = self.found(&format!("{}/{name}", accounts(namespace))).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let object: Object = serde_json::from_value(found).map_err(|error| ApiError::Malformed(error.to_string()))?;
        let own = installation.to_string();
        Ok(Some(Account {
            uid: object.metadata.uid,
            is_ours: object.metadata.labels.get(Label::INSTALLATION) == Some(&own),
        }))
    }

    /// Creates a service account whose token is mounted only where a pod asks for it (behaviours F6).
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn create_service_account(
        &self,
        namespace: &str,
        name: &str,
        installation: InstallationId,
    ) -> Result<Made, ApiError> {
        let body = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "labels": {Label::INSTALLATION: installation.to_string()}},
            "automountServiceAccountToken": false,
        });
        if self.created(accounts(namespace), &body).await? {
            return Ok(Made::Now);
        }
        let found = self.service_account(namespace, name, installation).await?;
        Ok(match found {
            Some(account) if account.is_ours => Made::Before,
            Some(_) | None => Made::Other,
        })
    }

    /// Whether a Role is there.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn has_role(&self, namespace: &str, name: &str) -> Result<bool, ApiError> {
        Ok(self
            .found(&format!("{}/{name}", rbac(namespace, "roles")))
            .await?
            .is_some())
    }

    /// Binds a Role of the namespace to a service account, which owns the binding, so that it goes with the account. One that is there
    /// counts only when it binds the same (behaviours K7).
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn bind_role(
        &self,
        namespace: &str,
        role: &str,
        (name, account): (&str, &Account),
        installation: InstallationId,
    ) -> Result<Made, ApiError> {
        let binding = binding_name(name, role);
        let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
        let role_ref = json!({"apiGroup": RBAC, "kind": "Role", "name": role});
        let body = json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding",
            "metadata": {
                "name": binding,
                "labels": {Label::INSTALLATION: installation.to_string()},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ServiceAccount", "name": name, "uid": account.uid}],
            },
            "roleRef": role_ref,
            "subjects": subjects,
        });
        let collection = rbac(namespace, "rolebindings");
        if self.created(collection.clone(), &body).await? {
            return Ok(Made::Now);
        }
        let found = self
            .found(&format!("{collection}/{binding}"))
            .await?
            .unwrap_or_default();
        let same = found["subjects"] == subjects && found["roleRef"] == role_ref;
        Ok(if same { Made::Before } else { Made::Other })
    }

    /// Deletes the service account with this uid; what it owns goes with it.
    ///
    /// # Errors
    /// See [`ApiError`]. That it is gone, or another one, is no error.
    pub async fn delete_service_account(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": uid}, "propagationPolicy": "Background",
        });
        let call = Call::new("delete", Method::DELETE, format!("{}/{name}", accounts(namespace)));
        gone_is_fine(self.call(call.body(JSON, body.to_string().into_bytes())).await)
    }

    /// Posts an object; false when one of its name is there.
    async fn created(&self, collection: String, body: &Value) -> Result<bool, ApiError> {
        let call = Call::new("create", Method::POST, collection);
        match self.call(call.body(JSON, body.to_string().into_bytes())).await {
            Err(error) if error.code() == Some(409) => Ok(false),
            created => created.map(|_| true),
        }
    }

    async fn found(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.call(Call::new("get", Method::GET, path.to_owned())).await {
            Err(error) if error.code() == Some(404) => Ok(None),
            answer => serde_json::from_slice(&answer?).map_err(|error| ApiError::Malformed(error.to_string())),
        }
    }
}

/// Name of the binding of a Role to an account.
pub fn binding_name(account: &str, role: &str) -> String {
    format!("{account}-{role}")
}

fn accounts(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/serviceaccounts")
}

fn rbac(namespace: &str, plural: &str) -> String {
    format!("/apis/{RBAC}/v1/namespaces/{namespace}/{plural}")
}
