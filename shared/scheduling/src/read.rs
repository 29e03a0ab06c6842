//! Reads: copies of the state for callers.

use windlass_ids::{RunId, StepIndex};

use crate::deadlines::run_deadline;
use crate::run::Run;
use crate::scheduler::Scheduler;
use crate::view::{AttemptView, ExecutorView, RunView, StepView};

impl Scheduler {
    /// A run that has not left.
    pub fn run(&self, run: RunId) -> Option<RunView> {
        let run = self.run_at(self.slot_of(run).ok()?)?;
        Some(RunView {
            run: run.id(),
            state: run.state,
            reason: run.reason,
            counts: run.counts,
            last_sequence: run.sequence,
            accepted_at: run.accepted_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            deadline: run_deadline(run).filter(|_| !run.state.is_terminal()),
        })
    }

    /// Ids of all runs that have not left.
    pub fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.by_id.keys().copied()
    }

    /// A step of a run that has not left.
    pub fn step(&self, run: RunId, step: StepIndex) -> Option<StepView> {
        let run = self.run_at(self.slot_of(run).ok()?)?;
        if step.as_usize() >= run.step_count() {
            return None;
        }
        let [charged_user, charged_infrastructure] = run.charged(step);
        Some(StepView {
            state: run.state_of(step),
            since: run.since(step),
            number: run.number(step),
            charged_user,
            charged_infrastructure,
            attempt: attempt_view(run, step),
        })
    }

    /// All sessions, also those whose stream is broken.
    pub fn executors(&self) -> impl Iterator<Item = ExecutorView> + '_ {
        let sessions = self.executors.sessions.values();
        sessions.map(|session| session.view(self.config.lease))
    }

    /// Number of the newest change of a run.
    pub fn last_sequence(&self, run: RunId) -> Option<u64> {
        Some(self.run_at(self.slot_of(run).ok()?)?.sequence)
    }

    /// Bytes that grow with the number of steps, over all runs, their specs and timers included.
    pub fn memory_usage(&self) -> usize {
        let runs: usize = self.runs.iter().flatten().map(|run| run.memory_usage()).sum();
        runs + self.timers.memory_usage()
    }
}

fn attempt_view(run: &Run, step: StepIndex) -> Option<AttemptView> {
    let attempt = run.attempt(step)?;
    Some(AttemptView {
        attempt: run.attempt_id(step),
        phase: attempt.phase,
        grant: attempt.grant,
        executor: attempt.executor.incarnation,
        cluster: attempt.executor.cluster.clone(),
        alias: attempt.executor.alias.clone(),
        pod: attempt.pod,
        launched_at: attempt.launched_at,
        started_at: attempt.has_started().then_some(attempt.started_at),
        stopping: attempt.stopping().map(|stop| stop.cause),
    })
}
