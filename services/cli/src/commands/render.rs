//! `windlass render`.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use windlass_ids::{AttemptId, InstallationId, RunId, StepIndex};
use windlass_manifest::{Attempt, Run, Settings, WorkspaceDefault};
use windlass_pipeline::provenance::{Origin, Provenance, provenance};
use windlass_pipeline::{DefaultRequests, ResolvedPipeline};

use crate::args::{Format, GlobalArgs, RenderArgs};
use crate::errors::{CliError, Exit, Result};
use crate::output;
use crate::pipeline_file::PipelineFile;

/// Where the workspace of a run on the local cluster would be; what a server's operator set is not known here.
const WORKSPACE: &str = "/windlass-workspace";

/// What stands for the parts of a pod that a submission decides.
const PLACEHOLDER: &str = "RUN";

pub(super) fn run(global: &GlobalArgs, args: &RenderArgs) -> Result<Exit> {
    let file = PipelineFile::read(&args.pipeline)?;
    let resolved = file.check().map_err(|violations| file.error(&violations))?;
    let wanted = selected(&resolved, &args.steps)?;
    let run = Run {
        id: RunId::from_bytes([0; 16]),
        name: format!("{}-{PLACEHOLDER}", resolved.name).to_ascii_lowercase(),
        namespace: global.namespace.clone(),
        pipeline: resolved.name.clone(),
        installation: InstallationId::from_bytes([0; 16]),
        context: windlass_manifest::context(&resolved).map_err(|error| CliError::bad_input(&error))?,
    };
    let mut pods = Vec::new();
    for index in wanted {
        let pod = pod(&resolved, &run, index)?;
        if args.output == Format::Json {
            pods.push(pod);
            continue;
        }
        let mut text = String::from("---\n");
        if args.explain
            && let Some(position) = position(&resolved, index)
        {
            text.push_str(&comments(&provenance(
                file.pipeline(),
                position,
                &DefaultRequests::new(),
            )));
        }
        text.push_str(&output::yaml(&pod)?);
        output::raw(text.as_bytes())?;
    }
    if args.output == Format::Json {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": pods});
        output::data(Format::Json, &list, String::new)?;
    }
    Ok(Exit::Succeeded)
}

/// Position in the file of the step that an index belongs to.
fn position(resolved: &ResolvedPipeline, index: u32) -> Option<usize> {
    let name = &resolved.source(index)?.name;
    resolved.sources.iter().position(|source| source.name == *name)
}

/// Indices of the steps that are asked for.
fn selected(resolved: &ResolvedPipeline, names: &[String]) -> Result<Vec<u32>> {
    let all = 0..resolved.step_count();
    if names.is_empty() {
        return Ok(all.collect());
    }
    for name in names {
        if resolved.find_step(name).is_none() && resolved.sources.iter().all(|source| source.name != *name) {
            return Err(CliError::bad_input(format!("the pipeline has no step {name}"))
                .hint("`windlass graph FILE --expand` shows its steps"));
        }
    }
    let is_wanted = |index: &u32| {
        let source = resolved.source(*index).map(|source| source.name.clone());
        let name = resolved.step_name(*index);
        names
            .iter()
            .any(|wanted| Some(wanted) == name.as_ref() || Some(wanted) == source.as_ref())
    };
    Ok(all.filter(is_wanted).collect())
}

fn pod(resolved: &ResolvedPipeline, run: &Run, index: u32) -> Result<Value> {
    let settings = Settings {
        workspace: WorkspaceDefault::HostFolder(WORKSPACE.to_owned()),
        default_image: None,
    };
    let spec = resolved
        .step_spec(index)
        .ok_or_else(|| CliError::failed(format!("step {index} is not there")))?;
    let step = windlass_manifest::step(&spec).map_err(|error| CliError::bad_input(&error))?;
    let attempt = Attempt {
        id: AttemptId {
            run: run.id,
            step: StepIndex(index),
            number: 1,
        },
        step_name: &spec.name,
    };
    let pod: Pod =
        windlass_manifest::pod(&settings, run, &step, attempt, None).map_err(|error| CliError::bad_input(&error))?;
    serde_json::to_value(pod).map_err(|error| CliError::failed(error.to_string()))
}

fn comments(origins: &[Provenance]) -> String {
    let width = origins.iter().map(|origin| origin.path.len()).max().unwrap_or(0);
    let lines = origins.iter().map(|Provenance { path, origin }| {
        let origin = match origin {
            Origin::BuiltIn => "built in",
            Origin::Operator => "operator",
            Origin::Defaults => "defaults",
            Origin::Step => "step",
            Origin::Parameter => "a parameter or matrix value in it",
        };
        format!("# {path:<width$}  {origin}\n")
    });
    lines.collect()
}
