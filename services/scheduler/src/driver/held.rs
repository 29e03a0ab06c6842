//! What waits for a commit: replies, acknowledgements and effects are held back until it is durable (I1).

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use windlass_ids::{AttemptId, ScheduleSecretId};
use windlass_scheduling::{Change, Effect, Explanation};

use super::command::{Refusal, ScheduleRefusal};
use super::reservations::Reservation;
use crate::errors::{SubmitError, Unavailable};
use crate::executors::Session;
use crate::read_model::RunEntry;
use crate::run_secrets::SecretKey;
use crate::schedules::{FireJob, ScheduleKey};
use crate::store::{CommitTicket, Deletion, RunSecret, Schedule, SecretOwner};

/// A batch on its way into the store; see the module.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Absent when nothing has to be committed: the batch only keeps its place behind earlier ones.
    pub(crate) ticket: Option<CommitTicket>,
    pub(crate) accepted: Vec<Arc<RunEntry>>,
    pub(crate) changes: Vec<Change>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) deleted: Vec<Deletion>,
    pub(crate) installed: Vec<Arc<Session>>,
    pub(crate) acknowledgements: Vec<Acknowledgement>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) reservations: Vec<Reservation>,
    /// Schedules that readers may see as they are now; `None` for one that is gone.
    pub(crate) schedules: Vec<(ScheduleKey, Option<Arc<Schedule>>)>,
    /// Whether there are messages to other systems.
    pub(crate) told: bool,
    /// Records of Secrets that are about to be made.
    pub(crate) secrets: Vec<RunSecret>,
    /// Records of Secrets that are gone.
    pub(crate) gone_secrets: Vec<SecretKey>,
    /// Secrets that their schedules have no more.
    pub(crate) left_secrets: Vec<ScheduleSecretId>,
    /// Secrets that their schedules will never have.
    pub(crate) abandoned_secrets: Vec<SecretOwner>,
    /// Schedules that are due.
    pub(crate) jobs: Vec<FireJob>,
}

/// A report of an executor that becomes durable.
#[derive(Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) session: Arc<Session>,
    pub(crate) sequence: u64,
    pub(crate) inventory: bool,
    pub(crate) containers: BTreeMap<AttemptId, Vec<String>>,
}

/// A reply that is held back.
#[derive(Debug)]
pub(crate) enum Answer {
    Submitted(oneshot::Sender<Result<(), SubmitError>>),
    Done(oneshot::Sender<Result<(), Refusal>>),
    Refused(oneshot::Sender<Result<(), Refusal>>, Refusal),
    SubmissionRefused(oneshot::Sender<Result<(), SubmitError>>, SubmitError),
    Explained(
        oneshot::Sender<Result<Vec<Explanation>, Refusal>>,
        Result<Vec<Explanation>, Refusal>,
    ),
    Schedule(
        oneshot::Sender<Result<Arc<Schedule>, ScheduleRefusal>>,
        Result<Arc<Schedule>, ScheduleRefusal>,
    ),
}

impl Answer {
    /// Sends the answer. Nobody may wait for it any more, which changes nothing.
    pub(crate) fn send(self) {
        match self {
            Self::Submitted(reply) => drop(reply.send(Ok(()))),
            Self::Done(reply) => drop(reply.send(Ok(()))),
            Self::Refused(reply, refusal) => drop(reply.send(Err(refusal))),
            Self::SubmissionRefused(reply, error) => drop(reply.send(Err(error))),
            Self::Explained(reply, answer) => drop(reply.send(answer)),
            Self::Schedule(reply, answer) => drop(reply.send(answer)),
        }
    }

    /// Says that the outcome is unknown instead.
    pub(crate) fn fail(self, error: Unavailable) {
        match self {
            Self::Submitted(reply) | Self::SubmissionRefused(reply, _) => drop(reply.send(Err(error.into()))),
            Self::Done(reply) | Self::Refused(reply, _) => drop(reply.send(Err(Refusal::Unavailable(error)))),
            Self::Explained(reply, _) => drop(reply.send(Err(Refusal::Unavailable(error)))),
            Self::Schedule(reply, _) => drop(reply.send(Err(ScheduleRefusal::Unavailable(error)))),
        }
    }
}

impl Held {
    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.accepted.is_empty()
            && self.changes.is_empty()
            && self.effects.is_empty()
            && self.deleted.is_empty()
            && self.installed.is_empty()
            && self.acknowledgements.is_empty()
            && self.answers.is_empty()
            && self.schedules.is_empty()
            && self.secrets.is_empty()
            && self.gone_secrets.is_empty()
            && self.left_secrets.is_empty()
            && self.abandoned_secrets.is_empty()
            && self.jobs.is_empty()
    }

    /// Discards everything: only those who wait are told.
    pub(crate) fn fail(self, error: Unavailable) {
        for answer in self.answers {
            answer.fail(error);
        }
    }
}
