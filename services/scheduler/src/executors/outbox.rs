//! What an executor has to be told: pending orders, coalesced, and turned into numbered messages when its stream can take them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;
use windlass_api::dispatch::v1 as wire;
use windlass_api::dispatch::v1::connect_response::Message;
use windlass_ids::{AttemptId, Namespace, RunId, StepIndex};

use super::window::{Window, WindowLimits};

/// Launches, stops and releases of one message.
const MAX_BATCH: usize = 1_000;
/// Bytes of launches in one message: peers receive 4 MiB by default.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Messages with launches whose newest launch is remembered.
const MAX_ORDERS: usize = 4_096;
/// Bound on what is kept for a stream to resume.
const WINDOW: WindowLimits = WindowLimits {
    messages: 4_096,
    bytes: 8 * 1024 * 1024,
};

/// What launches of a run need: made once for a run, shared by all sessions.
pub(crate) trait LaunchMaterial: std::fmt::Debug + Send + Sync {
    /// What the launches share.
    fn context(&self) -> wire::RunContext;
    /// Which template a step uses, in the run's own numbering.
    fn template_of(&self, step: StepIndex) -> u32;
    /// JSON of a template.
    fn template_json(&self, template: u32) -> Vec<u8>;
    /// Name of a step after expansion.
    fn step_name(&self, step: StepIndex) -> String;
    /// JSON of what differs from the template.
    fn overlay_json(&self, step: StepIndex) -> Vec<u8>;
}

/// A pod to create.
#[derive(Debug)]
pub(crate) struct LaunchOrder {
    pub(crate) attempt: AttemptId,
    pub(crate) grant: u32,
    /// Number of the launch in the session; ascending.
    pub(crate) order: u64,
    pub(crate) material: Arc<dyn LaunchMaterial>,
}

/// Pending orders and the state of a session; see the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    window: Window<wire::ConnectResponse>,
    ready: VecDeque<wire::ConnectResponse>,
    lease: Option<wire::ShardLease>,
    relays: Option<wire::Relays>,
    inventory: bool,
    launches: VecDeque<LaunchOrder>,
    /// Newest launch of each message with launches: sequence number and order.
    orders: VecDeque<(u64, u64)>,
    probes: BTreeMap<AttemptId, wire::Probe>,
    stops: BTreeMap<AttemptId, wire::Stop>,
    releases: BTreeMap<AttemptId, wire::Release>,
    finished: BTreeMap<RunId, Namespace>,
    contexts: BTreeSet<RunId>,
    templates: BTreeMap<(RunId, u32), u64>,
    last_template: u64,
    /// The last numbered message of the executor that is committed.
    committed: u64,
    /// The last of them that a frame told the executor.
    told: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            window: Window::new(WINDOW),
            ready: VecDeque::new(),
            lease: None,
            relays: None,
            inventory: false,
            launches: VecDeque::new(),
            orders: VecDeque::new(),
            probes: BTreeMap::new(),
            stops: BTreeMap::new(),
            releases: BTreeMap::new(),
            finished: BTreeMap::new(),
            contexts: BTreeSet::new(),
            templates: BTreeMap::new(),
            last_template: 0,
            committed: 0,
            told: 0,
        }
    }

    /// A pod to create.
    pub(crate) fn launch(&mut self, order: LaunchOrder) {
        self.launches.push_back(order);
    }

    /// A pod to stop: takes the place of an earlier order. A launch that was not sent yet goes first, so that the executor answers for both.
    pub(crate) fn stop(&mut self, attempt: AttemptId, stop: wire::Stop) {
        self.stops.insert(attempt, stop);
    }

    /// A pod to look at.
    pub(crate) fn probe(&mut self, attempt: AttemptId, probe: wire::Probe) {
        self.probes.insert(attempt, probe);
    }

    /// A pod to let go.
    pub(crate) fn release(&mut self, attempt: AttemptId, release: wire::Release) {
        self.releases.insert(attempt, release);
    }

    /// A run whose last pod is released.
    pub(crate) fn finish(&mut self, run: RunId, namespace: Namespace) {
        self.finished.insert(run, namespace);
    }

    /// The shards that it leases: the whole set.
    pub(crate) fn lease(&mut self, shards: Vec<u8>) {
        self.lease = Some(wire::ShardLease { shards });
    }

    /// The relays to feed: the whole set.
    pub(crate) fn relays(&mut self, relays: Vec<wire::Relay>) {
        self.relays = Some(wire::Relays { relays });
    }

    /// An inventory is wanted.
    pub(crate) fn request_inventory(&mut self) {
        self.inventory = true;
    }

    /// Everything of the executor up to `sequence` is committed.
    pub(crate) fn committed(&mut self, sequence: u64) {
        self.committed = self.committed.max(sequence);
    }

    /// The last message of the executor that is committed.
    pub(crate) fn received(&self) -> u64 {
        self.committed
    }

    /// The executor took over everything up to `sequence`; returns the newest launch among it, 0 when that is not known.
    pub(crate) fn acknowledged(&mut self, sequence: u64) -> u64 {
        self.window.acknowledge(sequence);
        self.order_at(sequence)
    }

    /// The newest launch in or before the message `sequence`; 0 when there is none, or it is known no longer.
    pub(crate) fn order_at(&self, sequence: u64) -> u64 {
        let after = self.orders.partition_point(|(of, _)| *of <= sequence);
        after.checked_sub(1).map_or(0, |index| self.orders[index].1)
    }

    /// Begins a stream that resumes after `sequence`; false when that is not possible and the session has to begin anew.
    pub(crate) fn resume(&mut self, sequence: u64) -> bool {
        let Some(again) = self.window.resume_after(sequence) else {
            return false;
        };
        self.ready = again.into();
        self.told = 0;
        true
    }

    /// Whether [`Self::next`] has something to send.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.has_pending() || self.told < self.committed
    }

    fn has_pending(&self) -> bool {
        self.lease.is_some()
            || self.relays.is_some()
            || self.inventory
            || !self.launches.is_empty()
            || !self.probes.is_empty()
            || !self.stops.is_empty()
            || !self.releases.is_empty()
            || !self.finished.is_empty()
    }

    /// The next message to send; a heartbeat that carries the acknowledgement when there is nothing else to say.
    pub(crate) fn next(&mut self) -> wire::ConnectResponse {
        if self.ready.is_empty() {
            self.prepare();
        }
        let mut message = self.ready.pop_front().unwrap_or_else(heartbeat);
        message.acknowledged = self.committed;
        self.told = self.committed;
        message
    }

    fn prepare(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.number(Message::Lease(lease));
        }
        if let Some(relays) = self.relays.take() {
            self.number(Message::Relays(relays));
        }
        if std::mem::take(&mut self.inventory) {
            self.number(Message::InventoryRequest(wire::InventoryRequest {}));
        }
        self.prepare_launches();
        let probes = take_batch(&mut self.probes);
        if !probes.is_empty() {
            self.number(Message::Probes(wire::Probes { probes }));
        }
        let stops = take_batch(&mut self.stops);
        if !stops.is_empty() {
            self.number(Message::Stops(wire::Stops { stops }));
        }
        let releases = take_batch(&mut self.releases);
        if !releases.is_empty() {
            self.number(Message::Releases(wire::Releases { releases }));
        }
        self.prepare_finished();
    }

    fn prepare_launches(&mut self) {
        let (mut launches, mut bytes, mut newest) = (Vec::new(), 0, 0);
        while launches.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(order) = self.launches.pop_front() else {
                break;
            };
            let launch = self.prepare_launch(&order);
            bytes += launch.encoded_len();
            newest = order.order;
            launches.push(launch);
        }
        if !launches.is_empty() {
            if self.orders.len() == MAX_ORDERS {
                self.orders.pop_front();
            }
            self.orders.push_back((self.window.next(), newest));
            self.number(Message::Launches(wire::Launches { launches }));
        }
    }

    /// The launch, after what it refers to was put in front of it.
    fn prepare_launch(&mut self, order: &LaunchOrder) -> wire::Launch {
        let (run, step) = (order.attempt.run, order.attempt.step);
        if self.contexts.insert(run) {
            self.number(Message::Run(order.material.context()));
        }
        let local = order.material.template_of(step);
        let template = match self.templates.get(&(run, local)) {
            Some(template) => *template,
            None => {
                self.last_template += 1;
                self.templates.insert((run, local), self.last_template);
                self.number(Message::Template(wire::StepTemplate {
                    template: self.last_template,
                    template_json: order.material.template_json(local).into(),
                }));
                self.last_template
            }
        };
        wire::Launch {
            attempt: Some(key(order.attempt)),
            grant: order.grant.into(),
            template,
            step_name: order.material.step_name(step),
            overlay_json: order.material.overlay_json(step).into(),
        }
    }

    fn prepare_finished(&mut self) {
        let mut runs = Vec::new();
        while runs.len() < MAX_BATCH {
            let Some((run, namespace)) = self.finished.pop_first() else {
                break;
            };
            // A later retry of the run would send them again.
            self.contexts.remove(&run);
            self.templates.retain(|(of, _), _| *of != run);
            runs.push(wire::FinishedRun {
                run_id: run.as_bytes().to_vec(),
                namespace: namespace.0,
            });
        }
        if !runs.is_empty() {
            self.number(Message::RunsFinished(wire::RunsFinished { runs }));
        }
    }

    fn number(&mut self, message: Message) {
        let message = wire::ConnectResponse {
            sequence: self.window.next(),
            message: Some(message),
            ..wire::ConnectResponse::default()
        };
        self.window.push(message.encoded_len(), message.clone());
        self.ready.push_back(message);
    }
}

/// A frame that says nothing but what is acknowledged.
fn heartbeat() -> wire::ConnectResponse {
    wire::ConnectResponse {
        message: Some(Message::Heartbeat(wire::Heartbeat {})),
        ..wire::ConnectResponse::default()
    }
}

/// The wire form of an attempt's identity.
pub(crate) fn key(attempt: AttemptId) -> wire::AttemptKey {
    wire::AttemptKey {
        run_id: bytes::Bytes::copy_from_slice(attempt.run.as_bytes()),
        step: attempt.step.0,
        attempt: attempt.number,
    }
}

fn take_batch<V>(pending: &mut BTreeMap<AttemptId, V>) -> Vec<V> {
    let mut batch = Vec::with_capacity(pending.len().min(MAX_BATCH));
    while batch.len() < MAX_BATCH {
        match pending.pop_first() {
            Some((_, value)) => batch.push(value),
            None => break,
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_model::{RunEntry, RunRecord};
    use crate::testing::{RUN, at, attempt, meta};

    const FILE: &str = "
name: churn
defaults: {image: 'churn:v3', command: ['true']}
steps:
  - {name: train, matrix: [{name: FOLD, values: [0, 1, 2, 3]}], args: ['--fold=$(FOLD)']}
";

    fn material() -> Arc<dyn LaunchMaterial> {
        let meta = meta(FILE);
        let record = RunRecord::new(meta.definition.len(), at(0));
        Arc::new(RunEntry::new(meta, record))
    }

    fn order(step: u32, number: u64, material: &Arc<dyn LaunchMaterial>) -> LaunchOrder {
        LaunchOrder {
            attempt: attempt(step, 1),
            grant: 1,
            order: number,
            material: Arc::clone(material),
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<wire::ConnectResponse> {
        std::iter::from_fn(|| outbox.has_work().then(|| outbox.next())).collect()
    }

    #[test]
    fn context_and_template_go_once_before_the_launches_that_need_them() {
        let (mut outbox, material) = (Outbox::new(), material());
        outbox.launch(order(0, 1, &material));
        outbox.launch(order(1, 2, &material));
        let first = drain(&mut outbox);
        assert!(matches!(first[0].message, Some(Message::Run(_))));
        assert!(matches!(first[1].message, Some(Message::Template(_))));
        let Some(Message::Launches(launches)) = &first[2].message else {
            panic!("launches last: {first:?}");
        };
        assert_eq!(launches.launches.len(), 2);
        assert_eq!(launches.launches[1].step_name, "train.1");
        assert!(
            launches.launches[1].encoded_len() <= 200,
            "design part 5: a launch is at most 200 bytes"
        );
        assert_eq!(
            first.iter().map(|message| message.sequence).collect::<Vec<_>>(),
            [1, 2, 3]
        );

        outbox.launch(order(2, 3, &material));
        assert_eq!(drain(&mut outbox).len(), 1);
        assert_eq!(outbox.acknowledged(3), 2, "the newest launch in or before message 3");
        assert_eq!(outbox.acknowledged(4), 3);
        assert_eq!(outbox.order_at(2), 0);

        outbox.finish(RUN, "ml".into());
        outbox.launch(order(3, 4, &material));
        let again = drain(&mut outbox);
        outbox.launch(order(3, 5, &material));
        assert_eq!(
            (again.len(), drain(&mut outbox).len()),
            (2, 3),
            "a finished run would be introduced again"
        );
    }

    #[test]
    fn i11_stops_and_releases_are_coalesced_by_attempt() {
        let mut outbox = Outbox::new();
        for seconds in [30, 5] {
            let grace = prost_types::Duration { seconds, nanos: 0 };
            let stop = wire::Stop {
                attempt: Some(key(attempt(0, 1))),
                grace: Some(grace),
                ..wire::Stop::default()
            };
            outbox.stop(attempt(0, 1), stop);
            outbox.release(attempt(0, 1), wire::Release::default());
        }
        let told = drain(&mut outbox);
        let Some(Message::Stops(stops)) = &told[0].message else {
            panic!("stops first: {told:?}");
        };
        assert_eq!(stops.stops.len(), 1);
        assert_eq!(
            stops.stops[0].grace.expect("a grace").seconds,
            5,
            "the newest order counts"
        );
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn i1_only_what_is_committed_is_acknowledged() {
        let mut outbox = Outbox::new();
        assert!(!outbox.has_work());
        outbox.committed(7);
        let told = drain(&mut outbox);
        assert_eq!((told.len(), told[0].acknowledged, told[0].sequence), (1, 7, 0));
        assert!(!outbox.has_work());
    }

    #[test]
    fn a_resumed_stream_gets_what_was_not_acknowledged_and_then_what_is_new() {
        let mut outbox = Outbox::new();
        outbox.lease(vec![0xff; 32]);
        outbox.request_inventory();
        assert_eq!(drain(&mut outbox).len(), 2);
        outbox.release(attempt(0, 1), wire::Release::default());
        assert!(outbox.resume(1));
        let sequences: Vec<u64> = drain(&mut outbox).iter().map(|message| message.sequence).collect();
        assert_eq!(sequences, [2, 3]);
        assert!(!outbox.resume(0), "message 1 was acknowledged by the first resumption");
    }
}
