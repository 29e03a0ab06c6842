//! Headers.

use prost::Message;
use windlass_api::journal::v1 as stored;
use windlass_ids::{RunId, RunName, ScheduleId, ScheduleSecretId, Timestamp};
use windlass_scheduling::{FailureClass, StepState};

use super::CodecError;
use super::change::{code, optional_code};
use crate::store::{FailedStep, Lineage, RunFixed, RunProgress, RunSchedule, SharedSecret};

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
        lineage: fixed.lineage.as_ref().map(encode_lineage),
        schedule: fixed.schedule.as_ref().map(|schedule| stored::RunSchedule {
            id: schedule.id.as_bytes().to_vec(),
            name: schedule.name.clone(),
            time: schedule.time.map(Timestamp::as_millis),
        }),
        secret: fixed.secret.as_ref().map(|secret| stored::SharedSecret {
            id: secret.id.as_bytes().to_vec(),
            schedule_id: secret.schedule.as_bytes().to_vec(),
            schedule: secret.schedule_name.clone(),
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
        lineage: fixed.lineage.map(decode_lineage).transpose()?,
        schedule: fixed.schedule.map(decode_schedule).transpose()?,
        secret: fixed.secret.map(decode_secret).transpose()?,
    })
}

fn encode_lineage(lineage: &Lineage) -> stored::Lineage {
    let known = |run: &RunId, name: &RunName| stored::KnownRun {
        run_id: run.as_bytes().to_vec(),
        name: name.0.clone(),
    };
    let (run, name) = &lineage.retry_of;
    stored::Lineage {
        retry_of: Some(known(run, name)),
        workspace_run_id: lineage.workspace.as_bytes().to_vec(),
        sources: lineage.sources.iter().map(|(run, name)| known(run, name)).collect(),
    }
}

fn decode_lineage(lineage: stored::Lineage) -> Result<Lineage, CodecError> {
    let id = |bytes: &[u8]| RunId::from_slice(bytes).ok_or(CodecError::Missing("run of a lineage"));
    let known = |run: stored::KnownRun| Ok::<_, CodecError>((id(&run.run_id)?, RunName(run.name)));
    Ok(Lineage {
        retry_of: known(lineage.retry_of.ok_or(CodecError::Missing("run that is retried"))?)?,
        workspace: id(&lineage.workspace_run_id)?,
        sources: lineage.sources.into_iter().map(known).collect::<Result<_, _>>()?,
    })
}

fn decode_schedule(schedule: stored::RunSchedule) -> Result<RunSchedule, CodecError> {
    Ok(RunSchedule {
        id: ScheduleId::from_slice(&schedule.id).ok_or(CodecError::Missing("id of a schedule"))?,
        name: schedule.name,
        time: schedule.time.map(Timestamp::from_millis),
    })
}

fn decode_secret(secret: stored::SharedSecret) -> Result<SharedSecret, CodecError> {
    Ok(SharedSecret {
        id: ScheduleSecretId::from_slice(&secret.id).ok_or(CodecError::Missing("id of secrets"))?,
        schedule: ScheduleId::from_slice(&secret.schedule_id).ok_or(CodecError::Missing("schedule of secrets"))?,
        schedule_name: secret.schedule,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_and_shared_secrets_come_back_and_a_header_of_before_has_none() {
        let run = |number| RunId::from_bytes([number; 16]);
        let fixed = RunFixed {
            lineage: Some(Lineage {
                retry_of: (run(2), RunName::from("churn-2")),
                workspace: run(1),
                sources: [(run(1), "churn-1".into()), (run(2), "churn-2".into())].into(),
            }),
            secret: Some(SharedSecret {
                id: ScheduleSecretId::from_bytes([3; 16]),
                schedule: ScheduleId::from_bytes([4; 16]),
                schedule_name: "nightly".to_owned(),
            }),
            ..RunFixed::default()
        };
        assert_eq!(decode_fixed(&encode_fixed(&fixed)).expect("reads"), fixed);
        assert_eq!(decode_fixed(&[]).expect("reads"), RunFixed::default());
    }
}
