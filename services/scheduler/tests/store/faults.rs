//! Torn logs, full disks, and a fold that is stopped anywhere.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use windlass_scheduler::store::sqlite::{DATABASE, SqliteOptions, SqliteStore};
use windlass_scheduler::store::{Store, StoreError};

use crate::script::{self, Tally};
use crate::support::{commit, options, start};

/// Never folds nor checkpoints by itself, so that everything is in the log.
fn still(folder: &Path) -> SqliteOptions {
    SqliteOptions {
        fold_bytes: usize::MAX,
        fold_idle: Duration::from_secs(3600),
        snapshot_changes: 10,
        snapshots: Some(Arc::new(Tally)),
        ..options(folder)
    }
}

fn log_of(folder: &Path) -> std::path::PathBuf {
    folder.join(format!("{DATABASE}-wal"))
}

/// The state on disk as a process leaves it that dies now.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a folder");
    for file in [from.join(DATABASE), log_of(from)] {
        let name = file.file_name().expect("a name").to_owned();
        std::fs::copy(file, to.path().join(name)).expect("copies");
    }
    to
}

#[tokio::test]
async fn i1_a_torn_log_holds_whole_commits_only() {
    const BATCHES: u64 = 30;
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(still(folder.path())).await;
    for n in 1..=BATCHES {
        commit(&store, script::batch(n)).await.expect("commits");
    }
    let mut random = StdRng::seed_from_u64(1);
    let mut found = std::collections::BTreeSet::new();
    for round in 0..40 {
        let torn = copy(folder.path());
        let log = log_of(torn.path());
        let mut bytes = std::fs::read(&log).expect("reads");
        let at = random.random_range(0..bytes.len());
        if round % 2 == 0 {
            bytes.truncate(at);
        } else {
            let end = (at + 3000).min(bytes.len());
            random.fill(&mut bytes[at..end]);
        }
        std::fs::write(&log, bytes).expect("writes");
        // A log that breaks off before the first commit leaves an empty database, or one of the first migration.
        let (store, _, runs) = start(still(torn.path())).await;
        let n = script::committed(&runs);
        script::check(&store, n).await;
        found.insert(n);
    }
    assert!(found.len() > 10, "{found:?}");

    let longer = copy(folder.path());
    let mut bytes = std::fs::read(log_of(longer.path())).expect("reads");
    bytes.extend([0xa5; 5000]);
    std::fs::write(log_of(longer.path()), bytes).expect("writes");
    let (_store, _, runs) = start(still(longer.path())).await;
    assert_eq!(
        script::committed(&runs),
        BATCHES,
        "rubbish behind the last commit hurts nothing"
    );
}

#[tokio::test]
async fn i1_a_fold_that_stops_anywhere_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(still(folder.path())).await;
    for n in 1..=24 {
        commit(&store, script::batch(n)).await.expect("commits");
        if n % 5 == 0 {
            store.fold().await.expect("folds");
        }
        let stopped = copy(folder.path());
        let (copied, _, runs) = start(still(stopped.path())).await;
        assert_eq!(script::committed(&runs), n);
        script::check(&copied, n).await;
        copied.fold().await.expect("folds");
        script::check(&copied, n).await;
        drop(copied);
        let (_copied, _, runs) = start(still(stopped.path())).await;
        assert_eq!(script::committed(&runs), n, "after the fold");
    }
}

#[tokio::test]
async fn a_fold_makes_snapshots_of_active_runs_and_removes_them_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(still(folder.path())).await;
    for n in 1..=25 {
        commit(&store, script::batch(n)).await.expect("commits");
    }
    store.fold().await.expect("folds");
    commit(&store, script::batch(26)).await.expect("commits");
    drop(store);
    let (store, _, runs) = start(still(folder.path())).await;
    assert_eq!(script::committed(&runs), 26);
    let covered = |run: &windlass_scheduler::store::RecoveredRun| run.snapshot.as_ref().map(|it| it.last_sequence);
    let long: Vec<_> = runs.iter().take(3).map(covered).collect();
    assert_eq!(long, [Some(25); 3]);
    for run in script::LONG {
        commit(&store, crate::support::end(run, 27)).await.expect("commits");
    }
    store.fold().await.expect("folds");
    let connection = rusqlite::Connection::open(store.path()).expect("opens");
    let left: i64 = connection
        .query_row("SELECT count(*) FROM snapshot", [], |row| row.get(0))
        .expect("counts");
    assert_eq!(left, 0);
}

/// Commits until the disk is full; the last batch that was acknowledged.
async fn fill(store: &SqliteStore, mut n: u64) -> u64 {
    loop {
        match commit(store, script::batch(n + 1)).await {
            Ok(_) => n += 1,
            Err(StoreError::Full { .. }) => break,
            Err(error) => panic!("batch {}: {error:?}", n + 1),
        }
        assert!(n < 100_000, "the disk does not fill up");
    }
    let later = commit(store, script::batch(n + 1)).await.expect_err("poisoned");
    let StoreError::Poisoned { cause } = later else {
        panic!("{later:?}");
    };
    assert!(matches!(*cause, StoreError::Full { .. }));
    script::check(store, n).await;
    n
}

#[tokio::test]
async fn i1_a_full_quota_is_typed_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = SqliteOptions {
        max_bytes: Some(600 * 1024),
        ..still(folder.path())
    };
    let (store, _, _) = start(small).await;
    let acknowledged = fill(&store, 0).await;
    assert!(acknowledged > 20, "{acknowledged}");
    drop(store);
    let (store, _, runs) = start(still(folder.path())).await;
    assert_eq!(script::committed(&runs), acknowledged);
    commit(&store, script::batch(acknowledged + 1))
        .await
        .expect("room again");
    script::check(&store, acknowledged + 1).await;
}

/// A folder on a small file system.
const SMALL: &str = "WINDLASS_TEST_SMALL_DISK";

#[test]
fn i1_a_full_disk_is_typed_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = "mount -t tmpfs -o size=3m none \"$0\"";
    let unshare = |script: String| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        command.arg(folder.path());
        command
    };
    if !unshare(mount.to_owned())
        .output()
        .is_ok_and(|output| output.status.success())
    {
        println!("skipped: this system does not let an ordinary user mount a small disk");
        return;
    }
    let test = std::env::current_exe().expect("the test executable");
    let run = format!("{mount} && exec \"$TEST\" --exact faults::the_process_on_a_small_disk --nocapture");
    let output = unshare(run)
        .env("TEST", test)
        .env(SMALL, folder.path())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("acknowledged on the small disk"),
        "{text}\n{errors}"
    );
}

/// Runs where the small disk is mounted. By itself it has nothing to do.
#[tokio::test]
async fn the_process_on_a_small_disk() {
    let Ok(disk) = std::env::var(SMALL) else {
        return;
    };
    let disk = Path::new(&disk);
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 1024 * 1024]).expect("writes");
    let folder = disk.join("data");
    let (store, _, _) = start(still(&folder)).await;
    let acknowledged = fill(&store, 0).await;
    drop(store);
    std::fs::remove_file(ballast).expect("removes");
    let (store, _, runs) = start(still(&folder)).await;
    assert_eq!(script::committed(&runs), acknowledged);
    commit(&store, script::batch(acknowledged + 1))
        .await
        .expect("room again");
    println!("{acknowledged} acknowledged on the small disk");
}

#[tokio::test]
async fn below_the_reserve_only_submissions_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let greedy = SqliteOptions {
        reserve_bytes: u64::MAX,
        ..options(folder.path())
    };
    let (store, _, _) = start(greedy).await;
    let error = store.admit().expect_err("nobody has that much");
    assert!(
        matches!(error, StoreError::LowSpace { reserve: u64::MAX, .. }),
        "{error}"
    );
    commit(&store, script::batch(1)).await.expect("work goes on");
    drop(store);
    let (store, _, _) = start(options(folder.path())).await;
    store.admit().expect("enough");
}
