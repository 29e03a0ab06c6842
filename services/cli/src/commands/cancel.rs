//! `windlass cancel`.

use windlass_api::run::v1::{CancelRunRequest, RunState};

use crate::args::CancelArgs;
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output;
use crate::progress::model::run_state_name;

pub(super) async fn run(session: &Session, args: &CancelArgs) -> Result<Exit> {
    let mut cancelled = Vec::new();
    let mut failure: Option<CliError> = None;
    for name in &args.runs {
        match cancel(session, name, args).await {
            Ok(run) => {
                output::line(match run.state() {
                    RunState::Cancelled => format!("run {} is cancelled", run.name),
                    RunState::Cancelling => format!("run {} is being cancelled", run.name),
                    state => format!("run {} is {}", run.name, run_state_name(state)),
                })?;
                cancelled.push(run);
            }
            // One that is not there keeps nobody from cancelling the others.
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    output::note(earlier.render());
                }
            }
        }
    }
    if args.wait {
        for run in &cancelled {
            let run = super::wait::ended(session, run).await?;
            output::line(super::wait::summary(&run))?;
        }
    }
    failure.map_or(Ok(Exit::Succeeded), Err)
}

async fn cancel(session: &Session, run: &str, args: &CancelArgs) -> Result<windlass_api::run::v1::Run> {
    let request = CancelRunRequest {
        namespace: session.namespace.clone(),
        run: run.to_owned(),
        request_id: super::request_id(),
        reason: args.reason.clone(),
        grace: args.grace.map(windlass_api::convert::duration_to_proto),
    };
    let response = session
        .call(Patience::USUAL, |mut client| {
            let request = request.clone();
            async move { client.cancel_run(request).await }
        })
        .await?;
    response
        .run
        .ok_or_else(|| CliError::failed("the server answered without the run"))
}
