//! What must hold between any two calls; for tests and debugging.

use std::collections::VecDeque;

use windlass_ids::StepIndex;

use crate::attempt::NEVER;
use crate::run::{Run, UPSTREAM_FAILED, UPSTREAM_UNSUCCESSFUL};
use crate::scheduler::Scheduler;
use crate::state::{RunState, StepState};

impl Scheduler {
    /// Panics when something does not hold that must hold between any two calls. Costs O(steps + edges).
    ///
    /// # Panics
    ///
    /// When an invariant is broken.
    pub fn assert_invariants(&self) {
        assert!(self.dirty.is_empty(), "a turn ended with undecided runs");
        let mut live = vec![0; self.namespaces.len()];
        for (slot, run) in (0_u32..).zip(&self.runs) {
            let Some(run) = run else { continue };
            assert_eq!(self.by_id.get(&run.id()), Some(&slot));
            live[run.queues.namespace as usize] += run.live();
            assert_counters(run);
            for step in run.spec.graph().indices() {
                assert_step(run, step);
                self.assert_awaited(run, slot, step);
            }
            let limit = run.spec.parameters().max_parallelism;
            assert!(
                limit.is_none_or(|limit| run.live() <= limit.get()),
                "more steps live than allowed"
            );
            assert_eq!(run.state.is_terminal(), run.open == 0, "a run ends with its last step");
        }
        for (load, live) in self.namespaces.iter().zip(live) {
            assert_eq!(load.live, live, "live steps of a namespace");
            assert!(
                load.limit.is_none_or(|limit| live <= limit),
                "more steps live in a namespace than allowed"
            );
            assert!(
                !load.has_room() || load.waiting.values().all(VecDeque::is_empty),
                "a namespace has room, and what waits for it was not woken"
            );
        }
        self.assert_executors();
    }

    /// I10: what has not ended has a timer, or waits for something that can be named.
    fn assert_awaited(&self, run: &Run, slot: u32, step: StepIndex) {
        let state = run.state_of(step);
        if state.is_terminal() {
            return;
        }
        let explanation = self.explain(self.now, run.id(), Some(step));
        let blocker = explanation.and_then(|explanation| explanation.blocker);
        assert!(blocker.is_some(), "I10: step {step} of slot {slot} waits for nothing");
        if let Some(attempt) = run.attempt(step)
            && let Some((at, _)) = self.wake(self.now, run, attempt)
        {
            assert!(
                attempt.filed <= at,
                "I10: step {step} is due at {at} and nothing wakes it"
            );
        }
        if state == StepState::Ready {
            let admission = self.admission_deadline(run, step);
            assert!(
                admission.is_none_or(|due| run.queues.filed <= due),
                "I10: ready step {step} waits for an executor and nothing wakes it"
            );
            let queue = run.queues.by_policy[run.spec.policy_index(step)] as usize;
            assert!(
                run.queues.lanes[queue].ready.contains(&step),
                "ready step {step} is not queued"
            );
        }
    }

    fn assert_executors(&self) {
        for (index, cluster) in (0_u32..).zip(&self.executors.clusters) {
            for (shard, owner) in cluster.owners.iter().enumerate() {
                let Some(owner) = owner else { continue };
                let session = self.executors.sessions.get(owner);
                let session = session.unwrap_or_else(|| panic!("shard {shard} belongs to nobody known"));
                assert_eq!(session.cluster, index);
            }
        }
        for session in self.executors.sessions.values() {
            assert!(
                session.acknowledged <= session.sent,
                "more launches acknowledged than sent"
            );
            let cluster = &self.executors.clusters[session.cluster as usize];
            let owned = cluster
                .owners
                .iter()
                .filter(|owner| **owner == Some(session.identity.incarnation));
            assert_eq!(
                owned.count(),
                session.shards.len(),
                "a lease and the table of owners differ"
            );
        }
    }
}

fn assert_counters(run: &Run) {
    let mut counts = [0; StepState::SLOTS];
    let (mut awaited, mut live) = (0, 0);
    for step in run.spec.graph().indices() {
        counts[usize::from(run.state_of(step).code())] += 1;
        awaited += usize::from(run.attempt(step).is_some());
        live += u32::from(run.holds_slot(step));
    }
    assert_eq!(live, run.live(), "slots held and their counter differ");
    assert_eq!(counts, run.counts, "counters and states differ");
    assert_eq!(awaited, run.attempts().len(), "an attempt without a step");
    let open = counts.iter().enumerate().filter(|(code, _)| {
        let state = u8::try_from(*code).ok().and_then(StepState::from_code);
        state.is_some_and(|state| !state.is_terminal())
    });
    assert_eq!(open.map(|(_, count)| count).sum::<u32>(), run.open);
    let has_launched = run.spec.graph().indices().any(|step| run.number(step) > 0);
    assert!(
        !has_launched || run.state != RunState::Queued,
        "a queued run has launched"
    );
}

fn assert_step(run: &Run, step: StepIndex) {
    let state = run.state_of(step);
    let upstream = run.spec.graph().upstream(step);
    let states = || upstream.iter().map(|step| run.state_of(*step));
    let open = states().filter(|state| !state.is_terminal()).count();
    assert_eq!(
        open,
        run.remaining(step) as usize,
        "upstream steps of {step} that have not ended"
    );
    let failed = states().any(|state| state == StepState::Failed);
    assert_eq!(run.has_flag(step, UPSTREAM_FAILED), failed);
    let unsuccessful = states().any(|state| state.is_terminal() && !state.is_success());
    assert_eq!(run.has_flag(step, UPSTREAM_UNSUCCESSFUL), unsuccessful);
    if state == StepState::Cached {
        assert_eq!(run.number(step), 0, "reused step {step} was launched");
        assert!(
            states().all(|state| state == StepState::Cached),
            "step {step} is reused, and one before it is not"
        );
    }
    match (state, run.attempt(step)) {
        (StepState::Starting | StepState::Running | StepState::LostContact | StepState::RetryWait, None) => {
            panic!("step {step} is {state} without an attempt")
        }
        (StepState::Starting, Some(attempt)) => assert!(!attempt.has_started() && !attempt.has_ended()),
        (StepState::Running, Some(attempt)) => assert!(attempt.started_at != NEVER && !attempt.has_ended()),
        (StepState::RetryWait, Some(attempt)) => assert!(attempt.has_ended() && attempt.retry_until().is_some()),
        (StepState::LostContact, Some(attempt)) => assert!(attempt.lost().is_some()),
        (_, Some(_)) => panic!("step {step} is {state} and has an attempt"),
        (_, None) => {}
    }
}
