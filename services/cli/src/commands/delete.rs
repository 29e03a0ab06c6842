//! `windlass delete`.

use windlass_api::run::v1::DeleteRunRequest;

use crate::args::DeleteArgs;
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output;

pub(super) async fn run(session: &Session, args: &DeleteArgs) -> Result<Exit> {
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

async fn delete(session: &Session, name: &str) -> Result<String> {
    // The name is looked up once: after a lost reply, `@latest` or a prefix would mean another run.
    let run = session.get_run(name).await?;
    let request = DeleteRunRequest {
        namespace: session.namespace.clone(),
        run: run.id,
        request_id: super::request_id(),
    };
    session
        .call(Patience::USUAL, |mut client| {
            let request = request.clone();
            async move { client.delete_run(request).await }
        })
        .await
        .map_err(|error| match error.exit {
            Exit::BadInput => error.hint(format!(
                "an ended run can be deleted; `windlass cancel {}` ends it",
                run.name
            )),
            _ => error,
        })?;
    Ok(run.name)
}
