//! Pods that are not there: what that proves, who looks for them again, and who posts them (I2).

use windlass_ids::{Incarnation, StepIndex};

use crate::change::{AttemptEnd, ChangeKind};
use crate::effect::Effect;
use crate::event::Observation;
use crate::observe::detail_of;
use crate::scheduler::{Scheduler, Turn};
use crate::state::{FailureClass, LostCause};

impl Scheduler {
    /// A quorum read found no pod.
    ///
    /// That none was ever created proves that nothing lives. Of a pod that existed, absence proves nothing: our finalizer keeps its object until its
    /// end is stored, so when the object is gone, somebody let it go by hand, and its processes may live where its kubelet does not hear of it.
    /// Then only an `end` with proof is an end.
    pub(crate) fn absent(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, mut seen: Observation) {
        seen.terminating = true;
        self.created(turn, slot, step, seen.pod);
        if self.is_fenced(turn, slot, step) {
            return;
        }
        let Some(attempt) = self.attempt_at(slot, step) else {
            return;
        };
        if attempt.is_proven_dead() {
            return;
        }
        let existed = attempt.pod.is_some();
        let (is_lost, has_ended) = (attempt.lost().is_some(), attempt.has_ended());
        let is_wanted = attempt.stopping().is_none();
        match &seen.end {
            Some(end) if end.proof_of_death => self.ended(turn, slot, step, seen),
            _ if existed && is_lost => {}
            _ if existed => self.lose_contact(turn, slot, step, LostCause::Vanished, detail_of(seen)),
            _ if has_ended => self.prove_death(turn, slot, step, None),
            _ if is_wanted => self.post_again(slot, step),
            _ => {
                let end = AttemptEnd::failure(FailureClass::PodDeleted, None, turn.now);
                self.end_attempt(turn, slot, step, end, true);
            }
        }
    }

    /// Has the owner of the shard post a pod that was never created.
    fn post_again(&mut self, slot: u32, step: StepIndex) {
        let owner = self.owner_of(slot, step);
        if let Some(session) = owner.and_then(|owner| self.executors.sessions.get_mut(&owner)) {
            session.missing.insert((slot, step));
        }
    }

    /// Whether another executor may still create the pod; then it is looked for again later.
    pub(crate) fn is_fenced(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) -> bool {
        let Some(attempt) = self.attempt_at_mut(slot, step) else {
            return false;
        };
        let is_fenced = attempt.shared && attempt.fence_until().is_some_and(|until| until > turn.now);
        if is_fenced {
            attempt.trouble().recheck = true;
            self.file(turn.now, slot, step);
        }
        is_fenced
    }

    pub(crate) fn recheck(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) {
        if let Some(attempt) = self.attempt_at_mut(slot, step) {
            attempt.trouble().recheck = false;
        }
        self.probe(turn, slot, step);
    }

    /// Has the owner of the shard look for the pod, under a grant of its own.
    pub(crate) fn probe(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex) {
        let Some(to) = self.owner_of(slot, step) else { return };
        if self
            .attempt_at(slot, step)
            .is_some_and(|attempt| attempt.executor.incarnation != to)
        {
            self.regrant(turn, slot, step, to);
        }
        let Some(attempt) = self.attempt_id(slot, step) else {
            return;
        };
        let Some(state) = self.attempt_at(slot, step) else {
            return;
        };
        turn.effect(Effect::Probe {
            to,
            attempt,
            grant: state.grant,
            pod: state.pod,
        });
    }

    /// Gives an attempt to an executor under the next grant.
    pub(crate) fn regrant(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, to: Incarnation) {
        let Some(executor) = self.executors.sessions.get(&to).map(|session| session.identity.clone()) else {
            return;
        };
        let Some(run) = self.run_at(slot) else { return };
        let number = run.number(step);
        let Some(attempt) = run.attempt(step) else { return };
        let grant = attempt.grant + 1;
        let moves = attempt.executor.incarnation != to;
        let fence = self
            .executors
            .cluster(attempt.cluster)
            .map(|cluster| cluster.fence_until);
        self.emit(
            turn,
            slot,
            ChangeKind::AttemptRegranted {
                step,
                number,
                grant,
                executor,
            },
        );
        if let Some(attempt) = self.attempt_at_mut(slot, step)
            && moves
        {
            attempt.order = 0;
            attempt.trouble().fence_until = attempt.fence_until().max(fence);
        }
    }
}
