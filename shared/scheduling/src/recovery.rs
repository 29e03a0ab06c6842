//! Coming back after a restart: specs, snapshots and changes are loaded, and nothing is decided a second time.

use std::cmp::Reverse;
use std::sync::Arc;

use windlass_ids::{RunId, StepIndex, Timestamp};

use crate::apply::ReplayError;
use crate::attempt::Attempt;
use crate::change::Change;
use crate::effect::{Decision, Effect};
use crate::run::Run;
use crate::scheduler::{Scheduler, Turn};
use crate::snapshot::{RunSnapshot, StepSnapshot};
use crate::spec::RunSpec;
use crate::state::StepState;

impl Scheduler {
    /// Loads a run of which no snapshot is stored: all its changes follow, the first of them `RunAccepted`.
    pub fn load(&mut self, spec: Arc<RunSpec>) -> Result<(), ReplayError> {
        let run = spec.run();
        if self.by_id.contains_key(&run) {
            return Err(ReplayError::LoadedTwice { run });
        }
        self.insert(Run::new(spec));
        Ok(())
    }

    /// Loads a run from a snapshot: the changes after `snapshot.last_sequence` follow.
    pub fn restore(&mut self, spec: Arc<RunSpec>, snapshot: RunSnapshot) -> Result<(), ReplayError> {
        let run = spec.run();
        if self.by_id.contains_key(&run) {
            return Err(ReplayError::LoadedTwice { run });
        }
        self.insert(Run::restored(spec, snapshot)?);
        Ok(())
    }

    /// Applies a stored change.
    pub fn apply(&mut self, change: &Change) -> Result<(), ReplayError> {
        let unknown = ReplayError::UnknownRun { run: change.run };
        let slot = self.by_id.get(&change.run).copied().ok_or(unknown.clone())?;
        self.now = self.now.max(change.at);
        self.run_at_mut(slot).ok_or(unknown)?.replay(change)
    }

    /// Ends recovery: queues, timers and limits follow from what was loaded. Clocks of waiting states start anew, since nobody knows what was
    /// seen meanwhile; timeouts of running attempts and of runs, and delays of retries, go on.
    pub fn recovered(&mut self, now: Timestamp, decision: &mut Decision) {
        self.now = self.now.max(now);
        let mut turn = Turn {
            now: self.now,
            out: decision,
        };
        let lease = self.config.lease.saturating_add(self.config.fence());
        self.executors.first_fence = self.now.saturating_add(lease);
        for namespace in &mut self.namespaces {
            namespace.live = 0;
        }
        self.update_service();
        for slot in 0..u32::try_from(self.runs.len()).unwrap_or(u32::MAX) {
            self.revive(&mut turn, slot);
        }
        while let Some(slot) = self.dirty.pop() {
            self.settle(&mut turn, slot);
        }
    }

    fn revive(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(run) = self.run_at(slot) else { return };
        if run.state.is_terminal() {
            turn.effect(Effect::RunFinished { run: run.id() });
            return;
        }
        let (live, namespace) = (run.live(), run.queues.namespace);
        let mut ready: Vec<StepIndex> = run
            .spec
            .graph()
            .indices()
            .filter(|step| run.state_of(*step) == StepState::Ready)
            .collect();
        ready.sort_by_key(|step| (run.since(*step), *step));
        self.namespaces[namespace as usize].live += live;
        for step in ready {
            self.enqueue(slot, step);
        }
        let steps: Vec<StepIndex> = self
            .run_at(slot)
            .map(|run| run.attempts().iter().map(|attempt| attempt.step).collect())
            .unwrap_or_default();
        for step in steps {
            self.revive_attempt(turn.now, slot, step);
        }
        self.file_run(slot);
        self.mark_dirty(slot);
    }

    fn revive_attempt(&mut self, now: Timestamp, slot: u32, step: StepIndex) {
        let Some(executor) = self.attempt_at(slot, step).map(|attempt| Arc::clone(&attempt.executor)) else {
            return;
        };
        let cluster = self.executors.intern(&executor.cluster, &executor.alias, now);
        let fence = self.executors.first_fence;
        if let Some(attempt) = self.attempt_at_mut(slot, step) {
            attempt.cluster = cluster;
            if attempt.shared {
                attempt.trouble().fence_until = Some(fence);
            }
        }
        self.arm(now, slot, step);
    }

    /// The durable state of a run, for a store.
    pub fn snapshot(&self, run: RunId) -> Option<RunSnapshot> {
        let slot = self.slot_of(run).ok()?;
        self.run_at(slot).map(Run::snapshot)
    }

    /// Lets a run go that has ended and whose end is durable. Returns false for one that has not ended.
    pub fn forget(&mut self, run: RunId) -> bool {
        let Ok(slot) = self.slot_of(run) else { return true };
        if self.run_at(slot).is_some_and(|run| !run.state.is_terminal()) {
            return false;
        }
        self.by_id.remove(&run);
        self.free_slots.push(slot);
        let Some(run) = self.runs[slot as usize].take() else {
            return true;
        };
        if !run.queues.lanes.iter().any(|lane| lane.queued) {
            return true;
        }
        for namespace in &mut self.namespaces {
            namespace
                .waiting
                .values_mut()
                .for_each(|waiting| waiting.retain(|entry| entry.0 != slot));
            namespace.waiting.retain(|Reverse(_), waiting| !waiting.is_empty());
        }
        self.lanes.remove(slot);
        true
    }
}

impl Run {
    fn snapshot(&self) -> RunSnapshot {
        let step = |step: StepIndex| {
            let [charged_user, charged_infrastructure] = self.charged(step);
            StepSnapshot {
                state: self.state_of(step),
                since: self.since(step),
                number: self.number(step),
                charged_user,
                charged_infrastructure,
            }
        };
        let mut attempts: Vec<_> = self.attempts().iter().map(Attempt::snapshot).collect();
        attempts.sort_by_key(|attempt| attempt.step);
        RunSnapshot {
            run: self.id(),
            state: self.state,
            reason: self.reason,
            last_sequence: self.sequence,
            accepted_at: self.accepted_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            last_launch_at: self.last_launch_at,
            cancel: self.cancel.clone(),
            steps: self.spec.graph().indices().map(step).collect(),
            attempts,
        }
    }

    fn restored(spec: Arc<RunSpec>, snapshot: RunSnapshot) -> Result<Self, ReplayError> {
        let mut run = Self::new(spec);
        let differs = ReplayError::SnapshotDiffers { run: run.id() };
        let fits = |attempt: &crate::snapshot::AttemptSnapshot| attempt.step.as_usize() < snapshot.steps.len();
        if snapshot.run != run.id() || snapshot.steps.len() != run.step_count() || !snapshot.attempts.iter().all(fits) {
            return Err(differs);
        }
        for (index, step) in (0_u32..).map(StepIndex).zip(&snapshot.steps) {
            if step.state != StepState::Waiting {
                run.set_state(index, step.state, step.since);
            }
            run.set_number(index, step.number);
            run.set_charged(index, [step.charged_user, step.charged_infrastructure]);
        }
        for attempt in snapshot.attempts {
            run.insert_attempt(Attempt::restore(attempt));
        }
        for step in run.spec.graph().indices() {
            run.count_slot(step, false);
        }
        run.state = snapshot.state;
        run.reason = snapshot.reason;
        run.sequence = snapshot.last_sequence;
        run.accepted_at = snapshot.accepted_at;
        run.started_at = snapshot.started_at;
        run.ended_at = snapshot.ended_at;
        run.last_launch_at = snapshot.last_launch_at;
        run.cancel = snapshot.cancel;
        Ok(run)
    }
}
