//! Log sources: attempts with a pod whose log is to be kept.

use std::sync::Arc;

use windlass_api::follow::v1 as wire;
use windlass_ids::{AttemptId, ClusterUid, Incarnation, PodUid, RelayId, Timestamp};

use crate::executors::Executors;
use crate::read_model::{AttemptRef, RunEntry};

/// Containers of a pod as long as the executor has not listed them.
const MAIN: &str = "main";

/// A log source whose pod is not released; see the module.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) entry: Arc<RunEntry>,
    pub(super) pod: PodUid,
    pub(super) cluster: ClusterUid,
    /// Executor that leases its shard, as the relay was last told.
    pub(super) executor: Option<Incarnation>,
    pub(super) containers: Vec<String>,
    pub(super) relay: Option<RelayId>,
    /// Number of the assignment; 0 when it was never assigned.
    pub(super) grant: u64,
    /// The end of the attempt is durable.
    pub(super) ended: bool,
    pub(super) release: Option<ReleaseTime>,
    pub(super) sealed: bool,
}

/// When a pod may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReleaseTime {
    /// Not before.
    pub(super) not_before: Timestamp,
    /// At the latest, sealed or not.
    pub(super) deadline: Timestamp,
}

impl Source {
    pub(super) fn new(entry: Arc<RunEntry>, pod: PodUid, cluster: ClusterUid) -> Self {
        Self {
            entry,
            pod,
            cluster,
            executor: None,
            containers: Vec::new(),
            relay: None,
            grant: 0,
            ended: false,
            release: None,
            sealed: false,
        }
    }

    /// Whether the pod may go now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.release
            .is_some_and(|release| now >= release.deadline || (self.sealed && now >= release.not_before))
    }

    /// The message for an attempt.
    pub(super) fn message(&self, attempt: AttemptId, relay_address: &str) -> wire::LogSource {
        let containers = if self.containers.is_empty() {
            vec![MAIN.to_owned()]
        } else {
            self.containers.clone()
        };
        wire::LogSource {
            pod_uid: self.pod.to_string(),
            cluster_uid: self.cluster.0.clone(),
            executor: self.executor.map(|executor| executor.to_string()).unwrap_or_default(),
            containers,
            relay: self.relay.map(|relay| relay.to_string()).unwrap_or_default(),
            relay_address: relay_address.to_owned(),
            ended: self.ended,
            ..fixed(&self.entry, attempt)
        }
    }

    /// Takes note of the executor that leases the shard; true when it is another one.
    pub(super) fn follow_lease(&mut self, attempt: AttemptId, executors: &Executors) -> bool {
        let holder = executors
            .holder(&self.cluster, attempt)
            .map(|session| session.incarnation);
        let changed = holder.is_some() && holder != self.executor;
        if changed {
            self.executor = holder;
        }
        changed
    }
}

/// The message for an attempt whose pod was released: its log is in the archive.
pub(super) fn released(entry: &RunEntry, attempt: AttemptId, of: &AttemptRef<'_>) -> Option<wire::LogSource> {
    Some(wire::LogSource {
        pod_uid: of.cell.pod?.to_string(),
        cluster_uid: of.executor().cluster.0.clone(),
        containers: vec![MAIN.to_owned()],
        ended: of.cell.ended.is_some(),
        ..fixed(entry, attempt)
    })
}

fn fixed(entry: &RunEntry, attempt: AttemptId) -> wire::LogSource {
    let meta = entry.meta();
    wire::LogSource {
        run_id: attempt.run.as_bytes().to_vec(),
        step: attempt.step.0,
        step_name: meta.definition.step_name(attempt.step),
        source_step: meta.definition.source_step(attempt.step).to_owned(),
        attempt: attempt.number,
        namespace: meta.header.namespace.0.clone(),
        pod_name: meta.pod_name(attempt),
        on_demand: meta.definition.logs_on_demand(attempt.step),
        ..wire::LogSource::default()
    }
}
