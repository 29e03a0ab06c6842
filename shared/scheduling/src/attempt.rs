//! The newest attempt of a step, while it lives or is awaited.

use std::sync::Arc;

use windlass_ids::{PodUid, StepIndex, Timestamp};

use crate::change::{ExecutorIdentity, PhaseDetail};
use crate::snapshot::AttemptSnapshot;
use crate::state::{AttemptPhase, FailureClass, LostCause, StopCause};

/// No time: sorts behind every other one.
pub(crate) const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// No cluster known yet.
pub(crate) const NO_CLUSTER: u32 = u32::MAX;

/// The newest attempt of a step. What only a troubled one needs is boxed, since 100,000 of these may live at a time.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) step: StepIndex,
    pub(crate) grant: u32,
    pub(crate) executor: Arc<ExecutorIdentity>,
    pub(crate) phase: AttemptPhase,
    /// More than one executor was told to create its pod.
    pub(crate) shared: bool,
    pub(crate) pod: Option<PodUid>,
    pub(crate) launched_at: Timestamp,
    pub(crate) phase_at: Timestamp,
    /// `NEVER` before the main container runs.
    pub(crate) started_at: Timestamp,
    pub(crate) detail: Option<Box<PhaseDetail>>,
    pub(crate) trouble: Option<Box<Trouble>>,
    /// Volatile: index of the cluster.
    pub(crate) cluster: u32,
    /// Volatile: order of the last launch in its executor's session; 0 when that session is not this one.
    pub(crate) order: u64,
    /// Volatile: when its timer is filed; `NEVER` when it is not.
    pub(crate) filed: Timestamp,
    /// Volatile: what the cluster's blind time (ms) was when the running clock started.
    pub(crate) blind_mark: i64,
}

/// The less common part of an attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) stopping: Option<Stopping>,
    pub(crate) lost: Option<Lost>,
    /// It has failed; the next one may start then.
    pub(crate) retry_until: Option<Timestamp>,
    pub(crate) failed_with: Option<FailureClass>,
    pub(crate) proof_of_death: bool,
    /// Volatile: before this, absence is not concluded.
    pub(crate) fence_until: Option<Timestamp>,
    /// Volatile: absence was reported before the fence; look again at its end.
    pub(crate) recheck: bool,
}

/// A stop that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopping {
    pub(crate) cause: StopCause,
    pub(crate) since: Timestamp,
    pub(crate) grace_ms: u32,
}

/// Contact that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) cause: LostCause,
    pub(crate) since: Timestamp,
}

impl Attempt {
    pub(crate) fn launched(step: StepIndex, executor: Arc<ExecutorIdentity>, at: Timestamp) -> Self {
        Self {
            step,
            grant: 1,
            executor,
            phase: AttemptPhase::Launched,
            shared: false,
            pod: None,
            launched_at: at,
            phase_at: at,
            started_at: NEVER,
            detail: None,
            trouble: None,
            cluster: NO_CLUSTER,
            order: 0,
            filed: NEVER,
            blind_mark: 0,
        }
    }

    pub(crate) fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    pub(crate) fn stopping(&self) -> Option<Stopping> {
        self.trouble.as_ref()?.stopping
    }

    pub(crate) fn lost(&self) -> Option<Lost> {
        self.trouble.as_ref()?.lost
    }

    pub(crate) fn retry_until(&self) -> Option<Timestamp> {
        self.trouble.as_ref()?.retry_until
    }

    pub(crate) fn fence_until(&self) -> Option<Timestamp> {
        self.trouble.as_ref()?.fence_until
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.phase == AttemptPhase::Ended
    }

    pub(crate) fn is_proven_dead(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.proof_of_death)
    }

    /// Its main container was seen running.
    pub(crate) fn has_started(&self) -> bool {
        self.started_at != NEVER
    }

    pub(crate) fn node(&self) -> Option<&str> {
        self.detail.as_ref()?.node.as_deref()
    }

    /// Takes a newer detail over; a node once known stays known.
    pub(crate) fn set_detail(&mut self, detail: Option<Box<PhaseDetail>>) {
        let node = self.detail.take().and_then(|detail| detail.node);
        self.detail = match (detail, node) {
            (Some(mut detail), node) => {
                detail.node = detail.node.or(node);
                Some(detail)
            }
            (None, Some(node)) => Some(Box::new(PhaseDetail {
                node: Some(node),
                ..PhaseDetail::default()
            })),
            (None, None) => None,
        };
    }

    pub(crate) fn snapshot(&self) -> AttemptSnapshot {
        let trouble = self.trouble.as_deref();
        AttemptSnapshot {
            step: self.step,
            phase: self.phase,
            phase_at: self.phase_at,
            grant: self.grant,
            executor: Arc::clone(&self.executor),
            shared: self.shared,
            pod: self.pod,
            launched_at: self.launched_at,
            started_at: self.has_started().then_some(self.started_at),
            stopping: self.stopping().map(|stop| (stop.cause, stop.since, stop.grace_ms)),
            lost: self.lost().map(|lost| (lost.cause, lost.since)),
            retry_until: self.retry_until(),
            failed_with: trouble.and_then(|trouble| trouble.failed_with),
            proof_of_death: self.is_proven_dead(),
            detail: self.detail.clone(),
        }
    }

    pub(crate) fn restore(snapshot: AttemptSnapshot) -> Self {
        let mut attempt = Self::launched(snapshot.step, snapshot.executor, snapshot.launched_at);
        attempt.grant = snapshot.grant;
        attempt.phase = snapshot.phase;
        attempt.phase_at = snapshot.phase_at;
        attempt.shared = snapshot.shared;
        attempt.pod = snapshot.pod;
        attempt.started_at = snapshot.started_at.unwrap_or(NEVER);
        attempt.detail = snapshot.detail;
        let trouble = Trouble {
            stopping: snapshot
                .stopping
                .map(|(cause, since, grace_ms)| Stopping { cause, since, grace_ms }),
            lost: snapshot.lost.map(|(cause, since)| Lost { cause, since }),
            retry_until: snapshot.retry_until,
            failed_with: snapshot.failed_with,
            proof_of_death: snapshot.proof_of_death,
            fence_until: None,
            recheck: false,
        };
        let troubled = trouble.stopping.is_some()
            || trouble.lost.is_some()
            || trouble.retry_until.is_some()
            || trouble.failed_with.is_some()
            || trouble.proof_of_death;
        attempt.trouble = troubled.then(|| Box::new(trouble));
        attempt
    }
}
