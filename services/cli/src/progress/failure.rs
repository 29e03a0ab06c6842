//! What is printed under a run that failed: the steps, the ends of their logs, the commands that show more.

use console::Style;
use windlass_api::run::v1::{Attempt, Step, StepState};

use super::model::{Model, class_name, newest};
use super::rows::detail;
use windlass_ids::Timestamp;

/// Steps whose log's end is shown.
pub const MAX_STEPS: usize = 3;

/// Further failed steps that are named.
const MAX_NAMES: usize = 5;

/// Lines of each log's end.
pub const LOG_LINES: u64 = 10;

/// The failed steps that are shown in full.
pub fn failed_steps(model: &Model) -> Vec<&Step> {
    let failed = model.steps().filter(|step| step.state() == StepState::Failed);
    failed.take(MAX_STEPS).collect()
}

/// How many failed steps are not shown in full, as a line; nothing when all are.
pub fn further(model: &Model) -> Option<String> {
    let failed = model.steps().filter(|step| step.state() == StepState::Failed);
    let further: Vec<&str> = failed.skip(MAX_STEPS).map(|step| step.name.as_str()).collect();
    let named = further.len().min(MAX_NAMES);
    match further.len() {
        0 => None,
        count if count > named => Some(format!(
            "  and {count} more failed steps: {}, …",
            further[..named].join(", ")
        )),
        count => Some(format!(
            "  and {count} more failed {}: {}",
            if count == 1 { "step" } else { "steps" },
            further.join(", ")
        )),
    }
}

/// A failed step: `✗ train.2    FAILED OOM_KILLED  exit 137 · attempt 2/2 · gpu-4 · limit 2Gi`.
pub fn step_line(step: &Step, name_width: usize, now: Timestamp) -> String {
    let class = newest(step).and_then(|attempt| class_name(attempt.failure_class()));
    let text = format!(
        "✗ {:<name_width$}  FAILED {}  {}",
        step.name,
        class.unwrap_or(&step.reason),
        detail(step, now)
    );
    Style::new().red().bold().apply_to(text.trim_end()).to_string()
}

/// What stands for the end of a log that has no lines: the step's last words, or what was seen of its pod.
pub fn without_log(attempt: &Attempt) -> Vec<String> {
    let words = attempt.termination_message.trim_end();
    if words.is_empty() {
        return attempt.evidence.clone();
    }
    words.lines().map(str::to_owned).collect()
}

/// A line of the step's log, or of what Kubernetes said.
pub fn log_line(text: &str) -> String {
    format!("    {} {text}", Style::new().dim().apply_to("│"))
}

/// The commands that show more, and the one that goes on from here, when it is known how many steps it would reuse.
pub fn commands(run: &str, step: Option<&Step>, reusable: Option<u32>, flags: &str) -> String {
    let step = step.map(|step| format!(" {}", step.name)).unwrap_or_default();
    let mut text = format!("  output  windlass logs {run}{step}{flags}\n  why     windlass explain {run}{step}{flags}");
    if let Some(reusable) = reusable {
        let reuses = match reusable {
            0 => "runs all of it again".to_owned(),
            1 => "reuses 1 step".to_owned(),
            count => format!("reuses {count} steps"),
        };
        text.push_str(&format!("\n  go on   windlass retry {run}{flags}    ({reuses})"));
    }
    text
}
