//! Clusters for people: which are connected, and what an executor finds when it looks at its own.

use std::time::Duration;

use windlass_api::cluster::v1 as wire;
use windlass_api::convert::duration_to_proto;
use windlass_api::dispatch::v1::ClusterCall;

use crate::errors::{CheckError, FieldProblem};
use crate::executors::{Executors, NoExecutor, NotAsked};
use crate::lookup;

/// How long an executor may look.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How much longer its answer is waited for.
const TRAVEL: Duration = Duration::from_secs(5);
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
    let nobody = |none| match none {
        NoExecutor::Absent => CheckError::NoExecutor {
            cluster: cluster.clone(),
        },
        NoExecutor::Ambiguous(clusters) => CheckError::ClusterAmbiguous { clusters },
        NoExecutor::TooOld => CheckError::ExecutorTooOld {
            cluster: cluster.clone(),
        },
    };
    let session = executors.for_checks(&cluster).map_err(nobody)?;
    let call = ClusterCall {
        namespace: namespace.as_str().to_owned(),
        timeout: Some(duration_to_proto(TIMEOUT)),
        ..ClusterCall::default()
    };
    let answer = session.ask_to_look(call).map_err(|not_asked| match not_asked {
        NotAsked::NoStream => nobody(NoExecutor::Absent),
        NotAsked::TooMany => CheckError::TooManyCalls,
    })?;
    let answer = tokio::time::timeout(TIMEOUT + TRAVEL, answer).await;
    let check = answer.ok().and_then(Result::ok).and_then(|answer| answer.check);
    let check = check.ok_or(CheckError::ExecutorLost)?;
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
