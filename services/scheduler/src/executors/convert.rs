//! Messages of executors as events of the core.

use windlass_api::convert::timestamp_from_proto;
use windlass_api::dispatch::v1 as wire;
use windlass_api::run::v1::FailureClass as WireClass;
use windlass_ids::{AttemptId, PodUid, RunId, StepIndex};
use windlass_scheduling::{AttemptEnd, AttemptPhase, EndDetail, FailureClass, Observation};

/// What cannot be understood, as text for the session's end.
pub(crate) type Fault = String;

/// The identity of an attempt.
pub(crate) fn attempt(key: Option<&wire::AttemptKey>) -> Result<AttemptId, Fault> {
    let key = key.ok_or("attempt is missing")?;
    let run = RunId::from_slice(&key.run_id).ok_or("attempt.run_id must have 16 bytes")?;
    if key.attempt == 0 {
        return Err("attempt.attempt counts from 1".to_owned());
    }
    Ok(AttemptId {
        run,
        step: StepIndex(key.step),
        number: key.attempt,
    })
}

/// What was seen of an attempt.
pub(crate) fn observation(message: wire::Observation) -> Result<Observation, Fault> {
    let phase = phase(message.phase())?;
    let id = attempt(message.attempt.as_ref())?;
    let grant = u32::try_from(message.grant).map_err(|_| "grant is too large")?;
    let mut observation = Observation::new(id, grant, pod(&message.pod_uid)?, phase);
    observation.node = (!message.node.is_empty()).then(|| message.node.into());
    observation.started_at = message.start_time.as_ref().map(timestamp_from_proto);
    observation.reason = message.reason.into();
    observation.message = message.message.into();
    observation.terminating = message.terminating;
    observation.end = message.end.map(end).transpose()?;
    Ok(observation)
}

fn pod(uid: &str) -> Result<Option<PodUid>, Fault> {
    if uid.is_empty() {
        return Ok(None);
    }
    uid.parse().map(Some).map_err(|error| format!("pod_uid: {error}"))
}

fn end(message: wire::AttemptEnd) -> Result<AttemptEnd, Fault> {
    let class = match (message.succeeded, message.failure_class()) {
        (true, _) => None,
        (false, class) => Some(failure_class(class).ok_or("end.failure_class is missing")?),
    };
    let detail = EndDetail {
        reason: message.reason.into(),
        message: message.message.into(),
        evidence: message.evidence.into_iter().map(Into::into).collect(),
        termination_message: message.termination_message.into(),
    };
    Ok(AttemptEnd {
        class,
        exit_code: message.exit_code,
        ended_at: message.end_time.as_ref().map(timestamp_from_proto).unwrap_or_default(),
        proof_of_death: message.proof_of_death,
        detail: (detail != EndDetail::default()).then(|| Box::new(detail)),
    })
}

fn phase(phase: wire::AttemptPhase) -> Result<AttemptPhase, Fault> {
    Ok(match phase {
        wire::AttemptPhase::Unspecified => return Err("phase is missing".to_owned()),
        wire::AttemptPhase::Refused => AttemptPhase::Refused,
        wire::AttemptPhase::Created => AttemptPhase::Created,
        wire::AttemptPhase::Scheduled => AttemptPhase::Scheduled,
        wire::AttemptPhase::Pulling => AttemptPhase::Pulling,
        wire::AttemptPhase::Initialising => AttemptPhase::Initialising,
        wire::AttemptPhase::Running => AttemptPhase::Running,
        wire::AttemptPhase::Unreachable => AttemptPhase::Unreachable,
        wire::AttemptPhase::Ended => AttemptPhase::Ended,
        wire::AttemptPhase::Absent => AttemptPhase::Absent,
    })
}

fn failure_class(class: WireClass) -> Option<FailureClass> {
    Some(match class {
        WireClass::Unspecified => return None,
        WireClass::UserError => FailureClass::UserError,
        WireClass::OomKilled => FailureClass::OomKilled,
        WireClass::Evicted => FailureClass::Evicted,
        WireClass::Preempted => FailureClass::Preempted,
        WireClass::NodeLost => FailureClass::NodeLost,
        WireClass::Image => FailureClass::Image,
        WireClass::Config => FailureClass::Config,
        WireClass::StartupTimeout => FailureClass::StartupTimeout,
        WireClass::Deadline => FailureClass::Deadline,
        WireClass::PodDeleted => FailureClass::PodDeleted,
        WireClass::Rejected => FailureClass::Rejected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> wire::Observation {
        wire::Observation {
            attempt: Some(wire::AttemptKey {
                run_id: vec![7; 16].into(),
                step: 3,
                attempt: 1,
            }),
            grant: 2,
            pod_uid: "0193ab03-0405-0607-0809-0a0b0c0d0e0f".to_owned(),
            phase: wire::AttemptPhase::Ended.into(),
            end: Some(wire::AttemptEnd {
                exit_code: Some(75),
                failure_class: WireClass::UserError.into(),
                proof_of_death: true,
                ..wire::AttemptEnd::default()
            }),
            ..wire::Observation::default()
        }
    }

    #[test]
    fn an_observation_is_taken_apart() {
        let observation = observation(message()).expect("understood");
        assert_eq!(observation.attempt.step, StepIndex(3));
        assert_eq!(observation.grant, 2);
        let end = observation.end.expect("an end");
        assert_eq!((end.class, end.exit_code), (Some(FailureClass::UserError), Some(75)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |change: fn(&mut wire::Observation)| {
            let mut message = message();
            change(&mut message);
            observation(message).expect_err("refused")
        };
        assert_eq!(with(|message| message.attempt = None), "attempt is missing");
        assert_eq!(with(|message| message.phase = 0), "phase is missing");
        assert!(with(|message| message.pod_uid = "x".to_owned()).starts_with("pod_uid"));
        let classless = with(|message| message.end = Some(wire::AttemptEnd::default()));
        assert_eq!(classless, "end.failure_class is missing");
    }
}
