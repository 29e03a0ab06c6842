//! What was read back from the store: attempts that live on have logs that go on.

use std::sync::Arc;

use windlass_ids::{AttemptId, StepIndex};

use super::Relays;
use super::source::Source;
use crate::read_model::RunEntry;
use crate::shared::Shared;

impl Relays {
    /// Gives the pods of a recovered run's live attempts to relays, as soon as there are any.
    pub(crate) fn recovered(&self, entry: &Arc<RunEntry>, shared: &Shared) {
        if self.seal_deadline.is_zero() {
            return;
        }
        let run = entry.meta().header.id;
        let record = entry.record();
        let mut state = self.lock();
        for index in 0..record.len() {
            let step = StepIndex(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(of) = record.step(step).and_then(|step| step.attempt) else {
                continue;
            };
            let Some(pod) = of.cell.pod.filter(|_| of.cell.ended.is_none()) else {
                continue;
            };
            let attempt = AttemptId {
                run,
                step,
                number: of.cell.number,
            };
            let source = Source::new(Arc::clone(entry), pod, of.executor().cluster.clone());
            state.add(attempt, source, &shared.executors);
        }
    }
}
