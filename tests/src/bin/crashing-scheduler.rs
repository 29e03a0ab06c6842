//! The scheduler, killed by SIGKILL right before or right after its nth commit: `WINDLASS_CRASH=before:7` or `after:7`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use clap::Parser as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_ids::{Namespace, RequestId, RunId, Timestamp};
use windlass_scheduler::Config;
use windlass_scheduler::server;
use windlass_scheduler::store::{
    CommitBatch, CommitTicket, DefinitionKind, DeletedRun, Delivery, EndedRun, FoundRun, HistoryError, PageToken,
    Recovery, RequestRecord, RunFilter, RunHeader, RunPage, Store, StoreError,
};
use windlass_scheduling::Change;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before(u64),
    After(u64),
}

fn moment() -> anyhow::Result<Moment> {
    let text = std::env::var("WINDLASS_CRASH").context("WINDLASS_CRASH says when")?;
    let (side, number) = text.split_once(':').context("before:N or after:N")?;
    let number = number.parse().context("a number of a commit, from 1")?;
    match side {
        "before" => Ok(Moment::Before(number)),
        "after" => Ok(Moment::After(number)),
        _ => anyhow::bail!("{side:?} is neither before nor after"),
    }
}

/// A store that ends its process at a commit.
struct CrashingStore {
    inner: Arc<dyn Store>,
    commits: AtomicU64,
    moment: Moment,
}

impl fmt::Debug for CrashingStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CrashingStore")
            .field("moment", &self.moment)
            .finish_non_exhaustive()
    }
}

async fn crash() {
    kill(Pid::this(), Signal::SIGKILL).expect("a process may kill itself");
    std::future::pending().await
}

#[async_trait::async_trait]
impl Store for CrashingStore {
    async fn recover(&self) -> Result<Recovery, StoreError> {
        self.inner.recover().await
    }

    async fn commit(&self, batch: CommitBatch) -> Result<CommitTicket, StoreError> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if self.moment == Moment::Before(number) {
            crash().await;
        }
        let ticket = self.inner.commit(batch).await?;
        if self.moment == Moment::After(number) {
            // Durable, and nobody has been told.
            ticket.await?;
            crash().await;
            std::process::abort();
        }
        Ok(ticket)
    }

    fn admit(&self) -> Result<(), StoreError> {
        self.inner.admit()
    }

    async fn fold(&self) -> Result<(), StoreError> {
        self.inner.fold().await
    }

    async fn run(&self, run: RunId) -> Result<Option<RunHeader>, StoreError> {
        self.inner.run(run).await
    }

    async fn find_run(&self, namespace: Option<&Namespace>, reference: &str) -> Result<FoundRun, StoreError> {
        self.inner.find_run(namespace, reference).await
    }

    async fn list_runs(
        &self,
        filter: &RunFilter,
        token: Option<&PageToken>,
        limit: usize,
    ) -> Result<RunPage, StoreError> {
        self.inner.list_runs(filter, token, limit).await
    }

    async fn ended_runs(
        &self,
        before: Timestamp,
        after: Option<EndedRun>,
        limit: usize,
    ) -> Result<Vec<EndedRun>, StoreError> {
        self.inner.ended_runs(before, after, limit).await
    }

    async fn deleted_run(&self, namespace: &Namespace, reference: &str) -> Result<Option<DeletedRun>, StoreError> {
        self.inner.deleted_run(namespace, reference).await
    }

    async fn deleted_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
        self.inner.deleted_among(runs).await
    }

    async fn deliveries(&self, target: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.inner.deliveries(target, limit).await
    }

    async fn delivery_targets(&self) -> Result<Vec<String>, StoreError> {
        self.inner.delivery_targets().await
    }

    async fn history(&self, run: RunId, from: u64, limit: usize) -> Result<Vec<Change>, HistoryError> {
        self.inner.history(run, from, limit).await
    }

    async fn definition(&self, run: RunId, kind: DefinitionKind) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.definition(run, kind).await
    }

    async fn requests(&self, keys: &[(Namespace, RequestId)]) -> Result<Vec<Option<RequestRecord>>, StoreError> {
        self.inner.requests(keys).await
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    let moment = moment()?;
    let listener = TcpListener::bind(config.listen).await?;
    let open = server::opener(&config);
    let open = Arc::new(move || {
        let store = CrashingStore {
            inner: open()?,
            commits: AtomicU64::new(0),
            moment,
        };
        Ok(Arc::new(store) as Arc<dyn Store>)
    });
    server::run_on(config, open, listener, CancellationToken::new()).await
}
