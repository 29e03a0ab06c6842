//! Fires whose commits fail: the scheduler goes back to what is stored, and each fire has one run all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::oneshot;
use windlass_api::journal::v1::ScheduledPipeline;
use windlass_ids::ScheduleId;

use super::{Bench, bench, request};
use crate::driver::{Command, ScheduleChange, ScheduleOrder, ScheduleRefusal};
use crate::schedules::testing::settings;
use crate::store::{
    DefinitionKind, Overlap, PackedDefinition, Schedule, ScheduleProgress, ScheduleSecret, ScheduleSettings, Timing,
};

pub(super) const ID: ScheduleId = ScheduleId::from_bytes([4; 16]);

/// Makes a schedule that fires every 100 ms, from now on.
async fn make(bench: &Bench) {
    create(bench, false, None).await.expect("made");
}

/// Makes a schedule with these secrets.
pub(super) async fn create(
    bench: &Bench,
    paused: bool,
    secret: Option<ScheduleSecret>,
) -> Result<Arc<Schedule>, ScheduleRefusal> {
    let now = bench.shared.clock.now();
    let every = Duration::from_millis(100);
    let schedule = Schedule {
        id: ID,
        namespace: "ml".into(),
        name: "ticks".to_owned(),
        version: 1,
        generation: 1,
        created: now,
        created_by: "ana".to_owned(),
        updated: now,
        updated_by: "ana".to_owned(),
        pipeline: "churn".to_owned(),
        paused,
        secret,
        settings: ScheduleSettings {
            overlap: Overlap::Allow,
            catch_up: crate::store::CatchUp::All,
            ..settings(Timing::Interval { anchor: now, every })
        },
        progress: ScheduleProgress::new(now, Some(now.saturating_add(every))),
    };
    let stored = ScheduledPipeline {
        pipeline: request("any").pipeline,
        ..ScheduledPipeline::default()
    };
    let (reply, answer) = oneshot::channel();
    let order = ScheduleOrder {
        change: ScheduleChange::Create {
            schedule: Box::new(schedule),
            definition: PackedDefinition::pack(DefinitionKind::Scheduled, stored.encode_to_vec()),
        },
        request: None,
        reservation: None,
        reply,
    };
    bench
        .shared
        .inbox
        .send(Command::Schedule(Box::new(order)))
        .await
        .expect("open");
    answer.await.expect("an answer")
}

fn ticks(bench: &Bench) -> Option<Arc<Schedule>> {
    bench.shared.schedules.get(&"ml".into(), "ticks")
}

/// Waits, for at most 30 s.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            tick.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    waited.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_fire_whose_commit_failed_has_one_run_after_the_recovery() {
    let data = tempfile::tempdir().expect("a folder");
    let bench = bench(data.path()).await;
    make(&bench).await;
    let started = || ticks(&bench).map_or(0, |ticks| ticks.progress.started);
    for _ in 0..4 {
        let (before, opened) = (started(), bench.opened.load(Ordering::SeqCst));
        until("a fire", || started() > before).await;
        // No executor is there, so that only fires are committed: the next one is lost on its way.
        bench.broken.store(true, Ordering::SeqCst);
        until("the recovery", || {
            bench.opened.load(Ordering::SeqCst) > opened && ticks(&bench).is_some()
        })
        .await;
    }
    let before = started();
    until("more fires", || started() >= before + 3).await;
    bench.shutdown.cancel();
    bench.driving.await.expect("no panic").expect("ends well");

    let runs = bench.shared.runs.of_schedule(ID, usize::MAX);
    let mut times: Vec<i64> = runs
        .iter()
        .filter_map(|entry| entry.meta().header.fixed.schedule.as_ref()?.time)
        .map(windlass_ids::Timestamp::as_millis)
        .collect();
    times.sort_unstable();
    assert!(times.len() >= 7, "{times:?}");
    for pair in times.windows(2) {
        assert_eq!(pair[1] - pair[0], 100, "none is left out, none doubles: {times:?}");
    }
}
