//! The tree of a run: which rows are shown, and what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use console::Style;
use windlass_api::run::v1::{RunState, Step, StepState};
use windlass_ids::Timestamp;

use super::model::{
    Model, class_name, is_active, is_ended, is_terminal, newest, run_state_name, step_elapsed, step_state_name,
};
use crate::output::{duration, millis};

/// One row of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    indent: usize,
    mark: Mark,
    name: String,
    state: String,
    elapsed: String,
    detail: String,
    /// Rows of low interest go first when there is no room.
    interest: u8,
}

/// How long a step may be starting before its deadline is shown.
const NOTICE: Duration = Duration::from_secs(10);

/// Symbol and colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Done,
    Running,
    Pending,
    Trouble,
    Failed,
    Off,
}

impl Mark {
    fn of(state: StepState) -> Self {
        match state {
            StepState::Succeeded | StepState::Cached => Self::Done,
            StepState::Running => Self::Running,
            StepState::Failed => Self::Failed,
            StepState::LostContact | StepState::RetryWait => Self::Trouble,
            StepState::Skipped | StepState::Cancelled => Self::Off,
            StepState::Unspecified | StepState::Waiting | StepState::Ready | StepState::Starting => Self::Pending,
        }
    }

    const fn symbol(self) -> &'static str {
        match self {
            Self::Done => "✓",
            Self::Running => "●",
            Self::Pending => "◌",
            Self::Trouble => "!",
            Self::Failed => "✗",
            Self::Off => "-",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Done => Style::new().green(),
            Self::Running => Style::new().cyan(),
            Self::Pending | Self::Off => Style::new().dim(),
            Self::Trouble => Style::new().yellow(),
            Self::Failed => Style::new().red().bold(),
        }
    }
}

/// How much of the tree is wanted.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// At most so many rows of steps.
    pub max_rows: usize,
    /// Columns of the terminal; longer lines are cut.
    pub width: usize,
    /// Whether steps of a matrix that ended well are folded into their group.
    pub fold: bool,
}

/// The lines of the tree at `now`, without head and foot.
pub fn tree(model: &Model, now: Timestamp, view: View) -> Vec<String> {
    let rows = rows(model, now, view.fold);
    let total = rows.len();
    let kept = choose(rows, view.max_rows);
    let hidden = total - kept.len();
    let name_width = kept
        .iter()
        .map(|row| row.indent + console::measure_text_width(&row.name))
        .max()
        .unwrap_or(0)
        .clamp(9, 48);
    let mut lines: Vec<_> = kept.iter().map(|row| paint(row, name_width, view.width)).collect();
    if hidden > 0 {
        lines.push(
            Style::new()
                .dim()
                .apply_to(format!("  … {hidden} more rows"))
                .to_string(),
        );
    }
    lines
}

fn rows(model: &Model, now: Timestamp, fold: bool) -> Vec<Row> {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order: Vec<(&str, Vec<&Step>)> = Vec::new();
    for step in model.steps() {
        let source = if step.source_step.is_empty() {
            &step.name
        } else {
            &step.source_step
        };
        let position = *groups.entry(source).or_insert_with(|| {
            order.push((source, Vec::new()));
            order.len() - 1
        });
        order[position].1.push(step);
    }
    let ended = is_ended(model.run().state());
    let mut rows = Vec::new();
    for (source, steps) in order {
        match steps.as_slice() {
            [step] if step.name == source => rows.push(step_row(step, 0, now)),
            steps => {
                rows.push(group_row(source, steps, now));
                let shown = steps.iter().filter(|step| {
                    let state = step.state();
                    is_active(state) || state == StepState::Failed || (!fold && ended)
                });
                rows.extend(shown.map(|step| step_row(step, 2, now)));
            }
        }
    }
    rows
}

fn choose(mut rows: Vec<Row>, max: usize) -> Vec<Row> {
    if rows.len() <= max {
        return rows;
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(rows[*index].interest), *index));
    let mut keep = vec![false; rows.len()];
    order.into_iter().take(max.max(1)).for_each(|index| keep[index] = true);
    let mut keep = keep.into_iter();
    rows.retain(|_| keep.next().unwrap_or(false));
    rows
}

fn step_row(step: &Step, indent: usize, now: Timestamp) -> Row {
    let state = step.state();
    Row {
        indent,
        mark: Mark::of(state),
        name: step.name.clone(),
        state: state_text(step),
        elapsed: step_elapsed(step, now).map(duration).unwrap_or_default(),
        detail: detail(step, now),
        interest: interest(state),
    }
}

fn interest(state: StepState) -> u8 {
    match state {
        StepState::Failed => 9,
        StepState::LostContact => 8,
        StepState::RetryWait => 7,
        StepState::Running => 6,
        StepState::Starting => 5,
        StepState::Ready => 3,
        StepState::Waiting => 2,
        StepState::Cancelled => 1,
        StepState::Unspecified | StepState::Succeeded | StepState::Skipped | StepState::Cached => 0,
    }
}

/// What stands in the state column.
pub fn state_text(step: &Step) -> String {
    let state = step.state();
    match state {
        StepState::Failed => {
            let class = newest(step).and_then(|attempt| class_name(attempt.failure_class()));
            format!("FAILED {}", class.unwrap_or(&step.reason))
                .trim_end()
                .to_owned()
        }
        StepState::LostContact => "lost contact".to_owned(),
        StepState::RetryWait => "retrying".to_owned(),
        _ => step_state_name(state).to_ascii_lowercase(),
    }
}

/// What stands behind the elapsed time.
pub fn detail(step: &Step, now: Timestamp) -> String {
    let state = step.state();
    let mut parts = Vec::new();
    match state {
        StepState::Failed => parts.extend(failure_parts(step)),
        StepState::Waiting | StepState::Ready => {
            if step.message.is_empty() && !step.upstream.is_empty() {
                parts.push(format!("after {}", listed(&step.upstream)));
            } else {
                parts.push(step.message.clone());
            }
        }
        StepState::Starting | StepState::RetryWait | StepState::LostContact => {
            let message = Some(step.message.clone()).filter(|message| !message.is_empty());
            let waits: Vec<_> = message.into_iter().chain(deadline_part(step, now)).collect();
            parts.push(waits.join(", "));
            parts.extend(attempt_part(step));
        }
        StepState::Running => parts.extend(attempt_part(step)),
        StepState::Skipped | StepState::Cancelled | StepState::Cached => parts.push(step.message.clone()),
        StepState::Succeeded => {
            if let Some(attempt) = newest(step).filter(|attempt| attempt.number > 1) {
                parts.push(format!("attempt {}", attempt.number));
            }
        }
        StepState::Unspecified => {}
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

fn failure_parts(step: &Step) -> Vec<String> {
    let Some(attempt) = newest(step) else {
        return vec![step.message.clone()];
    };
    let mut parts = Vec::new();
    if let Some(code) = attempt.exit_code {
        parts.push(format!("exit {code}"));
    }
    parts.push(attempt_text(attempt.number, step.max_attempts));
    parts.push(attempt.node.clone());
    // "the step exited with 3" says nothing that "exit 3" does not.
    if attempt.exit_code.is_none() || !matches!(class_name(attempt.failure_class()), Some("USER_ERROR")) {
        let message = if attempt.message.is_empty() {
            &step.message
        } else {
            &attempt.message
        };
        parts.push(message.clone());
    }
    parts
}

fn attempt_text(number: u32, max: u32) -> String {
    if max >= number && max > 0 {
        format!("attempt {number}/{max}")
    } else {
        format!("attempt {number}")
    }
}

/// `attempt 2/2 (was exit 75)`, from the second attempt on.
fn attempt_part(step: &Step) -> Option<String> {
    let attempt = newest(step).filter(|attempt| attempt.number > 1)?;
    let text = attempt_text(attempt.number, step.max_attempts);
    let before = step.attempts.iter().find(|before| before.number + 1 == attempt.number);
    let was = before.and_then(|before| match before.exit_code {
        Some(code) => Some(format!("exit {code}")),
        None => class_name(before.failure_class()).map(str::to_owned),
    });
    Some(was.map_or_else(|| text.clone(), |was| format!("{text} (was {was})")))
}

fn deadline_part(step: &Step, now: Timestamp) -> Option<String> {
    let left = millis(step.deadline?).since(now);
    if left.is_zero() {
        return None;
    }
    let left = duration(left);
    match step.state() {
        StepState::RetryWait => Some(format!("again in {left}")),
        // What has just begun to start needs no attention yet.
        StepState::Starting if step_elapsed(step, now)? >= NOTICE => Some(format!("fails in {left}")),
        _ => None,
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [one, two, three, rest @ ..] if !rest.is_empty() => format!("{one}, {two}, {three} and {} more", rest.len()),
        names => names.join(", "),
    }
}

fn group_row(name: &str, steps: &[&Step], now: Timestamp) -> Row {
    let count = |wanted: fn(StepState) -> bool| steps.iter().filter(|step| wanted(step.state())).count();
    let done = count(|state| matches!(state, StepState::Succeeded | StepState::Cached));
    let failed = count(|state| state == StepState::Failed);
    let ended = count(is_terminal);
    let active = count(is_active);
    let mark = if failed > 0 {
        Mark::Failed
    } else if done == steps.len() {
        Mark::Done
    } else if active > 0 || (ended > 0 && ended < steps.len()) {
        Mark::Running
    } else if ended == steps.len() {
        Mark::Off
    } else {
        Mark::Pending
    };
    let (state, elapsed) = if ended == 0 && active == 0 {
        ("waiting".to_owned(), String::new())
    } else {
        (
            format!("{done}/{} done", steps.len()),
            group_elapsed(steps, ended == steps.len(), now),
        )
    };
    let mut detail = Vec::new();
    if failed > 0 {
        detail.push(format!("{failed} failed"));
    }
    let off = ended - done - failed;
    if off > 0 {
        detail.push(format!("{off} skipped or cancelled"));
    }
    if state == "waiting"
        && let Some(step) = steps.first()
    {
        detail.push(self::detail(step, now));
    }
    detail.retain(|part| !part.is_empty());
    Row {
        indent: 0,
        mark,
        name: name.to_owned(),
        state,
        elapsed,
        detail: detail.join(" · "),
        interest: if active > 0 || failed > 0 { 7 } else { 2 },
    }
}

fn group_elapsed(steps: &[&Step], ended: bool, now: Timestamp) -> String {
    let attempts = || steps.iter().flat_map(|step| &step.attempts);
    let start = attempts()
        .filter_map(|attempt| attempt.launch_time.or(attempt.start_time))
        .map(millis)
        .min();
    let end = if ended {
        attempts().filter_map(|attempt| attempt.end_time).map(millis).max()
    } else {
        Some(now)
    };
    match (start, end) {
        (Some(start), Some(end)) => duration(end.since(start)),
        _ => String::new(),
    }
}

fn paint(row: &Row, name_width: usize, width: usize) -> String {
    let name = console::pad_str(
        &row.name,
        name_width.saturating_sub(row.indent),
        console::Alignment::Left,
        Some("…"),
    );
    let failed = row.mark == Mark::Failed && row.state.starts_with("FAILED");
    let middle = if failed {
        format!("{}  ", row.state)
    } else {
        let gap = 17_usize.saturating_sub(console::measure_text_width(&row.state));
        format!("{}{:>gap$}   ", row.state, row.elapsed)
    };
    let plain = format!("{name}  {middle}{}", row.detail);
    let room = width.saturating_sub(row.indent + 2).max(20);
    let text = console::truncate_str(plain.trim_end(), room, "…").into_owned();
    let style = row.mark.style();
    let text = match row.mark {
        Mark::Pending | Mark::Off | Mark::Failed => style.apply_to(text).to_string(),
        Mark::Done | Mark::Running | Mark::Trouble => text,
    };
    format!(
        "{}{} {text}",
        " ".repeat(row.indent),
        row.mark.style().apply_to(row.mark.symbol())
    )
}

/// The head: `run churn-7k2m on prod/ml by ana`, and for a retried run `, retries churn-5d3x`.
pub fn head(model: &Model) -> String {
    let run = model.run();
    let place = match run.cluster.as_str() {
        "" => run.namespace.clone(),
        cluster => format!("{cluster}/{}", run.namespace),
    };
    let by = if run.submitted_by.is_empty() {
        String::new()
    } else {
        format!(" by {}", run.submitted_by)
    };
    let retries = run.retry_of.as_ref();
    let retries = retries.map(|old| format!(", retries {}", old.name)).unwrap_or_default();
    format!(
        "run {} on {place}{by}{retries}",
        Style::new().bold().apply_to(&run.name)
    )
}

/// The foot: `3m53s · 3 done · 1 running · 2 starting · 1 waiting`.
pub fn foot(model: &Model, now: Timestamp) -> String {
    let mut parts = vec![duration(model.elapsed(now))];
    let count = |wanted: &[StepState]| model.steps().filter(|step| wanted.contains(&step.state())).count();
    let words: [(&[StepState], &str); 8] = [
        (&[StepState::Succeeded, StepState::Cached], "done"),
        (&[StepState::Failed], "failed"),
        (&[StepState::Running], "running"),
        (&[StepState::Starting], "starting"),
        (&[StepState::LostContact], "lost contact"),
        (&[StepState::RetryWait], "retrying"),
        (&[StepState::Waiting, StepState::Ready], "waiting"),
        (&[StepState::Skipped, StepState::Cancelled], "not run"),
    ];
    for (states, word) in words {
        let number = count(states);
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    if model.run().state() == RunState::Cancelling {
        parts.push("cancelling".to_owned());
    }
    parts.join(" · ")
}

/// The verdict: `run churn-7k2m FAILED after 6m02s: 6 succeeded, 1 failed`.
pub fn verdict(model: &Model, now: Timestamp) -> String {
    let run = model.run();
    let count = |state: StepState| model.steps().filter(|step| step.state() == state).count();
    let parts: Vec<_> = [
        StepState::Succeeded,
        StepState::Cached,
        StepState::Failed,
        StepState::Skipped,
        StepState::Cancelled,
    ]
    .into_iter()
    .map(|state| (count(state), step_state_name(state).to_ascii_lowercase()))
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{count} {name}"))
    .collect();
    let style = match run.state() {
        RunState::Succeeded => Style::new().green().bold(),
        RunState::Failed => Style::new().red().bold(),
        _ => Style::new().yellow().bold(),
    };
    let mut text = format!(
        "run {} {} after {}",
        run.name,
        style.apply_to(run_state_name(run.state())),
        duration(model.elapsed(now))
    );
    if !parts.is_empty() {
        text.push_str(": ");
        text.push_str(&parts.join(", "));
    }
    // A failed step speaks for itself; a timeout or a cancellation does not.
    if !run.message.is_empty() && run.state() != RunState::Succeeded && run.reason != "STEP_FAILED" {
        text.push_str(&format!("\n  {}", run.message));
    }
    text
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
