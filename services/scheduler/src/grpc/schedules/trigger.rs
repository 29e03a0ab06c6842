//! TriggerSchedule: a submission of what a schedule runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use windlass_api::schedule::v1 as wire;
use windlass_ids::RunName;

use super::{Fresh, invalid};
use crate::admission::{self, Made, Scheduled};
use crate::driver::Submission;
use crate::errors::{ScheduleError, SubmitError, Unavailable};
use crate::grpc::Api;
use crate::history::failed;
use crate::lookup;
use crate::store::{Operation, RequestRecord, RunSchedule, StoreError};

impl Api {
    pub(super) async fn trigger(
        &self,
        user: String,
        traceparent: String,
        request: wire::TriggerScheduleRequest,
    ) -> Result<wire::TriggerScheduleResponse, ScheduleError> {
        if request.request_id.is_empty() {
            return Err(invalid(
                "requestId",
                "must have 1 to 128 characters, new for each trigger",
            ));
        }
        let namespace = lookup::namespace(&request.namespace)?;
        let mut content = request.schedule.clone().into_bytes();
        // No name has such an end; a trigger that obeys no policy is known by its name alone, as ever.
        content.extend(request.obey_overlap_policy.then_some(0));
        let fresh = self
            .fresh_change(&namespace, &request.request_id, Operation::TriggerSchedule, &content)
            .await?;
        let (record, reservation) = match fresh {
            Fresh::New(record, reservation) => (record, reservation),
            Fresh::Known(record) => return self.triggered_before(&record).await,
        };
        let schedule = self.find(&namespace, &request.schedule)?;
        let store = self.shared.store()?;
        store.admit().map_err(|error| match error {
            StoreError::LowSpace { .. } | StoreError::Full { .. } => ScheduleError::StoreFull,
            _ => Unavailable::Recovering.into(),
        })?;
        let scheduled = Scheduled {
            namespace,
            labels: schedule.settings.labels.clone(),
            of: RunSchedule {
                id: schedule.id,
                name: schedule.name.clone(),
                time: None,
            },
            user,
            traceparent,
            time: self.shared.clock.now(),
            secret: schedule.secret.clone(),
        };
        let pipeline = self.stored_pipeline(schedule.id).await?;
        let (made, named) = admission::scheduled(&self.shared, self.checker(), scheduled, pipeline).await?;
        let Made {
            header,
            definition,
            packed,
            reused,
        } = made;
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.submit(Box::new(Submission {
            header: header.clone(),
            definition: Arc::new(definition),
            packed,
            reused,
            obeys_overlap: request.obey_overlap_policy,
            secrets: BTreeMap::new(),
            request: record.map(|record| RequestRecord {
                run: Some(header.id),
                ..record
            }),
            reservations: reservation.into_iter().chain([named]).collect(),
            reply,
        }))?;
        let answer = answer.await.map_err(|_| Unavailable::OutcomeUnknown)?;
        answer.map_err(|error| self.named_overlap(&schedule.name, error))?;
        Ok(wire::TriggerScheduleResponse {
            run: Some(self.run_of(&header)),
            created: true,
        })
    }

    /// With the name of the run that has not ended.
    fn named_overlap(&self, schedule: &str, error: SubmitError) -> ScheduleError {
        let SubmitError::Overlapped { run } = error else {
            return error.into();
        };
        let entry = self.shared.runs.get(run);
        let name = entry.map_or_else(|| RunName(run.to_string()), |entry| entry.meta().header.name.clone());
        ScheduleError::Overlapped {
            schedule: schedule.to_owned(),
            run: name,
        }
    }

    /// The run that this very request made.
    async fn triggered_before(&self, record: &RequestRecord) -> Result<wire::TriggerScheduleResponse, ScheduleError> {
        let run = record.run.ok_or(Unavailable::Recovering)?;
        let header = self.shared.store()?.run(run).await.map_err(|error| failed(&error))?;
        let header = header.ok_or(SubmitError::RunDeleted { run })?;
        Ok(wire::TriggerScheduleResponse {
            run: Some(self.run_now(&header).await?),
            created: false,
        })
    }
}
