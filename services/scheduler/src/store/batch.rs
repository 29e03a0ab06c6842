//! What the driver hands over in one commit, and what it gets back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use windlass_ids::{InstallationId, RunId, Timestamp};
use windlass_scheduling::{Change, RunSnapshot};

use super::{
    Deletion, DeliveryWrite, PackedDefinition, RequestRecord, RunHeader, RunProgress, RunSecret, RunSecretWrite,
    Schedule, ScheduleWrite, StoreError,
};

/// Everything that becomes durable together, or not at all.
///
/// Rows are written in the order of the fields: a run may be accepted, updated and deleted in one batch.
#[derive(Clone, Debug, Default)]
pub struct CommitBatch {
    /// The scheduler's time; recovery's clock never starts below the last committed one.
    pub time: Timestamp,
    /// Accepted runs, with their first changes in `changes`.
    pub new_runs: Vec<NewRun>,
    /// Decisions of the core. Those of one run are in the order of their sequence numbers.
    pub changes: Vec<Change>,
    /// Headers that changed. A header need not follow every change: once per run and batch is enough, and for counts alone
    /// less often, since what an active run shows comes from the core.
    pub updates: Vec<HeaderUpdate>,
    /// Request ids of mutations other than submissions.
    pub requests: Vec<RequestRecord>,
    /// Messages to other systems.
    pub deliveries: Vec<DeliveryWrite>,
    /// Ended runs whose history goes while their headers stay.
    pub forgotten: Vec<RunId>,
    /// Ended runs that go altogether. Their request ids stay for another [`super::REQUEST_KEY_RETENTION`].
    pub deleted: Vec<Deletion>,
    /// Schedules that are new, have changed or are gone, in this order. A fire's run and its schedule are in one batch.
    pub schedules: Vec<ScheduleWrite>,
    /// What becomes of the records of Secrets of runs and schedules.
    pub secrets: Vec<RunSecretWrite>,
}

impl CommitBatch {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        let Self {
            time: _,
            new_runs,
            changes,
            updates,
            requests,
            deliveries,
            forgotten,
            deleted,
            schedules,
            secrets,
        } = self;
        new_runs.is_empty()
            && changes.is_empty()
            && updates.is_empty()
            && requests.is_empty()
            && deliveries.is_empty()
            && forgotten.is_empty()
            && deleted.is_empty()
            && schedules.is_empty()
            && secrets.is_empty()
    }

    /// What it weighs when commits are put together: about the rows and changes that it makes.
    pub(crate) fn weight(&self) -> usize {
        self.changes.len()
            + 8 * (self.new_runs.len() + self.updates.len() + self.requests.len())
            + 8 * (self.schedules.len() + self.deliveries.len() + self.secrets.len())
            + 16 * self.deleted.len()
            + 64 * self.forgotten.len()
    }
}

/// An accepted run.
///
/// Its id, its name in the namespace and its request id are new: the driver has looked, and only it adds any. If one is not,
/// the commit fails like any other, with [`StoreError::Conflict`].
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its header.
    pub header: RunHeader,
    /// Its definitions, at most one of each kind.
    pub definitions: Vec<PackedDefinition>,
    /// The client's request id.
    pub request: Option<RequestRecord>,
}

/// A header that changed.
#[derive(Clone, Debug)]
pub struct HeaderUpdate {
    /// The run.
    pub run: RunId,
    /// Its progress now.
    pub progress: RunProgress,
}

/// A durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its number in the partition. Batches that were committed together share it.
    pub commit_no: u64,
}

/// Resolves once its batch is durable, or never will be. Dropping it changes nothing about the commit.
#[derive(Debug)]
pub struct CommitTicket {
    outcome: oneshot::Receiver<Result<Committed, StoreError>>,
}

impl CommitTicket {
    pub(crate) fn new() -> (oneshot::Sender<Result<Committed, StoreError>>, Self) {
        let (sender, outcome) = oneshot::channel();
        (sender, Self { outcome })
    }
}

impl Future for CommitTicket {
    type Output = Result<Committed, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(StoreError::Closed)))
    }
}

/// What the store knows at start.
#[derive(Debug)]
pub struct Recovery {
    /// Identity of the store, the value of the label `windlass.dev/installation`.
    pub installation: InstallationId,
    /// The new epoch: it fences everybody who held the partition before.
    pub epoch: u64,
    /// The last durable commit.
    pub commit_no: u64,
    /// Time of the last durable commit; the clock must not start below it.
    pub last_time: Timestamp,
    /// The schedules.
    pub schedules: Vec<Schedule>,
    /// Where Secrets of runs and schedules may be, ended and deleted ones included.
    pub secrets: Vec<RunSecret>,
    /// The runs that have not ended, ordered by id. They are read while they are consumed.
    pub runs: RecoveredRuns,
}

/// Runs that have not ended, one after the other.
#[derive(Debug)]
pub struct RecoveredRuns {
    pub(crate) receiver: tokio::sync::mpsc::Receiver<Result<RecoveredRun, StoreError>>,
}

impl RecoveredRuns {
    /// The next run; `None` after the last one. An error ends the recovery: what came before it must not be used.
    pub async fn next(&mut self) -> Option<Result<RecoveredRun, StoreError>> {
        self.receiver.recv().await
    }
}

/// A run that has not ended, with everything that brings it back.
#[derive(Clone, Debug)]
pub struct RecoveredRun {
    /// Its header; its progress may be older than its changes.
    pub header: RunHeader,
    /// Its resolved definition.
    pub definition: Vec<u8>,
    /// Its newest snapshot.
    pub snapshot: Option<RunSnapshot>,
    /// Its changes after the snapshot (all of them without one), in order.
    pub changes: Vec<Change>,
}
