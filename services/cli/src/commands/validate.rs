//! `windlass validate`.

use serde_json::json;
use windlass_api::convert::{parameters_to_proto, pipeline_to_proto};
use windlass_api::pipeline::v1::ValidatePipelineRequest;

use crate::args::{Format, GlobalArgs, ValidateArgs};
use crate::client::{Patience, Session, retrying};
use crate::errors::{CliError, Exit, Result};
use crate::output;
use crate::pipeline_file::PipelineFile;

pub(super) async fn run(global: &GlobalArgs, args: &ValidateArgs) -> Result<Exit> {
    let file = PipelineFile::read(&args.pipeline)?;
    let checked = file.check();
    let steps = match &checked {
        Ok(resolved) => resolved.step_count(),
        Err(violations) => {
            if args.output.output != Format::Table {
                let value = json!({"valid": false, "violations": violations});
                output::data(args.output.output, &value, String::new)?;
            }
            return Err(file.error(violations));
        }
    };
    // A server that was named is asked, too: it knows its workspace, its limits and what it allows.
    if global.server.is_some() || global.local {
        super::with_session(global, async |session| ask_server(session, &file).await).await?;
    }
    let value = json!({"valid": true, "stepCount": steps});
    let name = &args.pipeline.file;
    output::data(args.output.output, &value, || {
        let steps = if steps == 1 {
            "1 step".to_owned()
        } else {
            format!("{steps} steps")
        };
        format!("{} is valid: {steps}", name.display())
    })?;
    Ok(Exit::Succeeded)
}

async fn ask_server(session: &Session, file: &PipelineFile) -> Result<Exit> {
    let request = ValidatePipelineRequest {
        namespace: session.namespace.clone(),
        pipeline: Some(pipeline_to_proto(file.pipeline())),
        parameters: parameters_to_proto(file.parameters()),
    };
    let response = retrying(session.address(), Patience::USUAL, || {
        let request = request.clone();
        let mut client = session
            .pipelines()
            .max_encoding_message_size(windlass_api::MAX_SUBMIT_BYTES);
        async move { client.validate_pipeline(request).await }
    })
    .await?;
    if response.violations.is_empty() {
        return Ok(Exit::Succeeded);
    }
    let mut error = CliError::bad_input(format!("the server at {} would refuse the pipeline", session.address()));
    error.fields = response
        .violations
        .into_iter()
        .map(|violation| (violation.path, violation.message))
        .collect();
    Err(file.locate(error))
}
