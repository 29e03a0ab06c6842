//! The end of pods and runs: sealed or overdue pods are let go, and runs without pods are finished.

use std::sync::Arc;

use windlass_api::dispatch::v1 as dispatch;
use windlass_api::follow::v1 as wire;
use windlass_ids::{AttemptId, ClusterUid, PodUid, RelayId, RunId, StepIndex, Timestamp};

use super::session::{Order, Relay};
use super::source::{ReleaseTime, Source};
use super::{RELAY_GRACE, Relays, State, attempts_of};
use crate::executors::{Executors, key};
use crate::metric;
use crate::read_model::RunEntry;
use crate::shared::Shared;

impl Relays {
    /// An attempt has ended durably: its pod may go once its log is sealed.
    pub(crate) fn finished(
        &self,
        attempt: AttemptId,
        pod: Option<PodUid>,
        cluster: &ClusterUid,
        keep_until: Option<Timestamp>,
        shared: &Shared,
    ) {
        let known = self
            .lock()
            .sources
            .get(&attempt)
            .map(|source| Arc::clone(&source.entry));
        let entry = known
            .or_else(|| shared.runs.get(attempt.run))
            .or_else(|| shared.history.get(attempt.run));
        if let (Some(pod), Some(entry)) = (pod, entry) {
            self.let_go(entry, attempt, pod, cluster, keep_until, shared);
        }
    }

    /// Lets a pod go once its log is sealed, or after the deadline.
    pub(super) fn let_go(
        &self,
        entry: Arc<RunEntry>,
        attempt: AttemptId,
        pod: PodUid,
        cluster: &ClusterUid,
        keep_until: Option<Timestamp>,
        shared: &Shared,
    ) {
        let now = shared.clock.now();
        let mut state = self.lock();
        if !state.sources.contains_key(&attempt) {
            state.add(attempt, Source::new(entry, pod, cluster.clone()), &shared.executors);
        }
        let Some(source) = state.sources.get_mut(&attempt) else {
            return;
        };
        let not_before = keep_until.unwrap_or(now);
        source.pod = pod;
        if !source.ended {
            source.ended = true;
        }
        source.release.get_or_insert(ReleaseTime {
            not_before,
            deadline: now.saturating_add(self.seal_deadline).max(not_before),
        });
        let due = source.is_due(now);
        if due {
            state.release(attempt, &shared.executors);
        } else {
            state.assign(attempt, &shared.executors);
        }
    }

    /// A run has ended durably.
    pub(crate) fn run_ended(&self, run: RunId, shared: &Shared) {
        let mut state = self.lock();
        state.containers.retain(|attempt, _| attempt.run != run);
        if let Some(pods) = state.runs.get_mut(&run) {
            pods.ended = true;
        }
        state.finish(run, &shared.executors);
    }

    /// A relay keeps the log of an attempt.
    pub(super) fn sealed(&self, sealed: &wire::Sealed, shared: &Shared) {
        let Some(run) = RunId::from_slice(&sealed.run_id) else {
            return;
        };
        let attempt = AttemptId {
            run,
            step: StepIndex(sealed.step),
            number: sealed.attempt,
        };
        let mut state = self.lock();
        let Some(source) = state.sources.get_mut(&attempt) else {
            return;
        };
        // A relay that lost the attempt to another one may not speak for it.
        if sealed.grant != source.grant || sealed.pod_uid != source.pod.to_string() {
            return;
        }
        source.sealed = true;
        if !sealed.complete {
            tracing::warn!(attempt_id = %attempt, "log was sealed with parts missing");
        }
        if source.is_due(shared.clock.now()) {
            state.release(attempt, &shared.executors);
        }
    }

    /// A run is deleted: its logs go, and pods that wait for their logs.
    pub(crate) fn forget(&self, run: RunId, shared: &Shared) {
        let mut state = self.lock();
        let open: Vec<AttemptId> = state
            .sources
            .range(attempts_of(run))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in open {
            state.release(attempt, &shared.executors);
        }
        for relay in state.relays.values_mut() {
            relay.run_deleted(run);
            // One that is away asks when it is back.
            if relay.stream.is_some() {
                relay.order(Order::Forget(run));
            }
        }
    }

    /// Whether pods of a run are not let go yet, or their logs not kept.
    pub(crate) fn holds(&self, run: RunId) -> bool {
        let state = self.lock();
        state.runs.contains_key(&run)
            || state.sources.range(attempts_of(run)).next().is_some()
            || state.unexplained.range(attempts_of(run)).next().is_some()
    }

    /// The most that a connected relay has still to do.
    pub(crate) fn orders(&self) -> usize {
        let state = self.lock();
        let connected = state.relays.values().filter(|relay| relay.stream.is_some());
        connected.map(Relay::open_orders).max().unwrap_or_default()
    }

    /// Lets overdue pods go, and gives what a lost relay owned to others.
    pub(crate) fn sweep(&self, shared: &Arc<Shared>) {
        let now = shared.clock.now();
        let mut state = self.lock();
        let due: Vec<AttemptId> = state
            .sources
            .iter()
            .filter(|(_, source)| source.is_due(now))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in due {
            state.release(attempt, &shared.executors);
        }
        let is_lost = |since: Option<Timestamp>| since.is_some_and(|since| now.since(since) > RELAY_GRACE);
        let relays = state.relays.iter();
        let lost: Vec<RelayId> = relays
            .filter(|(_, relay)| is_lost(relay.gone_since))
            .map(|(relay, _)| *relay)
            .collect();
        for relay in &lost {
            state.lose(*relay, &shared.executors);
        }
        if !lost.is_empty() {
            shared.executors.set_relays(Self::announced(&state));
        }
        metrics::gauge!(metric::RELAYS).set(state.relays.len() as f64);
        metrics::gauge!(metric::LOG_SOURCES).set(state.sources.len() as f64);
        drop(state);
        self.explain_pods(shared);
        self.finish_leftovers(shared);
    }
}

impl State {
    /// Tells the executor to let a pod go. When none leases its shard now, it is tried again by the sweep.
    pub(super) fn release(&mut self, attempt: AttemptId, executors: &Executors) {
        let Some(source) = self.sources.get(&attempt) else {
            return;
        };
        let release = dispatch::Release {
            attempt: Some(key(attempt)),
            pod_uid: source.pod.to_string(),
            namespace: source.entry.meta().header.namespace.0.clone(),
            pod_name: source.entry.meta().pod_name(attempt),
        };
        if !executors.release(&source.cluster, attempt, release) {
            return;
        }
        if !source.sealed && source.grant > 0 {
            metrics::counter!(metric::UNSEALED_RELEASES).increment(1);
            tracing::warn!(attempt_id = %attempt, "pod is released before its log was sealed");
        }
        self.let_go_of_log(attempt);
        self.finish(attempt.run, executors);
    }

    /// Takes a source out whose pod goes. A log that is not sealed ends as it is, and its readers are told that nobody has it any more.
    fn let_go_of_log(&mut self, attempt: AttemptId) {
        let Some(source) = self.remove(attempt) else { return };
        if source.sealed {
            return;
        }
        if let Some(relay) = source.relay.and_then(|relay| self.relays.get_mut(&relay)) {
            let grant = source.grant;
            relay.order(Order::Abandon { grant, attempt });
        }
        for relay in self.relays.values_mut() {
            relay.touch(attempt.run, &[(attempt.step, attempt.number)]);
        }
    }

    /// Finishes a run that has ended and has no pod left.
    pub(super) fn finish(&mut self, run: RunId, executors: &Executors) {
        if self.sources.range(attempts_of(run)).next().is_some() {
            return;
        }
        if self.runs.get(&run).is_some_and(|pods| pods.ended)
            && let Some(pods) = self.runs.remove(&run)
        {
            for cluster in &pods.clusters {
                executors.finish(cluster, run, &pods.namespace);
            }
        }
    }

    /// A relay is gone for good: others get what it owned.
    fn lose(&mut self, of: RelayId, executors: &Executors) {
        let Some(relay) = self.relays.remove(&of) else {
            return;
        };
        tracing::warn!(relay_id = %of, name = relay.name, "log relay is lost");
        let sources = self.sources.iter_mut().filter(|(_, source)| source.relay == Some(of));
        let orphans: Vec<AttemptId> = sources
            .map(|(attempt, source)| {
                source.relay = None;
                *attempt
            })
            .collect();
        for attempt in orphans {
            self.assign(attempt, executors);
        }
    }
}
