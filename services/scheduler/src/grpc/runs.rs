//! RunService.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status};
use windlass_api::run::v1 as wire;
use windlass_api::run::v1::run_service_server::RunService;

use super::rights::{permitted, permitted_list};
use super::{Api, traceparent, user};
use crate::admission::{self, Submitter};
use crate::errors::{LookupError, SubmitError};
use crate::lookup;
use crate::metric;
use crate::read_model::render;
use crate::store::{DefinitionKind, RunHeader};

/// Bytes of one chunk of a pipeline.
const PIPELINE_CHUNK: usize = 512 * 1024;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl RunService for Api {
    type WatchRunStream = Answers<wire::WatchRunResponse>;
    type GetRunPipelineStream = Answers<wire::GetRunPipelineResponse>;

    async fn submit_run(
        &self,
        request: Request<wire::SubmitRunRequest>,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        let submitter = Submitter {
            user: user(&request),
            traceparent: traceparent(&request),
        };
        let submitted = admission::submit(&self.shared, self.checker(), submitter, permitted(request)?).await;
        let submitted = submitted.map_err(|error| {
            let full = matches!(error, SubmitError::StoreFull | SubmitError::QueueFull);
            metrics::counter!(metric::REFUSED_SUBMISSIONS, "full" => if full { "yes" } else { "no" }).increment(1);
            Status::from(error)
        })?;
        Ok(Response::new(wire::SubmitRunResponse {
            run: Some(self.run_of(&submitted.header)),
            created: submitted.created,
        }))
    }

    async fn get_run(&self, request: Request<wire::GetRunRequest>) -> Result<Response<wire::GetRunResponse>, Status> {
        let request = permitted(request)?;
        let namespace = lookup::namespace(&request.namespace)?;
        let header = lookup::header(&self.shared, &namespace, &request.run).await?;
        Ok(Response::new(wire::GetRunResponse {
            run: Some(self.run_now(&header).await?),
        }))
    }

    async fn list_runs(
        &self,
        request: Request<wire::ListRunsRequest>,
    ) -> Result<Response<wire::ListRunsResponse>, Status> {
        let (request, among) = permitted_list(request)?;
        Ok(Response::new(self.runs(request, among).await?))
    }

    async fn list_steps(
        &self,
        request: Request<wire::ListStepsRequest>,
    ) -> Result<Response<wire::ListStepsResponse>, Status> {
        Ok(Response::new(self.steps(permitted(request)?).await?))
    }

    async fn watch_run(
        &self,
        request: Request<wire::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        // Over the wire `EncodedWatch` answers; this is the same stream for callers in the process.
        let frames = self.watch(permitted(request)?).await?;
        let decode = |frame| wire::WatchRunResponse::decode(frame).map_err(|error| Status::internal(error.to_string()));
        Ok(Response::new(Box::pin(frames.map(move |frame| frame.and_then(decode)))))
    }

    async fn cancel_run(
        &self,
        request: Request<wire::CancelRunRequest>,
    ) -> Result<Response<wire::CancelRunResponse>, Status> {
        let user = user(&request);
        Ok(Response::new(self.cancel(user, permitted(request)?).await?))
    }

    async fn retry_run(
        &self,
        request: Request<wire::RetryRunRequest>,
    ) -> Result<Response<wire::RetryRunResponse>, Status> {
        let submitter = Submitter {
            user: user(&request),
            traceparent: traceparent(&request),
        };
        Ok(Response::new(self.retry(submitter, permitted(request)?).await?))
    }

    async fn delete_run(
        &self,
        request: Request<wire::DeleteRunRequest>,
    ) -> Result<Response<wire::DeleteRunResponse>, Status> {
        let user = user(&request);
        Ok(Response::new(self.delete(user, permitted(request)?).await?))
    }

    async fn confirm_dead(
        &self,
        request: Request<wire::ConfirmDeadRequest>,
    ) -> Result<Response<wire::ConfirmDeadResponse>, Status> {
        let user = user(&request);
        Ok(Response::new(self.confirm(user, permitted(request)?).await?))
    }

    async fn get_run_pipeline(
        &self,
        request: Request<wire::GetRunPipelineRequest>,
    ) -> Result<Response<Self::GetRunPipelineStream>, Status> {
        let request = permitted(request)?;
        let namespace = lookup::namespace(&request.namespace)?;
        let header = lookup::header(&self.shared, &namespace, &request.run).await?;
        let store = self.shared.store()?;
        let stored = store.definition(header.id, DefinitionKind::Submitted).await;
        let text = stored.map_err(|error| crate::history::failed(&error))?;
        let text = text.ok_or(LookupError::HistoryGone { run: header.name })?;
        let chunks: Vec<_> = text
            .chunks(PIPELINE_CHUNK)
            .map(|chunk| Ok(wire::GetRunPipelineResponse { chunk: chunk.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    async fn explain_run(
        &self,
        request: Request<wire::ExplainRunRequest>,
    ) -> Result<Response<wire::ExplainRunResponse>, Status> {
        Ok(Response::new(self.explain(permitted(request)?).await?))
    }
}

impl Api {
    /// A run as it is now: an active one from the read model, whose counts are newer than the header's.
    pub(super) fn run_of(&self, header: &RunHeader) -> wire::Run {
        match self.shared.runs.get(header.id) {
            Some(entry) => render::run(entry.meta(), &entry.record()),
            None => render::run_from_header(header),
        }
    }
}
