//! PipelineService.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use windlass_api::pipeline::v1 as wire;
use windlass_api::pipeline::v1::pipeline_service_server::PipelineService;
use windlass_api::refusal::shorten;
use windlass_ids::{Namespace, StepIndex};
use windlass_pipeline::ResolvedPipeline;

use super::Api;
use super::rights::permitted;
use crate::admission::{self, Checked, Renderer, Size};
use crate::errors::{FieldProblem, RenderError, SubmitError};
use crate::lookup;
use crate::secrets::references::{self, ReferenceCheck};
use crate::shared::Shared;

/// Pods that are rendered at a time, and pods between them and the connection.
const BATCH: usize = 16;
const RENDERED: usize = 4;
/// Most bytes of a problem's path and of its message: about a hundred of them are one response.
const MAX_PATH: usize = 1_000;
const MAX_MESSAGE: usize = 4_000;
/// How long a client may take for one pod.
const PATIENCE: Duration = Duration::from_secs(60);

#[tonic::async_trait]
impl PipelineService for Api {
    type RenderPipelineStream = ReceiverStream<Result<wire::RenderPipelineResponse, Status>>;

    async fn validate_pipeline(
        &self,
        request: Request<wire::ValidatePipelineRequest>,
    ) -> Result<Response<wire::ValidatePipelineResponse>, Status> {
        let request = permitted(request)?;
        let namespace = lookup::namespace(&request.namespace)?;
        let (checker, lanes) = (self.checker(), &self.shared.lanes);
        let level = checker.check_references;
        let (pipeline, parameters) = (request.pipeline, request.parameters);
        let checked = admission::check(lanes, checker, namespace.clone(), pipeline, parameters).await;
        let checked = match checked {
            Ok(checked) => self.referring(&namespace, level, checked).await,
            refused => refused,
        };
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
        let rendering = self.render(permitted(request)?).await?;
        Ok(Response::new(rendering))
    }
}

impl Api {
    /// A pipeline whose references lead somewhere, as far as is known.
    async fn referring(
        &self,
        namespace: &Namespace,
        level: ReferenceCheck,
        checked: Checked,
    ) -> Result<Checked, Vec<FieldProblem>> {
        match references::check(&self.shared.executors, namespace, level, &checked.references).await {
            Err(SubmitError::Invalid(problems) | SubmitError::ReferencesMissing(problems)) => Err(problems),
            Ok(()) | Err(_) => Ok(checked),
        }
    }

    async fn render(
        &self,
        request: wire::RenderPipelineRequest,
    ) -> Result<ReceiverStream<Result<wire::RenderPipelineResponse, Status>>, RenderError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let renders = Arc::clone(&self.shared.renders);
        let permit = renders.try_acquire_owned().map_err(|_| RenderError::TooMany)?;
        let checker = self.checker();
        let lanes = &self.shared.lanes;
        let (pipeline, parameters) = (request.pipeline, request.parameters);
        let checked = admission::check(lanes, checker.clone(), namespace.clone(), pipeline, parameters).await;
        let checked = checked.map_err(RenderError::Invalid)?;
        let steps = selection(&checked.resolved, &request.steps).map_err(RenderError::Invalid)?;
        let renderer = Renderer::new(checker, &namespace, checked).ok_or(RenderError::Broken)?;
        let (sender, receiver) = mpsc::channel(RENDERED);
        let rendering = Rendering {
            shared: Arc::clone(&self.shared),
            renderer: Arc::new(renderer),
            sender,
            _permit: permit,
        };
        tokio::spawn(rendering.run(steps));
        Ok(ReceiverStream::new(receiver))
    }
}

/// One stream of rendered pods. Between batches it holds no thread, however slow its client is (I11).
struct Rendering {
    shared: Arc<Shared>,
    renderer: Arc<Renderer>,
    sender: mpsc::Sender<Result<wire::RenderPipelineResponse, Status>>,
    _permit: OwnedSemaphorePermit,
}

impl Rendering {
    async fn run(self, steps: Vec<StepIndex>) {
        for batch in steps.chunks(BATCH) {
            let (renderer, batch) = (Arc::clone(&self.renderer), batch.to_vec());
            let work = move || {
                batch
                    .into_iter()
                    .filter_map(|step| renderer.render(step))
                    .collect::<Vec<_>>()
            };
            let Ok(pods) = self.shared.lanes.run(Size::Small, work).await else {
                self.sender.try_send(Err(RenderError::Broken.into())).ok();
                return;
            };
            for rendered in pods {
                match self.sender.send_timeout(Ok(pod(rendered)), PATIENCE).await {
                    Ok(()) => {}
                    Err(SendTimeoutError::Closed(_)) => return,
                    Err(SendTimeoutError::Timeout(_)) => {
                        self.sender
                            .send_timeout(Err(RenderError::TooSlow.into()), PATIENCE)
                            .await
                            .ok();
                        return;
                    }
                }
            }
        }
    }
}

/// Paths of ValidatePipeline are those of the pipeline file.
fn violation(problem: FieldProblem) -> wire::Violation {
    let path = problem.path.strip_prefix("pipeline").unwrap_or(&problem.path);
    wire::Violation {
        path: shorten(path.trim_start_matches('.'), MAX_PATH),
        code: problem.code,
        message: shorten(&problem.message, MAX_MESSAGE),
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
fn selection(resolved: &ResolvedPipeline, names: &[String]) -> Result<Vec<StepIndex>, Vec<FieldProblem>> {
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
    if problems.is_empty() {
        Ok(steps.into_iter().collect())
    } else {
        Err(problems)
    }
}
