//! Log relays: which of them keeps the log of which attempt, and when a pod may go.
//!
//! Everything here is volatile. After a restart the inventories show the pods that are not released, they are assigned again, and
//! a relay that has their logs says so again (I6).

mod ending;
mod leftovers;
mod recovery;
mod session;
mod source;
mod stream;
mod unexplained;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windlass_api::dispatch::v1 as dispatch;
use windlass_api::follow::v1 as wire;
use windlass_api::follow::v1::follow_response::Message;
use windlass_ids::{AttemptId, ClusterUid, Namespace, RelayId, RunId, StepIndex};
use windlass_scheduling::{Change, ChangeKind};

use self::session::Relay;
use self::source::Source;
use self::unexplained::Unexplained;
use crate::executors::Executors;
use crate::read_model::{RunEntry, step_of};
use crate::shared::Shared;

pub(crate) use stream::follow;

/// How long a relay may be gone before others take over what it owned.
const RELAY_GRACE: Duration = Duration::from_secs(30);
/// Most relays; more are refused.
const MAX_RELAYS: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Relays {
    /// How long a finished pod waits for its log to be sealed; zero when logs are not kept.
    seal_deadline: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether logs are kept at all.
    keeps_logs: bool,
    relays: BTreeMap<RelayId, Relay>,
    sources: BTreeMap<AttemptId, Source>,
    containers: BTreeMap<AttemptId, Vec<String>>,
    runs: BTreeMap<RunId, RunPods>,
    unexplained: BTreeMap<AttemptId, Unexplained>,
    /// Tasks that look unexplained pods up.
    looking_up: usize,
    /// Clusters whose objects of earlier lives of the scheduler were looked over.
    looked_over: BTreeSet<ClusterUid>,
    last_grant: u64,
    last_stream: u64,
}

/// Pods of a run.
#[derive(Debug)]
struct RunPods {
    namespace: Namespace,
    clusters: BTreeSet<ClusterUid>,
    ended: bool,
}

impl Relays {
    pub(crate) fn new(seal_deadline: Duration) -> Self {
        Self {
            seal_deadline,
            state: Mutex::new(State {
                keeps_logs: !seal_deadline.is_zero(),
                ..State::default()
            }),
        }
    }

    /// Grants begin above those of earlier epochs.
    pub(crate) fn begin_epoch(&self, epoch: u64) {
        let mut state = self.lock();
        state.last_grant = state.last_grant.max(epoch << 32);
    }

    /// Forgets what is not durable: the state is read back from the store. Relays stay connected.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.sources.clear();
        state.containers.clear();
        state.runs.clear();
        state.unexplained.clear();
        state.looked_over.clear();
        for relay in state.relays.values_mut() {
            relay.load = 0;
            relay.assigns.clear();
            // Its subscriptions show runs of a state that is gone: it connects again and asks anew.
            if let Some((_, stream)) = &relay.stream {
                stream.cancel();
            }
        }
    }

    /// Addresses of the connected relays.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let state = self.lock();
        let connected = state.relays.values().filter(|relay| relay.stream.is_some());
        connected.map(|relay| relay.address.clone()).collect()
    }

    /// Containers whose logs can be read, as an executor listed them.
    pub(crate) fn containers(&self, containers: BTreeMap<AttemptId, Vec<String>>, shared: &Shared) {
        if self.seal_deadline.is_zero() || containers.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (attempt, names) in containers {
            match state.sources.get_mut(&attempt) {
                Some(source) if source.containers == names => {}
                Some(source) => {
                    source.containers = names;
                    state.assign(attempt, &shared.executors);
                }
                // Its creation may be in a later commit; a run that is not active has no use for them.
                None if shared.runs.get(attempt.run).is_some() => drop(state.containers.insert(attempt, names)),
                None => {}
            }
        }
    }

    /// Durable changes of a run.
    pub(crate) fn changed(&self, entry: &Arc<RunEntry>, changes: &[Change], shared: &Shared) {
        let mut state = self.lock();
        let run = entry.meta().header.id;
        for change in changes {
            let Some((step, number)) = step_of(&change.kind).zip(number_of(&change.kind)) else {
                continue;
            };
            let attempt = AttemptId { run, step, number };
            match &change.kind {
                ChangeKind::AttemptCreated { pod, .. } if !self.seal_deadline.is_zero() => {
                    let record = entry.record();
                    let Some(of) = record.step(step).and_then(|step| step.attempt) else {
                        continue;
                    };
                    let source = Source::new(Arc::clone(entry), *pod, of.executor().cluster.clone());
                    state.add(attempt, source, &shared.executors);
                }
                // Its owner object is made with the first launch, whatever becomes of the pod.
                ChangeKind::AttemptLaunched { executor, .. } | ChangeKind::AttemptRegranted { executor, .. } => {
                    state.pods_of(entry).clusters.insert(executor.cluster.clone());
                }
                ChangeKind::AttemptSucceeded { .. } | ChangeKind::AttemptFailed { .. } => {
                    if let Some(source) = state.sources.get_mut(&attempt) {
                        source.ended = true;
                        state.assign(attempt, &shared.executors);
                    }
                }
                _ => {}
            }
        }
        state.tell_subscribers(run, changes);
    }

    /// Leases moved: relays are told which executor has the pods now.
    pub(crate) fn leases_changed(&self, shared: &Shared) {
        let mut state = self.lock();
        let moved: Vec<AttemptId> = state
            .sources
            .iter_mut()
            .filter_map(|(attempt, source)| source.follow_lease(*attempt, &shared.executors).then_some(*attempt))
            .collect();
        for attempt in moved {
            state.assign(attempt, &shared.executors);
        }
    }

    /// The relays as executors are told of them.
    fn announced(state: &State) -> Vec<dispatch::Relay> {
        let relays = state.relays.iter();
        relays
            .map(|(relay, session)| dispatch::Relay {
                relay: relay.to_string(),
                address: session.address.clone(),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is known of a run's pods.
    fn pods_of(&mut self, entry: &RunEntry) -> &mut RunPods {
        let header = &entry.meta().header;
        self.runs.entry(header.id).or_insert_with(|| RunPods {
            namespace: header.namespace.clone(),
            clusters: BTreeSet::new(),
            ended: false,
        })
    }

    /// Adds a source unless it is known, and gives it to a relay.
    fn add(&mut self, attempt: AttemptId, mut source: Source, executors: &Executors) {
        let entry = Arc::clone(&source.entry);
        self.pods_of(&entry).clusters.insert(source.cluster.clone());
        source.containers = self.containers.remove(&attempt).unwrap_or_default();
        self.sources.entry(attempt).or_insert(source);
        self.assign(attempt, executors);
    }

    /// Tells the owner of a source what is known of it now; a source without an owner gets the relay with the least to do.
    fn assign(&mut self, attempt: AttemptId, executors: &Executors) {
        let Some(source) = self.sources.get_mut(&attempt).filter(|_| self.keeps_logs) else {
            return;
        };
        source.follow_lease(attempt, executors);
        if source.relay.is_none() {
            let connected = self.relays.iter().filter(|(_, relay)| relay.stream.is_some());
            let Some((relay, _)) = connected.min_by_key(|(_, relay)| relay.load) else {
                return;
            };
            source.relay = Some(*relay);
            self.last_grant += 1;
            source.grant = self.last_grant;
            if let Some(relay) = source.relay.and_then(|relay| self.relays.get_mut(&relay)) {
                relay.load += 1;
            }
        }
        if let Some(relay) = source.relay.and_then(|relay| self.relays.get_mut(&relay)) {
            relay.assigns.insert(attempt);
            relay.wake.notify_one();
        }
    }

    /// Takes a source out.
    fn remove(&mut self, attempt: AttemptId) -> Option<Source> {
        let source = self.sources.remove(&attempt)?;
        if let Some(relay) = source.relay.and_then(|relay| self.relays.get_mut(&relay)) {
            relay.load = relay.load.saturating_sub(1);
            relay.assigns.remove(&attempt);
        }
        Some(source)
    }

    fn tell_subscribers(&mut self, run: RunId, changes: &[Change]) {
        let touched: Vec<(StepIndex, u32)> = changes
            .iter()
            .filter_map(|change| Some((step_of(&change.kind)?, number_of(&change.kind).unwrap_or(0))))
            .collect();
        for relay in self.relays.values_mut() {
            relay.touch(run, &touched);
        }
    }

    /// A source as relays are told of it.
    fn message(&self, attempt: AttemptId) -> Option<wire::LogSource> {
        let source = self.sources.get(&attempt)?;
        let relay = source.relay.and_then(|relay| self.relays.get(&relay));
        Some(source.message(attempt, relay.map_or("", |relay| &relay.address)))
    }

    /// The next message for a relay's stream, when there is something to say and the stream is still the relay's.
    fn next(&mut self, of: RelayId, stream: u64) -> Option<wire::FollowResponse> {
        let mut relay = self.relays.remove(&of)?;
        let message = match &relay.stream {
            Some((current, _)) if *current == stream => self.next_of(of, &mut relay),
            _ => None,
        };
        self.relays.insert(of, relay);
        message
    }

    fn next_of(&mut self, of: RelayId, relay: &mut Relay) -> Option<wire::FollowResponse> {
        while let Some(attempt) = relay.assigns.pop_first() {
            if let Some(source) = self.sources.get(&attempt).filter(|source| source.relay == Some(of)) {
                let assign = wire::Assign {
                    grant: source.grant,
                    source: Some(source.message(attempt, &relay.address)),
                };
                return Some(relay.number(Message::Assign(assign)));
            }
        }
        // Before orders: whoever reads the logs of a deleted run is told before they go.
        if let Some(refusal) = relay.refusals.pop_front() {
            return Some(relay.unnumbered(Message::Run(refusal)));
        }
        if let Some(order) = relay.next_order() {
            return Some(order);
        }
        let address = relay.address.clone();
        if let Some(update) = relay.update(|attempt| self.message_for(attempt, of, &address)) {
            return Some(relay.unnumbered(Message::Run(update)));
        }
        (relay.told < relay.received).then(|| relay.unnumbered(Message::Heartbeat(wire::FollowHeartbeat {})))
    }

    /// As [`Self::message`], while the relay `of` is being served and stands aside.
    fn message_for(&self, attempt: AttemptId, of: RelayId, address: &str) -> Option<wire::LogSource> {
        match self.sources.get(&attempt) {
            Some(source) if source.relay == Some(of) => Some(source.message(attempt, address)),
            _ => self.message(attempt),
        }
    }
}

/// All attempts of a run.
fn attempts_of(run: RunId) -> RangeInclusive<AttemptId> {
    let attempts = |index| AttemptId {
        run,
        step: StepIndex(index),
        number: index,
    };
    attempts(0)..=attempts(u32::MAX)
}

/// The attempt that a change is about.
fn number_of(kind: &ChangeKind) -> Option<u32> {
    match kind {
        ChangeKind::AttemptLaunched { number, .. }
        | ChangeKind::AttemptRegranted { number, .. }
        | ChangeKind::AttemptCreated { number, .. }
        | ChangeKind::AttemptProgressed { number, .. }
        | ChangeKind::AttemptRunning { number, .. }
        | ChangeKind::StopRequested { number, .. }
        | ChangeKind::ContactLost { number, .. }
        | ChangeKind::ContactRegained { number, .. }
        | ChangeKind::AttemptSucceeded { number, .. }
        | ChangeKind::AttemptFailed { number, .. }
        | ChangeKind::StepFailed { number, .. }
        | ChangeKind::DeathProven { number, .. } => Some(*number),
        ChangeKind::RunPreparing
        | ChangeKind::RunAccepted
        | ChangeKind::RunStarted
        | ChangeKind::CancelRequested(_)
        | ChangeKind::RunEnded { .. }
        | ChangeKind::StepReady { .. }
        | ChangeKind::StepSkipped { .. }
        | ChangeKind::StepCached { .. }
        | ChangeKind::StepCancelled { .. } => None,
    }
}
