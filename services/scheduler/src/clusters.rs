//! Clusters for people: which are connected, and what an executor finds when it looks at its own.

use windlass_api::cluster::v1 as wire;
use windlass_api::dispatch::v1::ClusterCall;

use crate::errors::{CallError, CheckError, FieldProblem};
use crate::executors::Executors;
use crate::lookup;

/// Longest alias of a cluster.
const MAX_ALIAS: usize = 253;

/// The clusters with a connected executor.
pub(crate) fn list(executors: &Executors) -> wire::ListClustersResponse {
    wire::ListClustersResponse {
        clusters: executors.described_clusters(),
    }
}

/// Has an executor look at its cluster.
///
/// # Errors
/// See [`CheckError`].
pub(crate) async fn check(
    executors: &Executors,
    request: wire::CheckClusterRequest,
) -> Result<wire::CheckClusterResponse, CheckError> {
    let cluster = request.cluster;
    if cluster.len() > MAX_ALIAS {
        let text = format!("must have at most {MAX_ALIAS} characters");
        return Err(CheckError::Invalid(vec![FieldProblem::new(
            "cluster",
            "BAD_VALUE",
            text,
        )]));
    }
    let namespace = lookup::namespace(&request.namespace)?;
    let call = ClusterCall {
        namespace: namespace.as_str().to_owned(),
        ..ClusterCall::default()
    };
    let (session, answer) = executors.ask(&cluster, call).await?;
    let check = answer.check.ok_or(CallError::ExecutorLost)?;
    Ok(wire::CheckClusterResponse {
        check: Some(wire::ClusterCheck {
            alias: session.alias.0.clone(),
            uid: session.cluster.0.clone(),
            local: session.local,
            executor: Some(executors.described(&session)),
            ..check
        }),
    })
}
