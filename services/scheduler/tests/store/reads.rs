//! Look-ups, lists and pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_ids::Namespace;
use windlass_scheduler::store::sqlite::{SqliteOptions, SqliteStore};
use windlass_scheduler::store::{
    CommitBatch, DefinitionKind, FailedStep, FoundRun, HeaderUpdate, NamePattern, RunFilter, RunHeader, RunProgress,
    Store,
};
use windlass_scheduling::{FailureClass, RunState, StepState};

use crate::support::{
    accept, at, change, changed, changes, commit, definition, header, new_run, options, run_id, start,
};

/// 60 runs: two namespaces, three pipelines, two people, four states, a label on every fifth.
async fn filled(store: &SqliteStore) -> Vec<RunHeader> {
    let mut headers = Vec::new();
    for number in 1..=60 {
        let mut header = header(number);
        header.namespace = Namespace::from(if number % 2 == 0 { "ml" } else { "default" });
        header.pipeline = ["churn", "iris", "fraud"][usize::try_from(number % 3).expect("small")].to_owned();
        header.name = format!("{}-{number}", header.pipeline).into();
        header.submitted_by = if number % 4 == 0 { "bob" } else { "ana" }.to_owned();
        header.progress.state = RunState::ALL[usize::try_from(1 + number % 4).expect("small")];
        if number % 5 == 0 {
            header.fixed.labels = [("team", "ml"), ("tier", if number % 10 == 0 { "a" } else { "b" })]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        }
        header
            .fixed
            .parameters
            .insert("RATE".to_owned(), serde_json::json!(0.25));
        let batch = CommitBatch {
            new_runs: vec![new_run(header.clone(), number)],
            changes: vec![change(number, 1)],
            ..CommitBatch::default()
        };
        commit(store, batch).await.expect("commits");
        headers.push(header);
    }
    headers.reverse();
    headers
}

#[tokio::test]
async fn lists_are_filtered_paged_and_newest_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let headers = filled(&store).await;
    type Test = fn(&RunHeader) -> bool;
    let cases: Vec<(RunFilter, Test)> = vec![
        (RunFilter::default(), |_| true),
        (
            RunFilter {
                namespace: Some(Namespace::from("ml")),
                ..RunFilter::default()
            },
            |run| run.namespace.as_str() == "ml",
        ),
        (
            RunFilter {
                states: vec![RunState::Queued],
                namespace: Some(Namespace::from("ml")),
                ..RunFilter::default()
            },
            |run| run.progress.state == RunState::Queued && run.namespace.as_str() == "ml",
        ),
        (
            RunFilter {
                states: vec![RunState::Running, RunState::Succeeded],
                pipeline: Some("iris".to_owned()),
                ..RunFilter::default()
            },
            |run| matches!(run.progress.state, RunState::Running | RunState::Succeeded) && run.pipeline == "iris",
        ),
        (
            RunFilter {
                submitted_by: Some("bob".to_owned()),
                name: Some(NamePattern::Prefix("fr".to_owned())),
                ..RunFilter::default()
            },
            |run| run.submitted_by == "bob" && run.name.as_str().starts_with("fr"),
        ),
        (
            RunFilter {
                name: Some(NamePattern::Exact("churn-6".to_owned())),
                ..RunFilter::default()
            },
            |run| run.name.as_str() == "churn-6",
        ),
        (
            RunFilter {
                labels: vec![
                    ("team".to_owned(), "ml".to_owned()),
                    ("tier".to_owned(), "a".to_owned()),
                ],
                ..RunFilter::default()
            },
            |run| run.fixed.labels.get("tier").is_some_and(|tier| tier == "a"),
        ),
    ];
    for (filter, test) in cases {
        let expected: Vec<_> = headers.iter().filter(|run| test(run)).cloned().collect();
        assert!(!expected.is_empty(), "{filter:?}");
        for size in [1, 7, 500] {
            assert_eq!(pages(&store, &filter, size).await, expected, "{filter:?} by {size}");
        }
    }
}

async fn pages(store: &SqliteStore, filter: &RunFilter, size: usize) -> Vec<RunHeader> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = store.list_runs(filter, token.as_ref(), size).await.expect("lists");
        assert!(page.runs.len() <= size);
        found.extend(page.runs);
        match page.next {
            Some(next) => token = Some(next),
            None => return found,
        }
    }
}

#[tokio::test]
async fn a_run_is_found_by_id_name_prefix_and_latest() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let headers = filled(&store).await;
    let ml = Namespace::from("ml");
    let one = |found: FoundRun| match found {
        FoundRun::One(header) => header.name.0,
        other => panic!("not one: {other:?}"),
    };
    let find = async |namespace, reference: &str| store.find_run(namespace, reference).await.expect("finds");
    assert_eq!(one(find(None, "@latest").await), headers[0].name.0);
    let default = Namespace::from("default");
    assert_eq!(one(find(Some(&default), "@latest").await), headers[1].name.0);
    assert_eq!(
        one(find(Some(&ml), &headers[0].id.to_string()).await),
        headers[0].name.0
    );
    assert_eq!(
        one(find(Some(&default), "churn-3").await),
        "churn-3",
        "exact before prefix"
    );
    assert_eq!(one(find(Some(&ml), "iris-4").await), "iris-4");
    assert_eq!(one(find(Some(&ml), "iris-3").await), "iris-34", "a prefix of one");
    assert_eq!(
        one(find(None, "00000000-0000-0025").await),
        "iris-37",
        "a prefix of an id"
    );
    assert_eq!(find(Some(&default), &headers[0].id.to_string()).await, FoundRun::None);
    assert_eq!(find(None, "nothing").await, FoundRun::None);
    assert_eq!(find(None, "").await, FoundRun::None);
    assert!(matches!(find(None, "churn").await, FoundRun::Ambiguous(some) if some.len() == 6));
}

#[tokio::test]
async fn a_header_follows_its_updates() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let filled = filled(&store).await;
    let mut expected = filled[0].clone();
    expected.progress = RunProgress {
        state: RunState::Failed,
        started: Some(at(5)),
        ended: Some(at(9)),
        counts: vec![(StepState::Succeeded, 4), (StepState::Failed, 1)],
        reason: "STEP_FAILED".to_owned(),
        message: "train failed".to_owned(),
        failed_steps: vec![FailedStep {
            step: "train".to_owned(),
            class: Some(FailureClass::OomKilled),
            reason: "OOMKilled".to_owned(),
            message: String::new(),
            exit_code: Some(137),
            attempt: 2,
        }],
        last_sequence: 12,
    };
    let update = CommitBatch {
        updates: vec![HeaderUpdate {
            run: expected.id,
            progress: expected.progress.clone(),
        }],
        ..CommitBatch::default()
    };
    commit(&store, update).await.expect("commits");
    assert_eq!(store.run(expected.id).await.expect("reads"), Some(expected));
}

/// behaviours M3
#[tokio::test]
async fn definitions_come_back_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    filled(&store).await;
    let submitted = store.definition(run_id(3), DefinitionKind::Submitted).await;
    assert_eq!(submitted.expect("reads"), Some(b"name: run-3".to_vec()));
    let resolved = store.definition(run_id(3), DefinitionKind::Resolved).await;
    assert_eq!(resolved.expect("reads"), Some(definition(3)));
    let unknown = store.definition(run_id(99), DefinitionKind::Resolved).await;
    assert_eq!(unknown.expect("reads"), None);
}

#[tokio::test]
async fn a_history_is_replayed_from_any_number_across_parts_and_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let batch = CommitBatch {
        new_runs: vec![new_run(header(1), 1), new_run(header(2), 2)],
        changes: vec![change(1, 1), change(2, 1)],
        ..CommitBatch::default()
    };
    commit(&store, batch).await.expect("commits");
    for group in 0..40 {
        let first = 2 + group * 25;
        let mut batch = changed(1, first..first + 25);
        batch.changes.push(change(2, group + 2));
        commit(&store, batch).await.expect("commits");
        if group % 9 == 0 {
            store.fold().await.expect("folds");
        }
    }
    for (from, limit) in [
        (0, 10),
        (1, 1001),
        (1, 7),
        (26, 1),
        (27, 300),
        (500, 400),
        (990, 100),
        (1001, 5),
    ] {
        let found = store.history(run_id(1), from, limit).await.expect("a history");
        let first = from.max(1);
        let last = (first + limit as u64 - 1).min(1001);
        assert_eq!(found, changes(1, first..=last), "{limit} from {from}");
    }
    assert_eq!(store.history(run_id(1), 1002, 5).await.expect("a history"), []);
    assert_eq!(
        store.history(run_id(2), 1, 100).await.expect("a history"),
        changes(2, 1..=41)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_history_is_whole_while_commits_and_folds_go_on() {
    const LAST: u64 = 3_000;
    let folder = tempfile::tempdir().expect("a folder");
    let busy = SqliteOptions {
        fold_bytes: 1,
        fold_idle: Duration::from_millis(1),
        ..options(folder.path())
    };
    let (store, _, _) = start(busy).await;
    commit(&store, accept(1)).await.expect("commits");
    let durable = AtomicU64::new(1);
    let write = async {
        for sequence in 2..=LAST {
            commit(&store, changed(1, [sequence])).await.expect("commits");
            durable.store(sequence, Ordering::SeqCst);
        }
    };
    let read = async {
        let mut from = 1;
        while durable.load(Ordering::SeqCst) < LAST {
            let acknowledged = durable.load(Ordering::SeqCst);
            let found = store.history(run_id(1), from, 500).await.expect("a history");
            let last = from + found.len() as u64 - 1;
            assert_eq!(found, changes(1, from..=last));
            assert!(
                last >= acknowledged.min(from + 499),
                "{last} of {acknowledged} from {from}"
            );
            from = acknowledged.saturating_sub(300).max(1);
        }
    };
    tokio::join!(write, read);
}
