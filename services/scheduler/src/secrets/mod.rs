//! Calls about Secrets: checked here, carried out by an executor, kept nowhere. Values pass through and are never looked at (I8).

pub(crate) mod check;
pub(crate) mod references;

use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::secret::v1 as wire;
use windlass_ids::Namespace;

use crate::errors::{CallError, SecretError};
use crate::executors::Executors;
use crate::grpc::page::PageScope;
use crate::lookup;

/// Secrets of one page: with 8 KiB of names each they stay below what clients receive.
const MAX_PAGE: u32 = 100;

/// Creates or changes a Secret.
///
/// # Errors
/// See [`SecretError`].
pub(crate) async fn put(
    executors: &Executors,
    request: wire::PutSecretRequest,
) -> Result<wire::PutSecretResponse, SecretError> {
    check::put(&request).map_err(SecretError::Invalid)?;
    let place = Place::of(&request.namespace, &request.cluster, &request.name)?;
    let put = dispatch::SecretPut {
        name: request.name,
        mode: request.mode,
        data: request.data,
        remove_keys: request.remove_keys,
        request_id: request.request_id,
    };
    match place.ask(executors, CallKind::Put(put)).await? {
        Outcome::Put(done) => Ok(wire::PutSecretResponse {
            secret: done.secret.map(|secret| place.named(secret)),
            created: done.created,
        }),
        other => Err(place.refused(other)),
    }
}

/// Lists the Secrets of the installation.
///
/// # Errors
/// See [`SecretError`].
pub(crate) async fn list(
    executors: &Executors,
    request: wire::ListSecretsRequest,
) -> Result<wire::ListSecretsResponse, SecretError> {
    check::cluster(&request.cluster).map_err(SecretError::Invalid)?;
    let place = Place::of(&request.namespace, &request.cluster, "")?;
    let scope = PageScope::of(&["secrets", place.namespace.as_str(), &place.cluster]);
    let list = dispatch::SecretList {
        page_size: match request.page_size {
            0 => MAX_PAGE,
            asked => asked.min(MAX_PAGE),
        },
        continue_token: scope.text(&request.page_token)?,
    };
    match place.ask(executors, CallKind::List(list)).await? {
        Outcome::Page(page) => Ok(wire::ListSecretsResponse {
            secrets: page.secrets.into_iter().map(|secret| place.named(secret)).collect(),
            next_page_token: match page.continue_token.as_str() {
                "" => String::new(),
                next => scope.token(next.as_bytes()),
            },
        }),
        other => Err(place.refused(other)),
    }
}

/// Deletes a Secret.
///
/// # Errors
/// See [`SecretError`].
pub(crate) async fn delete(
    executors: &Executors,
    request: wire::DeleteSecretRequest,
) -> Result<wire::DeleteSecretResponse, SecretError> {
    check::delete(&request).map_err(SecretError::Invalid)?;
    let place = Place::of(&request.namespace, &request.cluster, &request.name)?;
    let call = CallKind::Delete(dispatch::SecretDelete { name: request.name });
    match place.ask(executors, call).await? {
        Outcome::Deleted(_) => Ok(wire::DeleteSecretResponse {
            resource_name: place.resource_name(&place.name),
        }),
        other => Err(place.refused(other)),
    }
}

/// What a call is about.
#[derive(Debug)]
struct Place {
    namespace: Namespace,
    cluster: String,
    /// Name of the Secret; empty for a list.
    name: String,
}

impl Place {
    fn of(namespace: &str, cluster: &str, name: &str) -> Result<Self, SecretError> {
        Ok(Self {
            namespace: lookup::namespace(namespace)?,
            cluster: cluster.to_owned(),
            name: name.to_owned(),
        })
    }

    fn resource_name(&self, secret: &str) -> String {
        format!("namespaces/{}/secrets/{secret}", self.namespace)
    }

    fn named(&self, secret: wire::Secret) -> wire::Secret {
        wire::Secret {
            resource_name: self.resource_name(&secret.name),
            ..secret
        }
    }

    async fn ask(&self, executors: &Executors, call: CallKind) -> Result<Outcome, SecretError> {
        let call = dispatch::SecretCall {
            namespace: self.namespace.as_str().to_owned(),
            call_kind: Some(call),
            ..dispatch::SecretCall::default()
        };
        let (_, answer) = executors.ask(&self.cluster, call).await?;
        Ok(answer.outcome.ok_or(CallError::ExecutorLost)?)
    }

    /// What an outcome means that is not the one of success.
    fn refused(&self, outcome: Outcome) -> SecretError {
        let Outcome::Refusal(refusal) = outcome else {
            // An answer to another call: whatever was done, it is not known.
            return CallError::ExecutorLost.into();
        };
        refused(refusal, self.name.clone(), self.namespace.clone())
    }
}

/// What the refusal of a call about the Secret of this name means.
pub(crate) fn refused(refusal: dispatch::SecretRefusal, name: String, namespace: Namespace) -> SecretError {
    use dispatch::SecretFault as Fault;
    let message = refusal.message.clone();
    match refusal.fault() {
        Fault::Exists => SecretError::Exists { name, namespace },
        Fault::NotFound => SecretError::NotFound { name, namespace },
        Fault::NamespaceNotFound => SecretError::NamespaceNotFound(namespace),
        Fault::NotManaged => SecretError::NotManaged { name, namespace },
        Fault::RightMissing => SecretError::RightMissing {
            right: refusal.right,
            namespace,
        },
        Fault::Quota => SecretError::Quota(message),
        Fault::Denied => SecretError::Denied(message),
        Fault::Invalid => SecretError::Refused {
            fields: refusal.fields,
            message,
        },
        Fault::Changed => SecretError::Changed(name),
        Fault::Expired => SecretError::PageExpired,
        Fault::OwnNamespace => SecretError::OwnNamespace(namespace),
        Fault::Unreachable | Fault::Unspecified => SecretError::ClusterUnreachable { message },
    }
}
