//! The store: everything the scheduler has acknowledged, durable (I1).
//!
//! One driver hands over batches of decisions and holds back every reply and effect until its [`CommitTicket`] resolves. At
//! start it takes the partition over with [`Store::recover`] and applies what was decided; nothing is decided a second time.
//! Reads see only what is durable.
//!
//! There is no row per step or event: a commit is one journal row with the packed changes of all runs. A background fold moves
//! them into a history per run and writes snapshots of long runs, so that the journal stays short.
//!
//! Nothing here knows gRPC, Kubernetes or the rules of the core. [`sqlite::SqliteStore`] is the embedded implementation; another
//! database needs the same tables and this trait.

mod batch;
mod codec;
mod definition;
mod deleted;
mod delivery;
mod error;
mod folder;
mod header;
mod list;
mod pack;
mod replay;
mod run_secret;
mod schedule;
pub mod sqlite;

use std::fmt;
use std::time::Duration;

use windlass_ids::{Namespace, RequestId, RunId, Timestamp};
use windlass_scheduling::{Change, RunSnapshot};

pub use batch::{CommitBatch, CommitTicket, Committed, HeaderUpdate, NewRun, RecoveredRun, RecoveredRuns, Recovery};
pub use definition::{DefinitionKind, MAX_PART, PackedDefinition};
pub use deleted::{DELETED_RETENTION, DeletedRun, Deletion, DeletionCause, EndedRun};
pub use delivery::{Delivery, DeliveryWrite};
pub use error::{HistoryError, StoreError};
pub use header::{FailedStep, Lineage, Operation, RequestRecord, RunFixed, RunHeader, RunProgress, RunSchedule};
pub use list::{FoundRun, MAX_PAGE, NamePattern, PageToken, PageTokenError, RunFilter, RunPage};
pub use replay::Replay;
pub use run_secret::{RunSecret, RunSecretWrite, ScheduleSecret, SecretOwner, SharedSecret};
pub use schedule::{
    CatchUp, FireOutcome, FireRecord, MAX_FIRES, Overlap, Schedule, ScheduleProgress, ScheduleSettings, ScheduleWrite,
    Timing,
};

/// How long a request id is kept after its run is gone.
pub const REQUEST_KEY_RETENTION: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Most changes that one read of a history gives.
pub const MAX_HISTORY: usize = 10_000;

/// Where runs are kept.
///
/// After a failed commit every later one fails with [`StoreError::Poisoned`], reads go on; the driver drops the handle, opens
/// the store again and recovers.
#[async_trait::async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Takes the partition over: begins a new epoch, which fences earlier holders, and gives back what has not ended.
    ///
    /// Commits are possible from then on. Once per handle.
    async fn recover(&self) -> Result<Recovery, StoreError>;

    /// Queues a batch and returns its ticket; waits while the bounded queue is full. Batches become durable in the order of
    /// the calls.
    async fn commit(&self, batch: CommitBatch) -> Result<CommitTicket, StoreError>;

    /// Refuses with [`StoreError::LowSpace`] when less than the reserve is free: to be asked before a submission is accepted.
    /// Costs a system call or two.
    fn admit(&self) -> Result<(), StoreError>;

    /// Folds everything that is durable now and waits for it. The background fold needs no call.
    async fn fold(&self) -> Result<(), StoreError>;

    /// The header of a run.
    async fn run(&self, run: RunId) -> Result<Option<RunHeader>, StoreError>;

    /// What `reference` stands for in a namespace (in all when `None`): `@latest`, an id, a name, or a prefix of one run's id
    /// or name, in this order.
    async fn find_run(&self, namespace: Option<&Namespace>, reference: &str) -> Result<FoundRun, StoreError>;

    /// A page of at most `limit` runs (bounded by [`MAX_PAGE`]), newest first, after `token`.
    async fn list_runs(
        &self,
        filter: &RunFilter,
        token: Option<&PageToken>,
        limit: usize,
    ) -> Result<RunPage, StoreError>;

    /// At most `limit` runs (bounded by [`MAX_PAGE`]) that ended before a time, in the order of their ends, after `after`.
    async fn ended_runs(
        &self,
        before: Timestamp,
        after: Option<EndedRun>,
        limit: usize,
    ) -> Result<Vec<EndedRun>, StoreError>;

    /// The run that was deleted last of those in a namespace with this id or name, for [`DELETED_RETENTION`].
    async fn deleted_run(&self, namespace: &Namespace, reference: &str) -> Result<Option<DeletedRun>, StoreError>;

    /// Those of `runs` that were deleted, for [`DELETED_RETENTION`].
    async fn deleted_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError>;

    /// At most `limit` messages that wait for a target, in the order in which they are due.
    async fn deliveries(&self, target: &str, limit: usize) -> Result<Vec<Delivery>, StoreError>;

    /// The targets for which messages wait.
    async fn delivery_targets(&self) -> Result<Vec<String>, StoreError>;

    /// Durable changes of a run from sequence number `from` on, without gaps, at most `limit` (bounded by [`MAX_HISTORY`]).
    /// Fewer than that mean that no more were durable.
    async fn history(&self, run: RunId, from: u64, limit: usize) -> Result<Vec<Change>, HistoryError>;

    /// A definition of a run, unpacked.
    async fn definition(&self, run: RunId, kind: DefinitionKind) -> Result<Option<Vec<u8>>, StoreError>;

    /// What is known about request ids, in the order asked.
    async fn requests(&self, keys: &[(Namespace, RequestId)]) -> Result<Vec<Option<RequestRecord>>, StoreError>;
}

/// Makes snapshots of runs for the fold; [`Replay`] does it with the core.
///
/// It is called on the fold's thread, so it must not block on the driver.
pub trait Snapshots: fmt::Debug + Send + Sync {
    /// The state after `changes`, which follow `base` without a gap; `None` when the run cannot be restored, which is no error:
    /// recovery then replays its history.
    fn snapshot(
        &self,
        header: &RunHeader,
        definition: &[u8],
        base: Option<&RunSnapshot>,
        changes: &[Change],
    ) -> Option<RunSnapshot>;
}
