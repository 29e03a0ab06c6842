//! Runs, changes and stores for the tests.

use std::path::Path;
use std::sync::Arc;

use windlass_ids::{
    ClusterAlias, ClusterUid, Incarnation, InstallationId, Namespace, PodUid, RequestId, RunId, RunName, StepIndex,
    Timestamp,
};
use windlass_scheduler::store::sqlite::{SqliteOptions, SqliteStore};
use windlass_scheduler::store::{
    CommitBatch, Committed, DefinitionKind, Deletion, DeletionCause, NewRun, Operation, PackedDefinition, RecoveredRun,
    Recovery, RequestRecord, RunFixed, RunHeader, RunProgress, Store, StoreError,
};
use windlass_scheduling::{Change, ChangeKind, ExecutorIdentity, RunReason, RunState};

pub(crate) const INSTALLATION: InstallationId = InstallationId::from_bytes([9; 16]);

/// Ids in the order of their numbers.
pub(crate) fn run_id(number: u64) -> RunId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RunId::from_bytes(bytes)
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

pub(crate) fn options(folder: &Path) -> SqliteOptions {
    SqliteOptions {
        reserve_bytes: 0,
        ..SqliteOptions::new(folder, INSTALLATION)
    }
}

pub(crate) fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(options(folder)).expect("the store opens")
}

/// Opens and recovers.
pub(crate) async fn start(options: SqliteOptions) -> (SqliteStore, Recovery, Vec<RecoveredRun>) {
    let store = SqliteStore::open(options).expect("the store opens");
    let mut recovery = store.recover().await.expect("the store recovers");
    let mut runs = Vec::new();
    while let Some(run) = recovery.runs.next().await {
        runs.push(run.expect("a run recovers"));
    }
    (store, recovery, runs)
}

pub(crate) async fn commit(store: &SqliteStore, batch: CommitBatch) -> Result<Committed, StoreError> {
    store.commit(batch).await?.await
}

pub(crate) fn header(number: u64) -> RunHeader {
    RunHeader {
        id: run_id(number),
        namespace: Namespace::from("default"),
        name: RunName(format!("churn-{number}")),
        pipeline: "churn".to_owned(),
        submitted_by: "ana".to_owned(),
        created: at(0),
        fixed: RunFixed::default(),
        progress: RunProgress::new(RunState::Queued, 1),
    }
}

pub(crate) fn definition(number: u64) -> Vec<u8> {
    format!("definition of run {number}\n").repeat(80).into_bytes()
}

pub(crate) fn request(number: u64) -> RequestRecord {
    RequestRecord {
        namespace: Namespace::from("default"),
        request_id: RequestId(format!("request-{number}")),
        operation: Operation::Submit,
        digest: [7; 32],
        run: Some(run_id(number)),
        outcome: Vec::new(),
        created: at(0),
    }
}

pub(crate) fn new_run(header: RunHeader, number: u64) -> NewRun {
    NewRun {
        header,
        definitions: vec![
            PackedDefinition::pack(DefinitionKind::Submitted, format!("name: run-{number}").into_bytes()),
            PackedDefinition::pack(DefinitionKind::Resolved, definition(number)),
        ],
        request: Some(request(number)),
    }
}

/// The batch that accepts a run: its header, its definitions, its first change.
pub(crate) fn accept(number: u64) -> CommitBatch {
    CommitBatch {
        time: at(0),
        new_runs: vec![new_run(header(number), number)],
        changes: vec![change(number, 1)],
        ..CommitBatch::default()
    }
}

/// The change of a run with a sequence number: a function of both, so that a test knows what it has to find.
pub(crate) fn change(number: u64, sequence: u64) -> Change {
    let step = StepIndex(u32::try_from(sequence % 1000).expect("small"));
    let kind = match sequence % 5 {
        _ if sequence == 1 => ChangeKind::RunAccepted,
        0 => ChangeKind::StepReady { step },
        1 => ChangeKind::AttemptLaunched {
            step,
            number: 1,
            executor: executor(),
        },
        2 => ChangeKind::AttemptCreated {
            step,
            number: 1,
            pod: PodUid::from_bytes([sequence.to_be_bytes()[7]; 16]),
        },
        3 => ChangeKind::AttemptRunning {
            step,
            number: 1,
            started_at: at(i64::try_from(sequence).expect("small") - 5),
            node: Some(format!("node-{}", sequence % 7).into()),
        },
        _ => ChangeKind::AttemptSucceeded {
            step,
            number: 1,
            ended_at: at(i64::try_from(sequence).expect("small")),
            detail: None,
        },
    };
    Change {
        run: run_id(number),
        sequence,
        at: at(i64::try_from(sequence).expect("small")),
        kind,
    }
}

fn executor() -> Arc<ExecutorIdentity> {
    Arc::new(ExecutorIdentity {
        incarnation: Incarnation::from_bytes([3; 16]),
        cluster: ClusterUid::from("1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        alias: ClusterAlias::from("prod"),
    })
}

pub(crate) fn changes(number: u64, sequences: impl IntoIterator<Item = u64>) -> Vec<Change> {
    sequences.into_iter().map(|sequence| change(number, sequence)).collect()
}

pub(crate) fn changed(number: u64, sequences: impl IntoIterator<Item = u64>) -> CommitBatch {
    let changes = changes(number, sequences);
    CommitBatch {
        time: changes.last().map_or(at(0), |change| change.at),
        changes,
        ..CommitBatch::default()
    }
}

/// The deletion of a run.
pub(crate) fn deletion_of(number: u64) -> Deletion {
    Deletion {
        run: run_id(number),
        cause: DeletionCause::Requested,
    }
}

/// The batch that ends a run with the change `sequence`.
pub(crate) fn end(number: u64, sequence: u64) -> CommitBatch {
    let mut progress = RunProgress::new(RunState::Succeeded, sequence);
    progress.ended = Some(at(i64::try_from(sequence).expect("small")));
    CommitBatch {
        time: at(i64::try_from(sequence).expect("small")),
        changes: vec![Change {
            kind: ChangeKind::RunEnded {
                state: RunState::Succeeded,
                reason: RunReason::Completed,
            },
            ..change(number, sequence)
        }],
        updates: vec![windlass_scheduler::store::HeaderUpdate {
            run: run_id(number),
            progress,
        }],
        ..CommitBatch::default()
    }
}
