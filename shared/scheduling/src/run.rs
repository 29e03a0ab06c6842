//! The durable state of one run, as a struct of arrays. It changes through `apply` only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use windlass_ids::{AttemptId, RunId, StepIndex, Timestamp};

use crate::attempt::Attempt;
use crate::change::CancelRequest;
use crate::lanes::RunQueues;
use crate::policy::FailureMode;
use crate::spec::RunSpec;
use crate::state::{RunReason, RunState, StepState};

/// Flag of a step: an upstream step failed.
pub(crate) const UPSTREAM_FAILED: u8 = 1;
/// Flag of a step: an upstream step ended without success.
pub(crate) const UPSTREAM_UNSUCCESSFUL: u8 = 2;

const NO_ATTEMPT: u32 = u32::MAX;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) state: RunState,
    pub(crate) reason: Option<RunReason>,
    pub(crate) sequence: u64,
    pub(crate) accepted_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) last_launch_at: Option<Timestamp>,
    pub(crate) cancel: Option<CancelRequest>,
    /// Steps by state.
    pub(crate) counts: [u32; StepState::SLOTS],
    /// Steps that have not ended.
    pub(crate) open: u32,
    /// Steps that hold a slot of the limits.
    live: u32,
    states: Vec<StepState>,
    since: Vec<Timestamp>,
    /// Upstream steps that have not ended.
    remaining: Vec<u32>,
    flags: Vec<u8>,
    numbers: Vec<u32>,
    /// Where the newest attempt is in `attempts`.
    slots: Vec<u32>,
    /// Charged failures, user and infrastructure; few steps have any.
    charged: BTreeMap<StepIndex, [u32; 2]>,
    attempts: Vec<Attempt>,
    /// Volatile: waiting steps about which something can be decided now.
    pub(crate) touched: VecDeque<StepIndex>,
    /// Volatile: ready steps in order.
    pub(crate) queues: RunQueues,
}

impl Run {
    /// A run of which nothing is known but its spec.
    pub(crate) fn new(spec: Arc<RunSpec>) -> Self {
        let steps = spec.steps();
        let graph = spec.graph();
        let remaining: Vec<u32> = graph
            .indices()
            .map(|step| u32::try_from(graph.upstream(step).len()).unwrap_or(u32::MAX))
            .collect();
        let open = u32::try_from(steps).unwrap_or(u32::MAX);
        let mut counts = [0; StepState::SLOTS];
        counts[usize::from(StepState::Waiting.code())] = open;
        Self {
            state: RunState::Queued,
            reason: None,
            sequence: 0,
            accepted_at: Timestamp::default(),
            started_at: None,
            ended_at: None,
            last_launch_at: None,
            cancel: None,
            counts,
            open,
            live: 0,
            states: vec![StepState::Waiting; steps],
            since: vec![Timestamp::default(); steps],
            touched: graph.indices().filter(|step| remaining[step.as_usize()] == 0).collect(),
            remaining,
            flags: vec![0; steps],
            numbers: vec![0; steps],
            slots: vec![NO_ATTEMPT; steps],
            charged: BTreeMap::new(),
            attempts: Vec::new(),
            queues: RunQueues::default(),
            spec,
        }
    }

    pub(crate) fn id(&self) -> RunId {
        self.spec.run()
    }

    pub(crate) fn step_count(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn state_of(&self, step: StepIndex) -> StepState {
        self.states[step.as_usize()]
    }

    pub(crate) fn since(&self, step: StepIndex) -> Timestamp {
        self.since[step.as_usize()]
    }

    pub(crate) fn number(&self, step: StepIndex) -> u32 {
        self.numbers[step.as_usize()]
    }

    pub(crate) fn remaining(&self, step: StepIndex) -> u32 {
        self.remaining[step.as_usize()]
    }

    pub(crate) fn has_flag(&self, step: StepIndex, flag: u8) -> bool {
        self.flags[step.as_usize()] & flag != 0
    }

    /// Charged failures: user, infrastructure.
    pub(crate) fn charged(&self, step: StepIndex) -> [u32; 2] {
        self.charged.get(&step).copied().unwrap_or_default()
    }

    pub(crate) fn count(&self, state: StepState) -> u32 {
        self.counts[usize::from(state.code())]
    }

    /// Steps that hold a slot of the limits.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Whether a step holds a slot of the limits: a pod of it may live. A failed attempt holds its slot until it is known to be dead.
    pub(crate) fn holds_slot(&self, step: StepIndex) -> bool {
        match self.state_of(step) {
            StepState::RetryWait => self.attempt(step).is_some_and(|attempt| !attempt.is_proven_dead()),
            state => state.is_live(),
        }
    }

    /// Counts a step's slot after a change, given whether it held one before.
    pub(super) fn count_slot(&mut self, step: StepIndex, held_before: bool) {
        self.live -= u32::from(held_before);
        self.live += u32::from(self.holds_slot(step));
    }

    /// Whether a failure forbids to start what has not started.
    pub(crate) fn is_halted(&self) -> bool {
        self.count(StepState::Failed) > 0 && self.spec.parameters().failure_mode != FailureMode::ContinueOnFailure
    }

    pub(crate) fn attempt_id(&self, step: StepIndex) -> AttemptId {
        AttemptId {
            run: self.id(),
            step,
            number: self.number(step),
        }
    }

    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    pub(crate) fn attempts_mut(&mut self) -> &mut [Attempt] {
        &mut self.attempts
    }

    pub(crate) fn attempt(&self, step: StepIndex) -> Option<&Attempt> {
        self.attempts.get(self.slots[step.as_usize()] as usize)
    }

    pub(crate) fn attempt_mut(&mut self, step: StepIndex) -> Option<&mut Attempt> {
        self.attempts.get_mut(self.slots[step.as_usize()] as usize)
    }

    pub(super) fn set_number(&mut self, step: StepIndex, number: u32) {
        self.numbers[step.as_usize()] = number;
    }

    pub(super) fn set_charged(&mut self, step: StepIndex, charged: [u32; 2]) {
        if charged != [0; 2] {
            self.charged.insert(step, charged);
        }
    }

    pub(super) fn insert_attempt(&mut self, attempt: Attempt) {
        self.slots[attempt.step.as_usize()] = u32::try_from(self.attempts.len()).unwrap_or(NO_ATTEMPT);
        self.attempts.push(attempt);
    }

    pub(super) fn remove_attempt(&mut self, step: StepIndex) {
        let slot = std::mem::replace(&mut self.slots[step.as_usize()], NO_ATTEMPT);
        if slot == NO_ATTEMPT {
            return;
        }
        self.attempts.swap_remove(slot as usize);
        if let Some(moved) = self.attempts.get(slot as usize) {
            self.slots[moved.step.as_usize()] = slot;
        }
    }

    /// Moves a step to a state and, when that is terminal, tells what waits for it.
    pub(super) fn set_state(&mut self, step: StepIndex, state: StepState, at: Timestamp) {
        let index = step.as_usize();
        let before = std::mem::replace(&mut self.states[index], state);
        self.counts[usize::from(before.code())] -= 1;
        self.counts[usize::from(state.code())] += 1;
        self.since[index] = at;
        if !state.is_terminal() || before.is_terminal() {
            return;
        }
        self.open -= 1;
        self.remove_attempt(step);
        let mut flags = 0;
        if !state.is_success() {
            flags |= UPSTREAM_UNSUCCESSFUL;
        }
        if state == StepState::Failed {
            flags |= UPSTREAM_FAILED;
        }
        for next in self.spec.graph().downstream(step) {
            let index = next.as_usize();
            let known = self.flags[index];
            self.remaining[index] -= 1;
            self.flags[index] = known | flags;
            let newly_unsuccessful = (known ^ (known | flags)) & UPSTREAM_UNSUCCESSFUL != 0;
            if self.remaining[index] == 0 || newly_unsuccessful {
                self.touched.push_back(*next);
            }
        }
    }

    /// Bytes that grow with the number of steps.
    pub(crate) fn memory_usage(&self) -> usize {
        let step = size_of::<StepState>() + size_of::<Timestamp>() + 3 * size_of::<u32>() + size_of::<u8>();
        let details: usize = self
            .attempts
            .iter()
            .map(|attempt| {
                let detail = attempt.detail.as_ref().map_or(0, |detail| {
                    size_of_val(&**detail)
                        + detail.node.as_ref().map_or(0, |node| node.len())
                        + detail.reason.len()
                        + detail.message.len()
                });
                detail + attempt.trouble.as_ref().map_or(0, |trouble| size_of_val(&**trouble))
            })
            .sum();
        self.states.capacity() * step
            + self.attempts.capacity() * size_of::<Attempt>()
            + self.touched.capacity() * size_of::<StepIndex>()
            + self.queues.memory_usage()
            + self.charged.len() * 2 * size_of::<(StepIndex, [u32; 2])>()
            + details
            + self.spec.memory_usage()
    }
}
