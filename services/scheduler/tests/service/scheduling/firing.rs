//! Schedules fire, catch up, overlap and are triggered, by a clock of the test.

use std::time::Duration;

use windlass_api::convert::timestamp_to_proto;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_ids::Timestamp;

use super::{creation, minute, outcomes, seconds, spec, trigger, update};
use crate::executor::{Executor, Identity, Play};
use crate::support::{Scheduler, config, eventually, pipeline, reason};

/// behaviours C8, T8, X15: its run is found by its schedule, and has its own outcome.
#[tokio::test]
async fn h4_e30_a_fire_makes_a_run_of_its_own_that_names_schedule_and_time() {
    let data = tempfile::tempdir().expect("a folder");
    let labelled = wire::ScheduleSpec {
        labels: [("team".to_owned(), "ml".to_owned())].into(),
        // A machine so slow that the minute comes before the scheduler is there changes nothing.
        catch_up: wire::CatchUp::Last.into(),
        catch_up_window: seconds(3_600),
        ..spec("* * * * *")
    };
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    scheduler
        .schedules()
        .create_schedule(creation("often", labelled))
        .await
        .expect("made");
    scheduler.stop().await;
    let just_before = Timestamp::from_millis(minute(1).as_millis() - 300);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), just_before).await;
    let executor = Executor::new(Identity::new(1), |_, _| Play::Succeed);
    let playing = executor.spawn(&scheduler);
    assert_eq!(
        scheduler.times_of("often", 1).await,
        [1],
        "it fires when the minute comes"
    );
    let found = scheduler.found("schedule=often label.team=ml").await;
    assert!(found.name.starts_with("often-"), "{}", found.name);
    assert_eq!(found.submitted_by, "ana");
    let ended = crate::support::ended(&mut scheduler.runs(), &found.name).await;
    assert_eq!(ended.state(), RunState::Succeeded);
    let schedule = scheduler.schedule("often").await;
    assert_eq!(schedule.started_count, 1);
    assert_eq!(schedule.fires[0].run, found.name);
    assert_eq!(schedule.fires[0].run_state(), RunState::Succeeded);
    assert_eq!(schedule.next_times[0], timestamp_to_proto(minute(2)));

    // A template of the run says when it was due.
    let launched = executor.seen().launches.len();
    assert_eq!(launched, 1);
    playing.abort();
    scheduler.stop().await;
}

/// behaviours U7
#[tokio::test]
async fn i1_a_thousand_fires_missed_while_the_scheduler_was_down_are_dealt_with_by_policy_and_none_doubles() {
    let data = tempfile::tempdir().expect("a folder");
    // Every twenty minutes: the next one does not come while this is looked at, however slow the machine is.
    let tick = |number: i64| minute(20 * number);
    let ticks = |numbers: std::ops::RangeInclusive<i64>| numbers.map(|number| 20 * number).collect::<Vec<_>>();
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let with = |catch_up: wire::CatchUp, window| wire::ScheduleSpec {
        catch_up: catch_up.into(),
        catch_up_window: window,
        overlap_policy: wire::OverlapPolicy::Allow.into(),
        ..spec("*/20 * * * *")
    };
    let window = seconds(20 * 86_400);
    for (name, spec) in [
        ("none", with(wire::CatchUp::None, None)),
        ("last", with(wire::CatchUp::Last, window)),
        ("all", with(wire::CatchUp::All, window)),
        ("sixty", with(wire::CatchUp::All, seconds(60 * 1_200))),
    ] {
        scheduler
            .schedules()
            .create_schedule(creation(name, spec))
            .await
            .expect("made");
    }
    scheduler.stop().await;

    // Sixteen days later.
    let late = Timestamp::from_millis(tick(1_200).as_millis() + 1_000);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), late).await;
    assert_eq!(
        scheduler.times_of("none", 1).await,
        ticks(1_200..=1_200),
        "the newest one is not late"
    );
    assert_eq!(scheduler.times_of("last", 1).await, ticks(1_200..=1_200));
    assert_eq!(scheduler.times_of("sixty", 60).await, ticks(1_141..=1_200));
    assert_eq!(scheduler.times_of("all", 1_000).await, ticks(201..=1_200));
    let schedule = scheduler.schedule("none").await;
    let expected = [(wire::FireOutcome::Missed, 1_199), (wire::FireOutcome::Started, 1)];
    assert_eq!(outcomes(&schedule), expected);
    assert_eq!(schedule.skipped_count, 1_199);
    assert_eq!(schedule.fires[1].scheduled_time, Some(timestamp_to_proto(tick(1))));
    assert_eq!(
        schedule.fires[1].last_scheduled_time,
        Some(timestamp_to_proto(tick(1_199)))
    );
    let all = scheduler.schedule("all").await;
    assert_eq!(
        (all.started_count, all.skipped_count, all.fires.len()),
        (1_000, 200, 20)
    );
    scheduler.stop().await;

    // The wall clock was put back: what has fired does not fire again, and time goes on where it was.
    let (scheduler, clock) = Scheduler::start_at(config(data.path()), minute(30)).await;
    assert_eq!(
        scheduler.schedule("all").await.next_times[0],
        timestamp_to_proto(tick(1_201))
    );
    assert!(clock.now() >= tick(1_200));
    for (name, count) in [("none", 1), ("last", 1), ("sixty", 60), ("all", 1_000)] {
        assert_eq!(scheduler.runs_of(name).await.len(), count, "{name}");
    }
    scheduler.stop().await;
}

/// behaviours E38, U7
#[tokio::test]
async fn h1_fires_that_overlap_are_skipped_replace_what_runs_or_run_beside_it() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    // Nobody runs anything, so that no run ends by itself.
    for policy in [
        wire::OverlapPolicy::Allow,
        wire::OverlapPolicy::Skip,
        wire::OverlapPolicy::Replace,
    ] {
        let name = policy.as_str_name().rsplit('_').next().expect("a word").to_lowercase();
        let spec = wire::ScheduleSpec {
            overlap_policy: policy.into(),
            ..spec("* * * * *")
        };
        scheduler
            .schedules()
            .create_schedule(creation(&name, spec))
            .await
            .expect("made");
        scheduler
            .schedules()
            .trigger_schedule(trigger(&name, &name))
            .await
            .expect("runs");
    }
    scheduler.stop().await;
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(1)).await;
    let states = |runs: Vec<(i64, RunState)>| runs.into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(
        scheduler.times_of("allow", 2).await,
        [-1, 1],
        "what was triggered has no time"
    );
    assert_eq!(scheduler.times_of("replace", 2).await, [-1, 1]);
    assert_eq!(
        states(scheduler.runs_of("allow").await),
        [RunState::Queued, RunState::Queued]
    );
    assert_eq!(
        states(scheduler.runs_of("replace").await),
        [RunState::Cancelled, RunState::Queued]
    );
    let skip = eventually("the skipped fire", || async {
        let schedule = scheduler.schedule("skip").await;
        (schedule.skipped_count == 1).then_some(schedule)
    })
    .await;
    let expected = [(wire::FireOutcome::Triggered, 1), (wire::FireOutcome::Overlapped, 1)];
    assert_eq!(outcomes(&skip), expected);
    assert_eq!(skip.active_runs.len(), 1);
    assert_eq!(skip.next_times[0], timestamp_to_proto(minute(2)));
    assert_eq!(scheduler.runs_of("skip").await.len(), 1);
    let replaced = scheduler.found("schedule=replace state=CANCELLED").await;
    assert!(
        replaced
            .message
            .contains("replaced by the next run of schedule replace"),
        "{}",
        replaced.message
    );
    scheduler.stop().await;
}

/// behaviours E38, U7
#[tokio::test]
async fn h5_a_paused_schedule_does_not_fire_and_does_not_catch_up_what_came_due() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let eager = wire::ScheduleSpec {
        catch_up: wire::CatchUp::All.into(),
        ..spec("* * * * *")
    };
    let request = wire::CreateScheduleRequest {
        paused: true,
        ..creation("asleep", eager)
    };
    scheduler.schedules().create_schedule(request).await.expect("made");
    let once = wire::ScheduleSpec {
        timing: Some(Timing::RunOnceTime(timestamp_to_proto(minute(2)))),
        ..wire::ScheduleSpec::default()
    };
    scheduler
        .schedules()
        .create_schedule(creation("once", once))
        .await
        .expect("made");
    scheduler.stop().await;
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(5)).await;
    assert_eq!(scheduler.times_of("once", 1).await, [2]);
    assert_eq!(scheduler.schedule("once").await.state(), wire::ScheduleState::Ended);
    let request = wire::ResumeScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: "asleep".to_owned(),
        request_id: "up".to_owned(),
    };
    let resumed = scheduler
        .schedules()
        .resume_schedule(request.clone())
        .await
        .expect("resumed");
    let resumed = resumed.into_inner().schedule.expect("a schedule");
    assert_eq!(resumed.next_times[0], timestamp_to_proto(minute(6)));
    scheduler
        .schedules()
        .resume_schedule(request)
        .await
        .expect("the same request");
    scheduler.stop().await;
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(6)).await;
    assert_eq!(scheduler.times_of("asleep", 1).await, [6]);
    scheduler.stop().await;
}

#[tokio::test]
async fn i1_a_trigger_makes_one_run_for_one_request_and_the_replaced_pipeline_is_the_one_that_runs() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let mut client = scheduler.schedules();
    client
        .create_schedule(creation("now", spec("@yearly")))
        .await
        .expect("made");
    let first = client
        .trigger_schedule(trigger("now", "t1"))
        .await
        .expect("runs")
        .into_inner();
    let again = client
        .trigger_schedule(trigger("now", "t1"))
        .await
        .expect("runs")
        .into_inner();
    assert!(first.created && !again.created);
    assert_eq!(first.run.as_ref().expect("a run").id, again.run.expect("a run").id);
    let status = client
        .trigger_schedule(trigger("other", "t1"))
        .await
        .expect_err("refused");
    assert_eq!(reason(&status), "REQUEST_ID_REUSED");
    let status = client.trigger_schedule(trigger("now", "")).await.expect_err("refused");
    assert_eq!(reason(&status), "INVALID_SCHEDULE");

    let replaced = wire::UpdateScheduleRequest {
        pipeline: Some(windlass_api::pipeline::v1::Pipeline {
            name: "renewed".to_owned(),
            ..pipeline(&[("a", &[]), ("b", &["a"])])
        }),
        ..update("now", &["pipeline"], None)
    };
    let changed = client
        .update_schedule(replaced)
        .await
        .expect("changed")
        .into_inner()
        .schedule;
    assert_eq!(changed.expect("a schedule").pipeline, "renewed");
    let run = client
        .trigger_schedule(trigger("now", "t2"))
        .await
        .expect("runs")
        .into_inner()
        .run;
    let run = run.expect("a run");
    let steps: u32 = run.step_counts.iter().map(|count| count.count).sum();
    assert_eq!((run.pipeline.as_str(), steps), ("renewed", 2));
    assert_eq!((run.schedule.as_str(), run.scheduled_time), ("now", None));
    let broken = wire::UpdateScheduleRequest {
        pipeline: Some(pipeline(&[("a", &["nowhere"])])),
        ..update("now", &["pipeline"], None)
    };
    let status = client.update_schedule(broken).await.expect_err("refused");
    assert!(
        status.message().contains("pipeline.steps[0].upstream[0]"),
        "{}",
        status.message()
    );
    scheduler.stop().await;
}

#[tokio::test]
async fn fires_come_one_after_the_other_while_nobody_does_anything() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let every_second = wire::ScheduleSpec {
        timing: Some(Timing::Interval(prost_types::Duration { seconds: 1, nanos: 0 })),
        overlap_policy: wire::OverlapPolicy::Allow.into(),
        ..wire::ScheduleSpec::default()
    };
    let began = std::time::Instant::now();
    scheduler
        .schedules()
        .create_schedule(creation("ticks", every_second))
        .await
        .expect("made");
    eventually("three fires", || async {
        (scheduler.schedule("ticks").await.started_count >= 3).then_some(())
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(3), "none came early");
    let ticks = scheduler.schedule("ticks").await;
    let mut times: Vec<_> = ticks
        .fires
        .iter()
        .map(|fire| fire.scheduled_time.expect("a time"))
        .collect();
    times.reverse();
    for pair in times.windows(2) {
        assert_eq!(pair[1].seconds - pair[0].seconds, 1, "{times:?}");
    }
    scheduler.stop().await;
}

#[tokio::test]
async fn e5_a_fire_whose_pipeline_is_not_allowed_any_more_is_recorded_with_what_is_wrong() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    // As long as a local cluster may run it, a workspace needs no volume.
    let every_second = wire::ScheduleSpec {
        timing: Some(Timing::Interval(prost_types::Duration { seconds: 1, nanos: 0 })),
        overlap_policy: wire::OverlapPolicy::Allow.into(),
        ..wire::ScheduleSpec::default()
    };
    let request = wire::CreateScheduleRequest {
        pipeline: Some(windlass_api::pipeline::v1::Pipeline {
            workspace: Some(windlass_api::pipeline::v1::Workspace::default()),
            ..pipeline(&[("extract", &[])])
        }),
        ..creation("shared", every_second)
    };
    scheduler.schedules().create_schedule(request).await.expect("made");
    let executor = Executor::new(Identity::new(1), |_, _| Play::Succeed);
    let playing = executor.spawn(&scheduler);
    let fire = eventually("a refused fire", || async {
        let schedule = scheduler.schedule("shared").await;
        let refused = |fire: &wire::Fire| fire.outcome() == wire::FireOutcome::Refused;
        schedule.fires.into_iter().find(refused)
    })
    .await;
    assert_eq!(fire.run, "");
    assert!(fire.message.contains("pipeline.workspace"), "{}", fire.message);
    let schedule = scheduler.schedule("shared").await;
    assert!(
        schedule.skipped_count >= 1 && !schedule.next_times.is_empty(),
        "it goes on: {schedule:?}"
    );
    playing.abort();
    scheduler.stop().await;
}

/// behaviours H4, E30
#[tokio::test]
async fn e30_a_retried_run_names_its_schedule_and_is_no_fire_of_it() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let mut client = scheduler.schedules();
    client
        .create_schedule(creation("nightly", spec("@yearly")))
        .await
        .expect("made");
    let executor = Executor::new(Identity::new(1), |_, _| Play::Fail(1));
    let playing = executor.spawn(&scheduler);
    let run = client
        .trigger_schedule(trigger("nightly", "t1"))
        .await
        .expect("runs")
        .into_inner()
        .run;
    let run = crate::support::ended(&mut scheduler.runs(), &run.expect("a run").name).await;
    let request = windlass_api::run::v1::RetryRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "r1".to_owned(),
        ..windlass_api::run::v1::RetryRunRequest::default()
    };
    let retried = scheduler
        .runs()
        .retry_run(request)
        .await
        .expect("retried")
        .into_inner()
        .run;
    let retried = retried.expect("a run");
    assert_eq!((retried.schedule.as_str(), retried.scheduled_time), ("nightly", None));
    assert_eq!(scheduler.runs_of("nightly").await.len(), 2, "listed with its runs");
    assert_eq!(scheduler.schedule("nightly").await.started_count, 1);
    playing.abort();
    scheduler.stop().await;
}
