//! ScheduleService.

mod change;
mod export;
mod mask;
mod read;
mod trigger;

use std::pin::Pin;

use futures::Stream;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_service_server::ScheduleService;
use windlass_ids::{Namespace, RequestId, Timestamp};

use super::rights::{permitted, permitted_list};
use super::{Api, traceparent, user};
use crate::admission::MAX_REQUEST_ID;
use crate::driver::{Reservation, ReservedKey};
use crate::errors::{FieldProblem, ScheduleError};
use crate::history::failed;
use crate::store::{Operation, RequestRecord};

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ScheduleService for Api {
    type GetSchedulePipelineStream = Answers<wire::GetSchedulePipelineResponse>;

    async fn create_schedule(
        &self,
        request: Request<wire::CreateScheduleRequest>,
    ) -> Result<Response<wire::CreateScheduleResponse>, Status> {
        let user = user(&request);
        Ok(Response::new(self.create(user, permitted(request)?).await?))
    }

    async fn get_schedule(
        &self,
        request: Request<wire::GetScheduleRequest>,
    ) -> Result<Response<wire::GetScheduleResponse>, Status> {
        Ok(Response::new(self.schedule(permitted(request)?).await?))
    }

    async fn list_schedules(
        &self,
        request: Request<wire::ListSchedulesRequest>,
    ) -> Result<Response<wire::ListSchedulesResponse>, Status> {
        let (request, among) = permitted_list(request)?;
        Ok(Response::new(self.schedules(request, among).await?))
    }

    async fn update_schedule(
        &self,
        request: Request<wire::UpdateScheduleRequest>,
    ) -> Result<Response<wire::UpdateScheduleResponse>, Status> {
        let user = user(&request);
        let schedule = Some(self.update(user, permitted(request)?).await?);
        Ok(Response::new(wire::UpdateScheduleResponse { schedule }))
    }

    async fn delete_schedule(
        &self,
        request: Request<wire::DeleteScheduleRequest>,
    ) -> Result<Response<wire::DeleteScheduleResponse>, Status> {
        Ok(Response::new(self.remove(permitted(request)?).await?))
    }

    async fn pause_schedule(
        &self,
        request: Request<wire::PauseScheduleRequest>,
    ) -> Result<Response<wire::PauseScheduleResponse>, Status> {
        let user = user(&request);
        let wire::PauseScheduleRequest {
            namespace,
            request_id,
            schedule,
        } = permitted(request)?;
        let schedule = Some(self.set_paused(user, &namespace, &request_id, &schedule, true).await?);
        Ok(Response::new(wire::PauseScheduleResponse { schedule }))
    }

    async fn resume_schedule(
        &self,
        request: Request<wire::ResumeScheduleRequest>,
    ) -> Result<Response<wire::ResumeScheduleResponse>, Status> {
        let user = user(&request);
        let wire::ResumeScheduleRequest {
            namespace,
            request_id,
            schedule,
        } = permitted(request)?;
        let schedule = Some(self.set_paused(user, &namespace, &request_id, &schedule, false).await?);
        Ok(Response::new(wire::ResumeScheduleResponse { schedule }))
    }

    async fn trigger_schedule(
        &self,
        request: Request<wire::TriggerScheduleRequest>,
    ) -> Result<Response<wire::TriggerScheduleResponse>, Status> {
        let (user, traceparent) = (user(&request), traceparent(&request));
        Ok(Response::new(
            self.trigger(user, traceparent, permitted(request)?).await?,
        ))
    }

    async fn export_schedule(
        &self,
        request: Request<wire::ExportScheduleRequest>,
    ) -> Result<Response<wire::ExportScheduleResponse>, Status> {
        Ok(Response::new(self.export(&permitted(request)?)?))
    }

    async fn get_schedule_pipeline(
        &self,
        request: Request<wire::GetSchedulePipelineRequest>,
    ) -> Result<Response<Self::GetSchedulePipelineStream>, Status> {
        let chunks = self.schedule_pipeline(permitted(request)?).await?;
        let chunks = chunks
            .into_iter()
            .map(|chunk| Ok(wire::GetSchedulePipelineResponse { chunk }));
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}

/// A change that is to be carried out, or one that was.
enum Fresh {
    /// It is new; both are kept until it is durable.
    New(Option<RequestRecord>, Option<Reservation>),
    /// It was carried out before.
    Known(RequestRecord),
}

impl Api {
    /// Whether a change with this request id was carried out before. What is asked for is in `content`.
    async fn fresh_change(
        &self,
        namespace: &Namespace,
        request_id: &str,
        operation: Operation,
        content: &[u8],
    ) -> Result<Fresh, ScheduleError> {
        if request_id.is_empty() {
            return Ok(Fresh::New(None, None));
        }
        if request_id.len() > MAX_REQUEST_ID {
            return Err(invalid("requestId", "must have at most 128 bytes"));
        }
        let key = ReservedKey::Request(namespace.clone(), request_id.to_owned());
        let reservation = self.shared.reservations.reserve(key).await;
        let digest: [u8; 32] = Sha256::digest(content).into();
        let key = (namespace.clone(), RequestId(request_id.to_owned()));
        let known = self.shared.store()?.requests(&[key]).await;
        match known.map_err(|error| failed(&error))?.into_iter().flatten().next() {
            Some(record) if record.operation == operation && record.digest == digest => Ok(Fresh::Known(record)),
            Some(record) => Err(ScheduleError::RequestIdReused {
                stored_hash: hex::encode(record.digest),
                offered_hash: hex::encode(digest),
            }),
            None => {
                let record = RequestRecord {
                    namespace: namespace.clone(),
                    request_id: RequestId(request_id.to_owned()),
                    operation,
                    digest,
                    run: None,
                    outcome: Vec::new(),
                    created: Timestamp::default(),
                };
                Ok(Fresh::New(Some(record), Some(reservation)))
            }
        }
    }
}

fn invalid(path: &str, message: &str) -> ScheduleError {
    ScheduleError::Invalid(vec![FieldProblem::new(path, "BAD_VALUE", message)])
}
