//! `windlass list`.

use serde_json::json;
use windlass_api::run::v1::{ListRunsRequest, Run, StepState};
use windlass_ids::Timestamp;

use crate::args::ListArgs;
use crate::client::{Patience, Session};
use crate::errors::{Exit, Result};
use crate::output::{self, Table, age, duration, millis, to_json};
use crate::progress::model::{is_ended, run_state_name};

pub(super) async fn run(session: &Session, args: &ListArgs) -> Result<Exit> {
    let (runs, more) = fetch(session, args).await?;
    let value = json!({"runs": runs.iter().map(to_json).collect::<Vec<_>>()});
    let now = session.clock.now();
    output::data(args.output.output, &value, || {
        if runs.is_empty() {
            return String::new();
        }
        table(&runs, args.all_namespaces, now)
    })?;
    if args.output.output == crate::args::Format::Table {
        if runs.is_empty() {
            output::note(empty_note(session, args));
        } else if more {
            output::note(format!("the newest {} runs; --limit shows more", runs.len()));
        }
    }
    Ok(Exit::Succeeded)
}

async fn fetch(session: &Session, args: &ListArgs) -> Result<(Vec<Run>, bool)> {
    let mut runs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListRunsRequest {
            namespace: if args.all_namespaces {
                "*".to_owned()
            } else {
                session.namespace.clone()
            },
            page_size: u32::try_from(args.limit.saturating_sub(runs.len()).clamp(1, 500)).unwrap_or(500),
            page_token: page_token.clone(),
            filter: filter(args),
        };
        let page = session
            .call(Patience::USUAL, |mut client| {
                let request = request.clone();
                async move { client.list_runs(request).await }
            })
            .await?;
        runs.extend(page.runs);
        page_token = page.next_page_token;
        if page_token.is_empty() || runs.len() >= args.limit {
            return Ok((runs, !page_token.is_empty()));
        }
    }
}

fn filter(args: &ListArgs) -> String {
    let state = args
        .state
        .as_ref()
        .map(|state| format!("state={}", state.to_ascii_uppercase()));
    let pipeline = args.pipeline.as_ref().map(|pipeline| format!("pipeline={pipeline}"));
    let terms: Vec<_> = state.into_iter().chain(pipeline).chain(args.filter.clone()).collect();
    terms.join(" ")
}

fn table(runs: &[Run], namespaces: bool, now: Timestamp) -> String {
    let mut header = vec!["RUN", "PIPELINE", "STATE", "STEPS", "AGE", "DURATION", "BY"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&header);
    for run in runs {
        let created = run.create_time.map(millis).unwrap_or(now);
        let end = run.end_time.map(millis);
        let mut row = vec![
            run.name.clone(),
            run.pipeline.clone(),
            run_state_name(run.state()).to_owned(),
            steps(run),
            age(now.since(created)),
            if is_ended(run.state()) || end.is_some() {
                duration(end.unwrap_or(now).since(created))
            } else {
                format!("{}…", duration(now.since(created)))
            },
            run.submitted_by.clone(),
        ];
        if namespaces {
            row.insert(0, run.namespace.clone());
        }
        table.row(row);
    }
    table.render()
}

/// `3/7`: steps that succeeded, of all.
pub(super) fn steps(run: &Run) -> String {
    let total: u32 = run.step_counts.iter().map(|count| count.count).sum();
    let done = run
        .step_counts
        .iter()
        .filter(|count| matches!(count.state(), StepState::Succeeded | StepState::Cached))
        .map(|count| count.count)
        .sum::<u32>();
    format!("{done}/{total}")
}

fn empty_note(session: &Session, args: &ListArgs) -> String {
    let place = if args.all_namespaces {
        "no runs".to_owned()
    } else {
        format!("no runs in namespace {}", session.namespace)
    };
    match filter(args).as_str() {
        "" => place,
        filter => format!("{place} fit `{filter}`"),
    }
}
