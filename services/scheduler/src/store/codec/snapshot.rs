//! Snapshots of runs.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use windlass_api::journal::v1 as stored;
use windlass_ids::{PodUid, RunId, StepIndex, Timestamp};
use windlass_scheduling::{
    AttemptPhase, AttemptSnapshot, ExecutorIdentity, FailureClass, LostCause, RunReason, RunSnapshot, RunState,
    StepSnapshot, StepState,
};

use super::CodecError;
use super::change::{
    Executors, after, cause, code, decode_cancel, decode_phase, encode_cancel, encode_phase, offset, optional_code,
};
use super::group::{ExecutorTable, decode_executors, frame_packed, unframe};

pub(crate) fn encode_snapshot(snapshot: &RunSnapshot) -> Vec<u8> {
    let base = snapshot.accepted_at;
    let steps = &snapshot.steps;
    let mut executors = ExecutorTable::default();
    let attempts = snapshot.attempts.iter();
    let attempts = attempts
        .map(|attempt| encode_attempt(attempt, base, &mut executors))
        .collect();
    frame_packed(&stored::RunSnapshot {
        state_code: snapshot.state.code().into(),
        reason_code: snapshot.reason.map_or(0, |reason| reason.code().into()),
        last_sequence: snapshot.last_sequence,
        accept_time: base.as_millis(),
        start_offset: snapshot.started_at.map(|time| offset(time, base)),
        end_offset: snapshot.ended_at.map(|time| offset(time, base)),
        last_launch_offset: snapshot.last_launch_at.map(|time| offset(time, base)),
        cancel: snapshot.cancel.as_ref().map(encode_cancel),
        step_states: steps.iter().map(|step| step.state.code()).collect(),
        step_since_offsets: steps.iter().map(|step| offset(step.since, base)).collect(),
        step_numbers: steps.iter().map(|step| step.number).collect(),
        step_charged_user: steps.iter().map(|step| step.charged_user).collect(),
        step_charged_infrastructure: steps.iter().map(|step| step.charged_infrastructure).collect(),
        executors: executors.into_stored(),
        attempts,
    })
}

pub(crate) fn decode_snapshot(run: RunId, bytes: Bytes) -> Result<RunSnapshot, CodecError> {
    let snapshot = stored::RunSnapshot::decode(unframe(bytes)?)?;
    let base = Timestamp::from_millis(snapshot.accept_time);
    let executors = decode_executors(&snapshot.executors)?;
    let steps = decode_steps(&snapshot, base)?;
    let attempts = snapshot.attempts.into_iter();
    Ok(RunSnapshot {
        run,
        state: code("RunState", snapshot.state_code, RunState::from_code)?,
        reason: optional_code("RunReason", snapshot.reason_code, RunReason::from_code)?,
        last_sequence: snapshot.last_sequence,
        accepted_at: base,
        started_at: snapshot.start_offset.map(|time| after(base, time)),
        ended_at: snapshot.end_offset.map(|time| after(base, time)),
        last_launch_at: snapshot.last_launch_offset.map(|time| after(base, time)),
        cancel: snapshot.cancel.map(decode_cancel).transpose()?,
        steps,
        attempts: attempts
            .map(|attempt| decode_attempt(attempt, base, &executors))
            .collect::<Result<_, _>>()?,
    })
}

fn decode_steps(snapshot: &stored::RunSnapshot, base: Timestamp) -> Result<Vec<StepSnapshot>, CodecError> {
    let count = snapshot.step_states.len();
    let columns = [
        snapshot.step_since_offsets.len(),
        snapshot.step_numbers.len(),
        snapshot.step_charged_user.len(),
        snapshot.step_charged_infrastructure.len(),
    ];
    if columns.iter().any(|length| *length != count) {
        return Err(CodecError::Missing("column of a snapshot"));
    }
    let step = |index: usize| {
        Ok(StepSnapshot {
            state: code("StepState", snapshot.step_states[index].into(), StepState::from_code)?,
            since: after(base, snapshot.step_since_offsets[index]),
            number: snapshot.step_numbers[index],
            charged_user: snapshot.step_charged_user[index],
            charged_infrastructure: snapshot.step_charged_infrastructure[index],
        })
    };
    (0..count).map(step).collect()
}

fn encode_attempt(
    attempt: &AttemptSnapshot,
    base: Timestamp,
    executors: &mut ExecutorTable,
) -> stored::AttemptSnapshot {
    let optional = |time: Option<Timestamp>| time.map(|time| offset(time, base));
    stored::AttemptSnapshot {
        step: attempt.step.0,
        phase_code: attempt.phase.code().into(),
        phase_offset: offset(attempt.phase_at, base),
        grant: attempt.grant,
        executor: executors.position(&attempt.executor),
        shared: attempt.shared,
        pod_uid: attempt.pod.map_or_else(Vec::new, |pod| pod.as_bytes().to_vec()),
        launch_offset: offset(attempt.launched_at, base),
        start_offset: optional(attempt.started_at),
        stopping: attempt.stopping.map(|(cause, since, grace)| stored::Stopping {
            cause_code: cause.code().into(),
            since_offset: offset(since, base),
            grace,
        }),
        lost_offset: optional(attempt.lost.map(|(_, since)| since)),
        lost_cause_code: attempt.lost.map_or(0, |(cause, _)| cause.code().into()),
        retry_offset: optional(attempt.retry_until),
        failed_class_code: attempt.failed_with.map_or(0, |class| class.code().into()),
        proof_of_death: attempt.proof_of_death,
        detail: attempt.detail.as_deref().map(encode_phase),
    }
}

fn decode_attempt(
    attempt: stored::AttemptSnapshot,
    base: Timestamp,
    executors: &[Arc<ExecutorIdentity>],
) -> Result<AttemptSnapshot, CodecError> {
    let optional = |time: Option<i64>| time.map(|time| after(base, time));
    let executor = executors.get(attempt.executor as usize).cloned();
    let pod = match attempt.pod_uid.as_slice() {
        [] => None,
        bytes => Some(PodUid::from_slice(bytes).ok_or(CodecError::Missing("uid of a pod"))?),
    };
    let stopping = attempt.stopping.map(|stopping| {
        cause(stopping.cause_code).map(|cause| (cause, after(base, stopping.since_offset), stopping.grace))
    });
    let cause_of_loss = optional_code("LostCause", attempt.lost_cause_code, LostCause::from_code)?;
    let lost = cause_of_loss.zip(optional(attempt.lost_offset));
    Ok(AttemptSnapshot {
        step: StepIndex(attempt.step),
        phase: code("AttemptPhase", attempt.phase_code, AttemptPhase::from_code)?,
        phase_at: after(base, attempt.phase_offset),
        grant: attempt.grant,
        executor: executor.ok_or(CodecError::Missing("executor"))?,
        shared: attempt.shared,
        pod,
        launched_at: after(base, attempt.launch_offset),
        started_at: optional(attempt.start_offset),
        stopping: stopping.transpose()?,
        lost,
        retry_until: optional(attempt.retry_offset),
        failed_with: optional_code("FailureClass", attempt.failed_class_code, FailureClass::from_code)?,
        proof_of_death: attempt.proof_of_death,
        detail: attempt.detail.map(decode_phase),
    })
}
