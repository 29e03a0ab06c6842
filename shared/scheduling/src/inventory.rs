//! Lists of what is there, compared with what should be (I6), and the slow tick that asks for them.

use windlass_ids::{AttemptId, Incarnation, Shard, StepIndex, Timestamp};

use crate::attempt::Attempt;
use crate::event::Inventory;
use crate::run::Run;
use crate::scheduler::{Scheduler, Turn};
use crate::state::AttemptPhase;

impl Scheduler {
    /// Takes a list in: what it shows is observed, what it should show and does not is looked for or posted again.
    ///
    /// Nothing is inferred about launches that the list does not reflect, nor about shards that its sender does not lease.
    pub(crate) fn take_inventory(&mut self, turn: &mut Turn<'_>, by: Incarnation, inventory: Inventory) {
        let Inventory {
            shards,
            reflects,
            observations,
            in_flight,
        } = inventory;
        let mut present: Vec<AttemptId> = in_flight;
        present.extend(observations.iter().map(|observation| observation.attempt));
        present.sort_unstable();
        for observation in observations {
            // One that contradicts itself is left out: the rest of the list is true without it.
            self.observe(turn, by, observation).ok();
        }
        let Some(session) = self.executors.sessions.get(&by) else {
            return;
        };
        let (cluster, leased) = (session.cluster, session.shards);
        let missing = self.attempts_where(|run, attempt| {
            let id = run.attempt_id(attempt.step);
            let shard = Shard::of(id);
            let is_reflected = attempt.executor.incarnation != by || attempt.order <= reflects;
            attempt.cluster == cluster
                && is_reflected
                && shards.contains(shard)
                && leased.contains(shard)
                && present.binary_search(&id).is_err()
        });
        for (slot, step) in missing {
            self.look_for(turn, slot, step, by);
        }
    }

    /// An attempt whose pod was not listed. Its pod may have lost a label, so that it existed is never taken back without a read by name.
    fn look_for(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, by: Incarnation) {
        let Some(attempt) = self.attempt_at(slot, step) else {
            return;
        };
        if attempt.has_ended() && attempt.is_proven_dead() {
            return;
        }
        let never_seen = attempt.pod.is_none() && attempt.stopping().is_none() && !attempt.has_ended();
        match self.executors.sessions.get_mut(&by) {
            Some(session) if never_seen => {
                session.missing.insert((slot, step));
            }
            _ => self.probe(turn, slot, step),
        }
    }

    /// The slow tick: what is wanted and not seen is ordered again, and inventories are asked for.
    pub(crate) fn repair(&mut self, turn: &mut Turn<'_>) {
        if turn.now < self.next_repair {
            return;
        }
        self.next_repair = turn.now.saturating_add(self.config.repair_interval);
        let overdue = turn.now.as_millis() - i64::try_from(self.config.repair_interval.as_millis()).unwrap_or(i64::MAX);
        let overdue = Timestamp::from_millis(overdue);
        let wants_stop =
            |attempt: &Attempt| attempt.stopping().is_some() || attempt.has_ended() && !attempt.is_proven_dead();
        for (slot, step) in self.attempts_where(|_: &Run, attempt| wants_stop(attempt)) {
            self.send_stop(turn, slot, step);
            if self.attempt_at(slot, step).is_some_and(|attempt| attempt.has_ended()) {
                self.probe(turn, slot, step);
            }
        }
        let unseen = self.attempts_where(|_, attempt| {
            attempt.phase == AttemptPhase::Launched && attempt.launched_at <= overdue && attempt.stopping().is_none()
        });
        let mut suspects: Vec<Incarnation> = unseen
            .into_iter()
            .filter_map(|(slot, step): (u32, StepIndex)| self.owner_of(slot, step))
            .collect();
        suspects.sort_unstable();
        suspects.dedup();
        let interval = self.config.inventory_interval;
        let all: Vec<Incarnation> = self.executors.sessions.keys().copied().collect();
        for incarnation in all {
            let Some(session) = self
                .executors
                .sessions
                .get(&incarnation)
                .filter(|session| session.connected)
            else {
                continue;
            };
            let is_due = session.inventory_asked_at.saturating_add(interval) <= turn.now;
            if is_due {
                self.tell_shards(turn, incarnation);
            }
            if is_due || suspects.binary_search(&incarnation).is_ok() {
                self.ask_inventory(turn, incarnation);
            }
        }
        self.recheck_limits();
    }
}
