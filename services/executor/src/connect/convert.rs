//! Between the core's types and the messages of the dispatch protocol.

use prost_types::Timestamp as ProtoTimestamp;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::run::v1 as run;
use windlass_ids::{AttemptId, RunId, StepIndex, Timestamp};

use crate::attempts::{End, FailureClass, Phase, Sight};

/// The attempt that a message names; nothing when it names none.
pub(crate) fn attempt_id(key: Option<&dispatch::AttemptKey>) -> Option<AttemptId> {
    let key = key?;
    Some(AttemptId {
        run: RunId::from_slice(&key.run_id)?,
        step: StepIndex(key.step),
        number: key.attempt,
    })
}

/// Names an attempt.
pub(crate) fn attempt_key(attempt: AttemptId) -> dispatch::AttemptKey {
    dispatch::AttemptKey {
        run_id: attempt.run.as_bytes().to_vec().into(),
        step: attempt.step.0,
        attempt: attempt.number,
    }
}

/// As a message.
pub(crate) fn observation(sight: Sight) -> dispatch::Observation {
    dispatch::Observation {
        attempt: Some(attempt_key(sight.attempt)),
        grant: sight.grant,
        pod_uid: sight.pod_uid,
        pod_name: sight.pod_name,
        phase: phase(sight.phase).into(),
        node: sight.node,
        create_time: sight.create_time.map(timestamp),
        start_time: sight.start_time.map(timestamp),
        reason: sight.reason,
        message: sight.message,
        end: sight.end.map(end),
        terminating: sight.terminating,
        containers: sight.containers,
    }
}

/// As a message.
pub(crate) fn timestamp(time: Timestamp) -> ProtoTimestamp {
    let millis = time.as_millis();
    ProtoTimestamp {
        seconds: millis.div_euclid(1000),
        nanos: i32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
    }
}

fn phase(phase: Phase) -> dispatch::AttemptPhase {
    match phase {
        Phase::Refused => dispatch::AttemptPhase::Refused,
        Phase::Created => dispatch::AttemptPhase::Created,
        Phase::Scheduled => dispatch::AttemptPhase::Scheduled,
        Phase::Pulling => dispatch::AttemptPhase::Pulling,
        Phase::Initialising => dispatch::AttemptPhase::Initialising,
        Phase::Running => dispatch::AttemptPhase::Running,
        Phase::Unreachable => dispatch::AttemptPhase::Unreachable,
        Phase::Ended => dispatch::AttemptPhase::Ended,
        Phase::Absent => dispatch::AttemptPhase::Absent,
    }
}

fn end(end: End) -> dispatch::AttemptEnd {
    dispatch::AttemptEnd {
        succeeded: end.class.is_none(),
        exit_code: end.exit_code,
        failure_class: end.class.map_or(run::FailureClass::Unspecified, class).into(),
        reason: end.reason,
        message: end.message,
        evidence: end.evidence,
        termination_message: end.termination_message,
        end_time: end.end_time.map(timestamp),
        proof_of_death: end.proof_of_death,
    }
}

fn class(class: FailureClass) -> run::FailureClass {
    match class {
        FailureClass::UserError => run::FailureClass::UserError,
        FailureClass::OomKilled => run::FailureClass::OomKilled,
        FailureClass::Evicted => run::FailureClass::Evicted,
        FailureClass::Preempted => run::FailureClass::Preempted,
        FailureClass::NodeLost => run::FailureClass::NodeLost,
        FailureClass::Image => run::FailureClass::Image,
        FailureClass::Config => run::FailureClass::Config,
        FailureClass::Deadline => run::FailureClass::Deadline,
        FailureClass::PodDeleted => run::FailureClass::PodDeleted,
        FailureClass::Rejected => run::FailureClass::Rejected,
    }
}
