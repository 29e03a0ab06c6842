//! `windlass retry`.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_api::run::v1::{RetryRunRequest, RetryRunResponse};

use super::follow::{Follow, FollowOptions, OnInterrupt};
use crate::args::{Format, GlobalArgs, RetryArgs};
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, to_json};

/// Most names of steps in a line.
const MAX_NAMES: usize = 8;

pub(super) async fn run(global: &GlobalArgs, args: &RetryArgs) -> Result<Exit> {
    let secrets = super::secret::of_run(&args.secrets)?;
    if global.local && args.detach {
        return Err(
            CliError::bad_input("--detach leaves nobody to run the steps under --local")
                .hint("start `windlass dev` in another terminal, and leave --local out"),
        );
    }
    if global.local && !args.dry_run && args.output.output == Format::Table {
        output::line(super::LOCAL_STEPS)?;
    }
    super::with_session(global, async |session| {
        retry_and_follow(session, global, args, secrets).await
    })
    .await
}

async fn retry_and_follow(
    session: &Session,
    global: &GlobalArgs,
    args: &RetryArgs,
    secrets: BTreeMap<String, Vec<u8>>,
) -> Result<Exit> {
    let format = args.output.output;
    let table = format == Format::Table;
    let request = RetryRunRequest {
        namespace: session.namespace.clone(),
        run: args.run.clone(),
        request_id: args.request_id.clone().unwrap_or_else(super::request_id),
        name: args.name.clone().unwrap_or_default(),
        validate_only: args.dry_run,
        from_steps: args.from.clone(),
        secrets,
        skip_reference_check: args.no_check_references,
    };
    let response = retry(session, request).await?;
    if args.dry_run {
        output::data(format, &to_json(&response), || needs(&response))?;
        return Ok(Exit::Succeeded);
    }
    let run = response
        .run
        .clone()
        .ok_or_else(|| CliError::failed("the server answered without the run"))?;
    if !response.created {
        output::note("an earlier request with this id had created the run");
    }
    if args.detach {
        if table {
            output::line(&run.name)?;
        } else {
            output::data(format, &to_json(&response), String::new)?;
        }
        return Ok(Exit::Succeeded);
    }
    if table {
        output::line(plan(&response))?;
    }
    let options = FollowOptions {
        logs: args.logs,
        timeout: args.timeout,
        interrupt: if session.is_embedded() {
            OnInterrupt::Cancel
        } else {
            OnInterrupt::Detach
        },
        quiet: !table,
        flags: super::same_server(global),
    };
    let id = run.id.clone();
    let exit = Follow::new(session, run, options).run().await?;
    if !table {
        let mut value = to_json(&response);
        if let Value::Object(fields) = &mut value {
            fields.insert("run".to_owned(), to_json(&session.get_run(&id).await?));
        }
        output::data(format, &value, String::new)?;
    }
    Ok(exit)
}

async fn retry(session: &Session, request: RetryRunRequest) -> Result<RetryRunResponse> {
    // The same request id goes with every try, so that a lost reply makes no second run (I1).
    let answered = session.call(Patience::USUAL, |mut client| {
        let request = request.clone();
        async move { client.retry_run(request).await }
    });
    answered.await.map_err(|mut error: CliError| {
        // The fields say all of it.
        if !error.fields.is_empty() {
            error.message = format!("run {} is not retried like this", request.run);
        }
        error
    })
}

/// How many steps a retry of an ended run would reuse; nothing when that cannot be told, as to who may not retry it.
pub(super) async fn reusable(session: &Session, run: &str) -> Option<u32> {
    let request = RetryRunRequest {
        namespace: session.namespace.clone(),
        run: run.to_owned(),
        validate_only: true,
        ..RetryRunRequest::default()
    };
    // It is one line of a report: nobody waits for a server that has gone.
    Some(session.runs().retry_run(request).await.ok()?.into_inner().reused_count)
}

/// What is reused and what runs again, a line each.
fn plan(response: &RetryRunResponse) -> String {
    let again = format!("run again  {}", names(&response.rerun_steps, response.rerun_count));
    match response.reused_count {
        0 => again,
        count => format!("reused     {}\n{again}", names(&response.reused_steps, count)),
    }
}

/// As [`plan`], with the secrets that have to be given.
fn needs(response: &RetryRunResponse) -> String {
    match response.secret_keys.as_slice() {
        [] => plan(response),
        keys => format!(
            "{}\nsecrets    {}: give them again, as with --secret-file",
            plan(response),
            keys.join(", ")
        ),
    }
}

/// `2 steps: extract, train`
fn names(names: &[String], count: u32) -> String {
    let steps = if count == 1 { "step" } else { "steps" };
    let shown = names.len().min(MAX_NAMES);
    let more = if shown < names.len() { ", …" } else { "" };
    format!("{count} {steps}: {}{more}", names[..shown].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_plans_are_cut() {
        let response = RetryRunResponse {
            reused_count: 1,
            reused_steps: vec!["extract".to_owned()],
            rerun_count: 12,
            rerun_steps: (0..12).map(|step| format!("s{step}")).collect(),
            ..RetryRunResponse::default()
        };
        let text = plan(&response);
        assert_eq!(
            text,
            "reused     1 step: extract\nrun again  12 steps: s0, s1, s2, s3, s4, s5, s6, s7, …"
        );
    }
}
