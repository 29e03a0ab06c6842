//! GetSchedule, ListSchedules, GetSchedulePipeline.

use std::sync::Arc;

use prost::Message as _;
use windlass_api::convert::{pipeline_from_proto, timestamp_to_proto};
use windlass_api::journal::v1::ScheduledPipeline;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_ids::{Namespace, RunId, ScheduleId, Timestamp};
use windlass_pipeline::Violations;

use crate::errors::{LookupError, ScheduleError};
use crate::grpc::Api;
use crate::grpc::page::PageScope;
use crate::history::failed;
use crate::lookup;
use crate::read_model::render;
use crate::schedules::{Calendar, settings_to_proto};
use crate::store::{DefinitionKind, FireOutcome, FireRecord, Schedule};

const DEFAULT_NEXT: u32 = 5;
const MAX_NEXT: u32 = 100;
const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 500;
/// Bytes of a page, with room for the rest of the message.
const MAX_PAGE_BYTES: usize = windlass_api::MAX_RESPONSE_BYTES - 64 * 1024;
/// Most active runs that are named.
const MAX_ACTIVE: usize = 20;
/// Bytes of one chunk of a pipeline.
const CHUNK: usize = 512 * 1024;

/// How much of a schedule is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// For a list.
    Line,
    /// Everything, with so many next times.
    Full(u32),
}

impl Detail {
    /// Everything.
    pub(super) const FULL: Self = Self::Full(DEFAULT_NEXT);
}

impl Api {
    pub(super) async fn schedule(
        &self,
        request: wire::GetScheduleRequest,
    ) -> Result<wire::GetScheduleResponse, ScheduleError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let schedule = self.find(&namespace, &request.schedule)?;
        let count = match request.next_count {
            0 => DEFAULT_NEXT,
            count => count.min(MAX_NEXT),
        };
        let schedule = Some(self.shown(&schedule, Detail::Full(count)).await?);
        Ok(wire::GetScheduleResponse { schedule })
    }

    /// Schedules of one namespace, or of those of `among`, all when `None`.
    pub(super) async fn schedules(
        &self,
        request: wire::ListSchedulesRequest,
        among: Option<Vec<Namespace>>,
    ) -> Result<wire::ListSchedulesResponse, ScheduleError> {
        self.shared.partition()?;
        let namespace = match request.namespace.as_str() {
            "*" => None,
            name => Some(lookup::namespace(name)?),
        };
        let scope = PageScope::of(&["schedules", &request.namespace]);
        let after = scope.text(&request.page_token)?;
        let after = after
            .split_once('/')
            .map(|(namespace, name)| (Namespace::from(namespace), name.to_owned()));
        let limit = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        } as usize;
        let sees = |namespace: &Namespace| among.as_ref().is_none_or(|among| among.contains(namespace));
        let found = self.shared.schedules.list(namespace.as_ref(), sees, after, limit + 1);
        let (mut schedules, mut bytes) = (Vec::new(), 0);
        for (index, schedule) in found.iter().enumerate() {
            let shown = self.shown(schedule, Detail::Line).await?;
            bytes += shown.encoded_len();
            if index == limit || (bytes > MAX_PAGE_BYTES && index > 0) {
                let last = &found[index - 1];
                let position = format!("{}/{}", last.namespace.as_str(), last.name);
                return Ok(wire::ListSchedulesResponse {
                    schedules,
                    next_page_token: scope.token(position.as_bytes()),
                });
            }
            schedules.push(shown);
        }
        Ok(wire::ListSchedulesResponse {
            schedules,
            next_page_token: String::new(),
        })
    }

    pub(super) async fn schedule_pipeline(
        &self,
        request: wire::GetSchedulePipelineRequest,
    ) -> Result<Vec<Vec<u8>>, ScheduleError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let schedule = self.find(&namespace, &request.schedule)?;
        let stored = self.stored_pipeline(schedule.id).await?;
        let pipeline = pipeline_from_proto(stored.pipeline.unwrap_or_default(), &mut Violations::default());
        let text = windlass_pipeline::render::to_yaml(&pipeline);
        Ok(text.as_bytes().chunks(CHUNK).map(<[u8]>::to_vec).collect())
    }

    /// What a schedule runs.
    pub(super) async fn stored_pipeline(&self, schedule: ScheduleId) -> Result<ScheduledPipeline, ScheduleError> {
        let id = RunId::from_bytes(*schedule.as_bytes());
        let stored = self.shared.store()?.definition(id, DefinitionKind::Scheduled).await;
        let bytes = stored.map_err(|error| failed(&error))?;
        let decoded = bytes.and_then(|bytes| ScheduledPipeline::decode(bytes.as_slice()).ok());
        Ok(decoded.ok_or(LookupError::StoreFailed)?)
    }

    /// A schedule by its name.
    pub(super) fn find(&self, namespace: &Namespace, name: &str) -> Result<Arc<Schedule>, ScheduleError> {
        // While the state is being read back, what is not there yet may be there.
        self.shared.partition()?;
        let found = self.shared.schedules.get(namespace, name);
        found.ok_or_else(|| ScheduleError::Unknown {
            namespace: namespace.clone(),
            schedule: name.to_owned(),
        })
    }

    /// A schedule as clients see it.
    pub(super) async fn shown(&self, schedule: &Schedule, detail: Detail) -> Result<wire::Schedule, ScheduleError> {
        let progress = &schedule.progress;
        let next_times = match detail {
            _ if schedule.paused => Vec::new(),
            Detail::Line => progress.next.into_iter().collect(),
            Detail::Full(count) => upcoming(schedule, count),
        };
        let mut shown = wire::Schedule {
            resource_name: resource_name(&schedule.namespace, &schedule.name),
            id: schedule.id.to_string(),
            namespace: schedule.namespace.0.clone(),
            name: schedule.name.clone(),
            pipeline: schedule.pipeline.clone(),
            spec: Some(settings_to_proto(&schedule.settings)),
            state: state(schedule).into(),
            created_by: schedule.created_by.clone(),
            create_time: Some(timestamp_to_proto(schedule.created)),
            updated_by: schedule.updated_by.clone(),
            update_time: Some(timestamp_to_proto(schedule.updated)),
            next_times: next_times.into_iter().map(timestamp_to_proto).collect(),
            fires: Vec::new(),
            active_runs: Vec::new(),
            started_count: progress.started,
            skipped_count: progress.skipped,
            secret_keys: schedule
                .secret
                .iter()
                .flat_map(|secret| secret.keys.iter().cloned())
                .collect(),
        };
        let most = if detail == Detail::Line { 1 } else { usize::MAX };
        for fire in progress.fires.iter().rev().take(most) {
            shown.fires.push(self.fire(fire).await?);
        }
        if detail != Detail::Line {
            let active = self.shared.runs.of_schedule(schedule.id, MAX_ACTIVE);
            shown.active_runs = active
                .into_iter()
                .map(|entry| entry.meta().header.name.0.clone())
                .collect();
        }
        Ok(shown)
    }

    async fn fire(&self, fire: &FireRecord) -> Result<wire::Fire, ScheduleError> {
        let run_state = match &fire.run {
            Some((run, _)) => self.run_state(*run).await?,
            None => RunState::Unspecified,
        };
        Ok(wire::Fire {
            scheduled_time: Some(timestamp_to_proto(fire.time)),
            last_scheduled_time: Some(timestamp_to_proto(fire.last)),
            count: fire.count,
            outcome: outcome(fire.outcome).into(),
            run: fire.run.as_ref().map(|(_, name)| name.0.clone()).unwrap_or_default(),
            run_state: run_state.into(),
            message: message(fire),
            time: Some(timestamp_to_proto(fire.recorded)),
        })
    }

    async fn run_state(&self, run: RunId) -> Result<RunState, ScheduleError> {
        if let Some(entry) = self.shared.runs.get(run) {
            return Ok(render::run_state(entry.record().state));
        }
        let header = self.shared.store()?.run(run).await.map_err(|error| failed(&error))?;
        Ok(header.map_or(RunState::Unspecified, |header| render::run_state(header.progress.state)))
    }
}

/// `namespaces/{namespace}/schedules/{name}`.
pub(super) fn resource_name(namespace: &Namespace, name: &str) -> String {
    format!("namespaces/{}/schedules/{name}", namespace.as_str())
}

pub(super) fn state(schedule: &Schedule) -> wire::ScheduleState {
    if schedule.paused {
        wire::ScheduleState::Paused
    } else if schedule.progress.next.is_none() {
        wire::ScheduleState::Ended
    } else {
        wire::ScheduleState::Active
    }
}

fn upcoming(schedule: &Schedule, count: u32) -> Vec<Timestamp> {
    // A zone that is not known any more has no times.
    Calendar::of(&schedule.settings)
        .map(|calendar| calendar.upcoming(schedule.progress.position, count as usize))
        .unwrap_or_default()
}

fn outcome(outcome: FireOutcome) -> wire::FireOutcome {
    match outcome {
        FireOutcome::Started => wire::FireOutcome::Started,
        FireOutcome::Triggered => wire::FireOutcome::Triggered,
        FireOutcome::Missed => wire::FireOutcome::Missed,
        FireOutcome::Overlapped => wire::FireOutcome::Overlapped,
        FireOutcome::Refused => wire::FireOutcome::Refused,
    }
}

fn message(fire: &FireRecord) -> String {
    match fire.outcome {
        FireOutcome::Missed => "later than its start deadline, or overtaken by a newer fire".to_owned(),
        FireOutcome::Overlapped => "a run of the schedule had not ended".to_owned(),
        FireOutcome::Started | FireOutcome::Triggered | FireOutcome::Refused => fire.message.clone(),
    }
}
