//! What a run or step waits for, in words: the blocker, since when, until when, and what a person can do (I10).

mod advice;
mod blockers;

use windlass_ids::{Incarnation, StepIndex, Timestamp};
use windlass_scheduling::{Consequence, Explanation, RunState, StepState};

use crate::read_model::{RunMeta, RunRecord, run_message, step_reason};

/// An explanation in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Name of the step; empty for the run.
    pub(crate) step: String,
    /// Its state.
    pub(crate) state: String,
    /// Machine-readable blocker; empty when nothing blocks.
    pub(crate) blocker: &'static str,
    /// What it waits for.
    pub(crate) message: String,
    pub(crate) since: Timestamp,
    pub(crate) until: Option<Timestamp>,
    /// What follows then.
    pub(crate) then: String,
    /// What would help.
    pub(crate) suggestion: String,
}

/// What the core says about an active run or step, in words.
pub(crate) fn explain(meta: &RunMeta, explanation: &Explanation, executor: &dyn Fn(Incarnation) -> String) -> Text {
    let step = explanation
        .step
        .map(|step| meta.definition.step_name(step))
        .unwrap_or_default();
    let context = blockers::Context {
        meta,
        step: &step,
        executor,
    };
    let blocker = explanation.blocker.as_ref();
    let (message, suggestion) = match blocker {
        Some(blocker) => (context.message(blocker), context.suggestion(blocker)),
        None => (idle(explanation), String::new()),
    };
    Text {
        state: match explanation.step_state {
            Some(state) => state.to_string(),
            None => explanation.run_state.to_string(),
        },
        blocker: blocker.map_or("", blockers::code),
        message,
        // The core does not know when a step began that has never changed: with its run.
        since: explanation.since.max(meta.header.created),
        until: explanation.until,
        then: explanation.then.map(then).unwrap_or_default(),
        suggestion,
        step,
    }
}

/// Nothing blocks: it has ended, or it runs.
fn idle(explanation: &Explanation) -> String {
    let ended = match explanation.step_state {
        Some(state) => state.is_terminal(),
        None => explanation.run_state.is_terminal(),
    };
    if ended {
        "has ended".to_owned()
    } else {
        "goes on; nothing blocks it".to_owned()
    }
}

/// What an ended run, or a step of it, says.
pub(crate) fn ended(meta: &RunMeta, record: &RunRecord, step: Option<StepIndex>) -> Text {
    let run = meta.header.name.as_str();
    let (name, state, since, message, help) = match step.and_then(|step| record.step(step)) {
        Some(step) => {
            let (reason, message) = step_reason(meta, record, &step);
            let message = match (reason.as_str(), message.as_str()) {
                ("", "") => "has ended".to_owned(),
                ("", message) => message.to_owned(),
                (reason, "") => reason.to_owned(),
                (reason, message) => format!("{reason}: {message}"),
            };
            let name = meta.definition.step_name(step.index);
            let failed = step.attempt.filter(|_| step.state == StepState::Failed);
            let help = failed.map(|attempt| advice::after(run, &name, &attempt));
            (name, step.state.to_string(), step.since, message, help)
        }
        None => {
            let message = Some(run_message(meta, record)).filter(|message| !message.is_empty());
            let message = message.unwrap_or_else(|| "has ended".to_owned());
            let since = record.ended.unwrap_or(record.last_at);
            let help = (record.state == RunState::Failed).then(|| match record.failed.first() {
                Some(step) => format!("windlass explain {run} {}", meta.definition.step_name(*step)),
                None => format!("see the logs: windlass logs {run}"),
            });
            (String::new(), record.state.to_string(), since, message, help)
        }
    };
    Text {
        step: name,
        state,
        blocker: "",
        message,
        since,
        until: None,
        then: String::new(),
        suggestion: help.unwrap_or_default(),
    }
}

fn then(consequence: Consequence) -> String {
    match consequence {
        Consequence::Starts => "it may start".to_owned(),
        Consequence::AttemptFails(class) => format!("the attempt is stopped and fails with {class}"),
        Consequence::ContactLost => "the attempt counts as out of contact".to_owned(),
        Consequence::StepFails => "the step fails with NODE_LOST".to_owned(),
        Consequence::NotAdmitted => "the step fails with NOT_ADMITTED".to_owned(),
        Consequence::WaitsForConfirmation => "it waits for a person to confirm that the pod is dead".to_owned(),
        Consequence::RunFails => "the run is stopped and fails (its timeout)".to_owned(),
        Consequence::NotPrepared => "the run fails with NOT_PREPARED".to_owned(),
        Consequence::TakenOver => "another executor may take over".to_owned(),
    }
}

#[cfg(test)]
mod tests;
