//! What can go wrong with what executors are asked while a client waits.

use windlass_ids::Namespace;

use super::{FieldProblem, LookupError, PageTokenError, summary};

/// Why no executor has answered a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No executor of the cluster is connected.
    #[error("no executor of {} is connected, and only executors reach Kubernetes", of_cluster(.cluster))]
    NoExecutor {
        /// Alias of the cluster; empty when none was named.
        cluster: String,
    },
    /// Several clusters are connected, and none was named.
    #[error("several clusters are connected: {}; name one", .clusters.join(", "))]
    ClusterAmbiguous {
        /// Their aliases.
        clusters: Vec<String>,
    },
    /// The connected executors are of a version that cannot do it.
    #[error("the executors of {} are too old for this; upgrade them", of_cluster(.cluster))]
    ExecutorTooOld {
        /// Alias of the cluster; empty when none was named.
        cluster: String,
    },
    /// Too many calls wait for the executor.
    #[error("too many calls of this kind wait for the executor")]
    TooMany,
    /// The executor did not answer: it may or may not be done.
    #[error("the executor did not answer in time, so it may or may not be done; repeat the request")]
    ExecutorLost,
}

/// Why something about a Secret was not done. No text of it has a part of a value (I8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The request is wrong; nothing was done.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// See [`PageTokenError`].
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// See [`CallError`].
    #[error(transparent)]
    Call(#[from] CallError),
    /// The API server did not answer: it may or may not be done.
    #[error("the cluster did not answer the executor, so it may or may not be done; repeat the request: {message}")]
    ClusterUnreachable {
        /// What the executor saw.
        message: String,
    },
    /// There is one already.
    #[error("secret {name} exists already in namespace {namespace}")]
    Exists {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: Namespace,
    },
    /// There is none.
    #[error("no secret {name} in namespace {namespace}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// The namespace.
        namespace: Namespace,
    },
    /// The namespace is not there.
    #[error("the cluster has no namespace {0}")]
    NamespaceNotFound(Namespace),
    /// Others have made it.
    #[error(
        "secret {name} in namespace {namespace} was not made with `windlass secret` of this installation, so it is not touched"
    )]
    NotManaged {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: Namespace,
    },
    /// The executor has no right to do it.
    #[error(
        "the executor has no right to {right} in namespace {namespace}; the chart's value `secrets.manage` gives it"
    )]
    RightMissing {
        /// Verb and resource.
        right: String,
        /// The namespace.
        namespace: Namespace,
    },
    /// A quota is used up.
    #[error("a quota of the namespace is used up: {0}")]
    Quota(String),
    /// A policy forbids it, or the namespace is going.
    #[error("the cluster refuses it: {0}")]
    Denied(String),
    /// Kubernetes does not take it.
    #[error("Kubernetes does not take it: {message}")]
    Refused {
        /// Fields of the Kubernetes object.
        fields: Vec<String>,
        /// Kubernetes' words.
        message: String,
    },
    /// Others replaced it meanwhile.
    #[error("secret {0} was replaced by others meanwhile; look at it and repeat the request")]
    Changed(String),
    /// The page token is too old.
    #[error("page_token is too old; start without one")]
    PageExpired,
    /// The namespace is the executor's own.
    #[error("namespace {0} is the executor's own: no steps run there, and its Secrets are not touched")]
    OwnNamespace(Namespace),
}

/// Why a cluster was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The request is wrong.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldProblem>),
    /// See [`LookupError`].
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// See [`CallError`].
    #[error(transparent)]
    Call(#[from] CallError),
}

fn of_cluster(alias: &str) -> String {
    match alias {
        "" => "any cluster".to_owned(),
        alias => format!("cluster {alias}"),
    }
}
