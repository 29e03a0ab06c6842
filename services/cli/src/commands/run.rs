//! `windlass run`.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_api::convert::{parameters_to_proto, pipeline_to_proto};
use windlass_api::run::v1::{Run, SubmitRunRequest};

use super::follow::{Follow, FollowOptions, OnInterrupt};
use crate::args::{Format, GlobalArgs, RunArgs};
use crate::client::{Patience, Session};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, to_json};
use crate::pipeline_file::PipelineFile;

pub(super) async fn run(global: &GlobalArgs, args: &RunArgs) -> Result<Exit> {
    let is_stdin = args.pipeline.file == Path::new("-");
    super::secret::check_stdin(&args.secrets, is_stdin.then_some("FILE"))?;
    // The file is checked before anything is started or reached.
    let file = PipelineFile::read(&args.pipeline)?;
    file.check().map_err(|violations| file.error(&violations))?;
    let labels = labels(&args.labels)?;
    let secrets = super::secret::of_run(&args.secrets)?;
    if global.local && args.detach {
        return Err(
            CliError::bad_input("--detach leaves nobody to run the steps under --local")
                .hint("start `windlass dev` in another terminal, and leave --local out"),
        );
    }
    if global.local && args.output.output == Format::Table {
        output::line(super::LOCAL_STEPS)?;
    }
    super::with_session(global, async |session| {
        submit_and_follow(session, global, args, &file, (labels, secrets)).await
    })
    .await
}

async fn submit_and_follow(
    session: &Session,
    global: &GlobalArgs,
    args: &RunArgs,
    file: &PipelineFile,
    (labels, secrets): (BTreeMap<String, String>, BTreeMap<String, Vec<u8>>),
) -> Result<Exit> {
    let request = SubmitRunRequest {
        namespace: session.namespace.clone(),
        request_id: args.request_id.clone().unwrap_or_else(super::request_id),
        pipeline: Some(pipeline_to_proto(file.pipeline())),
        parameters: parameters_to_proto(file.parameters()),
        name: args.name.clone().unwrap_or_default(),
        labels,
        secrets,
        skip_reference_check: args.no_check_references,
    };
    let run = submit(session, request, |error| file.locate(error)).await?;
    let table = args.output.output == Format::Table;
    if args.detach {
        if table {
            output::line(&run.name)?;
        } else {
            output::data(args.output.output, &to_json(&run), String::new)?;
        }
        return Ok(Exit::Succeeded);
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
        let run = session.get_run(&id).await?;
        output::data(args.output.output, &to_json(&run), String::new)?;
    }
    Ok(exit)
}

/// Submits a pipeline, again while the server is away; `locate` puts the places of what is refused into the error.
pub(super) async fn submit(
    session: &Session,
    request: SubmitRunRequest,
    locate: impl FnOnce(CliError) -> CliError,
) -> Result<Run> {
    // The same request id goes with every try, so that a lost reply makes no second run (I1).
    let response = session
        .call(Patience::USUAL, |client| {
            let request = request.clone();
            let mut client = client.max_encoding_message_size(windlass_api::MAX_SUBMIT_BYTES);
            async move { client.submit_run(request).await }
        })
        .await
        .map_err(locate)?;
    if !response.created {
        output::note("an earlier request with this id had created the run");
    }
    response
        .run
        .ok_or_else(|| CliError::failed("the server answered without the run"))
}

pub(super) fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let pairs = given.iter().map(|label| {
        let (key, value) = label
            .split_once('=')
            .ok_or_else(|| CliError::bad_input(format!("--label {label:?} is not KEY=VALUE")))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let given = ["team=ml".to_owned(), "note=a=b".to_owned()];
        let labels = labels(&given).expect("pairs");
        assert_eq!(labels["note"], "a=b");
        assert_eq!(
            super::labels(&["team".to_owned()]).expect_err("no pair").exit,
            Exit::BadInput
        );
    }
}
