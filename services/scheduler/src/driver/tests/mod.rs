//! The driver with a store that fails when it is told to.

mod schedules;
mod secrets;
mod sessions;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windlass_api::run::v1::SubmitRunRequest;
use windlass_ids::{InstallationId, Namespace, RequestId, RunId, Timestamp};
use windlass_scheduling::{Change, Config as CoreConfig};
use windlass_service::Clock;

use super::{Driver, Limits, OpenStore, inbox, recover};
use crate::admission::{Checker, Submitter, submit};
use crate::errors::{SubmitError, Unavailable};
use crate::grpc::{Api, Provided};
use crate::history::{Bound, History};
use crate::relays::Relays;
use crate::schedules::{FireJob, Firer};
use crate::shared::{Shared, Timing};
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{
    CommitBatch, CommitTicket, DefinitionKind, DeletedRun, Delivery, EndedRun, FoundRun, HistoryError, PageToken,
    Recovery, RequestRecord, RunFilter, RunHeader, RunPage, Store, StoreError,
};

/// A real store whose commits fail while the switch is on; what it was given before is committed.
#[derive(Debug)]
struct Faulty {
    inner: SqliteStore,
    broken: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Store for Faulty {
    async fn recover(&self) -> Result<Recovery, StoreError> {
        self.inner.recover().await
    }

    async fn commit(&self, batch: CommitBatch) -> Result<CommitTicket, StoreError> {
        if self.broken.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Io {
                action: "write",
                path: "store".into(),
                source: Arc::new(std::io::Error::other("the disk is gone")),
            });
        }
        self.inner.commit(batch).await
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

struct Bench {
    shared: Arc<Shared>,
    broken: Arc<AtomicBool>,
    opened: Arc<AtomicU32>,
    shutdown: CancellationToken,
    driving: JoinHandle<Result<(), StoreError>>,
}

/// A driver that does not run yet.
struct Built {
    driver: Driver,
    broken: Arc<AtomicBool>,
    opened: Arc<AtomicU32>,
    jobs: mpsc::Receiver<FireJob>,
}

fn build(data: &Path) -> Built {
    let (broken, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let options = SqliteOptions {
        reserve_bytes: 0,
        ..SqliteOptions::new(data, InstallationId::from_bytes([9; 16]))
    };
    let open: OpenStore = Arc::new({
        let (broken, opened) = (Arc::clone(&broken), Arc::clone(&opened));
        move || {
            opened.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::new(Faulty {
                inner: SqliteStore::open(options.clone())?,
                broken: Arc::clone(&broken),
            }) as Arc<dyn Store>)
        }
    });
    let (inbox, outlet) = inbox(Limits::default());
    let timing = Timing {
        lease: Duration::from_secs(30),
        heartbeat: Duration::from_secs(5),
        keep_alive: Duration::from_secs(15),
    };
    let relays = Relays::new(Duration::ZERO);
    let shared = Arc::new(Shared::new(
        Clock::system(),
        inbox,
        timing,
        relays,
        History::new(Bound::default()),
    ));
    let (jobs, due) = crate::schedules::jobs();
    let driver = Driver {
        shared: Arc::clone(&shared),
        outlet,
        limits: Limits::default(),
        core: CoreConfig::default(),
        open,
        jobs,
    };
    Built {
        driver,
        broken,
        opened,
        jobs: due,
    }
}

async fn bench(data: &Path) -> Bench {
    let Built {
        driver,
        broken,
        opened,
        jobs,
    } = build(data);
    let shared = Arc::clone(&driver.shared);
    let recovered = recover(&driver.open, &driver.core, &shared).await.expect("opens");
    let shutdown = CancellationToken::new();
    let driving = tokio::spawn(driver.run(recovered, shutdown.clone()));
    let api = Api::new(Arc::clone(&shared), Provided::default(), shutdown.clone());
    tokio::spawn(Firer { api, jobs }.run(shutdown.clone()));
    Bench {
        shared,
        broken,
        opened,
        shutdown,
        driving,
    }
}

fn request(id: &str) -> SubmitRunRequest {
    let file = "{name: churn, steps: [{name: a, image: 'churn:v3', command: ['true']}]}";
    let pipeline = windlass_pipeline::source::parse(file)
        .into_pipeline()
        .expect("a pipeline");
    SubmitRunRequest {
        namespace: "ml".to_owned(),
        request_id: id.to_owned(),
        pipeline: Some(windlass_api::convert::pipeline_to_proto(&pipeline)),
        ..SubmitRunRequest::default()
    }
}

#[tokio::test]
async fn i1_a_failed_commit_says_that_the_outcome_is_unknown_and_nothing_follows_from_it() {
    let data = tempfile::tempdir().expect("a folder");
    let bench = bench(data.path()).await;
    let submit = |id| submit(&bench.shared, Checker::default(), Submitter::default(), request(id));
    let kept = submit("r1").await.expect("accepted");
    bench.broken.store(true, Ordering::SeqCst);
    let error = submit("r2").await.expect_err("the commit failed");
    assert_eq!(error, SubmitError::Unavailable(Unavailable::OutcomeUnknown));

    // The same request again, as often as it takes: the scheduler recovers by itself.
    let accepted = loop {
        match submit("r2").await {
            Ok(submitted) => break submitted,
            Err(SubmitError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(accepted.created, "the first try left nothing behind");
    assert!(bench.opened.load(Ordering::SeqCst) >= 2, "the store was opened again");
    assert!(
        bench.shared.runs.get(kept.header.id).is_some(),
        "what was durable is there"
    );
    assert!(!submit("r1").await.expect("known").created);
    bench.shutdown.cancel();
    bench.driving.await.expect("no panic").expect("ends well");
}

#[tokio::test]
async fn i11_submissions_beyond_the_queue_are_refused_at_once() {
    let limits = Limits {
        submissions: 1,
        ..Limits::default()
    };
    // Nobody takes anything out of this inbox.
    let (inbox, _outlet) = inbox(limits);
    let data = tempfile::tempdir().expect("a folder");
    let bench = bench(data.path()).await;
    let shared = Shared::new(
        Clock::system(),
        inbox,
        bench.shared.timing,
        Relays::new(Duration::ZERO),
        History::new(Bound::default()),
    );
    shared.set_partition(bench.shared.partition().ok());
    let submit = |id| submit(&shared, Checker::default(), Submitter::default(), request(id));
    // One of them waits in the queue for an answer that never comes.
    let (first, second) = (std::pin::pin!(submit("r1")), std::pin::pin!(submit("r2")));
    let answered = futures::future::select(first, second);
    let refused = tokio::time::timeout(Duration::from_secs(10), answered)
        .await
        .expect("an answer");
    let refused = refused.factor_first().0.expect_err("the queue is full");
    assert_eq!(refused, SubmitError::QueueFull);
}
