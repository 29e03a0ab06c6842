//! CancelRun, DeleteRun, ConfirmDead: idempotent by request id, and by their nature.

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use windlass_api::convert::std_duration_from_proto;
use windlass_api::run::v1 as wire;
use windlass_ids::{AttemptId, Namespace, RequestId, StepIndex, Timestamp};
use windlass_scheduling::{Event, Rejection, StepState};

use super::Api;
use crate::driver::{ChangeOrder, Command, DeleteOrder, Refusal, Reservation, ReservedKey};
use crate::errors::{ChangeError, FieldProblem, LookupError, Unavailable};
use crate::history::failed;
use crate::lookup;
use crate::read_model::RunEntry;
use crate::read_model::render::{self, StepDetail};
use crate::store::{Operation, RequestRecord, RunHeader};

/// Bound on the reason of a cancellation.
const MAX_REASON: usize = 1_024;
/// Bound on request ids.
const MAX_REQUEST_ID: usize = 128;

/// A request with an id that is not known yet.
type Fresh = (Option<RequestRecord>, Option<Reservation>);

impl Api {
    pub(super) async fn cancel(
        &self,
        user: String,
        request: wire::CancelRunRequest,
    ) -> Result<wire::CancelRunResponse, ChangeError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let header = lookup::header(&self.shared, &namespace, &request.run).await?;
        if request.reason.len() > MAX_REASON {
            return Err(invalid("reason", "must have at most 1024 bytes"));
        }
        let grace = match &request.grace {
            None => None,
            Some(grace) => {
                Some(std_duration_from_proto(grace).ok_or_else(|| invalid("grace", "must not be negative"))?)
            }
        };
        let content = format!("{}\n{grace:?}\n{}", header.id, request.reason);
        let fresh = self
            .fresh(&namespace, &request.request_id, Operation::Cancel, &header, &content)
            .await?;
        if let Some(fresh) = fresh {
            let event = Event::RunCancelled {
                run: header.id,
                grace,
                reason: request.reason.into(),
                by: user.into(),
            };
            self.change(event, fresh)
                .await?
                .map_err(|rejection| ended(&header, rejection))?;
        }
        Ok(wire::CancelRunResponse {
            run: Some(self.run_now(&header).await?),
        })
    }

    pub(super) async fn delete(
        &self,
        user: String,
        request: wire::DeleteRunRequest,
    ) -> Result<wire::DeleteRunResponse, ChangeError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let header = match lookup::header(&self.shared, &namespace, &request.run).await {
            Ok(header) => header,
            Err(error) => return self.deleted_before(&namespace, &request, error).await,
        };
        let resource_name = render::run_resource(header.namespace.as_str(), header.name.as_str());
        let content = header.id.to_string();
        let not_ended = || ChangeError::RunNotEnded {
            run: header.name.clone(),
            state: header.progress.state.to_string(),
        };
        if !header.progress.state.is_terminal() {
            return Err(not_ended());
        }
        let fresh = self
            .fresh(&namespace, &request.request_id, Operation::Delete, &header, &content)
            .await?;
        let Some((mut record, reservation)) = fresh else {
            return Ok(wire::DeleteRunResponse { resource_name });
        };
        if let Some(record) = &mut record {
            record.outcome = resource_name.clone().into_bytes();
        }
        let (reply, answer) = oneshot::channel();
        let order = DeleteOrder {
            run: header.id,
            request: record,
            reservation,
            reply,
        };
        self.shared.inbox.send(Command::Delete(Box::new(order))).await?;
        match answer.await.map_err(|_| Unavailable::OutcomeUnknown)? {
            Ok(()) => {
                tracing::info!(run_id = %header.id, run = %header.name, namespace = %header.namespace, user, "run deleted on request");
                Ok(wire::DeleteRunResponse { resource_name })
            }
            Err(Refusal::Unavailable(error)) => Err(error.into()),
            Err(Refusal::NotEnded | Refusal::Rejected(_)) => Err(not_ended()),
        }
    }

    /// A run that is not there any more was perhaps deleted by this very request.
    async fn deleted_before(
        &self,
        namespace: &Namespace,
        request: &wire::DeleteRunRequest,
        error: LookupError,
    ) -> Result<wire::DeleteRunResponse, ChangeError> {
        let key = (namespace.clone(), RequestId(request.request_id.clone()));
        let known = self
            .shared
            .store()?
            .requests(&[key])
            .await
            .map_err(|error| failed(&error))?;
        match known.into_iter().flatten().next() {
            Some(record) if record.operation == Operation::Delete => {
                let resource_name = String::from_utf8_lossy(&record.outcome).into_owned();
                let name = resource_name.rsplit('/').next().unwrap_or_default();
                let id = record.run.map(|run| run.to_string()).unwrap_or_default();
                if [name, id.as_str()].iter().any(|known| known.starts_with(&request.run)) {
                    return Ok(wire::DeleteRunResponse { resource_name });
                }
                Err(ChangeError::RequestIdReused {
                    run: name.to_owned(),
                    stored_hash: hex::encode(record.digest),
                    offered_hash: hex::encode(digest(&request.run)),
                })
            }
            _ => Err(error.into()),
        }
    }

    pub(super) async fn confirm(
        &self,
        user: String,
        request: wire::ConfirmDeadRequest,
    ) -> Result<wire::ConfirmDeadResponse, ChangeError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let header = lookup::header(&self.shared, &namespace, &request.run).await?;
        let entry = lookup::entry_of(&self.shared, &header).await?;
        let step = step_of(&entry, &request.step)?;
        // As it was asked: the newest attempt may be another one when the request is repeated.
        let content = format!("{}\n{step}\n{}", header.id, request.attempt);
        let fresh = self
            .fresh(
                &namespace,
                &request.request_id,
                Operation::ConfirmDead,
                &header,
                &content,
            )
            .await?;
        if let Some(fresh) = fresh {
            let (attempt, state) = attempt_of(&entry, step, &request)?;
            let event = Event::DeadConfirmed {
                attempt,
                by: user.into(),
            };
            let outcome = self.change(event, fresh).await?;
            outcome.map_err(|_| ChangeError::NotLostContact {
                step: request.step.clone(),
                state: state.to_string(),
            })?;
        }
        let entry = lookup::entry_of(&self.shared, &header).await?;
        let record = entry.record();
        let step = record.step(step);
        Ok(wire::ConfirmDeadResponse {
            step: step.map(|step| render::step(entry.meta(), &record, &step, StepDetail::Full)),
        })
    }

    /// Hands a change to the core and waits until it is durable.
    async fn change(&self, event: Event, fresh: Fresh) -> Result<Result<(), Rejection>, ChangeError> {
        let (request, reservation) = fresh;
        let (reply, answer) = oneshot::channel();
        let order = ChangeOrder {
            event,
            request,
            reservation,
            reply,
        };
        self.shared.inbox.send(Command::Change(Box::new(order))).await?;
        match answer.await.map_err(|_| Unavailable::OutcomeUnknown)? {
            Ok(()) => Ok(Ok(())),
            Err(Refusal::Rejected(rejection)) => Ok(Err(rejection)),
            Err(Refusal::Unavailable(error)) => Err(error.into()),
            Err(Refusal::NotEnded) => Err(Unavailable::OutcomeUnknown.into()),
        }
    }

    /// Whether a request with this id is new; `None` when it was carried out before.
    async fn fresh(
        &self,
        namespace: &Namespace,
        request_id: &str,
        operation: Operation,
        header: &RunHeader,
        content: &str,
    ) -> Result<Option<Fresh>, ChangeError> {
        if request_id.is_empty() {
            return Ok(Some((None, None)));
        }
        if request_id.len() > MAX_REQUEST_ID {
            return Err(invalid("requestId", "must have at most 128 bytes"));
        }
        let key = ReservedKey::Request(namespace.clone(), request_id.to_owned());
        let reservation = self.shared.reservations.reserve(key).await;
        let digest = digest(content);
        let key = (namespace.clone(), RequestId(request_id.to_owned()));
        let known = self
            .shared
            .store()?
            .requests(&[key])
            .await
            .map_err(|error| failed(&error))?;
        match known.into_iter().flatten().next() {
            Some(record) if record.operation == operation && record.digest == digest => Ok(None),
            Some(record) => Err(ChangeError::RequestIdReused {
                run: self.run_name(&record).await,
                stored_hash: hex::encode(record.digest),
                offered_hash: hex::encode(digest),
            }),
            None => {
                let record = RequestRecord {
                    namespace: namespace.clone(),
                    request_id: RequestId(request_id.to_owned()),
                    operation,
                    digest,
                    run: Some(header.id),
                    outcome: Vec::new(),
                    created: Timestamp::default(),
                };
                Ok(Some((Some(record), Some(reservation))))
            }
        }
    }

    /// Name of the run that a request was about; its id when the run is gone.
    async fn run_name(&self, record: &RequestRecord) -> String {
        let Some(run) = record.run else {
            return String::new();
        };
        let header = match self.shared.store() {
            Ok(store) => store.run(run).await.ok().flatten(),
            Err(_) => None,
        };
        header.map_or_else(|| run.to_string(), |header| header.name.0)
    }

    /// A run as it is now, with a new header when it has left the read model since its header was read.
    pub(super) async fn run_now(&self, header: &RunHeader) -> Result<wire::Run, LookupError> {
        if let Some(entry) = self.shared.runs.get(header.id) {
            return Ok(render::run(entry.meta(), &entry.record()));
        }
        if header.progress.state.is_terminal() {
            return Ok(render::run_from_header(header));
        }
        let newest = self
            .shared
            .store()?
            .run(header.id)
            .await
            .map_err(|error| failed(&error))?;
        Ok(self.run_of(newest.as_ref().unwrap_or(header)))
    }
}

fn invalid(path: &str, message: &str) -> ChangeError {
    ChangeError::Invalid(vec![FieldProblem::new(path, "BAD_VALUE", message)])
}

fn ended(header: &RunHeader, rejection: Rejection) -> ChangeError {
    let state = match rejection {
        Rejection::RunEnded { state, .. } => state.to_string(),
        _ => header.progress.state.to_string(),
    };
    ChangeError::RunEnded {
        run: header.name.clone(),
        state,
    }
}

fn digest(content: &str) -> [u8; 32] {
    Sha256::digest(content).into()
}

fn step_of(entry: &RunEntry, name: &str) -> Result<StepIndex, LookupError> {
    let meta = entry.meta();
    meta.definition.find_step(name).ok_or_else(|| LookupError::UnknownStep {
        run: meta.header.name.clone(),
        step: name.to_owned(),
    })
}

fn attempt_of(
    entry: &RunEntry,
    index: StepIndex,
    request: &wire::ConfirmDeadRequest,
) -> Result<(AttemptId, StepState), ChangeError> {
    let record = entry.record();
    let step = record.step(index);
    let state = step.map_or(StepState::Waiting, |step| step.state);
    let newest = step
        .and_then(|step| step.attempt)
        .map_or(0, |attempt| attempt.cell.number);
    let number = if request.attempt == 0 { newest } else { request.attempt };
    if number == 0 {
        return Err(ChangeError::NotLostContact {
            step: request.step.clone(),
            state: state.to_string(),
        });
    }
    let attempt = AttemptId {
        run: entry.meta().header.id,
        step: index,
        number,
    };
    Ok((attempt, state))
}
