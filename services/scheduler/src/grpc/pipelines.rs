//! PipelineService.

use std::collections::BTreeSet;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use windlass_api::pipeline::v1 as wire;
use windlass_api::pipeline::v1::pipeline_service_server::PipelineService;
use windlass_ids::StepIndex;
use windlass_pipeline::ResolvedPipeline;

use super::Api;
use crate::admission;
use crate::errors::{FieldProblem, SubmitError};
use crate::lookup;

/// Rendered pods between the renderer and the connection.
const RENDERED: usize = 16;

#[tonic::async_trait]
impl PipelineService for Api {
    type RenderPipelineStream = ReceiverStream<Result<wire::RenderPipelineResponse, Status>>;

    async fn validate_pipeline(
        &self,
        request: Request<wire::ValidatePipelineRequest>,
    ) -> Result<Response<wire::ValidatePipelineResponse>, Status> {
        let request = request.into_inner();
        let namespace = lookup::namespace(&request.namespace)?;
        let checked = admission::check(self.checker(), namespace, request.pipeline, request.parameters).await;
        Ok(Response::new(match checked {
            Ok(checked) => wire::ValidatePipelineResponse {
                violations: Vec::new(),
                step_count: checked.resolved.step_count(),
            },
            Err(problems) => wire::ValidatePipelineResponse {
                violations: problems.into_iter().map(violation).collect(),
                step_count: 0,
            },
        }))
    }

    async fn render_pipeline(
        &self,
        request: Request<wire::RenderPipelineRequest>,
    ) -> Result<Response<Self::RenderPipelineStream>, Status> {
        let request = request.into_inner();
        let namespace = lookup::namespace(&request.namespace)?;
        let checker = self.checker();
        let checked = admission::check(checker.clone(), namespace.clone(), request.pipeline, request.parameters)
            .await
            .map_err(SubmitError::Invalid)?;
        let steps = selection(&checked.resolved, &request.steps).map_err(SubmitError::Invalid)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(RENDERED);
        tokio::task::spawn_blocking(move || {
            for step in steps {
                let Some(rendered) = admission::render(&checker, &namespace, &checked, step) else {
                    continue;
                };
                if sender.blocking_send(Ok(pod(rendered))).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Paths of ValidatePipeline are those of the pipeline file.
fn violation(problem: FieldProblem) -> wire::Violation {
    let path = problem.path.strip_prefix("pipeline").unwrap_or(&problem.path);
    wire::Violation {
        path: path.trim_start_matches('.').to_owned(),
        code: problem.code,
        message: problem.message,
    }
}

fn pod(rendered: admission::RenderedPod) -> wire::RenderPipelineResponse {
    let provenance = rendered.provenance.into_iter().map(|provenance| wire::Provenance {
        path: provenance.path,
        origin: provenance.origin.as_str().to_owned(),
    });
    wire::RenderPipelineResponse {
        step: rendered.step,
        pod_json: rendered.pod_json,
        provenance: provenance.collect(),
    }
}

/// The steps with these names, before or after expansion; all when there are no names.
fn selection(resolved: &ResolvedPipeline, names: &[String]) -> Result<BTreeSet<StepIndex>, Vec<FieldProblem>> {
    if names.is_empty() {
        return Ok((0..resolved.step_count()).map(StepIndex).collect());
    }
    let (mut steps, mut problems) = (BTreeSet::new(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        let source = resolved.sources.iter().find(|source| source.name == *name);
        match (source, resolved.find_step(name)) {
            (Some(source), _) => steps.extend((source.first..source.first + source.count).map(StepIndex)),
            (None, Some(step)) => drop(steps.insert(StepIndex(step))),
            (None, None) => {
                problems.push(FieldProblem::new(
                    format!("steps[{index}]"),
                    "UNKNOWN_STEP",
                    format!("no step {name:?}"),
                ));
            }
        }
    }
    if problems.is_empty() { Ok(steps) } else { Err(problems) }
}
