//! Runs that ended in an earlier life of the scheduler: their owner objects may still be there.

use std::sync::Arc;

use windlass_ids::{ClusterUid, Namespace, RunId, ScheduleSecretId};
use windlass_scheduling::RunState;

use super::source::Source;
use super::{Relays, State, attempts_of};
use crate::shared::Shared;
use crate::store::{MAX_PAGE, RunFilter};

impl Relays {
    /// Once after a start, when all pods of a cluster were listed: the newest ended runs without a pod are finished again, which is
    /// harmless for those that were. Older ones were finished by an earlier start.
    pub(super) fn finish_leftovers(&self, shared: &Arc<Shared>) {
        for cluster in shared.executors.listed_clusters() {
            let mut state = self.lock();
            let settled = state.looking_up == 0 && state.unexplained.is_empty();
            let new = settled && state.looked_over.insert(cluster.clone());
            drop(state);
            if new {
                let shared = Arc::clone(shared);
                tokio::spawn(async move { shared.relays.finish_ended(&cluster, &shared).await });
            }
        }
    }

    async fn finish_ended(&self, cluster: &ClusterUid, shared: &Shared) {
        let filter = RunFilter {
            states: vec![RunState::Succeeded, RunState::Failed, RunState::Cancelled],
            ..RunFilter::default()
        };
        let Ok(store) = shared.store() else {
            return;
        };
        match store.list_runs(&filter, None, MAX_PAGE).await {
            Ok(page) => {
                for header in page.runs {
                    self.finish_again(cluster, header.id, &header.namespace, shared);
                }
            }
            Err(error) => tracing::error!(%error, "store could not be read"),
        }
    }

    /// Whether a log of the run may still be read from a cluster, as long as that is not known: what masks values in it is read with it.
    pub(crate) fn may_read(&self, run: RunId, cluster: &ClusterUid, shared: &Shared) -> bool {
        let state = self.lock();
        if !state.keeps_logs {
            return false;
        }
        let mut sources = state.sources.range(attempts_of(run));
        let unexplained = state.looking_up > 0 || state.unexplained.range(attempts_of(run)).next().is_some();
        // A pod may be kept for longer than its log is read.
        unexplained
            || sources.any(|(_, source)| !source.sealed)
            || !shared.executors.listed_clusters().contains(cluster)
    }

    /// As [`Self::may_read`], of all runs that use secrets of a schedule.
    pub(crate) fn may_read_with(&self, secret: ScheduleSecretId, cluster: &ClusterUid, shared: &Shared) -> bool {
        let state = self.lock();
        if !state.keeps_logs {
            return false;
        }
        let uses = |source: &Source| {
            let shared = source.entry.meta().header.fixed.secret.as_ref();
            shared.is_some_and(|shared| shared.id == secret)
        };
        let mut sources = state.sources.values();
        state.looking_up > 0
            || !state.unexplained.is_empty()
            || sources.any(|source| !source.sealed && uses(source))
            || !shared.executors.listed_clusters().contains(cluster)
    }

    fn finish_again(&self, cluster: &ClusterUid, run: RunId, namespace: &Namespace, shared: &Shared) {
        if !self.lock().waits(run) {
            shared.executors.finish(cluster, run, namespace);
        }
    }
}

impl State {
    /// Whether a pod of the run is there.
    fn waits(&self, run: RunId) -> bool {
        let of_run = attempts_of(run);
        self.sources.range(of_run.clone()).next().is_some() || self.unexplained.range(of_run).next().is_some()
    }
}
