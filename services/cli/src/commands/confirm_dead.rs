//! `windlass confirm-dead`.

use windlass_api::run::v1::ConfirmDeadRequest;

use crate::args::ConfirmDeadArgs;
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output;
use crate::progress::model::step_state_name;

pub(super) async fn run(session: &Session, args: &ConfirmDeadArgs) -> Result<Exit> {
    let run = session.get_run(&args.run).await?;
    let request = ConfirmDeadRequest {
        namespace: session.namespace.clone(),
        run: run.id.clone(),
        step: args.step.clone(),
        attempt: args.attempt,
        request_id: super::request_id(),
    };
    let response = session
        .call(Patience::USUAL, |mut client| {
            let request = request.clone();
            async move { client.confirm_dead(request).await }
        })
        .await?;
    let step = response
        .step
        .ok_or_else(|| CliError::failed("the server answered without the step"))?;
    output::line(format!(
        "step {} of run {} is {}",
        step.name,
        run.name,
        step_state_name(step.state())
    ))?;
    Ok(Exit::Succeeded)
}
