//! Messages of executors as events of the core.

use std::collections::BTreeMap;

use windlass_api::convert::timestamp_from_proto;
use windlass_api::dispatch::v1 as wire;
use windlass_api::run::v1::FailureClass as WireClass;
use windlass_ids::{AttemptId, PodUid, RunId, StepIndex};
use windlass_scheduling::{AttemptEnd, AttemptPhase, EndDetail, FailureClass, Inventory, Observation, ShardSet};

/// Most observations and creates in flight of one inventory.
const MAX_INVENTORY: usize = 4_000_000;

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

/// Joins the chunks of an inventory.
#[derive(Debug, Default)]
pub(crate) struct InventoryChunks {
    /// Number of the inventory, and of the chunk that comes next.
    next: (u64, u32),
    inventory: Inventory,
    /// Containers of the pods, for the log relays.
    containers: BTreeMap<AttemptId, Vec<String>>,
}

/// A whole inventory.
#[derive(Debug)]
pub(crate) struct WholeInventory {
    pub(crate) inventory: Inventory,
    pub(crate) containers: BTreeMap<AttemptId, Vec<String>>,
    /// The last numbered message of the scheduler that it reflects.
    pub(crate) reflects_sequence: u64,
}

impl InventoryChunks {
    /// Adds a chunk; returns the inventory with the last one. One of which a chunk did not come is none: another
    /// one is to be asked for.
    ///
    /// # Errors
    /// When a part cannot be understood or the inventory is too large.
    pub(crate) fn add(&mut self, chunk: wire::Inventory) -> Result<Option<WholeInventory>, Fault> {
        if chunk.chunk == 0 {
            *self = Self::default();
            self.next = (chunk.inventory, 0);
        }
        if self.next != (chunk.inventory, chunk.chunk) {
            return Ok(None);
        }
        self.next.1 += 1;
        let shards: [u8; 32] = chunk.shards[..]
            .try_into()
            .map_err(|_| "inventory.shards must have 32 bytes")?;
        self.inventory.shards = ShardSet::from_bytes(&shards);
        for mut message in chunk.observations {
            let containers = std::mem::take(&mut message.containers);
            let observation = observation(message)?;
            if !containers.is_empty() {
                self.containers.insert(observation.attempt, containers);
            }
            self.inventory.observations.push(observation);
        }
        for key in &chunk.in_flight {
            self.inventory.in_flight.push(attempt(Some(key))?);
        }
        if self.inventory.observations.len() + self.inventory.in_flight.len() > MAX_INVENTORY {
            return Err(format!("an inventory may list at most {MAX_INVENTORY} attempts"));
        }
        if !chunk.last {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(WholeInventory {
            inventory: whole.inventory,
            containers: whole.containers,
            reflects_sequence: chunk.reflects_sequence,
        }))
    }
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

    #[test]
    fn an_inventory_is_whole_with_its_last_chunk() {
        let mut chunks = InventoryChunks::default();
        let chunk = |inventory, chunk, last| wire::Inventory {
            shards: vec![0xff; 32],
            reflects_sequence: 9,
            observations: vec![message()],
            last,
            inventory,
            chunk,
            ..wire::Inventory::default()
        };
        let mut add = |of, number, last| chunks.add(chunk(of, number, last)).expect("understood");
        assert!(add(1, 0, false).is_none());
        let whole = add(1, 1, true).expect("whole");
        assert_eq!(whole.inventory.observations.len(), 2);
        assert_eq!(whole.inventory.shards, ShardSet::ALL);
        assert_eq!(whole.reflects_sequence, 9);
        assert!(add(2, 0, true).is_some_and(|next| next.inventory.observations.len() == 1));
        // The first chunk of the third went to another stream; the fourth begins before the third has ended.
        assert!(add(3, 1, true).is_none());
        assert!(add(4, 0, false).is_none() && add(5, 0, false).is_none() && add(4, 1, true).is_none());
        assert!(add(5, 1, true).is_some_and(|next| next.inventory.observations.len() == 2));
    }
}
