//! Runs that go: what is remembered of them, and what becomes of their room.

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use windlass_ids::{Namespace, RunId};
use windlass_scheduler::store::sqlite::SqliteStore;
use windlass_scheduler::store::{
    CommitBatch, DefinitionKind, Deletion, DeletionCause, EndedRun, PackedDefinition, Store, StoreError,
};

use crate::support::{accept, at, commit, deletion_of, end, options, run_id, start};

const DAY: i64 = 24 * 60 * 60 * 1000;

/// Runs with 100 kB of definition each, which do not pack, and their ends.
async fn fill(store: &SqliteStore, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut bytes = vec![0; 100_000];
        StdRng::seed_from_u64(number).fill_bytes(&mut bytes);
        let mut batch = accept(number);
        batch.new_runs[0].definitions = vec![PackedDefinition::pack(DefinitionKind::Resolved, bytes)];
        commit(store, batch).await.expect("commits");
        commit(store, end(number, 2)).await.expect("commits");
    }
}

async fn delete(store: &SqliteStore, numbers: std::ops::Range<u64>) {
    let deletion = CommitBatch {
        time: at(100),
        deleted: numbers.map(deletion_of).collect(),
        ..CommitBatch::default()
    };
    commit(store, deletion).await.expect("commits");
}

async fn file_size(store: &SqliteStore) -> u64 {
    store.fold().await.expect("folds");
    std::fs::metadata(store.path()).expect("a file").len()
}

#[tokio::test]
async fn the_room_of_deleted_runs_is_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    fill(&store, 1..101).await;
    let full = file_size(&store).await;
    assert!(full > 10_000_000, "{full}");
    for round in 1..3 {
        let first = round * 100 + 1;
        delete(&store, first - 100..first).await;
        store.fold().await.expect("folds");
        fill(&store, first..first + 100).await;
        let size = file_size(&store).await;
        assert!(size < full + full / 20, "{size} after {full}, round {round}");
    }
}

#[tokio::test]
async fn room_inside_the_file_counts_as_free_below_a_bound_on_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = windlass_scheduler::store::sqlite::SqliteOptions {
        max_bytes: Some(8_000_000),
        reserve_bytes: 2_000_000,
        ..options(folder.path())
    };
    let (store, _, _) = start(options).await;
    fill(&store, 1..66).await;
    store.fold().await.expect("folds");
    assert!(matches!(store.admit(), Err(StoreError::LowSpace { .. })));
    delete(&store, 1..51).await;
    store.fold().await.expect("folds");
    store.admit().expect("there is room again");
    fill(&store, 101..147).await;
    store.fold().await.expect("folds");
    assert!(
        matches!(store.admit(), Err(StoreError::LowSpace { .. })),
        "the room is used up"
    );
}

#[tokio::test]
async fn ended_runs_are_listed_in_the_order_of_their_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    for number in 1..=5 {
        commit(&store, accept(number)).await.expect("commits");
    }
    // Run 5 goes on; 2 and 3 end in the same millisecond.
    for (number, sequence) in [(4, 20), (3, 30), (2, 30), (1, 40)] {
        commit(&store, end(number, sequence)).await.expect("commits");
    }
    let pages = async |before, limit| {
        let (mut all, mut after): (Vec<RunId>, Option<EndedRun>) = (Vec::new(), None);
        loop {
            let page = store.ended_runs(at(before), after, limit).await.expect("lists");
            assert!(page.len() <= limit);
            all.extend(page.iter().map(|run| run.id));
            match page.last() {
                Some(last) if page.len() == limit => after = Some(last.clone()),
                _ => return all,
            }
        }
    };
    for limit in [1, 2, 3, 10] {
        assert_eq!(pages(100, limit).await, [4, 2, 3, 1].map(run_id), "pages of {limit}");
    }
    assert_eq!(
        pages(30, 10).await,
        [run_id(4)],
        "a run that ended just then is not over"
    );
}

#[tokio::test]
async fn what_was_deleted_is_known_for_thirty_days() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    for number in 1..=2 {
        commit(&store, accept(number)).await.expect("commits");
        commit(&store, end(number, 2)).await.expect("commits");
    }
    let expired = Deletion {
        run: run_id(1),
        cause: DeletionCause::Expired,
    };
    let deletion = CommitBatch {
        time: at(DAY),
        // The second one changes nothing, nor does one of a run that nobody knows.
        deleted: vec![expired, deletion_of(1), deletion_of(9)],
        ..CommitBatch::default()
    };
    commit(&store, deletion).await.expect("commits");
    let ns = Namespace::from("default");
    let asked = [run_id(1), run_id(2), run_id(9)];
    let id = run_id(1).to_string();
    for reference in ["churn-1", id.as_str()] {
        let found = store.deleted_run(&ns, reference).await.expect("reads").expect("known");
        assert_eq!((found.id, found.name.as_str()), (run_id(1), "churn-1"));
        assert_eq!((found.time, found.cause), (at(DAY), DeletionCause::Expired));
    }
    let elsewhere = store.deleted_run(&Namespace::from("other"), &id).await;
    assert_eq!(elsewhere.expect("reads"), None);
    assert_eq!(store.deleted_run(&ns, "churn-2").await.expect("reads"), None);
    assert_eq!(store.deleted_among(&asked).await.expect("reads"), [run_id(1)]);
    for (days, known) in [(30, true), (32, false)] {
        let mut later = accept(10 + u64::try_from(days).expect("small"));
        later.time = at(days * DAY);
        commit(&store, later).await.expect("commits");
        store.fold().await.expect("folds");
        let found = store.deleted_among(&asked).await.expect("reads");
        assert_eq!(found.len(), usize::from(known), "after {days} days");
    }
}
