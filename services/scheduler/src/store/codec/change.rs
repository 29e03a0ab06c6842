//! One change.

use std::sync::Arc;
use std::time::Duration;

use windlass_api::journal::v1 as stored;
use windlass_api::journal::v1::attempt_failed::Next;
use windlass_api::journal::v1::change::Kind;
use windlass_ids::{AttemptId, PodUid, RunId, StepIndex, Timestamp};
use windlass_scheduling::{
    AfterFailure, AttemptEnd, AttemptFailure, AttemptPhase, Budget, CancelRequest, Change, ChangeKind, EndDetail,
    ExecutorIdentity, FailureClass, LostCause, PhaseDetail, RunReason, RunState, SkipReason, StepFailure, StepState,
    StopCause,
};

use super::CodecError;

/// Names executors by position in a group's table.
pub(super) trait Executors {
    fn position(&mut self, executor: &Arc<ExecutorIdentity>) -> u32;
}

pub(super) fn encode(change: &Change, base_time: Timestamp, executors: &mut impl Executors) -> stored::Change {
    let at = change.at;
    let (step, number, kind) = match &change.kind {
        ChangeKind::RunPreparing => (None, 0, Kind::RunPreparing(stored::RunPreparing {})),
        ChangeKind::RunAccepted => (None, 0, Kind::RunAccepted(stored::RunAccepted {})),
        ChangeKind::RunStarted => (None, 0, Kind::RunStarted(stored::RunStarted {})),
        ChangeKind::CancelRequested(request) => (None, 0, Kind::CancelRequested(encode_cancel(request))),
        ChangeKind::RunEnded { state, reason } => (
            None,
            0,
            Kind::RunEnded(stored::RunEnded {
                state_code: state.code().into(),
                reason_code: reason.code().into(),
            }),
        ),
        ChangeKind::StepReady { step } => (Some(step), 0, Kind::StepReady(stored::StepReady {})),
        ChangeKind::StepSkipped { step, reason } => (
            Some(step),
            0,
            Kind::StepSkipped(stored::StepSkipped {
                reason_code: reason.code().into(),
            }),
        ),
        ChangeKind::StepCached { step, source } => (
            Some(step),
            0,
            Kind::StepCached(stored::StepCached {
                run_id: source.run.as_bytes().to_vec(),
                step: source.step.0,
                number: source.number,
            }),
        ),
        ChangeKind::StepCancelled { step, cause } => (
            Some(step),
            0,
            Kind::StepCancelled(stored::StepCancelled {
                cause_code: cause.code().into(),
            }),
        ),
        ChangeKind::StepFailed { step, number, reason } => (
            Some(step),
            *number,
            Kind::StepFailed(stored::StepFailed {
                reason_code: reason.code().into(),
            }),
        ),
        ChangeKind::AttemptLaunched { step, number, executor } => (
            Some(step),
            *number,
            Kind::AttemptLaunched(stored::AttemptLaunched {
                executor: executors.position(executor),
            }),
        ),
        ChangeKind::AttemptRegranted {
            step,
            number,
            grant,
            executor,
        } => (
            Some(step),
            *number,
            Kind::AttemptRegranted(stored::AttemptRegranted {
                grant: *grant,
                executor: executors.position(executor),
            }),
        ),
        ChangeKind::AttemptCreated { step, number, pod } => (
            Some(step),
            *number,
            Kind::AttemptCreated(stored::AttemptCreated {
                pod_uid: pod.as_bytes().to_vec(),
            }),
        ),
        ChangeKind::AttemptProgressed {
            step,
            number,
            phase,
            detail,
        } => (
            Some(step),
            *number,
            Kind::AttemptProgressed(stored::AttemptProgressed {
                phase_code: phase.code().into(),
                detail: detail.as_deref().map(encode_phase),
            }),
        ),
        ChangeKind::AttemptRunning {
            step,
            number,
            started_at,
            node,
        } => (
            Some(step),
            *number,
            Kind::AttemptRunning(stored::AttemptRunning {
                start_offset: offset(*started_at, at),
                node: node.as_deref().map(str::to_owned),
            }),
        ),
        ChangeKind::StopRequested {
            step,
            number,
            cause,
            grace_ms,
        } => (
            Some(step),
            *number,
            Kind::StopRequested(stored::StopRequested {
                cause_code: cause.code().into(),
                grace: *grace_ms,
            }),
        ),
        ChangeKind::ContactLost {
            step,
            number,
            cause,
            detail,
        } => (
            Some(step),
            *number,
            Kind::ContactLost(stored::ContactLost {
                cause_code: cause.code().into(),
                detail: detail.as_deref().map(encode_phase),
            }),
        ),
        ChangeKind::ContactRegained { step, number, state } => (
            Some(step),
            *number,
            Kind::ContactRegained(stored::ContactRegained {
                state_code: state.code().into(),
            }),
        ),
        ChangeKind::AttemptSucceeded {
            step,
            number,
            ended_at,
            detail,
        } => (
            Some(step),
            *number,
            Kind::AttemptSucceeded(stored::AttemptSucceeded {
                end_offset: offset(*ended_at, at),
                detail: detail.as_deref().map(encode_end_detail),
            }),
        ),
        ChangeKind::AttemptFailed { step, number, failure } => {
            (Some(step), *number, Kind::AttemptFailed(encode_failure(failure, at)))
        }
        ChangeKind::DeathProven {
            step,
            number,
            confirmed_by,
        } => (
            Some(step),
            *number,
            Kind::DeathProven(stored::DeathProven {
                confirmed_by: confirmed_by.as_deref().map(str::to_owned),
            }),
        ),
    };
    stored::Change {
        time_offset: offset(at, base_time),
        step: step.map_or(0, |step| step.0),
        number,
        kind: Some(kind),
    }
}

/// The time and the kind of a stored change; run and sequence number are the group's.
pub(super) fn decode(
    change: stored::Change,
    base_time: Timestamp,
    executors: &[Arc<ExecutorIdentity>],
) -> Result<(Timestamp, ChangeKind), CodecError> {
    let at = after(base_time, change.time_offset);
    let (step, number) = (StepIndex(change.step), change.number);
    let executor = |position: u32| {
        executors
            .get(position as usize)
            .cloned()
            .ok_or(CodecError::Missing("executor"))
    };
    let kind = match change.kind.ok_or(CodecError::Missing("kind of a change"))? {
        Kind::RunPreparing(_) => ChangeKind::RunPreparing,
        Kind::RunAccepted(_) => ChangeKind::RunAccepted,
        Kind::RunStarted(_) => ChangeKind::RunStarted,
        Kind::CancelRequested(request) => ChangeKind::CancelRequested(Box::new(decode_cancel(request)?)),
        Kind::RunEnded(ended) => ChangeKind::RunEnded {
            state: code("RunState", ended.state_code, RunState::from_code)?,
            reason: code("RunReason", ended.reason_code, RunReason::from_code)?,
        },
        Kind::StepReady(_) => ChangeKind::StepReady { step },
        Kind::StepSkipped(skipped) => ChangeKind::StepSkipped {
            step,
            reason: code("SkipReason", skipped.reason_code, SkipReason::from_code)?,
        },
        Kind::StepCached(cached) => ChangeKind::StepCached {
            step,
            source: AttemptId {
                run: RunId::from_slice(&cached.run_id).ok_or(CodecError::Missing("run of a reused attempt"))?,
                step: StepIndex(cached.step),
                number: cached.number,
            },
        },
        Kind::StepCancelled(cancelled) => ChangeKind::StepCancelled {
            step,
            cause: cause(cancelled.cause_code)?,
        },
        Kind::StepFailed(failed) => ChangeKind::StepFailed {
            step,
            number,
            reason: code("StepFailure", failed.reason_code, StepFailure::from_code)?,
        },
        Kind::AttemptLaunched(launched) => ChangeKind::AttemptLaunched {
            step,
            number,
            executor: executor(launched.executor)?,
        },
        Kind::AttemptRegranted(regranted) => ChangeKind::AttemptRegranted {
            step,
            number,
            grant: regranted.grant,
            executor: executor(regranted.executor)?,
        },
        Kind::AttemptCreated(created) => ChangeKind::AttemptCreated {
            step,
            number,
            pod: PodUid::from_slice(&created.pod_uid).ok_or(CodecError::Missing("uid of a pod"))?,
        },
        Kind::AttemptProgressed(progressed) => ChangeKind::AttemptProgressed {
            step,
            number,
            phase: code("AttemptPhase", progressed.phase_code, AttemptPhase::from_code)?,
            detail: progressed.detail.map(decode_phase),
        },
        Kind::AttemptRunning(running) => ChangeKind::AttemptRunning {
            step,
            number,
            started_at: after(at, running.start_offset),
            node: running.node.map(Into::into),
        },
        Kind::StopRequested(stop) => ChangeKind::StopRequested {
            step,
            number,
            cause: cause(stop.cause_code)?,
            grace_ms: stop.grace,
        },
        Kind::ContactLost(lost) => ChangeKind::ContactLost {
            step,
            number,
            cause: code("LostCause", lost.cause_code, LostCause::from_code)?,
            detail: lost.detail.map(decode_phase),
        },
        Kind::ContactRegained(regained) => ChangeKind::ContactRegained {
            step,
            number,
            state: code("StepState", regained.state_code, StepState::from_code)?,
        },
        Kind::AttemptSucceeded(succeeded) => ChangeKind::AttemptSucceeded {
            step,
            number,
            ended_at: after(at, succeeded.end_offset),
            detail: succeeded.detail.map(decode_end_detail),
        },
        Kind::AttemptFailed(failed) => ChangeKind::AttemptFailed {
            step,
            number,
            failure: Box::new(decode_failure(failed, at)?),
        },
        Kind::DeathProven(proven) => ChangeKind::DeathProven {
            step,
            number,
            confirmed_by: proven.confirmed_by.map(Into::into),
        },
    };
    Ok((at, kind))
}

pub(super) fn encode_cancel(request: &CancelRequest) -> stored::CancelRequested {
    stored::CancelRequested {
        cause_code: request.cause.code().into(),
        grace: request
            .grace
            .map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        reason: request.reason.to_string(),
        by: request.by.to_string(),
    }
}

pub(super) fn decode_cancel(request: stored::CancelRequested) -> Result<CancelRequest, CodecError> {
    Ok(CancelRequest {
        cause: cause(request.cause_code)?,
        grace: request.grace.map(Duration::from_millis),
        reason: request.reason.into(),
        by: request.by.into(),
    })
}

fn encode_failure(failure: &AttemptFailure, at: Timestamp) -> stored::AttemptFailed {
    let AttemptFailure { end, next } = failure;
    stored::AttemptFailed {
        class_code: end.class.map_or(0, |class| class.code().into()),
        exit_code: end.exit_code,
        end_offset: offset(end.ended_at, at),
        proof_of_death: end.proof_of_death,
        detail: end.detail.as_deref().map(encode_end_detail),
        next: Some(match *next {
            AfterFailure::Failed => Next::Failed(stored::FailedForGood {}),
            AfterFailure::Cancelled(cause) => Next::CancelledCauseCode(cause.code().into()),
            AfterFailure::Retry {
                until,
                budget,
                charged,
                allowed,
            } => Next::Retry(stored::Retry {
                until_offset: offset(until, at),
                budget_code: budget.code().into(),
                charged,
                allowed,
            }),
        }),
    }
}

fn decode_failure(failed: stored::AttemptFailed, at: Timestamp) -> Result<AttemptFailure, CodecError> {
    let class = optional_code("FailureClass", failed.class_code, FailureClass::from_code)?;
    let next = match failed.next.ok_or(CodecError::Missing("what follows a failure"))? {
        Next::Failed(_) => AfterFailure::Failed,
        Next::CancelledCauseCode(code) => AfterFailure::Cancelled(cause(code)?),
        Next::Retry(retry) => AfterFailure::Retry {
            until: after(at, retry.until_offset),
            budget: code("Budget", retry.budget_code, Budget::from_code)?,
            charged: retry.charged,
            allowed: retry.allowed,
        },
    };
    let end = AttemptEnd {
        class,
        exit_code: failed.exit_code,
        ended_at: after(at, failed.end_offset),
        proof_of_death: failed.proof_of_death,
        detail: failed.detail.map(decode_end_detail),
    };
    Ok(AttemptFailure { end, next })
}

pub(super) fn encode_phase(detail: &PhaseDetail) -> stored::PhaseDetail {
    stored::PhaseDetail {
        node: detail.node.as_deref().map(str::to_owned),
        reason: detail.reason.to_string(),
        message: detail.message.to_string(),
    }
}

pub(super) fn decode_phase(detail: stored::PhaseDetail) -> Box<PhaseDetail> {
    Box::new(PhaseDetail {
        node: detail.node.map(Into::into),
        reason: detail.reason.into(),
        message: detail.message.into(),
    })
}

fn encode_end_detail(detail: &EndDetail) -> stored::EndDetail {
    stored::EndDetail {
        reason: detail.reason.to_string(),
        message: detail.message.to_string(),
        evidence: detail.evidence.iter().map(ToString::to_string).collect(),
        termination_message: detail.termination_message.to_string(),
    }
}

fn decode_end_detail(detail: stored::EndDetail) -> Box<EndDetail> {
    Box::new(EndDetail {
        reason: detail.reason.into(),
        message: detail.message.into(),
        evidence: detail.evidence.into_iter().map(Into::into).collect(),
        termination_message: detail.termination_message.into(),
    })
}

/// Wrapping, so that every time comes back whatever the clocks said.
pub(super) fn offset(time: Timestamp, base: Timestamp) -> i64 {
    time.as_millis().wrapping_sub(base.as_millis())
}

pub(super) fn after(base: Timestamp, offset: i64) -> Timestamp {
    Timestamp::from_millis(base.as_millis().wrapping_add(offset))
}

pub(super) fn cause(number: u32) -> Result<StopCause, CodecError> {
    code("StopCause", number, StopCause::from_code)
}

pub(super) fn code<T>(what: &'static str, code: u32, from: impl Fn(u8) -> Option<T>) -> Result<T, CodecError> {
    u8::try_from(code)
        .ok()
        .and_then(from)
        .ok_or(CodecError::Code { what, code })
}

/// Where 0 stands for nothing.
pub(super) fn optional_code<T>(
    what: &'static str,
    number: u32,
    from: impl Fn(u8) -> Option<T>,
) -> Result<Option<T>, CodecError> {
    match number {
        0 => Ok(None),
        number => code(what, number, from).map(Some),
    }
}
