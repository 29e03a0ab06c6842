//! Schedules in the store: written with their runs or not at all; roadmap 24, behaviours X13.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{Namespace, RunId, ScheduleId, ScheduleSecretId, Timestamp};
use windlass_scheduler::store::{
    CatchUp, CommitBatch, DefinitionKind, FireOutcome, FireRecord, Overlap, PackedDefinition, RunFixed, RunSchedule,
    RunSecret, RunSecretWrite, Schedule, ScheduleProgress, ScheduleSecret, ScheduleSettings, ScheduleWrite,
    SecretOwner, Store as _, StoreError, Timing,
};

use crate::support::{accept, at, change, commit, header, new_run, options, run_id, start};

const ID: ScheduleId = ScheduleId::from_bytes([3; 16]);

/// With every field set.
fn schedule(version: u64) -> Schedule {
    let mut progress = ScheduleProgress::new(at(5), Some(at(60_005)));
    progress.record(FireRecord {
        time: at(1),
        last: at(4),
        count: 7,
        outcome: FireOutcome::Missed,
        run: None,
        message: "late".to_owned(),
        recorded: at(5),
    });
    progress.record(FireRecord {
        time: at(5),
        last: at(5),
        count: 1,
        outcome: FireOutcome::Started,
        run: Some((run_id(1), "churn-1".into())),
        message: String::new(),
        recorded: at(5),
    });
    Schedule {
        id: ID,
        namespace: Namespace::from("ml"),
        name: "nightly".to_owned(),
        version,
        generation: 2,
        created: at(0),
        created_by: "ana".to_owned(),
        updated: at(1),
        updated_by: "bob".to_owned(),
        pipeline: "churn".to_owned(),
        paused: true,
        secret: Some(ScheduleSecret {
            id: ScheduleSecretId::from_bytes([4; 16]),
            keys: ["API_TOKEN".to_owned()].into(),
            clusters: [("uid".into(), "prod".into())].into(),
        }),
        settings: ScheduleSettings {
            timing: Timing::Cron("30 2 * * *".to_owned()),
            time_zone: "Europe/Berlin".to_owned(),
            start: Some(at(0)),
            end: Some(at(1_000_000)),
            overlap: Overlap::Replace,
            start_deadline: Duration::from_millis(1_500),
            catch_up: CatchUp::All,
            catch_up_window: Duration::from_secs(60),
            labels: BTreeMap::from([("team".to_owned(), "ml".to_owned())]),
        },
        progress,
    }
}

fn put(schedule: &Schedule, definition: Option<&str>) -> CommitBatch {
    let pack = |text: &str| PackedDefinition::pack(DefinitionKind::Scheduled, text.as_bytes().to_vec());
    CommitBatch {
        time: at(5),
        schedules: vec![ScheduleWrite::Put {
            schedule: Arc::new(schedule.clone()),
            definition: definition.map(pack),
        }],
        ..CommitBatch::default()
    }
}

/// The batch of a fire: its run, and the schedule that it advances.
fn fire(number: u64, version: u64, time: Option<Timestamp>) -> CommitBatch {
    let mut header = header(number);
    header.fixed = RunFixed {
        schedule: Some(RunSchedule {
            id: ID,
            name: "nightly".to_owned(),
            time,
        }),
        ..RunFixed::default()
    };
    CommitBatch {
        new_runs: vec![new_run(header, number)],
        changes: vec![change(number, 1)],
        ..put(&schedule(version), None)
    }
}

fn defined() -> RunId {
    RunId::from_bytes(*ID.as_bytes())
}

#[tokio::test]
async fn a_schedule_comes_back_as_it_was_with_what_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, recovery, _) = start(options(folder.path())).await;
    assert!(recovery.schedules.is_empty());
    commit(&store, put(&schedule(1), Some("first"))).await.expect("commits");
    let timings = [
        Timing::Interval {
            anchor: at(7),
            every: Duration::from_millis(1_001),
        },
        Timing::Once(at(9)),
    ];
    for (version, timing) in (2..).zip(timings) {
        let mut next = schedule(version);
        next.settings.timing = timing;
        commit(&store, put(&next, None)).await.expect("commits");
        assert_eq!(
            store
                .definition(defined(), DefinitionKind::Scheduled)
                .await
                .expect("reads"),
            Some(b"first".to_vec())
        );
        // What a program that starts anew would find, while this one goes on.
        let found = rusqlite_count(&store, "SELECT version FROM schedule");
        assert_eq!(found, i64::try_from(version).expect("small"));
    }
    commit(&store, put(&schedule(4), Some("second")))
        .await
        .expect("commits");
    drop(store);
    let (store, recovery, _) = start(options(folder.path())).await;
    assert_eq!(recovery.schedules, [schedule(4)]);
    assert_eq!(recovery.last_time, at(5), "the clock never goes below the last fire");
    assert_eq!(
        store
            .definition(defined(), DefinitionKind::Scheduled)
            .await
            .expect("reads"),
        Some(b"second".to_vec())
    );

    let delete = CommitBatch {
        time: at(6),
        schedules: vec![ScheduleWrite::Delete { schedule: ID }],
        ..CommitBatch::default()
    };
    commit(&store, delete).await.expect("commits");
    assert_eq!(
        store
            .definition(defined(), DefinitionKind::Scheduled)
            .await
            .expect("reads"),
        None
    );
    drop(store);
    let (_, recovery, _) = start(options(folder.path())).await;
    assert!(recovery.schedules.is_empty());
}

#[tokio::test]
async fn i1_x13_a_fire_has_one_run_and_run_and_schedule_are_stored_together_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    commit(&store, put(&schedule(1), Some("pipeline")))
        .await
        .expect("commits");
    commit(&store, fire(1, 2, Some(at(100)))).await.expect("commits");
    // Triggered runs have no time, and may be as many as there are.
    commit(&store, fire(2, 3, None)).await.expect("commits");
    commit(&store, fire(3, 4, None)).await.expect("commits");

    // The same fire once more.
    let error = commit(&store, fire(4, 5, Some(at(100)))).await.expect_err("refused");
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    drop(store);
    // A schedule that is not the one that was looked at.
    for version in [4, 6] {
        let (store, recovery, _) = start(options(folder.path())).await;
        assert_eq!(recovery.schedules[0].version, 4, "nothing of what was refused is there");
        assert!(store.run(run_id(4)).await.expect("reads").is_none());
        let error = commit(&store, fire(4, version, Some(at(200))))
            .await
            .expect_err("refused");
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_database_from_before_schedules_is_brought_up_to_date_and_keeps_its_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let path = store.path();
    commit(&store, accept(1)).await.expect("commits");
    drop(store);
    // As version 1 left it.
    let old = rusqlite::Connection::open(&path).expect("opens");
    old.execute_batch(
        "DROP TABLE schedule; DROP INDEX run_by_fire; ALTER TABLE run DROP COLUMN schedule; \
         ALTER TABLE run DROP COLUMN scheduled_time; DROP TABLE run_secret; DROP TABLE deleted_run; \
         DROP TABLE delivery; DROP INDEX run_by_end; UPDATE meta SET schema_version = 1;",
    )
    .expect("goes back");
    drop(old);
    let (store, recovery, runs) = start(options(folder.path())).await;
    assert_eq!((runs.len(), recovery.schedules.len()), (1, 0));
    assert_eq!(runs[0].header.fixed.schedule, None);
    commit(&store, put(&schedule(1), Some("pipeline")))
        .await
        .expect("commits");
    commit(&store, fire(2, 2, Some(at(100)))).await.expect("commits");
    let found = store.run(run_id(2)).await.expect("reads").expect("there");
    assert_eq!(found.fixed.schedule.and_then(|of| of.time), Some(at(100)));
}

/// behaviours E31
#[tokio::test]
async fn i8_the_secrets_of_schedules_are_on_record_beside_those_of_runs_that_were_there_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, _, _) = start(options(folder.path())).await;
    let path = store.path();
    drop(store);
    // As version 4 left it.
    let old = rusqlite::Connection::open(&path).expect("opens");
    old.execute_batch(
        "ALTER TABLE run_secret DROP COLUMN schedule; UPDATE meta SET schema_version = 4; \
         INSERT INTO run_secret VALUES (x'07070707070707070707070707070707', 'uid', 'prod', 'ml', 'churn-1');",
    )
    .expect("goes back");
    drop(old);
    let of_run = RunSecret {
        owner: SecretOwner::Run(RunId::from_bytes([7; 16])),
        owner_name: "churn-1".to_owned(),
        cluster: "uid".into(),
        alias: "prod".into(),
        namespace: "ml".into(),
    };
    let of_schedule = |secret: u8| RunSecret {
        owner: SecretOwner::Schedule {
            secret: ScheduleSecretId::from_bytes([secret; 16]),
            schedule: ID,
        },
        owner_name: "nightly".to_owned(),
        ..of_run.clone()
    };
    let (store, recovery, _) = start(options(folder.path())).await;
    assert_eq!(recovery.secrets, std::slice::from_ref(&of_run));
    let writes = |secrets: Vec<RunSecretWrite>| CommitBatch {
        secrets,
        ..CommitBatch::default()
    };
    let puts = [8, 9].map(|secret| RunSecretWrite::Put(of_schedule(secret)));
    commit(&store, writes(puts.to_vec())).await.expect("commits");
    let gone = RunSecretWrite::Delete {
        owner: of_schedule(8).owner,
        cluster: "uid".into(),
    };
    commit(&store, writes(vec![gone])).await.expect("commits");
    drop(store);
    let (_store, recovery, _) = start(options(folder.path())).await;
    assert_eq!(recovery.secrets, [of_run.clone(), of_schedule(9)]);
}

fn rusqlite_count(store: &windlass_scheduler::store::sqlite::SqliteStore, sql: &str) -> i64 {
    let connection = rusqlite::Connection::open(store.path()).expect("opens");
    connection.query_row(sql, [], |row| row.get(0)).expect("a number")
}
