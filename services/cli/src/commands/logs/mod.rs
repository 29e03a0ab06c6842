//! `windlass logs`.

mod printer;

use std::collections::BTreeSet;
use std::time::Duration;

use windlass_api::run::v1::{ReusedAttempt, Run, Step};
use windlass_ids::Timestamp;

use self::printer::Printer;
pub(super) use self::printer::mark_text;
use super::get::log_command;
use crate::args::{LogsArgs, PrefixChoice};
use crate::client::{Cursor, Session, Tail, TailItem, TailOptions};
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// Steps that are looked at for reused ones.
const LISTED_STEPS: usize = 1_000;

/// Reused steps that are named.
const MAX_NOTES: usize = 5;

pub(super) async fn run(session: &Session, args: &LogsArgs) -> Result<Exit> {
    let asked = session.get_run(&args.run).await?;
    let place = match &asked.retry_of {
        Some(_) => reused(session, &asked, &args.steps).await?,
        None => None,
    };
    let (run, attempt) = place.unwrap_or((asked, 0));
    let cursor = match &args.cursor_file {
        Some(path) => Cursor::load(path, &run.id)?,
        None => None,
    };
    let options = TailOptions {
        run: run.id.clone(),
        steps: args.steps.clone(),
        attempt: args.attempt.unwrap_or(if args.previous { 0 } else { attempt }),
        container: args.container.clone(),
        tail: args.tail,
        since: args
            .since
            .as_deref()
            .map(|text| since(text, session.clock.now()))
            .transpose()?,
        cursor,
        follow: args.follow,
        contains: args.contains.clone().unwrap_or_default(),
        include: args.grep.clone(),
        exclude: args.exclude.clone(),
        previous: args.previous,
    };
    let several: u32 = run.step_counts.iter().map(|count| count.count).sum();
    let prefix = match args.prefix {
        PrefixChoice::Always => true,
        PrefixChoice::Never => false,
        PrefixChoice::Auto => match args.steps.as_slice() {
            [] => several > 1,
            [one] => is_several(session, &run.id, one).await?,
            _ => true,
        },
    };
    let mut printer = Printer::new(args, &run.id, prefix);
    let mut tail = Tail::start(session, options);
    let printed = tokio::select! {
        printed = printer.print(&mut tail) => printed,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    };
    printer.save()?;
    printed
}

/// Where the logs of reused steps are: the run and the attempt to read instead when all the steps that were asked for were reused from one
/// run. Otherwise it is said which steps have theirs elsewhere.
async fn reused(session: &Session, run: &Run, names: &[String]) -> Result<Option<(Run, u32)>> {
    let steps = match names {
        [] => session.list_steps(&run.id, "state=CACHED", LISTED_STEPS).await?,
        names => named(session, &run.id, names).await?,
    };
    let sources: Vec<(&Step, &ReusedAttempt)> = steps
        .iter()
        .filter_map(|step| Some((step, step.reused_from.as_ref()?)))
        .collect();
    let Some(first) = sources.first().and_then(|(_, source)| source.run.clone()) else {
        return Ok(None);
    };
    let is_one = sources.iter().all(|(_, source)| source.run.as_ref() == Some(&first));
    if names.is_empty() || !is_one || sources.len() < steps.len() {
        for (step, source) in sources.iter().take(MAX_NOTES) {
            output::note(format!("{} was {}: {}", step.name, step.message, log_command(source)));
        }
        if sources.len() > MAX_NOTES {
            output::note(format!("and {} more reused steps", sources.len() - MAX_NOTES));
        }
        return Ok(None);
    }
    let earlier = session.get_run(&first.id).await.map_err(|error| match error.exit {
        Exit::BadInput => CliError::bad_input(format!(
            "{} was reused from run {}, which was deleted since, with its logs",
            names.join(", "),
            first.name
        )),
        _ => error,
    })?;
    output::note(format!("reused from run {}, whose log this is", first.name));
    let numbers: BTreeSet<u32> = sources.iter().map(|(_, source)| source.attempt).collect();
    let attempt = numbers.first().filter(|_| numbers.len() == 1).copied().unwrap_or(0);
    Ok(Some((earlier, attempt)))
}

/// The steps with these names, or of matrices with these names.
async fn named(session: &Session, run: &str, names: &[String]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for name in names {
        let mut found = session.list_steps(run, &format!("name={name}"), LISTED_STEPS).await?;
        if found.is_empty() {
            found = session.list_steps(run, &format!("name={name}.*"), LISTED_STEPS).await?;
        }
        steps.extend(found);
    }
    Ok(steps)
}

/// Whether a name stands for the steps of a matrix.
async fn is_several(session: &Session, run: &str, name: &str) -> Result<bool> {
    let found = session.list_steps(run, &format!("name={name}"), 1).await?;
    Ok(found.is_empty())
}

fn since(text: &str, now: Timestamp) -> Result<prost_types::Timestamp> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let then = Timestamp::from_millis(now.as_millis().saturating_sub(ago));
        return Ok(windlass_api::convert::timestamp_to_proto(then));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        CliError::bad_input(format!("--since {text:?} is neither a duration nor a time"))
            .hint("write `10m`, or `2026-01-31T12:00:00Z`")
    })?;
    Ok(windlass_api::convert::timestamp_to_proto(Timestamp::from_millis(
        time.as_millisecond(),
    )))
}

/// The last lines of a step's log, for the report of a failure; whatever comes within a few seconds.
pub(super) async fn last_lines(session: &Session, run: &str, step: &str, attempt: u32, lines: u64) -> Vec<String> {
    let options = TailOptions {
        run: run.to_owned(),
        steps: vec![step.to_owned()],
        attempt,
        tail: Some(lines),
        ..TailOptions::default()
    };
    let mut tail = Tail::start(session, options);
    let mut kept = std::collections::VecDeque::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while let Ok(Some(Ok(item))) = tokio::time::timeout_at(deadline, tail.next()).await {
        match item {
            TailItem::Line { content, .. } => {
                kept.push_back(crate::progress::terminal::printable(&content));
                if kept.len() as u64 > lines {
                    kept.pop_front();
                }
            }
            TailItem::End { .. } | TailItem::Lost { .. } => break,
            TailItem::Mark { .. } | TailItem::Checkpoint(_) | TailItem::Back => {}
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(since("10s", now).expect("a duration").seconds, 990);
        assert_eq!(since("1970-01-01T00:00:07Z", now).expect("a time").seconds, 7);
        assert!(since("yesterday", now).expect_err("neither").hint.is_some());
    }
}
