//! Schedules are made, shown, changed and deleted; what cannot be right is refused.

use std::sync::Arc;

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::convert::timestamp_to_proto;
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing;

use super::{Client, creation, minute, named, seconds, spec, update};
use crate::support::{Scheduler, config, pipeline, reason};
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
