//! Commits, recovery, and who may commit.

use windlass_ids::RunId;
use windlass_scheduler::store::sqlite::SqliteStore;
use windlass_scheduler::store::{CommitBatch, DefinitionKind, HistoryError, RunPage, Store, StoreError};

use crate::support::{
    INSTALLATION, accept, at, change, changed, changes, commit, definition, deletion_of, end, header, new_run, open,
    options, request, run_id, start,
};

#[tokio::test]
async fn what_was_committed_is_recovered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, recovery, runs) = start(options(folder.path())).await;
    assert_eq!(
        (recovery.installation, recovery.epoch, recovery.commit_no),
        (INSTALLATION, 1, 0)
    );
    assert!(runs.is_empty());
    commit(&store, accept(1)).await.expect("commits");
    commit(&store, accept(2)).await.expect("commits");
    commit(&store, changed(1, 2..=30)).await.expect("commits");
    commit(&store, end(2, 2)).await.expect("commits");
    drop(store);

    let (_store, recovery, runs) = start(options(folder.path())).await;
    assert_eq!((recovery.epoch, recovery.commit_no, recovery.last_time), (2, 4, at(30)));
    let [run] = runs.as_slice() else {
        panic!("one run has not ended: {runs:?}");
    };
    assert_eq!(run.header, header(1));
    assert_eq!(run.definition, definition(1));
    assert_eq!(run.snapshot, None);
    assert_eq!(run.changes, changes(1, 1..=30));
}

#[tokio::test]
async fn batches_that_queue_up_are_committed_together_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let mut tickets = vec![store.commit(accept(1)).await.expect("queued")];
    for sequence in 2..=40 {
        tickets.push(store.commit(changed(1, [sequence])).await.expect("queued"));
    }
    let mut numbers = Vec::new();
    for ticket in tickets {
        numbers.push(ticket.await.expect("commits").commit_no);
    }
    assert!(numbers.is_sorted());
    assert!(numbers.last().is_some_and(|last| *last < 40), "{numbers:?}");
    let history = store.history(run_id(1), 1, 100).await.expect("a history");
    assert_eq!(history, changes(1, 1..=40));
}

#[tokio::test]
async fn an_empty_batch_waits_for_what_came_before_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let first = commit(&store, accept(1)).await.expect("commits");
    let empty = commit(&store, CommitBatch::default()).await.expect("commits");
    assert_eq!(first, empty);
}

#[tokio::test]
async fn a_request_id_is_unique_in_its_namespace_and_remembered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    let keys = [1, 2].map(|number| (request(number).namespace, request(number).request_id));
    let found = store.requests(&keys).await.expect("reads");
    assert_eq!(found, [Some(request(1)), None]);

    let mut again = accept(2);
    again.new_runs[0].request = Some(request(1));
    let error = commit(&store, again).await.expect_err("the id is taken");
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(store.run(run_id(2)).await.expect("reads"), None);
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_committed_until_the_store_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    commit(&store, accept(1)).await.expect_err("the run is there");
    let error = commit(&store, changed(1, [2])).await.expect_err("poisoned");
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    assert!(store.run(run_id(1)).await.expect("reads go on").is_some());
    drop(store);

    let (store, _, runs) = start(options(folder.path())).await;
    assert_eq!(runs[0].changes, changes(1, 1..=1));
    commit(&store, changed(1, [2])).await.expect("commits again");
}

#[tokio::test]
async fn commits_wait_for_recovery() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let error = store.commit(accept(1)).await.expect_err("not recovered");
    assert!(matches!(error, StoreError::NotRecovered));
    store.recover().await.expect("recovers");
    let error = store.recover().await.expect_err("once");
    assert!(matches!(error, StoreError::AlreadyRecovered));
}

#[tokio::test]
async fn i1_a_holder_whose_epoch_is_over_commits_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    // Another process took the partition over, as a second scheduler would on a shared database.
    let other = rusqlite::Connection::open(store.path()).expect("opens");
    other
        .execute("UPDATE partition SET epoch = epoch + 1", [])
        .expect("updates");
    let error = commit(&store, changed(1, [2])).await.expect_err("fenced");
    assert!(matches!(error, StoreError::Fenced { epoch: 1 }), "{error}");
    let history = store.history(run_id(1), 1, 10).await.expect("a history");
    assert_eq!(history, changes(1, 1..=1));
    let error = store.fold().await.expect_err("the fold is fenced too");
    assert!(
        matches!(error, StoreError::Fenced { epoch: 1 } | StoreError::Closed),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_holder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let error = SqliteStore::open(options(folder.path())).expect_err("held");
    assert!(matches!(error, StoreError::Held { pid: Some(pid), .. } if pid == std::process::id()));
    drop(store);
    open(folder.path());
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = open(folder.path()).path();
    let other = rusqlite::Connection::open(&path).expect("opens");
    other
        .execute("UPDATE meta SET schema_version = 7", [])
        .expect("updates");
    drop(other);
    let error = SqliteStore::open(options(folder.path())).expect_err("newer");
    let expected = format!(
        "database {} is of version 7, this program reads up to 5",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_file_that_is_no_database_of_windlass_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("windlass.db"),
        "no database at all, but long enough to be one ".repeat(200),
    )
    .expect("writes");
    let error = SqliteStore::open(options(folder.path())).expect_err("no database");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    let folder = tempfile::tempdir().expect("a folder");
    let other = rusqlite::Connection::open(folder.path().join("windlass.db")).expect("opens");
    other.execute_batch("CREATE TABLE songs (name TEXT)").expect("creates");
    drop(other);
    let error = SqliteStore::open(options(folder.path())).expect_err("another program's");
    assert!(error.to_string().contains("not a database of Windlass"), "{error}");
}

#[tokio::test]
async fn a_deleted_run_is_gone_and_its_request_id_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let mut labelled = header(1);
    labelled.fixed.labels.insert("team".to_owned(), "ml".to_owned());
    let mut batch = accept(1);
    batch.new_runs = vec![new_run(labelled, 1)];
    commit(&store, batch).await.expect("commits");
    commit(&store, changed(1, 2..=20)).await.expect("commits");
    store.fold().await.expect("folds");
    commit(&store, end(1, 21)).await.expect("commits");
    let deletion = CommitBatch {
        time: at(100),
        deleted: vec![deletion_of(1)],
        ..CommitBatch::default()
    };
    commit(&store, deletion).await.expect("commits");
    assert_gone(&store, run_id(1)).await;
    store.fold().await.expect("folds what the journal still held");
    assert_gone(&store, run_id(1)).await;
    let key = (request(1).namespace, request(1).request_id);
    assert_eq!(store.requests(&[key]).await.expect("reads"), [Some(request(1))]);
    assert_eq!(rows_about(&store, run_id(1)), 0);
}

async fn assert_gone(store: &SqliteStore, run: RunId) {
    assert_eq!(store.run(run).await.expect("reads"), None);
    let page = store.list_runs(&Default::default(), None, 10).await.expect("lists");
    assert_eq!(
        page,
        RunPage {
            runs: vec![],
            next: None
        }
    );
    let definition = store.definition(run, DefinitionKind::Resolved).await.expect("reads");
    assert_eq!(definition, None);
    assert!(matches!(store.history(run, 1, 10).await, Err(HistoryError::NotFound)));
}

fn rows_about(store: &SqliteStore, run: RunId) -> i64 {
    let connection = rusqlite::Connection::open(store.path()).expect("opens");
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table} WHERE run = ?1");
        connection
            .query_row(&sql, [run.as_bytes()], |row| row.get(0))
            .expect("counts")
    };
    ["run_history", "definition", "snapshot", "run_label"]
        .map(count)
        .iter()
        .sum()
}

#[tokio::test]
async fn a_forgotten_history_is_too_old_and_the_header_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    commit(&store, changed(1, 2..=9)).await.expect("commits");
    commit(&store, end(1, 10)).await.expect("commits");
    let forget = CommitBatch {
        time: at(100),
        forgotten: vec![run_id(1)],
        ..CommitBatch::default()
    };
    commit(&store, forget).await.expect("commits");
    for _ in 0..2 {
        let history = store.history(run_id(1), 1, 10).await;
        assert!(
            matches!(history, Err(HistoryError::TooOld { oldest: 11 })),
            "{history:?}"
        );
        store.fold().await.expect("folds");
    }
    assert!(store.run(run_id(1)).await.expect("reads").is_some());
    assert_eq!(rows_about(&store, run_id(1)), 2, "its definitions");
}

#[tokio::test]
async fn request_ids_expire_a_week_after_their_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    commit(&store, end(1, 2)).await.expect("commits");
    let deletion = CommitBatch {
        time: at(100),
        deleted: vec![deletion_of(1)],
        ..CommitBatch::default()
    };
    commit(&store, deletion).await.expect("commits");
    let key = (request(1).namespace, request(1).request_id);
    let day = 24 * 60 * 60 * 1000;
    for (days, kept) in [(7, true), (9, false)] {
        let later = CommitBatch {
            time: at(days * day),
            requests: vec![windlass_scheduler::store::RequestRecord {
                request_id: format!("later-{days}").into(),
                run: None,
                created: at(days * day),
                ..request(1)
            }],
            ..CommitBatch::default()
        };
        commit(&store, later).await.expect("commits");
        store.fold().await.expect("folds");
        let found = store.requests(std::slice::from_ref(&key)).await.expect("reads");
        assert_eq!(found[0].is_some(), kept, "after {days} days");
    }
}

#[tokio::test]
async fn a_gap_in_the_changes_of_a_run_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    let gap = CommitBatch {
        changes: vec![change(1, 3)],
        ..CommitBatch::default()
    };
    commit(&store, gap).await.expect("commits");
    drop(store);
    let store = open(folder.path());
    let mut recovery = store.recover().await.expect("recovers");
    let first = recovery.runs.next().await.expect("an item");
    assert!(matches!(first, Err(StoreError::Corrupt { .. })), "{first:?}");
    assert!(recovery.runs.next().await.is_none());
}

/// What `docs/operations.md` says of copies: each is one state, with all that was acknowledged before it was begun.
#[tokio::test]
async fn i1_copies_that_sqlite_makes_while_commits_go_on_are_whole() {
    let (folder, copies) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, accept(1)).await.expect("commits");
    let mut acknowledged = 1;
    let mut least = Vec::new();
    for number in 0..5 {
        let copy = copies.path().join(number.to_string());
        std::fs::create_dir(&copy).expect("a folder");
        let (from, to) = (store.path(), copy.join("windlass.db"));
        least.push(acknowledged);
        let copying = tokio::task::spawn_blocking(move || {
            let connection = rusqlite::Connection::open(from).expect("opens");
            connection.execute("VACUUM INTO ?1", [to.to_str()]).expect("copies");
        });
        loop {
            let batch = changed(1, acknowledged + 1..=acknowledged + 20);
            commit(&store, batch).await.expect("commits");
            acknowledged += 20;
            if copying.is_finished() {
                break;
            }
        }
        copying.await.expect("copies");
    }
    for (number, least) in least.into_iter().enumerate() {
        let (_store, recovery, runs) = start(options(&copies.path().join(number.to_string()))).await;
        assert_eq!(recovery.installation, INSTALLATION);
        let last = runs[0].changes.len() as u64;
        assert!(
            (least..=acknowledged).contains(&last),
            "{last} of {least} to {acknowledged}"
        );
        assert_eq!(runs[0].changes, changes(1, 1..=last));
    }
}
