//! What is known about a watched run: pure, fed by the watch.

use std::time::Duration;

use windlass_api::run::v1::{Attempt, FailureClass, Run, RunEvent, RunState, Step, StepState};
use windlass_ids::Timestamp;

use crate::client::WatchItem;
use crate::output::millis;

/// A run and its steps.
#[derive(Clone, Debug, Default)]
pub struct Model {
    run: Run,
    steps: Vec<Option<Step>>,
    synced: bool,
}

/// A step changed its state, or why it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub time: Timestamp,
    /// Index of the step.
    pub index: usize,
    /// False when it only waits for something else now.
    pub new_state: bool,
}

impl Model {
    /// Takes in an item of the watch; the change of a step, when there is one that people want to see.
    pub fn apply(&mut self, item: &WatchItem) -> Option<Change> {
        match item {
            WatchItem::Reset => {
                // What is shown stays until the new snapshot is complete.
                self.synced = false;
                None
            }
            WatchItem::Snapshot { run, steps } => {
                if let Some(run) = run {
                    self.run = (**run).clone();
                }
                for step in steps {
                    self.put(step);
                }
                None
            }
            WatchItem::Synced => {
                self.synced = true;
                None
            }
            WatchItem::Event(event) => self.apply_event(event),
            WatchItem::Ended(run) => {
                if let Some(run) = run {
                    self.run = (**run).clone();
                }
                None
            }
            WatchItem::Lost { .. } | WatchItem::Back | WatchItem::Deleted => None,
        }
    }

    fn apply_event(&mut self, event: &RunEvent) -> Option<Change> {
        if let Some(run) = &event.run {
            self.run = run.clone();
        }
        let step = event.step.as_ref()?;
        let index = step.index as usize;
        let before = self.step(index).map(|step| (step.state, step.message.clone()));
        self.put(step);
        let new_state = before.as_ref().is_none_or(|(state, _)| *state != step.state);
        let told = !matches!(
            step.state(),
            StepState::Waiting | StepState::Ready | StepState::Unspecified
        );
        (told && (new_state || before.is_none_or(|(_, message)| message != step.message))).then(|| Change {
            time: event.time.map(millis).unwrap_or_default(),
            index,
            new_state,
        })
    }

    fn put(&mut self, step: &Step) {
        let index = step.index as usize;
        if self.steps.len() <= index {
            self.steps.resize(index + 1, None);
        }
        let slot = &mut self.steps[index];
        let mut step = step.clone();
        if let Some(old) = slot.take() {
            if step.upstream.is_empty() {
                step.upstream = old.upstream;
            }
            // Events carry the newest attempt only: earlier ones are kept.
            let mut attempts = old.attempts;
            for attempt in step.attempts {
                attempts.retain(|known| known.number != attempt.number);
                attempts.push(attempt);
            }
            attempts.sort_by_key(|attempt| attempt.number);
            step.attempts = attempts;
        }
        *slot = Some(step);
    }

    /// Adds what only lists carry: upstream steps and earlier attempts.
    pub fn enrich(&mut self, steps: &[Step]) {
        for listed in steps {
            let slot = self.steps.get_mut(listed.index as usize).and_then(Option::as_mut);
            if let Some(step) = slot {
                step.upstream.clone_from(&listed.upstream);
                for attempt in &listed.attempts {
                    if step.attempts.iter().all(|known| known.number != attempt.number) {
                        step.attempts.push(attempt.clone());
                    }
                }
                step.attempts.sort_by_key(|attempt| attempt.number);
            }
        }
    }

    /// True once the first snapshot is complete.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The steps in the pipeline's order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// A step.
    pub fn step(&self, index: usize) -> Option<&Step> {
        self.steps.get(index).and_then(Option::as_ref)
    }

    /// Time since the run was accepted, until its end.
    pub fn elapsed(&self, now: Timestamp) -> Duration {
        let start = self.run.create_time.map(millis).unwrap_or(now);
        self.run.end_time.map_or(now, millis).since(start)
    }
}

/// Whether a step has ended.
pub fn is_terminal(state: StepState) -> bool {
    matches!(
        state,
        StepState::Succeeded | StepState::Failed | StepState::Skipped | StepState::Cancelled | StepState::Cached
    )
}

/// Whether a step has a pod or is about to have one again.
pub fn is_active(state: StepState) -> bool {
    matches!(
        state,
        StepState::Starting | StepState::Running | StepState::LostContact | StepState::RetryWait
    )
}

/// Whether a run has ended.
pub fn is_ended(state: RunState) -> bool {
    matches!(state, RunState::Succeeded | RunState::Failed | RunState::Cancelled)
}

/// The newest attempt.
pub fn newest(step: &Step) -> Option<&Attempt> {
    step.attempts.iter().max_by_key(|attempt| attempt.number)
}

/// Time that the step's present state, or its work, took.
pub fn step_elapsed(step: &Step, now: Timestamp) -> Option<Duration> {
    let attempt = newest(step);
    let entered = step.state_time.map(millis);
    match step.state() {
        StepState::Running => {
            let start = attempt.and_then(|attempt| attempt.start_time).map(millis).or(entered)?;
            Some(now.since(start))
        }
        StepState::Starting | StepState::LostContact | StepState::RetryWait => Some(now.since(entered?)),
        StepState::Succeeded | StepState::Failed | StepState::Cancelled => {
            let attempt = attempt?;
            let start = attempt.start_time.or(attempt.launch_time).map(millis)?;
            let end = attempt.end_time.map(millis).or(entered)?;
            Some(end.since(start))
        }
        StepState::Unspecified | StepState::Waiting | StepState::Ready | StepState::Skipped | StepState::Cached => None,
    }
}

/// Name of a class, such as `OOM_KILLED`; nothing when the attempt did not fail.
pub fn class_name(class: FailureClass) -> Option<&'static str> {
    match class {
        FailureClass::Unspecified => None,
        other => other.as_str_name().strip_prefix("FAILURE_CLASS_"),
    }
}

/// Name of a run's state, such as `SUCCEEDED`.
pub fn run_state_name(state: RunState) -> &'static str {
    state.as_str_name().strip_prefix("RUN_STATE_").unwrap_or("UNKNOWN")
}

/// Name of a step's state, such as `SUCCEEDED`.
pub fn step_state_name(state: StepState) -> &'static str {
    state.as_str_name().strip_prefix("STEP_STATE_").unwrap_or("UNKNOWN")
}
