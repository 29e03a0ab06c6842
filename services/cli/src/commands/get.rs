//! `windlass get`.

use serde_json::json;
use windlass_api::run::v1::{Attempt, GetRunPipelineRequest, ReusedAttempt, Run, Step};
use windlass_ids::Timestamp;

use crate::args::GetArgs;
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, Table, duration, millis, time_rfc3339, to_json};
use crate::progress::model::{class_name, newest, run_state_name, step_elapsed, step_state_name};

/// Most steps that a table shows.
const TABLE_STEPS: usize = 200;

/// Most steps that are fetched.
const ALL_STEPS: usize = 1_000_000;

pub(super) async fn run(session: &Session, args: &GetArgs) -> Result<Exit> {
    if args.pipeline {
        output::raw(&pipeline(session, &args.run).await?)?;
        return Ok(Exit::Succeeded);
    }
    let now = session.clock.now();
    let run = session.get_run(&args.run).await?;
    match &args.step {
        Some(name) => {
            let step = find_step(session, &run, name).await?;
            output::data(args.output.output, &to_json(&step), || step_text(&step, now))?;
        }
        None => {
            let steps = session.list_steps(&run.id, "", ALL_STEPS).await?;
            let value = json!({"run": to_json(&run), "steps": steps.iter().map(to_json).collect::<Vec<_>>()});
            output::data(args.output.output, &value, || run_text(&run, &steps, now))?;
        }
    }
    Ok(Exit::Succeeded)
}

/// The pipeline of a run as it was submitted.
pub(super) async fn pipeline(session: &Session, run: &str) -> Result<Vec<u8>> {
    let request = GetRunPipelineRequest {
        namespace: session.namespace.clone(),
        run: run.to_owned(),
    };
    let mut stream = session
        .call(Patience::USUAL, |mut client| {
            let request = request.clone();
            async move { client.get_run_pipeline(request).await }
        })
        .await?;
    let mut text = Vec::new();
    while let Some(part) = stream
        .message()
        .await
        .map_err(|status| CliError::from_status(&status))?
    {
        text.extend_from_slice(&part.chunk);
    }
    Ok(text)
}

async fn find_step(session: &Session, run: &Run, name: &str) -> Result<Step> {
    let found = session.list_steps(&run.id, &format!("name={name}"), 1).await?;
    found.into_iter().next().ok_or_else(|| {
        CliError::bad_input(format!("run {} has no step {name}", run.name))
            .hint(format!("`windlass get {}` lists its steps", run.name))
    })
}

fn run_text(run: &Run, steps: &[Step], now: Timestamp) -> String {
    let time = |time: Option<prost_types::Timestamp>| time.map(|time| time_rfc3339(millis(time)));
    let parameters = run.parameters.iter().map(|(name, value)| {
        format!(
            "{name}={}",
            plain(&windlass_api::convert::json_from_value(value.clone()))
        )
    });
    let labels = run.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let fields = [
        ("run", Some(run.name.clone())),
        ("id", Some(run.id.clone())),
        ("namespace", Some(run.namespace.clone())),
        ("pipeline", Some(run.pipeline.clone())),
        ("state", Some(run_state_name(run.state()).to_owned())),
        ("why", Some(run.message.clone())),
        ("cluster", Some(run.cluster.clone())),
        ("schedule", Some(run.schedule.clone())),
        ("due", time(run.scheduled_time)),
        ("submitted by", Some(run.submitted_by.clone())),
        ("retries", run.retry_of.as_ref().map(|old| old.name.clone())),
        ("parameters", Some(parameters.collect::<Vec<_>>().join(" "))),
        ("labels", Some(labels.collect::<Vec<_>>().join(" "))),
        ("created", time(run.create_time)),
        ("ended", time(run.end_time)),
    ];
    let mut text = field_lines(fields);
    text.push('\n');
    let mut table = Table::new(&["STEP", "STATE", "ATTEMPTS", "DURATION", "NODE", "MORE"]);
    for step in steps.iter().take(TABLE_STEPS) {
        let attempt = newest(step);
        table.row([
            step.name.clone(),
            step_state_name(step.state()).to_owned(),
            attempt.map(|attempt| attempt.number.to_string()).unwrap_or_default(),
            step_elapsed(step, now).map(duration).unwrap_or_default(),
            attempt.map(|attempt| attempt.node.clone()).unwrap_or_default(),
            crate::progress::rows::detail(step, now),
        ]);
    }
    text.push_str(&table.render());
    if steps.len() > TABLE_STEPS {
        text.push_str(&format!(
            "\n… {} more steps; -o json lists them all",
            steps.len() - TABLE_STEPS
        ));
    }
    text
}

fn step_text(step: &Step, now: Timestamp) -> String {
    let fields = [
        ("step", Some(step.name.clone())),
        ("state", Some(step_state_name(step.state()).to_owned())),
        ("reason", Some(step.reason.clone())),
        ("why", Some(step.message.clone())),
        ("after", Some(step.upstream.join(", "))),
        ("since", step.state_time.map(|time| time_rfc3339(millis(time)))),
        ("until", step.deadline.map(|time| time_rfc3339(millis(time)))),
        ("log", step.reused_from.as_ref().map(log_command)),
    ];
    let mut text = field_lines(fields);
    for attempt in &step.attempts {
        text.push('\n');
        text.push_str(&attempt_text(attempt, now));
    }
    text.trim_end().to_owned()
}

/// The command that shows the log of an attempt of an earlier run, `windlass logs churn-7k2m extract --attempt 1`.
pub(super) fn log_command(source: &ReusedAttempt) -> String {
    let run = source.run.as_ref().map_or("", |run| &run.name);
    let step = source.resource_name.split('/').nth(5).unwrap_or_default();
    format!("windlass logs {run} {step} --attempt {}", source.attempt)
}

fn attempt_text(attempt: &Attempt, now: Timestamp) -> String {
    let took = attempt.start_time.map(millis).map(|start| {
        let end = attempt.end_time.map_or(now, millis);
        duration(end.since(start))
    });
    let fields = [
        ("attempt", Some(attempt.number.to_string())),
        ("  pod", Some(attempt.pod_name.clone())),
        ("  node", Some(attempt.node.clone())),
        ("  launched", attempt.launch_time.map(|time| time_rfc3339(millis(time)))),
        ("  started", attempt.start_time.map(|time| time_rfc3339(millis(time)))),
        ("  ended", attempt.end_time.map(|time| time_rfc3339(millis(time)))),
        ("  ran for", took),
        ("  exit code", attempt.exit_code.map(|code| code.to_string())),
        ("  class", class_name(attempt.failure_class()).map(str::to_owned)),
        ("  reason", Some(attempt.reason.clone())),
        ("  why", Some(attempt.message.clone())),
        ("  said", Some(attempt.termination_message.trim_end().to_owned())),
    ];
    let mut text = field_lines(fields);
    for evidence in &attempt.evidence {
        text.push_str(&format!("    {evidence}\n"));
    }
    text
}

pub(super) fn field_lines<const N: usize>(fields: [(&str, Option<String>); N]) -> String {
    let present = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    present
        .map(|(name, value)| format!("{name:<13} {}\n", value.replace('\n', "\n              ")))
        .collect()
}

/// A parameter's value as it was written: JSON has no integers of its own in messages.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number
            .as_f64()
            .map_or_else(|| number.to_string(), |number| number.to_string()),
        other => other.to_string(),
    }
}
