//! The embedded store: SQLite, one file in a folder that one process holds.
//!
//! Three kinds of connections: the committer's, which is the only one that acknowledges anything; the fold's; and a few for
//! reads. SQLite has one writer at a time, so the first two take turns at a gate instead of polling for the database's lock.

mod chunk;
mod committer;
mod connection;
mod deletions;
mod deliveries;
mod fold;
mod gate;
mod history;
mod maintenance;
mod metric;
mod options;
mod pool;
mod query;
mod recovery;
mod rows;
mod run_secrets;
mod schedules;
mod schema;
mod shared;
mod snapshots;
mod tail;
mod write;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use windlass_ids::{Namespace, RequestId, RunId, Timestamp};
use windlass_scheduling::Change;

pub use self::options::SqliteOptions;

use self::committer::{Committer, Item};
use self::connection::{Purpose, failure, open};
use self::fold::{FoldHandle, Folder, Order};
use self::pool::ReadPool;
use self::recovery::{Position, RunReader};
use self::rows::RowError;
use self::shared::Shared;
use super::folder::{FolderLock, io};
use super::{
    CommitBatch, CommitTicket, DefinitionKind, DeletedRun, Delivery, EndedRun, FoundRun, HistoryError, PageToken,
    RecoveredRuns, Recovery, RequestRecord, RunFilter, RunHeader, RunPage, Store, StoreError,
};

/// Name of the database in the data folder.
pub const DATABASE: &str = "windlass.db";

/// Runs that recovery reads ahead.
const READ_AHEAD: usize = 16;

/// The embedded store.
///
/// Dropping it waits until what was queued is committed, then lets go of the data folder.
#[derive(Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
    pool: ReadPool,
    /// The committer's connection, until recovery hands it over.
    writer: Mutex<Option<Connection>>,
    running: OnceLock<Running>,
    /// Let go last.
    _lock: FolderLock,
}

/// What recovery started.
#[derive(Debug)]
struct Running {
    commits: mpsc::Sender<Item>,
    fold: FoldHandle,
    threads: Vec<JoinHandle<()>>,
}

impl SqliteStore {
    /// Takes the data folder, opens the database and brings its schema up to date. Blocks on the disk.
    pub fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let lock = FolderLock::acquire(&options.folder)?;
        let path = options.folder.join(DATABASE);
        let mut connection = open(&path, Purpose::Commit, options.max_bytes)?;
        schema::migrate(&mut connection, &path, options.installation)?;
        let shared = Arc::new(Shared::new(path, options));
        Ok(Self {
            pool: ReadPool::new(Arc::clone(&shared)),
            shared,
            writer: Mutex::new(Some(connection)),
            running: OnceLock::new(),
            _lock: lock,
        })
    }

    /// The database file.
    pub fn path(&self) -> PathBuf {
        self.shared.path.clone()
    }

    fn running(&self) -> Result<&Running, StoreError> {
        self.running.get().ok_or(StoreError::NotRecovered)
    }

    async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, RowError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.pool
            .read(move |connection, shared| read(connection).map_err(shared.row_error(action)))
            .await
    }
}

/// Runs on a thread that may block.
fn take_over(shared: &Arc<Shared>, mut connection: Connection) -> Result<(Recovery, Running), StoreError> {
    let path = &shared.path;
    let position = recovery::take_over(&mut connection).map_err(shared.row_error("recover from"))?;
    // One transaction for journal and histories, opened before the fold moves anything between them.
    let reader = open(path, Purpose::Read, None)?;
    let begin = reader.execute_batch("BEGIN");
    begin.map_err(|error| failure(path, "recover from", error))?;
    let (tail, groups) = recovery::read_tail(&reader, &position).map_err(shared.row_error("recover from"))?;
    *shared.tail() = tail;
    let schedules = schedules::all(&reader).map_err(shared.row_error("recover from"))?;
    let secrets = run_secrets::all(&reader).map_err(shared.row_error("recover from"))?;
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let runs = RunReader {
        connection: reader,
        shared: Arc::clone(shared),
        tail: groups,
        sender,
    };
    let running = start(shared, connection, &position, runs)?;
    let recovery = Recovery {
        installation: position.installation,
        epoch: position.epoch,
        commit_no: position.commit_no,
        last_time: position.last_time,
        schedules,
        secrets,
        runs: RecoveredRuns { receiver },
    };
    Ok((recovery, running))
}

fn start(
    shared: &Arc<Shared>,
    connection: Connection,
    position: &Position,
    runs: RunReader,
) -> Result<Running, StoreError> {
    let (orders_sender, orders) = std::sync::mpsc::sync_channel(16);
    let fold = FoldHandle(orders_sender);
    let folder = Folder {
        connection: open(&shared.path, Purpose::Fold, shared.options.max_bytes)?,
        shared: Arc::clone(shared),
        orders,
        epoch: position.epoch,
        folded: position.folded,
        snapshots: snapshots::SnapshotWriter::default(),
        checkpointer: maintenance::Checkpointer::default(),
    };
    let (commits, queue) = mpsc::channel(shared.options.queue_depth.max(1));
    let committer = Committer {
        connection,
        shared: Arc::clone(shared),
        fold: fold.clone(),
        queue,
        epoch: position.epoch,
        commit_no: position.commit_no,
    };
    fold.wake();
    // Not waited for: it ends with whoever consumes the runs.
    spawn(shared, "store-recovery", move || runs.run())?;
    let threads = vec![
        spawn(shared, "store-fold", move || folder.run())?,
        spawn(shared, "store-commit", move || committer.run())?,
    ];
    Ok(Running { commits, fold, threads })
}

fn spawn(shared: &Shared, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| io("start a thread for", &shared.path, error))
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn recover(&self) -> Result<Recovery, StoreError> {
        let taken = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connection = taken.ok_or(StoreError::AlreadyRecovered)?;
        let shared = Arc::clone(&self.shared);
        let work = tokio::task::spawn_blocking(move || take_over(&shared, connection));
        let (recovery, running) = work.await.map_err(|_| StoreError::Closed)??;
        self.running.set(running).map_err(|_| StoreError::AlreadyRecovered)?;
        Ok(recovery)
    }

    async fn commit(&self, batch: CommitBatch) -> Result<CommitTicket, StoreError> {
        self.shared.check_poison()?;
        let (reply, ticket) = CommitTicket::new();
        let sent = self.running()?.commits.send((batch, reply)).await;
        sent.map_err(|_| StoreError::Closed)?;
        Ok(ticket)
    }

    fn admit(&self) -> Result<(), StoreError> {
        self.shared.space.check()
    }

    async fn fold(&self) -> Result<(), StoreError> {
        let (reply, outcome) = oneshot::channel();
        let fold = self.running()?.fold.clone();
        let order = tokio::task::spawn_blocking(move || fold.0.send(Order::Now(reply)).is_ok());
        order.await.map_err(|_| StoreError::Closed)?;
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn run(&self, run: RunId) -> Result<Option<RunHeader>, StoreError> {
        self.read("read a run from", move |connection| query::run(connection, run))
            .await
    }

    async fn find_run(&self, namespace: Option<&Namespace>, reference: &str) -> Result<FoundRun, StoreError> {
        let (namespace, reference) = (namespace.cloned(), reference.to_owned());
        self.read("find a run in", move |connection| {
            query::find(connection, namespace.as_ref(), &reference)
        })
        .await
    }

    async fn list_runs(
        &self,
        filter: &RunFilter,
        token: Option<&PageToken>,
        limit: usize,
    ) -> Result<RunPage, StoreError> {
        let (filter, token) = (filter.clone(), token.cloned());
        self.read("list runs of", move |connection| {
            query::list(connection, &filter, token.as_ref(), limit)
        })
        .await
    }

    async fn ended_runs(
        &self,
        before: Timestamp,
        after: Option<EndedRun>,
        limit: usize,
    ) -> Result<Vec<EndedRun>, StoreError> {
        self.read("list ended runs of", move |connection| {
            deletions::ended(connection, before, after.as_ref(), limit)
        })
        .await
    }

    async fn deleted_run(&self, namespace: &Namespace, reference: &str) -> Result<Option<DeletedRun>, StoreError> {
        let (namespace, reference) = (namespace.clone(), reference.to_owned());
        self.read("look up deleted runs in", move |connection| {
            deletions::find(connection, &namespace, &reference)
        })
        .await
    }

    async fn deleted_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        let runs = runs.to_vec();
        self.read("look up deleted runs in", move |connection| {
            deletions::among(connection, &runs)
        })
        .await
    }

    async fn deliveries(&self, target: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let target = target.to_owned();
        self.read("read messages from", move |connection| {
            deliveries::waiting(connection, &target, limit)
        })
        .await
    }

    async fn delivery_targets(&self) -> Result<Vec<String>, StoreError> {
        self.read("read messages from", deliveries::targets).await
    }

    async fn history(&self, run: RunId, from: u64, limit: usize) -> Result<Vec<Change>, HistoryError> {
        self.pool
            .read(move |connection, shared| history::read(connection, shared, run, from, limit))
            .await
    }

    async fn definition(&self, run: RunId, kind: DefinitionKind) -> Result<Option<Vec<u8>>, StoreError> {
        self.read("read a definition from", move |connection| {
            if deletions::among(connection, &[run])?.is_empty() {
                rows::definition(connection, run, kind)
            } else {
                Ok(None)
            }
        })
        .await
    }

    async fn requests(&self, keys: &[(Namespace, RequestId)]) -> Result<Vec<Option<RequestRecord>>, StoreError> {
        let keys = keys.to_vec();
        self.read("look up request ids in", move |connection| {
            let sql = format!(
                "SELECT {} FROM request_key WHERE namespace = ?1 AND request_id = ?2",
                rows::REQUEST
            );
            let look_up = |(namespace, id): &(Namespace, RequestId)| {
                rows::first(connection, &sql, [namespace.as_str(), id.as_str()], rows::request)
            };
            keys.iter().map(look_up).collect()
        })
        .await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        let Some(Running { commits, fold, threads }) = self.running.take() else {
            return;
        };
        // The committer ends with its queue, the fold with its last handle.
        self.shared.close();
        drop((commits, fold));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("thread of the store panicked");
            }
        }
    }
}
