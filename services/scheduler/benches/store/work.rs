//! What is stored: runs like those of the peers, changes like those of a step's life.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use windlass_ids::{
    ClusterAlias, ClusterUid, Incarnation, InstallationId, Namespace, PodUid, RequestId, RunId, RunName, StepIndex,
    Timestamp,
};
use windlass_scheduler::store::sqlite::{SqliteOptions, SqliteStore};
use windlass_scheduler::store::{
    CommitBatch, DefinitionKind, NewRun, Operation, PackedDefinition, RequestRecord, RunFixed, RunHeader, RunProgress,
    Store,
};
use windlass_scheduling::{Change, ChangeKind, ExecutorIdentity, RunState};

pub(crate) fn run_id(number: u64) -> RunId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RunId::from_bytes(bytes)
}

pub(crate) fn options(folder: &Path) -> SqliteOptions {
    SqliteOptions::new(folder, InstallationId::from_bytes([1; 16]))
}

pub(crate) async fn start(folder: &Path) -> SqliteStore {
    let store = SqliteStore::open(options(folder)).expect("opens");
    let mut recovery = store.recover().await.expect("recovers");
    assert!(recovery.runs.next().await.is_none());
    store
}

fn at(sequence: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + i64::try_from(sequence / 100).expect("small"))
}

/// The executor of all attempts.
pub(crate) fn executor() -> Arc<ExecutorIdentity> {
    Arc::new(ExecutorIdentity {
        incarnation: Incarnation::from_bytes([3; 16]),
        cluster: ClusterUid::from("1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        alias: ClusterAlias::from("prod"),
    })
}

/// The changes of a run: accepted, then four for each step.
pub(crate) fn change(run: RunId, sequence: u64, executor: &Arc<ExecutorIdentity>) -> Change {
    let step = StepIndex(u32::try_from(sequence / 4).expect("small"));
    let number = 1;
    let mut pod = [7; 16];
    pod[..8].copy_from_slice(&sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let kind = match sequence % 4 {
        _ if sequence == 1 => ChangeKind::RunAccepted,
        0 => ChangeKind::AttemptLaunched {
            step,
            number,
            executor: Arc::clone(executor),
        },
        1 => ChangeKind::AttemptCreated {
            step,
            number,
            pod: PodUid::from_bytes(pod),
        },
        2 => ChangeKind::AttemptRunning {
            step,
            number,
            started_at: at(sequence),
            node: Some("node-17".into()),
        },
        _ => ChangeKind::AttemptSucceeded {
            step,
            number,
            ended_at: at(sequence),
            detail: None,
        },
    };
    Change {
        run,
        sequence,
        at: at(sequence),
        kind,
    }
}

/// A pipeline of 10 steps, about 2 KB.
fn pipeline() -> Vec<u8> {
    let step = |number: u32| {
        format!(
            "  - name: train-{number}\n    image: ghcr.io/acme/churn:v{number}\n    upstream: [step-{}]\n    command: \
             [python, train.py, --fold={number}]\n    pod: {{resources: {{requests: {{cpu: 500m, memory: 1Gi}}}}}}\n",
            number / 2
        )
    };
    format!("name: churn\nsteps:\n{}", (0..10).map(step).collect::<String>()).into_bytes()
}

/// A submission as the driver hands it over, packed where the request is handled.
pub(crate) fn submission(number: u64) -> CommitBatch {
    let id = run_id(number);
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let header = RunHeader {
        id,
        namespace: Namespace::from("ml"),
        name: RunName(format!("churn-{mixed:016x}")),
        pipeline: "churn".to_owned(),
        submitted_by: "ana".to_owned(),
        created: at(number),
        fixed: RunFixed::default(),
        progress: RunProgress::new(RunState::Queued, 1),
    };
    let request = RequestRecord {
        namespace: Namespace::from("ml"),
        request_id: RequestId(format!("{mixed:032x}")),
        operation: Operation::Submit,
        digest: [7; 32],
        run: Some(id),
        outcome: Vec::new(),
        created: at(number),
    };
    let definitions = [DefinitionKind::Submitted, DefinitionKind::Resolved]
        .map(|kind| PackedDefinition::pack(kind, pipeline()))
        .into();
    CommitBatch {
        time: at(number),
        new_runs: vec![NewRun {
            header,
            definitions,
            request: Some(request),
        }],
        changes: vec![change(id, 1, &executor())],
        ..CommitBatch::default()
    }
}

/// A file that is appended to and synced.
#[derive(Debug)]
pub(crate) struct Bare {
    file: File,
    record: Vec<u8>,
}

impl Bare {
    /// Appends `bytes` at a time.
    pub(crate) fn new(folder: &Path, bytes: usize) -> Self {
        Self {
            file: File::create(folder.join("bare")).expect("creates"),
            record: vec![0x5a; bytes],
        }
    }

    pub(crate) fn append(&mut self) {
        self.file.write_all(&self.record).expect("writes");
        self.file.sync_data().expect("syncs");
    }
}
