//! ScheduleService over the wire: behaviours H1 to H5, F4, E5, E30, E38, X13, X17, U7; roadmap 24.

use std::sync::Arc;
use std::time::Duration;

use prost_types::FieldMask;
use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::convert::{timestamp_from_proto, timestamp_to_proto};
use windlass_api::run::v1 as run;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_ids::Timestamp;
use windlass_scheduler::{Config, server};
use windlass_service::{AuthenticatedChannel, Clock};

use crate::executor::{Executor, Identity, Play};
use crate::support::{Scheduler, config, eventually, pipeline, reason};

type Client = ScheduleServiceClient<AuthenticatedChannel>;

const MINUTE: i64 = 60_000;
/// A minute that begins: 2026-11-30T12:00:00Z.
const NOON: i64 = 1_796_040_000_000;

fn minute(number: i64) -> Timestamp {
    Timestamp::from_millis(NOON + number * MINUTE)
}

impl Scheduler {
    /// A scheduler whose day is as far as `now`.
    async fn start_at(config: Config, now: Timestamp) -> (Self, Clock) {
        let clock = Clock::starting_at(now);
        let (given, open) = (clock.clone(), server::opener(&config));
        let scheduler = Self::start_with(|listener, shutdown| async move {
            server::run_at(config, open, given, listener, shutdown).await
        })
        .await;
        (scheduler, clock)
    }

    fn schedules(&self) -> Client {
        ScheduleServiceClient::new(self.channel())
    }

    async fn schedule(&self, name: &str) -> wire::Schedule {
        let got = self.schedules().get_schedule(named(name)).await;
        got.expect("found").into_inner().schedule.expect("a schedule")
    }

    /// Runs of a schedule by when their fires were due, in minutes after noon, each with its state.
    async fn runs_of(&self, name: &str) -> Vec<(i64, RunState)> {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = run::ListRunsRequest {
                namespace: "ml".to_owned(),
                page_size: 500,
                page_token,
                filter: format!("schedule={name}"),
            };
            let page = self.runs().list_runs(request).await.expect("listed").into_inner();
            found.extend(page.runs.iter().map(|run| {
                assert_eq!(run.schedule, name);
                let due = run.scheduled_time.as_ref().map(timestamp_from_proto);
                (due.map_or(-1, |due| (due.as_millis() - NOON) / MINUTE), run.state())
            }));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                found.sort_by_key(|(due, _)| *due);
                return found;
            }
        }
    }

    /// The times of runs once so many were started, within two minutes.
    async fn times_of(&self, name: &str, count: usize) -> Vec<i64> {
        let started = async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while self.schedule(name).await.started_count < count as u64 {
                tick.tick().await;
            }
        };
        let started = tokio::time::timeout(Duration::from_secs(120), started).await;
        started.unwrap_or_else(|_| panic!("waited too long for {count} runs of {name}"));
        let runs = self.runs_of(name).await;
        runs.into_iter().map(|(due, _)| due).collect()
    }
}

fn named(name: &str) -> wire::GetScheduleRequest {
    wire::GetScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: name.to_owned(),
        next_count: 0,
    }
}

fn spec(cron: &str) -> wire::ScheduleSpec {
    wire::ScheduleSpec {
        timing: Some(Timing::Cron(cron.to_owned())),
        ..wire::ScheduleSpec::default()
    }
}

fn creation(name: &str, spec: wire::ScheduleSpec) -> wire::CreateScheduleRequest {
    wire::CreateScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: format!("create-{name}"),
        schedule: name.to_owned(),
        spec: Some(spec),
        pipeline: Some(pipeline(&[("extract", &[])])),
        ..wire::CreateScheduleRequest::default()
    }
}

fn update(name: &str, paths: &[&str], spec: Option<wire::ScheduleSpec>) -> wire::UpdateScheduleRequest {
    wire::UpdateScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: name.to_owned(),
        spec,
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..wire::UpdateScheduleRequest::default()
    }
}

fn trigger(name: &str, id: &str) -> wire::TriggerScheduleRequest {
    wire::TriggerScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: id.to_owned(),
        schedule: name.to_owned(),
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Outcomes of fires, oldest first, each with how many fires it stands for.
fn outcomes(schedule: &wire::Schedule) -> Vec<(wire::FireOutcome, u64)> {
    schedule
        .fires
        .iter()
        .rev()
        .map(|fire| (fire.outcome(), fire.count))
        .collect()
}

/// behaviours C8, H3, E38, U7
#[tokio::test]
async fn h1_a_schedule_is_made_shown_changed_paused_and_deleted() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let mut client = scheduler.schedules();
    let nightly = wire::ScheduleSpec {
        time_zone: "europe/berlin".to_owned(),
        ..spec("30 2 * * *")
    };
    let request = creation("nightly", nightly);
    let made = client
        .create_schedule(request.clone())
        .await
        .expect("made")
        .into_inner();
    assert!(made.created);
    let made = made.schedule.expect("a schedule");
    assert_eq!(made.resource_name, "namespaces/ml/schedules/nightly");
    assert_eq!(
        (made.state(), made.pipeline.as_str()),
        (wire::ScheduleState::Active, "churn")
    );
    assert_eq!((made.created_by.as_str(), made.updated_by.as_str()), ("ana", "ana"));
    let shown = made.spec.as_ref().expect("a spec");
    assert_eq!(shown.time_zone, "Europe/Berlin", "by its proper name");
    assert_eq!(shown.overlap_policy(), wire::OverlapPolicy::Skip, "defaults are shown");
    assert_eq!(made.next_times.len(), 5);
    assert_eq!(made.next_times[0], "2026-12-01T01:30:00Z".parse().expect("a time"));

    let again = client
        .create_schedule(request.clone())
        .await
        .expect("known")
        .into_inner();
    assert!(!again.created, "the same request");
    let other = wire::CreateScheduleRequest {
        request_id: "other".to_owned(),
        ..request
    };
    let status = client.create_schedule(other).await.expect_err("taken");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "SCHEDULE_EXISTS")
    );

    // X17: what changes beside `paused` is not dropped, whether or not that changes.
    let hourly = update(
        "nightly",
        &["spec.cron", "spec.time_zone", "paused"],
        Some(spec("0 * * * *")),
    );
    let changed = client.update_schedule(hourly).await.expect("changed").into_inner();
    let changed = changed.schedule.expect("a schedule");
    assert_eq!(changed.next_times[0], timestamp_to_proto(minute(60)));
    assert_eq!(changed.spec.expect("a spec").time_zone, "UTC");

    let pause = wire::PauseScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: "nightly".to_owned(),
        request_id: String::new(),
    };
    let paused = client
        .pause_schedule(pause)
        .await
        .expect("paused")
        .into_inner()
        .schedule;
    let paused = paused.expect("a schedule");
    assert_eq!(
        (paused.state(), paused.next_times.len()),
        (wire::ScheduleState::Paused, 0)
    );
    let resume = wire::ResumeScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: "nightly".to_owned(),
        request_id: String::new(),
    };
    let resumed = client
        .resume_schedule(resume)
        .await
        .expect("resumed")
        .into_inner()
        .schedule;
    assert_eq!(resumed.expect("a schedule").state(), wire::ScheduleState::Active);

    client
        .create_schedule(creation("weekly", spec("@weekly")))
        .await
        .expect("made");
    let list = |namespace: &str, page_size, page_token| wire::ListSchedulesRequest {
        namespace: namespace.to_owned(),
        page_size,
        page_token,
    };
    let first = client
        .list_schedules(list("*", 1, String::new()))
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(first.schedules[0].name, "nightly");
    let second = client
        .list_schedules(list("*", 1, first.next_page_token.clone()))
        .await
        .expect("listed");
    assert_eq!(second.get_ref().schedules[0].name, "weekly");
    assert_eq!(second.get_ref().next_page_token, "");
    let status = client
        .list_schedules(list("ml", 1, first.next_page_token))
        .await
        .expect_err("refused");
    assert_eq!(reason(&status), "BAD_PAGE_TOKEN");
    let none = client
        .list_schedules(list("other", 0, String::new()))
        .await
        .expect("listed");
    assert!(none.into_inner().schedules.is_empty());

    let request = wire::GetSchedulePipelineRequest {
        namespace: "ml".to_owned(),
        schedule: "nightly".to_owned(),
    };
    let mut chunks = client.get_schedule_pipeline(request).await.expect("found").into_inner();
    let mut text = Vec::new();
    while let Some(part) = chunks.message().await.expect("a part") {
        text.extend(part.chunk);
    }
    let text = String::from_utf8(text).expect("text");
    assert!(text.starts_with("name: churn\n"), "{text}");

    let delete = wire::DeleteScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: "gone".to_owned(),
        schedule: "nightly".to_owned(),
    };
    client.delete_schedule(delete.clone()).await.expect("deleted");
    client.delete_schedule(delete).await.expect("the same request");
    let status = client.get_schedule(named("nightly")).await.expect_err("gone");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "SCHEDULE_NOT_FOUND")
    );
    scheduler.stop().await;
}

/// behaviours T8: without a time it is refused, and nothing that is set is passed over.
#[tokio::test]
async fn h2_i9_what_cannot_be_right_is_refused_with_every_path() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let refused = async |request: wire::CreateScheduleRequest| {
        let status = scheduler
            .schedules()
            .create_schedule(request)
            .await
            .expect_err("refused");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_SCHEDULE")
        );
        let fields = status.get_details_bad_request().expect("fields").field_violations;
        let fields = fields
            .into_iter()
            .map(|violation| (violation.field, violation.description));
        fields.collect::<Vec<_>>()
    };
    let paths = |fields: &[(String, String)]| fields.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let everything = wire::CreateScheduleRequest {
        schedule: "Not A Name".to_owned(),
        pipeline: Some(pipeline(&[("extract", &["nowhere"])])),
        ..creation(
            "x",
            wire::ScheduleSpec {
                time_zone: "Europe/Berln".to_owned(),
                end_time: Some(timestamp_to_proto(minute(1))),
                start_time: Some(timestamp_to_proto(minute(2))),
                overlap_policy: 9,
                start_deadline: seconds(0),
                catch_up: 9,
                labels: [("windlass.dev/schedule".to_owned(), "mine".to_owned())].into(),
                ..spec("* * * *")
            },
        )
    };
    let fields = refused(everything).await;
    let expected = [
        "schedule",
        "spec.cron",
        "spec.timeZone",
        "spec.endTime",
        "spec.overlapPolicy",
        "spec.startDeadline",
        "spec.catchUp",
        "spec.labels.windlass.dev/schedule",
        "pipeline.steps[0].upstream[0]",
    ];
    assert_eq!(paths(&fields), expected, "{fields:?}");
    assert!(fields[2].1.contains("such as Europe/Berlin"), "{}", fields[2].1);

    let one = async |spec: wire::ScheduleSpec| refused(creation("x", spec)).await.remove(0);
    let timed = |timing| wire::ScheduleSpec {
        timing: Some(timing),
        ..wire::ScheduleSpec::default()
    };
    let (path, text) = one(spec("0 24 * * *")).await;
    assert_eq!(path, "spec.cron");
    assert!(text.contains("field 2 (hour)") && text.contains("0-23"), "{text}");
    assert_eq!(one(wire::ScheduleSpec::default()).await.0, "spec");
    assert_eq!(one(spec("0 0 30 2 *")).await.0, "spec.cron");
    assert_eq!(
        one(timed(Timing::Interval(prost_types::Duration::default()))).await.0,
        "spec.interval"
    );
    let past = timed(Timing::RunOnceTime(timestamp_to_proto(minute(-1))));
    assert!(one(past).await.1.contains("has passed"));
    let zoned = wire::ScheduleSpec {
        time_zone: "Europe/Berlin".to_owned(),
        ..timed(Timing::Interval(prost_types::Duration { seconds: 60, nanos: 0 }))
    };
    assert_eq!(one(zoned).await.0, "spec.timeZone");
    let ended = wire::ScheduleSpec {
        end_time: Some(timestamp_to_proto(minute(30))),
        ..spec("0 * * * *")
    };
    assert_eq!(one(ended).await.0, "spec.endTime");
    let pointless = wire::ScheduleSpec {
        catch_up_window: seconds(60),
        ..spec("0 * * * *")
    };
    assert_eq!(one(pointless).await.0, "spec.catchUpWindow");

    let mut client = scheduler.schedules();
    client
        .create_schedule(creation("good", spec("0 * * * *")))
        .await
        .expect("made");
    let status = client
        .update_schedule(update("good", &["paused"], Some(spec("5 * * * *"))))
        .await;
    let status = status.expect_err("refused");
    let fields = status.get_details_bad_request().expect("fields").field_violations;
    assert_eq!(fields[0].field, "spec.cron", "set, but not named");
    scheduler.stop().await;
}

/// behaviours C8, T8, X15: its run is found by its schedule, and has its own outcome.
#[tokio::test]
async fn h4_e30_a_fire_makes_a_run_of_its_own_that_names_schedule_and_time() {
    let data = tempfile::tempdir().expect("a folder");
    let just_before = Timestamp::from_millis(minute(1).as_millis() - 300);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), just_before).await;
    let executor = Executor::new(Identity::new(1), |_, _| Play::Succeed);
    let playing = executor.spawn(&scheduler);
    let labelled = wire::ScheduleSpec {
        labels: [("team".to_owned(), "ml".to_owned())].into(),
        ..spec("* * * * *")
    };
    scheduler
        .schedules()
        .create_schedule(creation("often", labelled))
        .await
        .expect("made");
    assert_eq!(
        scheduler.times_of("often", 1).await,
        [1],
        "it fires when the minute comes"
    );
    let request = run::ListRunsRequest {
        namespace: "ml".to_owned(),
        filter: "schedule=often label.team=ml".to_owned(),
        ..run::ListRunsRequest::default()
    };
    let found = scheduler
        .runs()
        .list_runs(request)
        .await
        .expect("listed")
        .into_inner()
        .runs
        .remove(0);
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
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let with = |catch_up: wire::CatchUp, window| wire::ScheduleSpec {
        catch_up: catch_up.into(),
        catch_up_window: window,
        overlap_policy: wire::OverlapPolicy::Allow.into(),
        ..spec("* * * * *")
    };
    let day = seconds(86_400);
    for (name, spec) in [
        ("none", with(wire::CatchUp::None, None)),
        ("last", with(wire::CatchUp::Last, day)),
        ("all", with(wire::CatchUp::All, day)),
        ("hour", with(wire::CatchUp::All, seconds(3_600))),
    ] {
        scheduler
            .schedules()
            .create_schedule(creation(name, spec))
            .await
            .expect("made");
    }
    scheduler.stop().await;

    // Twenty hours later.
    let late = Timestamp::from_millis(minute(1_200).as_millis() + 1_000);
    let (scheduler, _) = Scheduler::start_at(config(data.path()), late).await;
    assert_eq!(
        scheduler.times_of("none", 1).await,
        [1_200],
        "the newest one is not late"
    );
    assert_eq!(scheduler.times_of("last", 1).await, [1_200]);
    assert_eq!(
        scheduler.times_of("hour", 60).await,
        (1_141..=1_200).collect::<Vec<_>>()
    );
    assert_eq!(
        scheduler.times_of("all", 1_000).await,
        (201..=1_200).collect::<Vec<_>>()
    );
    let schedule = scheduler.schedule("none").await;
    let expected = [(wire::FireOutcome::Missed, 1_199), (wire::FireOutcome::Started, 1)];
    assert_eq!(outcomes(&schedule), expected);
    assert_eq!(schedule.skipped_count, 1_199);
    assert_eq!(schedule.fires[1].scheduled_time, Some(timestamp_to_proto(minute(1))));
    assert_eq!(
        schedule.fires[1].last_scheduled_time,
        Some(timestamp_to_proto(minute(1_199)))
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
        timestamp_to_proto(minute(1_201))
    );
    assert!(clock.now() >= minute(1_200));
    for (name, count) in [("none", 1), ("last", 1), ("hour", 60), ("all", 1_000)] {
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
    let replaced = run::ListRunsRequest {
        namespace: "ml".to_owned(),
        filter: "schedule=replace state=CANCELLED".to_owned(),
        ..run::ListRunsRequest::default()
    };
    let replaced = scheduler
        .runs()
        .list_runs(replaced)
        .await
        .expect("listed")
        .into_inner()
        .runs
        .remove(0);
    assert!(
        replaced
            .message
            .contains("replaced by the next run of schedule replace"),
        "{}",
        replaced.message
    );
    scheduler.stop().await;
}

/// behaviours E38
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
async fn i11_a_namespace_has_a_bound_on_its_schedules() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let client = Arc::new(scheduler.schedules());
    let makes = (0..1_000).map(|number| {
        let mut client = Client::clone(&client);
        tokio::spawn(async move {
            client
                .create_schedule(creation(&format!("s-{number}"), spec("@yearly")))
                .await
        })
    });
    for made in makes.collect::<Vec<_>>() {
        made.await.expect("no panic").expect("made");
    }
    let status = scheduler
        .schedules()
        .create_schedule(creation("more", spec("@yearly")))
        .await;
    let status = status.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_SCHEDULES")
    );
    let elsewhere = wire::CreateScheduleRequest {
        namespace: "other".to_owned(),
        ..creation("more", spec("@yearly"))
    };
    scheduler
        .schedules()
        .create_schedule(elsewhere)
        .await
        .expect("another namespace");
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
