//! Progress for pipes and files: one line for each change, with its time.

use std::time::Duration;

use windlass_api::run::v1::StepState;
use windlass_ids::Timestamp;

use super::model::{Change, Model, newest, step_elapsed};
use super::rows::{detail, state_text};
use crate::output::{Table, clock_time, duration, millis};

/// How long a step may wait before a new reason for it is told.
const NOTICE: Duration = Duration::from_secs(3);

/// The line of a change; nothing for what passes by itself within seconds.
pub fn change_line(model: &Model, change: &Change, name_width: usize) -> Option<String> {
    let step = model.step(change.index)?;
    let state = step.state();
    let entered = step.state_time.map_or(change.time, millis);
    if !change.new_state && change.time.since(entered) < NOTICE {
        return None;
    }
    let more = match state {
        StepState::Starting if change.new_state => String::new(),
        StepState::Succeeded => {
            let took = step_elapsed(step, change.time).map(duration).unwrap_or_default();
            [took, detail(step, change.time)]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" · ")
        }
        _ => detail(step, change.time),
    };
    let text = format!(
        "{}  {:<name_width$}  {:<9}  {more}",
        clock_time(change.time),
        step.name,
        state_text(step),
    );
    Some(text.trim_end().to_owned())
}

/// Width of the widest step's name.
pub fn name_width(model: &Model) -> usize {
    let widths = model.steps().map(|step| console::measure_text_width(&step.name));
    widths.max().unwrap_or(0).min(48)
}

/// The steps and their results as a table; beyond `max` rows only those that did not succeed.
pub fn result_table(model: &Model, now: Timestamp, max: usize) -> String {
    let mut table = Table::new(&["STEP", "STATE", "ATTEMPTS", "DURATION", "NODE", "MORE"]);
    let all = model.steps().count();
    let wanted = |state: StepState| all <= max || !matches!(state, StepState::Succeeded | StepState::Cached);
    let mut left_out = 0;
    let mut rows = 0;
    for step in model.steps() {
        if !wanted(step.state()) || rows >= max {
            left_out += 1;
            continue;
        }
        rows += 1;
        let attempt = newest(step);
        table.row([
            step.name.clone(),
            super::model::step_state_name(step.state()).to_owned(),
            attempt.map(|attempt| attempt.number.to_string()).unwrap_or_default(),
            step_elapsed(step, now).map(duration).unwrap_or_default(),
            attempt.map(|attempt| attempt.node.clone()).unwrap_or_default(),
            more(step),
        ]);
    }
    let mut text = table.render();
    if left_out > 0 {
        text.push_str(&format!(
            "\n… {left_out} more steps; `windlass get {}` lists them",
            model.run().name
        ));
    }
    text
}

fn more(step: &windlass_api::run::v1::Step) -> String {
    match step.state() {
        StepState::Failed => {
            let class = newest(step).and_then(|attempt| super::model::class_name(attempt.failure_class()));
            let code = newest(step)
                .and_then(|attempt| attempt.exit_code)
                .map(|code| format!("exit {code}"));
            let parts: Vec<_> = class.map(str::to_owned).into_iter().chain(code).collect();
            if parts.is_empty() {
                step.message.clone()
            } else {
                parts.join(", ")
            }
        }
        StepState::Succeeded => String::new(),
        _ => step.message.clone(),
    }
}
