//! Headers.

use prost::Message;
use windlass_api::journal::v1 as stored;
use windlass_ids::{ScheduleId, Timestamp};
use windlass_scheduling::{FailureClass, StepState};

use super::CodecError;
use super::change::{code, optional_code};
use crate::store::{FailedStep, RunFixed, RunProgress, RunSchedule};

pub(crate) fn encode_fixed(fixed: &RunFixed) -> Vec<u8> {
    let parameters = fixed.parameters.iter();
    stored::RunFixed {
        priority: fixed.priority,
        cluster: fixed.cluster.clone(),
        labels: fixed.labels.clone(),
        parameters_json: parameters
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect(),
        traceparent: fixed.traceparent.clone(),
        schedule: fixed.schedule.as_ref().map(|schedule| stored::RunSchedule {
            id: schedule.id.as_bytes().to_vec(),
            name: schedule.name.clone(),
            time: schedule.time.map(Timestamp::as_millis),
        }),
    }
    .encode_to_vec()
}

pub(crate) fn decode_fixed(bytes: &[u8]) -> Result<RunFixed, CodecError> {
    let fixed = stored::RunFixed::decode(bytes)?;
    let mut parameters = std::collections::BTreeMap::new();
    for (name, json) in fixed.parameters_json {
        let value = serde_json::from_str(&json).map_err(|_| CodecError::Missing("JSON of a parameter"))?;
        parameters.insert(name, value);
    }
    Ok(RunFixed {
        priority: fixed.priority,
        cluster: fixed.cluster,
        labels: fixed.labels,
        parameters,
        traceparent: fixed.traceparent,
        schedule: fixed.schedule.map(decode_schedule).transpose()?,
    })
}

fn decode_schedule(schedule: stored::RunSchedule) -> Result<RunSchedule, CodecError> {
    Ok(RunSchedule {
        id: ScheduleId::from_slice(&schedule.id).ok_or(CodecError::Missing("id of a schedule"))?,
        name: schedule.name,
        time: schedule.time.map(Timestamp::from_millis),
    })
}

/// What has no column of its own.
pub(crate) fn encode_progress(progress: &RunProgress) -> Vec<u8> {
    let counts = progress.counts.iter().map(|(state, count)| stored::StepCount {
        state_code: state.code().into(),
        count: *count,
    });
    let failed_steps = progress.failed_steps.iter().map(|failed| stored::FailedStep {
        step: failed.step.clone(),
        class_code: failed.class.map_or(0, |class| class.code().into()),
        reason: failed.reason.clone(),
        message: failed.message.clone(),
        exit_code: failed.exit_code,
        attempt: failed.attempt,
    });
    stored::RunProgress {
        counts: counts.collect(),
        reason: progress.reason.clone(),
        message: progress.message.clone(),
        failed_steps: failed_steps.collect(),
    }
    .encode_to_vec()
}

/// Fills in what [`encode_progress`] wrote.
pub(crate) fn decode_progress(bytes: &[u8], progress: RunProgress) -> Result<RunProgress, CodecError> {
    let found = stored::RunProgress::decode(bytes)?;
    let mut counts = Vec::with_capacity(found.counts.len());
    for count in found.counts {
        counts.push((code("StepState", count.state_code, StepState::from_code)?, count.count));
    }
    let mut failed_steps = Vec::with_capacity(found.failed_steps.len());
    for failed in found.failed_steps {
        failed_steps.push(decode_failed(failed)?);
    }
    Ok(RunProgress {
        counts,
        reason: found.reason,
        message: found.message,
        failed_steps,
        ..progress
    })
}

fn decode_failed(failed: stored::FailedStep) -> Result<FailedStep, CodecError> {
    let class = optional_code("FailureClass", failed.class_code, FailureClass::from_code)?;
    Ok(FailedStep {
        step: failed.step,
        class,
        reason: failed.reason,
        message: failed.message,
        exit_code: failed.exit_code,
        attempt: failed.attempt,
    })
}
