//! `windlass wait`.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;
use windlass_api::run::v1::Run;

use super::exit_of;
use crate::args::{Format, WaitArgs};
use crate::client::{Session, Watch, WatchItem};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, duration, millis, to_json};
use crate::progress::model::{is_ended, run_state_name};

pub(super) async fn run(session: &Session, args: &WaitArgs) -> Result<Exit> {
    // All names are looked up first, so that a wrong one is told at once.
    let mut runs = Vec::new();
    for name in &args.runs {
        runs.push(session.get_run(name).await?);
    }
    let waiting = wait_all(session, &runs, args);
    let ended = match args.timeout {
        None => waiting.await?,
        Some(timeout) => tokio::time::timeout(timeout, waiting)
            .await
            .map_err(|_| timed_out(&args.runs, timeout))??,
    };
    if args.output.output != Format::Table {
        let value = json!({"runs": ended.iter().map(to_json).collect::<Vec<_>>()});
        output::data(args.output.output, &value, String::new)?;
    }
    let exits = ended.iter().map(exit_of);
    Ok(worst(exits))
}

async fn wait_all(session: &Session, runs: &[Run], args: &WaitArgs) -> Result<Vec<Run>> {
    let mut waiting: FuturesUnordered<_> = runs.iter().map(|run| ended(session, run)).collect();
    let mut ended = Vec::new();
    while let Some(run) = waiting.next().await {
        let run = run?;
        if args.output.output == Format::Table {
            output::line(summary(&run))?;
        }
        ended.push(run);
    }
    Ok(ended)
}

/// Waits for the end of one run.
pub(super) async fn ended(session: &Session, run: &Run) -> Result<Run> {
    if is_ended(run.state()) {
        return Ok(run.clone());
    }
    let mut watch = Watch::start(session, &run.id);
    while let Some(item) = watch.next().await {
        match item? {
            WatchItem::Ended(Some(run)) => return Ok(*run),
            WatchItem::Ended(None) => return session.get_run(&run.id).await,
            WatchItem::Deleted => {
                return Err(CliError::bad_input(format!(
                    "run {} was deleted while it was waited for",
                    run.name
                )));
            }
            WatchItem::Lost { cause } => {
                output::note(format!("{}: {cause}, trying again", session.address()));
            }
            _ => {}
        }
    }
    Err(CliError::failed(format!("the watch of run {} stopped", run.name)))
}

/// `run churn-7k2m SUCCEEDED after 6m02s`.
pub(super) fn summary(run: &Run) -> String {
    let took = match (run.create_time, run.end_time) {
        (Some(start), Some(end)) => format!(" after {}", duration(millis(end).since(millis(start)))),
        _ => String::new(),
    };
    format!("run {} {}{took}", run.name, run_state_name(run.state()))
}

fn worst(exits: impl Iterator<Item = Exit>) -> Exit {
    // A failure says more than a cancellation.
    exits
        .max_by_key(|exit| match exit {
            Exit::Succeeded => 0,
            Exit::Cancelled => 1,
            _ => 2,
        })
        .unwrap_or(Exit::Succeeded)
}

fn timed_out(runs: &[String], timeout: Duration) -> CliError {
    let (subject, verb) = match runs {
        [one] => (format!("run {one}"), "has"),
        _ => ("the runs".to_owned(), "have not all"),
    };
    let verb = if runs.len() == 1 {
        format!("{verb} not")
    } else {
        verb.to_owned()
    };
    CliError::new(
        Exit::Timeout,
        format!("{subject} {verb} ended within {}", humantime::format_duration(timeout)),
    )
    .hint("`windlass explain RUN` says what it waits for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_result_decides() {
        assert_eq!(worst([Exit::Succeeded, Exit::Cancelled].into_iter()), Exit::Cancelled);
        assert_eq!(worst([Exit::Failed, Exit::Cancelled].into_iter()), Exit::Failed);
        assert_eq!(worst([Exit::Succeeded].into_iter()), Exit::Succeeded);
    }
}
