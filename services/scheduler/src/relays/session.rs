//! One log relay: what it has to be told, coalesced by attempt and by subscription (I11).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use windlass_api::follow::v1 as wire;
use windlass_ids::{AttemptId, RunId, StepIndex, Timestamp};
use windlass_scheduling::RunState;

use super::source::released;
use crate::read_model::{RunEntry, RunRecord};

/// Most subscriptions of one relay.
const MAX_SUBSCRIPTIONS: usize = 100_000;
/// Steps of one update.
const MAX_STEPS: usize = 500;

/// Something that a relay has to do once.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Seal what there is of an attempt whose pod is let go.
    Abandon {
        /// Number of the assignment.
        grant: u64,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Delete the logs of a run.
    Forget(RunId),
}

impl Order {
    fn message(&self) -> wire::follow_response::Message {
        match self {
            Self::Abandon { grant, attempt } => wire::follow_response::Message::Abandon(wire::Abandon {
                grant: *grant,
                run_id: attempt.run.as_bytes().to_vec(),
                step: attempt.step.0,
                attempt: attempt.number,
            }),
            Self::Forget(run) => wire::follow_response::Message::Forget(wire::ForgetRun {
                run_id: run.as_bytes().to_vec(),
            }),
        }
    }
}

/// A relay as long as it is remembered; see the module.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) name: String,
    pub(super) address: String,
    /// Since when no stream is attached.
    pub(super) gone_since: Option<Timestamp>,
    pub(super) stream: Option<(u64, CancellationToken)>,
    pub(super) wake: Arc<Notify>,
    /// Attempts that it owns.
    pub(super) load: usize,
    pub(super) sequence: u64,
    /// The last numbered message of the relay that was taken over, and what it was told of that.
    pub(super) received: u64,
    pub(super) told: u64,
    pub(super) assigns: BTreeSet<AttemptId>,
    /// What it has to do, and what it was told of that and has not acknowledged: nothing but this repeats it.
    orders: VecDeque<Order>,
    unacknowledged: VecDeque<(u64, Order)>,
    pub(super) refusals: VecDeque<wire::RunUpdate>,
    subscriptions: BTreeMap<u64, Subscription>,
    /// Subscriptions by run.
    runs: BTreeMap<RunId, BTreeSet<u64>>,
    /// Subscriptions that may have something to say.
    talking: BTreeSet<u64>,
}

impl Relay {
    pub(super) fn new(name: String, address: String) -> Self {
        Self {
            name,
            address,
            gone_since: None,
            stream: None,
            wake: Arc::default(),
            load: 0,
            sequence: 0,
            received: 0,
            told: 0,
            assigns: BTreeSet::new(),
            orders: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            refusals: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            runs: BTreeMap::new(),
            talking: BTreeSet::new(),
        }
    }

    /// Gives it something to do.
    pub(super) fn order(&mut self, order: Order) {
        self.orders.push_back(order);
        self.wake.notify_one();
    }

    /// The next order, as a numbered message.
    pub(super) fn next_order(&mut self) -> Option<wire::FollowResponse> {
        let order = self.orders.pop_front()?;
        let message = self.number(order.message());
        self.unacknowledged.push_back((self.sequence, order));
        Some(message)
    }

    /// It took over everything up to a number.
    pub(super) fn acknowledged(&mut self, sequence: u64) {
        while self
            .unacknowledged
            .front()
            .is_some_and(|(number, _)| *number <= sequence)
        {
            self.unacknowledged.pop_front();
        }
    }

    /// A new stream: numbers begin anew, and what was not acknowledged is said again first.
    pub(super) fn restart(&mut self) {
        self.sequence = 0;
        self.received = 0;
        self.told = 0;
        let again: Vec<Order> = self.unacknowledged.drain(..).map(|(_, order)| order).collect();
        again.into_iter().rev().for_each(|order| self.orders.push_front(order));
        self.unsubscribe_all();
        self.refusals.clear();
    }

    /// Begins a subscription, unless there are too many.
    pub(super) fn subscribe(&mut self, number: u64, entry: Arc<RunEntry>) {
        if self.subscriptions.len() < MAX_SUBSCRIPTIONS {
            self.runs.entry(entry.meta().header.id).or_default().insert(number);
            self.talking.insert(number);
            self.subscriptions.insert(number, Subscription::new(entry));
        }
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&mut self, number: u64) {
        self.talking.remove(&number);
        let Some(subscription) = self.subscriptions.remove(&number) else {
            return;
        };
        let run = subscription.entry.meta().header.id;
        if let Some(numbers) = self.runs.get_mut(&run) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.runs.remove(&run);
            }
        }
    }

    /// Ends all subscriptions.
    pub(super) fn unsubscribe_all(&mut self) {
        self.subscriptions.clear();
        self.runs.clear();
        self.talking.clear();
    }

    /// Ends the subscriptions to a run that is deleted.
    pub(super) fn run_deleted(&mut self, run: RunId) {
        for number in self.runs.remove(&run).unwrap_or_default() {
            if let Some(subscription) = self.subscriptions.get(&number) {
                let header = &subscription.entry.meta().header;
                self.refusals.push_back(wire::RunUpdate {
                    subscription: number,
                    code: Code::NotFound as u32,
                    message: format!("run {} of namespace {} was deleted", header.name, header.namespace),
                    ..wire::RunUpdate::default()
                });
            }
            self.unsubscribe(number);
        }
    }

    /// How much it was given to do and has not done.
    pub(super) fn open_orders(&self) -> usize {
        self.orders.len() + self.unacknowledged.len()
    }

    /// Something of these attempts of a run changed, or the run itself.
    pub(super) fn touch(&mut self, run: RunId, attempts: &[(StepIndex, u32)]) {
        let Some(numbers) = self.runs.get(&run) else {
            return;
        };
        for number in numbers {
            if let Some(subscription) = self.subscriptions.get_mut(number) {
                subscription.dirty.extend(attempts);
                self.talking.insert(*number);
            }
        }
        self.wake.notify_one();
    }

    /// The next update of a subscription. `live` knows the sources whose pods are not released.
    pub(super) fn update(&mut self, live: impl Fn(AttemptId) -> Option<wire::LogSource>) -> Option<wire::RunUpdate> {
        while let Some(number) = self.talking.first().copied() {
            let subscription = self.subscriptions.get_mut(&number);
            if let Some(update) = subscription.and_then(|subscription| subscription.update(number, &live)) {
                return Some(update);
            }
            self.talking.remove(&number);
        }
        None
    }

    /// Gives a numbered message its number.
    pub(super) fn number(&mut self, message: wire::follow_response::Message) -> wire::FollowResponse {
        self.sequence += 1;
        self.frame(self.sequence, message)
    }

    /// A message that is not numbered.
    pub(super) fn unnumbered(&mut self, message: wire::follow_response::Message) -> wire::FollowResponse {
        self.frame(0, message)
    }

    fn frame(&mut self, sequence: u64, message: wire::follow_response::Message) -> wire::FollowResponse {
        self.told = self.received;
        wire::FollowResponse {
            sequence,
            acknowledged: self.received,
            message: Some(message),
        }
    }
}

/// A relay's subscription to a run.
#[derive(Debug)]
struct Subscription {
    entry: Arc<RunEntry>,
    /// The first step that was not told yet; `None` once all were.
    next: Option<u32>,
    dirty: BTreeSet<(StepIndex, u32)>,
    ended: bool,
}

impl Subscription {
    fn new(entry: Arc<RunEntry>) -> Self {
        Self {
            entry,
            next: Some(0),
            dirty: BTreeSet::new(),
            ended: false,
        }
    }

    /// The next update, when there is something to say.
    fn update(&mut self, number: u64, live: &impl Fn(AttemptId) -> Option<wire::LogSource>) -> Option<wire::RunUpdate> {
        let entry = Arc::clone(&self.entry);
        let record = entry.record();
        let mut update = wire::RunUpdate {
            subscription: number,
            run_id: entry.meta().header.id.as_bytes().to_vec(),
            run_name: entry.meta().header.name.0.clone(),
            ..wire::RunUpdate::default()
        };
        match self.next {
            Some(first) => self.first_steps(first, &record, live, &mut update),
            None if !self.dirty.is_empty() => self.changes(&record, live, &mut update),
            None if record.state.is_terminal() && !self.ended => {
                self.ended = true;
                update.ended_state = state(record.state);
            }
            None => return None,
        }
        Some(update)
    }

    fn first_steps(
        &mut self,
        first: u32,
        record: &RunRecord,
        live: &impl Fn(AttemptId) -> Option<wire::LogSource>,
        update: &mut wire::RunUpdate,
    ) {
        let mut index = StepIndex(first);
        while update.steps.len() + update.sources.len() < MAX_STEPS {
            let Some(step) = record.step(index) else {
                update.synced = true;
                self.next = None;
                return;
            };
            update.steps.push(self.step_name(record, index));
            let attempts = std::iter::successors(step.attempt, |attempt| attempt.previous());
            let mut sources: Vec<_> = attempts
                .filter_map(|attempt| self.source(record, index, attempt.cell.number, live))
                .collect();
            sources.reverse();
            update.sources.extend(sources);
            index.0 += 1;
        }
        self.next = Some(index.0);
    }

    fn changes(
        &mut self,
        record: &RunRecord,
        live: &impl Fn(AttemptId) -> Option<wire::LogSource>,
        update: &mut wire::RunUpdate,
    ) {
        while update.steps.len() < MAX_STEPS {
            let Some((step, number)) = self.dirty.pop_first() else {
                return;
            };
            update.steps.push(self.step_name(record, step));
            update.sources.extend(self.source(record, step, number, live));
        }
    }

    fn step_name(&self, record: &RunRecord, step: StepIndex) -> wire::StepName {
        let definition = &self.entry.meta().definition;
        wire::StepName {
            index: step.0,
            name: definition.step_name(step),
            source_step: definition.source_step(step).to_owned(),
            ended: record.step(step).is_some_and(|step| step.state.is_terminal()),
        }
    }

    fn source(
        &self,
        record: &RunRecord,
        step: StepIndex,
        number: u32,
        live: &impl Fn(AttemptId) -> Option<wire::LogSource>,
    ) -> Option<wire::LogSource> {
        let attempt = AttemptId {
            run: self.entry.meta().header.id,
            step,
            number,
        };
        live(attempt).or_else(|| {
            let mut attempts = std::iter::successors(record.step(step)?.attempt, |attempt| attempt.previous());
            released(
                &self.entry,
                attempt,
                &attempts.find(|attempt| attempt.cell.number == number)?,
            )
        })
    }
}

fn state(state: RunState) -> String {
    state.as_str().to_owned()
}
