//! Checks of what a step or the defaults say by themselves.

use super::env::check_env;
use super::pod::check_pod;
use crate::Millis;
use crate::model::{Retries, RetryBudget, StepTemplate};
use crate::path::Path;
use crate::substitute::references;
use crate::violation::{Code, Violations};

/// Checks one part: the defaults, or what a step says itself. References that are left in it are somebody else's concern.
pub(crate) fn check_part(part: &StepTemplate, path: &Path<'_>, violations: &mut Violations) {
    check_command(part, path, violations);
    check_env(&part.env, &path.field("env"), violations);
    check_times(part, path, violations);
    if let Some(Retries { user, infrastructure }) = &part.retries {
        let path = path.field("retries");
        check_budget(user.as_ref(), &path.field("user"), violations);
        check_budget(infrastructure.as_ref(), &path.field("infrastructure"), violations);
        if infrastructure
            .as_ref()
            .is_some_and(|budget| !budget.exit_codes.is_empty())
        {
            let path = path.field("infrastructure").field("exitCodes").to_string();
            let message = "exit codes say nothing about infrastructure; they can limit `user` only";
            violations.add(path, Code::BadValue, message);
        }
    }
    if let Some(pod) = &part.pod {
        check_pod(pod, &path.field("pod"), violations);
    }
}

fn check_command(part: &StepTemplate, path: &Path<'_>, violations: &mut Violations) {
    let mut bad = |field: &str, message: &str| {
        violations.add(path.field(field).to_string(), Code::BadValue, message);
    };
    if part
        .image
        .as_ref()
        .is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace))
    {
        bad("image", "an image must be given, without spaces");
    }
    if part.script.as_ref().is_some_and(|script| script.trim().is_empty()) {
        bad("script", "the script is empty");
    }
    if part.cluster.as_ref().is_some_and(String::is_empty) {
        bad("cluster", "the alias of a cluster must not be empty");
    }
    let relative = |dir: &String| !dir.starts_with('/') && references(dir).next().is_none();
    if part.working_dir.as_ref().is_some_and(relative) {
        bad("workingDir", "the working directory must be an absolute path");
    }
    if part.script.is_none() {
        return;
    }
    if !part.command.is_empty() {
        let message = "a step has either a command or a script";
        violations.add(path.field("script").to_string(), Code::Conflict, message);
    } else if !part.args.is_empty() {
        let message = "a script takes no args; hand values over in env or as parameters";
        violations.add(path.field("args").to_string(), Code::Conflict, message);
    }
}

fn check_times(part: &StepTemplate, path: &Path<'_>, violations: &mut Violations) {
    let deadlines = part.deadlines.clone().unwrap_or_default();
    let in_deadlines = path.field("deadlines");
    let in_lost_contact = path.field("lostContact");
    let lost_contact = part.lost_contact.as_ref().and_then(|lost| lost.deadline);
    let positive = [
        (path.field("timeout"), part.timeout),
        (in_lost_contact.field("deadline"), lost_contact),
        (in_deadlines.field("admitted"), deadlines.admitted),
        (in_deadlines.field("created"), deadlines.created),
        (in_deadlines.field("scheduled"), deadlines.scheduled),
        (in_deadlines.field("pulling"), deadlines.pulling),
        (in_deadlines.field("initialising"), deadlines.initialising),
        (in_deadlines.field("terminating"), deadlines.terminating),
    ];
    for (path, duration) in positive {
        if duration == Some(Millis(0)) {
            let message = "must be longer than 0; leave it out for the default";
            violations.add(path.to_string(), Code::BadValue, message);
        }
    }
    if part
        .termination_grace
        .is_some_and(|grace| !grace.0.is_multiple_of(1000))
    {
        let message = "Kubernetes counts the grace in whole seconds";
        violations.add(path.field("terminationGrace").to_string(), Code::BadValue, message);
    }
}

fn check_budget(budget: Option<&RetryBudget>, path: &Path<'_>, violations: &mut Violations) {
    let Some(budget) = budget else {
        return;
    };
    let mut bad = |field: &str, message: &str| {
        violations.add(path.field(field).to_string(), Code::BadValue, message);
    };
    if budget.attempts == Some(0) {
        bad("attempts", "must be at least 1, which means no retry");
    }
    if budget.backoff.is_some_and(|backoff| !(1.0..=1000.0).contains(&backoff)) {
        bad("backoff", "must be between 1 and 1000");
    }
    if !is_delay_bounded(budget) {
        bad("maxDelay", "must not be shorter than delay");
    }
    for (index, code) in budget.exit_codes.iter().enumerate() {
        if !(1..=255).contains(code) {
            let path = path.field("exitCodes").index(index).to_string();
            violations.add(path, Code::BadValue, "exit codes of failures are 1 to 255");
        }
    }
}

/// Whether the first delay is within the bound on delays, as far as the budget itself says both.
pub(super) fn is_delay_bounded(budget: &RetryBudget) -> bool {
    !matches!((budget.delay, budget.max_delay), (Some(delay), Some(longest)) if longest < delay)
}
