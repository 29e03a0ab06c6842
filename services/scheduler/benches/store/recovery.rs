//! Performance P12, the store's part: from the open file to all runs with their changes.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use windlass_scheduler::store::sqlite::{DATABASE, SqliteOptions, SqliteStore};
use windlass_scheduler::store::{CommitBatch, Store};

use crate::work::{change, executor, options, run_id, submission};
use crate::{PAIRS, report};

/// Changes of a step that runs: launched, created, running.
const CHANGES_A_STEP: u64 = 4;

/// A run with `steps` steps in flight, once all in the journal, once all folded.
pub(crate) async fn recovery(steps: u64) {
    for (name, folded) in [("in the journal", false), ("folded", true)] {
        let folder = tempfile::tempdir().expect("a folder");
        fill(folder.path(), steps * CHANGES_A_STEP, folded).await;
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            ours.push(recover(folder.path(), steps * CHANGES_A_STEP).await.as_secs_f64() * 1e3);
            bare.push(scan(folder.path()).as_secs_f64() * 1e3);
        }
        let name = format!("P12 {steps} steps {name}");
        report(&name, "<= 4", "ms", ours, bare);
    }
}

fn still(folder: &Path) -> SqliteOptions {
    SqliteOptions {
        fold_bytes: usize::MAX,
        fold_idle: Duration::from_secs(3600),
        ..options(folder)
    }
}

async fn fill(folder: &Path, last: u64, folded: bool) {
    let store = SqliteStore::open(still(folder)).expect("opens");
    store.recover().await.expect("recovers");
    let executor = executor();
    store
        .commit(submission(0))
        .await
        .expect("queued")
        .await
        .expect("commits");
    for first in (2..=last).step_by(500) {
        let batch = CommitBatch {
            changes: (first..=last.min(first + 499))
                .map(|sequence| change(run_id(0), sequence, &executor))
                .collect(),
            ..CommitBatch::default()
        };
        store.commit(batch).await.expect("queued").await.expect("commits");
    }
    if folded {
        store.fold().await.expect("folds");
    }
}

async fn recover(folder: &Path, last: u64) -> Duration {
    let began = Instant::now();
    let store = SqliteStore::open(still(folder)).expect("opens");
    let mut recovery = store.recover().await.expect("recovers");
    let run = recovery.runs.next().await.expect("a run").expect("recovers");
    assert_eq!(run.changes.len() as u64, last);
    assert!(recovery.runs.next().await.is_none());
    began.elapsed()
}

/// Reads every row of the same tables and looks at no byte of them twice.
fn scan(folder: &Path) -> Duration {
    let began = Instant::now();
    let connection = Connection::open(folder.join(DATABASE)).expect("opens");
    let mut sum = 0_u64;
    for sql in [
        "SELECT progress FROM run",
        "SELECT bytes FROM definition",
        "SELECT bytes FROM run_history",
        "SELECT bytes FROM journal",
    ] {
        let mut statement = connection.prepare(sql).expect("prepares");
        let mut rows = statement.query([]).expect("reads");
        while let Some(row) = rows.next().expect("reads") {
            let bytes = row.get_ref(0).expect("a column").as_blob().expect("bytes");
            sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
    }
    assert!(sum > 0);
    began.elapsed()
}
