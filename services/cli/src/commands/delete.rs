//! `windlass delete`.

use std::time::Duration;

use windlass_api::run::v1::{DeleteRunRequest, ListRunsRequest, Run};

use crate::args::DeleteArgs;
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// Runs of a page.
const PAGE: u32 = 500;

pub(super) async fn run(session: &Session, args: &DeleteArgs) -> Result<Exit> {
    if let Some(age) = args.older_than {
        return delete_old(session, age, args).await;
    }
    let mut failure: Option<CliError> = None;
    for name in &args.runs {
        let result = delete(session, name).await;
        match result {
            Ok(deleted) => output::line(format!("run {deleted} is deleted"))?,
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    output::note(earlier.render());
                }
            }
        }
    }
    failure.map_or(Ok(Exit::Succeeded), Err)
}

async fn delete_old(session: &Session, age: Duration, args: &DeleteArgs) -> Result<Exit> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let before = session.clock.now().as_millis().saturating_sub(age).max(0);
    let before = jiff::Timestamp::from_millisecond(before).map_err(CliError::bad_input)?;
    let term = format!("endedBefore={before}");
    let filter = Vec::from_iter([Some(term), args.filter.clone()].into_iter().flatten()).join(" ");
    // All of them first: a page begins where the last one ended, whatever was deleted meanwhile.
    let runs = list(session, &filter).await?;
    let count = match runs.len() {
        1 => "1 run".to_owned(),
        count => format!("{count} runs"),
    };
    if runs.is_empty() {
        output::note(format!(
            "no runs in namespace {} ended before {before}",
            session.namespace
        ));
        return Ok(Exit::Succeeded);
    }
    if !args.yes {
        let error = CliError::bad_input(format!("{count} of namespace {} would be deleted", session.namespace));
        return Err(error.hint(format!(
            "`windlass list --filter '{filter}'` shows them; --yes deletes them"
        )));
    }
    for run in runs {
        match delete_run(session, run.id).await {
            Ok(()) => output::line(format!("run {} is deleted", run.name))?,
            // It expired meanwhile, or somebody else deleted it.
            Err(error) if error.not_found => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Exit::Succeeded)
}

async fn list(session: &Session, filter: &str) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListRunsRequest {
            namespace: session.namespace.clone(),
            page_size: PAGE,
            page_token,
            filter: filter.to_owned(),
        };
        let page = session
            .call(Patience::USUAL, |mut client| {
                let request = request.clone();
                async move { client.list_runs(request).await }
            })
            .await?;
        runs.extend(page.runs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(runs);
        }
    }
}

async fn delete(session: &Session, name: &str) -> Result<String> {
    // The name is looked up once: after a lost reply, `@latest` or a prefix would mean another run.
    let run = session.get_run(name).await?;
    delete_run(session, run.id).await.map_err(|error| match error.exit {
        Exit::BadInput => error.hint(format!(
            "an ended run can be deleted; `windlass cancel {}` ends it",
            run.name
        )),
        _ => error,
    })?;
    Ok(run.name)
}

async fn delete_run(session: &Session, run: String) -> Result<()> {
    let request = DeleteRunRequest {
        namespace: session.namespace.clone(),
        run,
        request_id: super::request_id(),
    };
    let deleted = session.call(Patience::USUAL, |mut client| {
        let request = request.clone();
        async move { client.delete_run(request).await }
    });
    deleted.await.map(drop)
}
