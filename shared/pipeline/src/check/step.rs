//! Checks of what a step or the defaults say by themselves.

use std::collections::HashSet;

use super::is_variable_reserved;
use super::pod::check_pod;
use crate::Millis;
use crate::model::{EnvVar, EnvVarSource, Retries, RetryBudget, StepTemplate};
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

fn check_env(env: &[EnvVar], path: &Path<'_>, violations: &mut Violations) {
    let mut names = HashSet::new();
    for (index, variable) in env.iter().enumerate() {
        let path = path.index(index);
        let name = path.field("name").to_string();
        if variable.name.is_empty() {
            violations.add(name, Code::Missing, "a variable needs a name");
        } else if !is_env_name(&variable.name) {
            let message = format!("`{}` is no name of a variable", variable.name);
            violations.add(name, Code::BadValue, message);
        } else if is_variable_reserved(&variable.name) {
            violations.add(
                name,
                Code::Reserved,
                "names that start with WINDLASS_ are set by Windlass",
            );
        } else if !names.insert(&variable.name) {
            violations.add(name, Code::Duplicate, format!("{} is given twice", variable.name));
        }
        match (&variable.value, &variable.value_from) {
            (Some(_), Some(_)) => {
                let message = "a variable has either value or valueFrom";
                violations.add(path.to_string(), Code::Conflict, message);
            }
            (None, Some(source)) => check_source(source, &path.field("valueFrom"), violations),
            (None, None) => violations.add(path.to_string(), Code::Missing, "value or valueFrom is missing"),
            (Some(_), None) => {}
        }
    }
}

fn is_env_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    name.bytes().all(inner) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn check_source(source: &EnvVarSource, path: &Path<'_>, violations: &mut Violations) {
    let EnvVarSource {
        secret_key_ref,
        config_map_key_ref,
        field_ref,
        resource_field_ref,
    } = source;
    let given = [
        secret_key_ref.is_some(),
        config_map_key_ref.is_some(),
        field_ref.is_some(),
        resource_field_ref.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = "exactly one of secretKeyRef, configMapKeyRef, fieldRef and resourceFieldRef is wanted";
        violations.add(path.to_string(), Code::BadValue, message);
    }
    let mut required = |field: &str, inner: &str, text: &str| {
        if text.is_empty() {
            let path = path.field(field).field(inner).to_string();
            violations.add(path, Code::Missing, format!("{inner} is missing"));
        }
    };
    for (field, selector) in [
        ("secretKeyRef", secret_key_ref),
        ("configMapKeyRef", config_map_key_ref),
    ] {
        if let Some(selector) = selector {
            required(field, "name", &selector.name);
            required(field, "key", &selector.key);
        }
    }
    if let Some(selector) = field_ref {
        required("fieldRef", "fieldPath", &selector.field_path);
    }
    if let Some(selector) = resource_field_ref {
        required("resourceFieldRef", "resource", &selector.resource);
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
    if let (Some(delay), Some(longest)) = (budget.delay, budget.max_delay)
        && longest < delay
    {
        bad("maxDelay", "must not be shorter than delay");
    }
    for (index, code) in budget.exit_codes.iter().enumerate() {
        if !(1..=255).contains(code) {
            let path = path.field("exitCodes").index(index).to_string();
            violations.add(path, Code::BadValue, "exit codes of failures are 1 to 255");
        }
    }
}
