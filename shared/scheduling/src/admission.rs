//! Ready steps whose cluster no executor serves: how long they wait for one (I10).

use windlass_ids::{StepIndex, Timestamp};

use crate::change::ChangeKind;
use crate::run::Run;
use crate::scheduler::{Scheduler, Turn};
use crate::state::{StepFailure, StepState};

impl Scheduler {
    /// Notes which lanes are served, after shards were dealt. The clocks of ready steps start where nobody serves them any more.
    pub(crate) fn update_service(&mut self) {
        if !std::mem::take(&mut self.executors.dealt) {
            return;
        }
        let mut has_lost = false;
        for lane in &mut self.lanes.all {
            let is_served = self.executors.serve(lane.alias.as_ref());
            has_lost |= !is_served && lane.unserved_since.is_none();
            lane.unserved_since = (!is_served).then(|| lane.unserved_since.unwrap_or(self.now));
        }
        if !has_lost {
            return;
        }
        for slot in 0..u32::try_from(self.runs.len()).unwrap_or(u32::MAX) {
            self.file_run(slot);
        }
    }

    /// When a ready step fails unless an executor comes; none when one serves its cluster.
    pub(crate) fn admission_deadline(&self, run: &Run, step: StepIndex) -> Option<Timestamp> {
        let index = run.queues.by_policy[run.spec.policy_index(step)];
        let lane = run.queues.lanes[index as usize].lane;
        let since = self.lanes.all[lane as usize].unserved_since?;
        let admitted = run.spec.policy(step).deadlines.admitted;
        Some(since.max(run.since(step)).saturating_add(admitted))
    }

    /// Files the timer of a step that has become ready.
    pub(crate) fn await_admission(&mut self, slot: u32, step: StepIndex) {
        let due = self.run_at(slot).and_then(|run| self.admission_deadline(run, step));
        if let Some(due) = due {
            self.file_run_at(slot, due);
        }
    }

    /// Ready steps of a run that nobody serves, and when they fail.
    pub(crate) fn unserved<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = (StepIndex, Timestamp)> + 'a {
        let is_unserved = |lane: u32| self.lanes.all[lane as usize].unserved_since.is_some();
        let lanes = run.queues.lanes.iter().filter(move |lane| is_unserved(lane.lane));
        let steps = lanes.flat_map(|lane| lane.ready.iter().copied());
        steps
            .filter(|step| run.state_of(*step) == StepState::Ready)
            .filter_map(|step| Some((step, self.admission_deadline(run, step)?)))
    }

    /// Fails the ready steps of a run that have waited too long for an executor.
    pub(crate) fn fail_unserved(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let Some(run) = self.run_at(slot) else { return };
        let due: Vec<StepIndex> = self
            .unserved(run)
            .filter(|(_, due)| *due <= turn.now)
            .map(|(step, _)| step)
            .collect();
        for step in due {
            let Some(run) = self.run_at(slot).filter(|run| run.state_of(step) == StepState::Ready) else {
                continue;
            };
            let number = run.number(step);
            let reason = StepFailure::NotAdmitted;
            self.emit(turn, slot, ChangeKind::StepFailed { step, number, reason });
            self.halt(turn, slot);
        }
    }
}
