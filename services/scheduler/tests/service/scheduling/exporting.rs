//! Schedules as CronJobs, and triggers that obey the overlap policy as their Jobs do.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::convert::timestamp_to_proto;
use windlass_api::run::v1::RunState;
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_spec::Timing;

use super::{creation, minute, outcomes, seconds, spec, trigger, update};
use crate::support::{Scheduler, config, eventually, reason};

const JOB: &str = "3f0e5c1a-6f0f-4d3e-9d55-0f6d1c5b8a11";

fn export(name: &str) -> wire::ExportScheduleRequest {
    wire::ExportScheduleRequest {
        namespace: "ml".to_owned(),
        schedule: name.to_owned(),
        image: "ghcr.io/acme/windlass:1.2".to_owned(),
        server: "https://windlass-scheduler.windlass.svc:7600".to_owned(),
        ..wire::ExportScheduleRequest::default()
    }
}

/// What an API server would keep of it: k8s-openapi passes over what it does not know, so nothing may be lost on the way.
fn cron_job(json: &str) -> CronJob {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let cron_job: CronJob = serde_json::from_value(value.clone()).expect("a CronJob");
    assert_eq!(serde_json::to_value(&cron_job).expect("JSON"), value);
    cron_job
}

impl Scheduler {
    async fn exported(&self, request: wire::ExportScheduleRequest) -> (CronJobSpec, CronJob) {
        let exported = self.schedules().export_schedule(request).await.expect("exported");
        let cron_job = cron_job(&exported.into_inner().cron_job_json);
        (cron_job.spec.clone().expect("a spec"), cron_job)
    }

    async fn refused(&self, request: wire::ExportScheduleRequest) -> (String, Vec<(String, String)>) {
        let status = self.schedules().export_schedule(request).await.expect_err("refused");
        let fields = status.get_details_bad_request().map(|bad| bad.field_violations);
        let fields = fields.unwrap_or_default().into_iter();
        let fields = fields.map(|violation| (violation.field, violation.description));
        (reason(&status), fields.collect())
    }
}

/// behaviours F4, T8, H1, H3, E25, E28, E30, E38
#[tokio::test]
async fn f4_a_schedule_becomes_a_cron_job_with_its_times_deadline_and_limits() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let long = format!("{}-nightly", "a".repeat(55));
    let berlin = wire::ScheduleSpec {
        time_zone: "Europe/Berlin".to_owned(),
        start_time: Some(timestamp_to_proto(minute(-5))),
        start_deadline: seconds(90),
        overlap_policy: wire::OverlapPolicy::Skip.into(),
        ..spec("30 2 * * FRI-SUN")
    };
    let mut client = scheduler.schedules();
    client.create_schedule(creation(&long, berlin)).await.expect("made");
    let request = wire::ExportScheduleRequest {
        secret: "windlass-client".to_owned(),
        secret_has_ca: true,
        service_account: "trigger".to_owned(),
        failed_jobs_history_limit: Some(7),
        ttl_after_finished: seconds(3_600),
        ..export(&long)
    };
    let (spec, whole) = scheduler.exported(request.clone()).await;
    assert_eq!(spec.schedule, "30 2 * * 0,5,6");
    assert_eq!(spec.time_zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(spec.starting_deadline_seconds, Some(90));
    assert_eq!(spec.concurrency_policy.as_deref(), Some("Allow"), "the server decides");
    assert_eq!(spec.suspend, Some(false));
    assert_eq!(spec.successful_jobs_history_limit, Some(3));
    assert_eq!(spec.failed_jobs_history_limit, Some(7));
    let name = whole.metadata.name.expect("a name");
    assert_eq!(name.len(), 52, "{name}");
    assert_eq!(whole.metadata.namespace.as_deref(), Some("ml"));

    let id = scheduler.schedule(&long).await.id;
    let labels = whole.metadata.labels.expect("labels");
    assert_eq!(labels["windlass.dev/schedule-id"], id);
    assert!(labels["windlass.dev/installation"].len() == 36, "{labels:?}");
    let annotations = whole.metadata.annotations.expect("annotations");
    assert_eq!(annotations["windlass.dev/schedule"], long);

    let job = spec.job_template.spec.expect("a Job");
    assert_eq!(job.ttl_seconds_after_finished, Some(3_600));
    assert_eq!(job.backoff_limit, Some(6));
    let metadata = job.template.metadata.expect("labels of pods");
    let labels = metadata.labels.expect("labels of pods");
    assert_eq!(labels["windlass.dev/schedule-id"], id);
    // Executors and purging select by it.
    assert!(!labels.contains_key("windlass.dev/installation"));
    let pod = job.template.spec.expect("a pod");
    assert_eq!(pod.service_account_name.as_deref(), Some("trigger"));
    assert_eq!(pod.automount_service_account_token, Some(false));
    let container = &pod.containers[0];
    let args = container.args.as_ref().expect("arguments").join(" ");
    let expected =
        format!("schedule trigger {long} --namespace ml --request-id $(WINDLASS_JOB_UID) --obey-overlap --wait");
    assert_eq!(args, expected);
    let env = container.env.as_ref().expect("env");
    let of = |name: &str| env.iter().find(|variable| variable.name == name).expect("set");
    let uid = of("WINDLASS_JOB_UID").value_from.as_ref().expect("a source");
    let uid = &uid.field_ref.as_ref().expect("a field").field_path;
    assert_eq!(uid, "metadata.labels['batch.kubernetes.io/controller-uid']");
    let token = of("WINDLASS_TOKEN").value_from.as_ref().expect("a source");
    let token = token.secret_key_ref.as_ref().expect("a key of a Secret");
    assert_eq!((token.name.as_str(), token.key.as_str()), ("windlass-client", "token"));
    assert_eq!(of("WINDLASS_CA").value.as_deref(), Some("/windlass/tls/ca.crt"));

    // The same name for the same schedule, so that applying it again replaces it; Jobs that do not wait when asked for.
    let request = wire::ExportScheduleRequest {
        detach: true,
        ..request
    };
    let (spec, again) = scheduler.exported(request).await;
    assert_eq!(again.metadata.name, Some(name));
    let pod = spec.job_template.spec.and_then(|job| job.template.spec).expect("a pod");
    let args = pod.containers[0].args.clone().expect("arguments");
    assert!(!args.contains(&"--wait".to_owned()), "{args:?}");
    scheduler.stop().await;
}

/// behaviours T8, H1, E17
#[tokio::test]
async fn t8_what_a_cron_job_cannot_express_is_refused_with_the_field_and_what_would_be_right() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let timed = |timing| wire::ScheduleSpec {
        timing: Some(timing),
        ..wire::ScheduleSpec::default()
    };
    let hour = prost_types::Duration {
        seconds: 3_600,
        nanos: 0,
    };
    let all = wire::ScheduleSpec {
        start_time: Some(timestamp_to_proto(minute(60))),
        end_time: Some(timestamp_to_proto(minute(600_000))),
        catch_up: wire::CatchUp::All.into(),
        ..spec("0 3 L * *")
    };
    let hasty = wire::ScheduleSpec {
        start_deadline: seconds(9),
        ..spec("@daily")
    };
    for (name, spec, fields) in [
        ("every", timed(Timing::Interval(hour)), &["spec.interval"][..]),
        (
            "once",
            timed(Timing::RunOnceTime(timestamp_to_proto(minute(9)))),
            &["spec.runOnceTime"],
        ),
        (
            "all",
            all,
            &["spec.cron", "spec.startTime", "spec.endTime", "spec.catchUp"],
        ),
        ("hasty", hasty, &["spec.startDeadline"]),
    ] {
        scheduler
            .schedules()
            .create_schedule(creation(name, spec))
            .await
            .expect("made");
        let (reason, refused) = scheduler.refused(export(name)).await;
        assert_eq!(reason, "NOT_EXPORTABLE");
        assert_eq!(
            refused.iter().map(|(field, _)| field.as_str()).collect::<Vec<_>>(),
            fields
        );
        for (field, message) in refused {
            assert!(message.contains("CronJob"), "{field}: {message}");
        }
    }
    // A missed time is made up for by both.
    let last = wire::ScheduleSpec {
        catch_up: wire::CatchUp::Last.into(),
        catch_up_window: seconds(7_200),
        ..spec("@hourly")
    };
    scheduler
        .schedules()
        .create_schedule(creation("last", last))
        .await
        .expect("made");
    let (last, _) = scheduler.exported(export("last")).await;
    assert_eq!(last.starting_deadline_seconds, Some(7_200));
    assert_eq!(last.schedule, "@hourly");
    let (reason, _) = scheduler.refused(export("unheard")).await;
    assert_eq!(reason, "SCHEDULE_NOT_FOUND");
    scheduler.stop().await;
}

/// behaviours E17
#[tokio::test]
async fn e17_a_request_for_a_cron_job_that_cannot_be_right_is_refused_with_every_field() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    scheduler
        .schedules()
        .create_schedule(creation("daily", spec("@daily")))
        .await
        .expect("made");
    let request = wire::ExportScheduleRequest {
        image: "no image".to_owned(),
        server: "windlass:7600".to_owned(),
        secret_has_ca: true,
        service_account: "No_Name".to_owned(),
        successful_jobs_history_limit: Some(1_001),
        ttl_after_finished: Some(prost_types::Duration { seconds: 1, nanos: 5 }),
        ..export("daily")
    };
    let (reason, refused) = scheduler.refused(request).await;
    assert_eq!(reason, "INVALID_EXPORT");
    let fields: Vec<_> = refused.iter().map(|(field, _)| field.as_str()).collect();
    let expected = [
        "image",
        "server",
        "serviceAccount",
        "secretHasCa",
        "successfulJobsHistoryLimit",
        "ttlAfterFinished",
    ];
    assert_eq!(fields, expected);
    let plain = wire::ExportScheduleRequest {
        server: "http://windlass:7600".to_owned(),
        secret: "s".to_owned(),
        secret_has_certificate: true,
        ..export("daily")
    };
    let (_, refused) = scheduler.refused(plain).await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].1.contains("https://"), "{refused:?}");
    scheduler.stop().await;
}

/// behaviours T8, H4, H5, E2, E38
#[tokio::test]
async fn i1_a_paused_schedule_is_run_once_for_each_job_by_its_cron_job_also_after_a_restart() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let request = wire::CreateScheduleRequest {
        paused: true,
        ..creation("nightly", spec("@daily"))
    };
    scheduler.schedules().create_schedule(request).await.expect("made");
    let (spec, _) = scheduler.exported(export("nightly")).await;
    assert_eq!(spec.suspend, Some(true), "as the schedule is paused");
    let fires = wire::ExportScheduleRequest {
        suspend: Some(false),
        ..export("nightly")
    };
    assert_eq!(scheduler.exported(fires).await.0.suspend, Some(false));

    let job = wire::TriggerScheduleRequest {
        obey_overlap_policy: true,
        ..trigger("nightly", JOB)
    };
    let first = scheduler
        .schedules()
        .trigger_schedule(job.clone())
        .await
        .expect("runs")
        .into_inner();
    assert!(first.created);
    scheduler.stop().await;

    // The first pod of the Job is gone with the answer; the second one asks another process. Its own run forbids nothing.
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(1)).await;
    let again = scheduler
        .schedules()
        .trigger_schedule(job.clone())
        .await
        .expect("runs")
        .into_inner();
    assert!(!again.created);
    assert_eq!(again.run.expect("a run").id, first.run.expect("a run").id);
    assert_eq!(scheduler.runs_of("nightly").await.len(), 1);
    let other = wire::TriggerScheduleRequest {
        obey_overlap_policy: false,
        ..job
    };
    let status = scheduler
        .schedules()
        .trigger_schedule(other)
        .await
        .expect_err("refused");
    assert_eq!(reason(&status), "REQUEST_ID_REUSED", "it asks for something else");
    scheduler.stop().await;
}

/// behaviours H4, E38
#[tokio::test]
async fn a_trigger_that_obeys_the_overlap_policy_skips_or_replaces_or_runs_beside() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, _) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let mut client = scheduler.schedules();
    for (name, policy) in [
        ("skip", wire::OverlapPolicy::Skip),
        ("replace", wire::OverlapPolicy::Replace),
        ("allow", wire::OverlapPolicy::Allow),
    ] {
        let spec = wire::ScheduleSpec {
            overlap_policy: policy.into(),
            ..spec("@yearly")
        };
        client.create_schedule(creation(name, spec)).await.expect("made");
    }
    let obeying = |name: &str, id: &str| wire::TriggerScheduleRequest {
        obey_overlap_policy: true,
        ..trigger(name, id)
    };
    let mut names = Vec::new();
    for name in ["skip", "replace", "allow"] {
        let first = client
            .trigger_schedule(obeying(name, &format!("{name}-1")))
            .await
            .expect("runs");
        names.push(first.into_inner().run.expect("a run").name);
    }
    let status = client
        .trigger_schedule(obeying("skip", "skip-2"))
        .await
        .expect_err("skipped");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "OVERLAPPED")
    );
    assert!(status.message().contains(&names[0]), "{}", status.message());
    let skip = scheduler.schedule("skip").await;
    let expected = [(wire::FireOutcome::Triggered, 1), (wire::FireOutcome::Overlapped, 1)];
    assert_eq!(outcomes(&skip), expected);
    assert_eq!((skip.started_count, skip.skipped_count), (1, 1));
    for name in ["replace", "allow"] {
        client
            .trigger_schedule(obeying(name, &format!("{name}-2")))
            .await
            .expect("runs");
    }
    let mut states: Vec<_> = scheduler.runs_of("replace").await;
    states.sort_by_key(|(_, state)| *state as i32);
    let states: Vec<_> = states.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [RunState::Queued, RunState::Cancelled]);
    let replaced = scheduler.found("schedule=replace state=CANCELLED").await;
    assert_eq!(replaced.name, names[1]);
    assert!(
        replaced
            .message
            .contains("replaced by the next run of schedule replace"),
        "{}",
        replaced.message
    );
    assert_eq!(scheduler.schedule("allow").await.active_runs.len(), 2);

    // Once the run has ended nothing forbids the next one: with the id of the Job that was skipped, too.
    let cancel = windlass_api::run::v1::CancelRunRequest {
        namespace: "ml".to_owned(),
        run: names[0].clone(),
        ..windlass_api::run::v1::CancelRunRequest::default()
    };
    scheduler.runs().cancel_run(cancel).await.expect("cancelled");
    eventually("no active run", || async {
        scheduler.schedule("skip").await.active_runs.is_empty().then_some(())
    })
    .await;
    client.trigger_schedule(obeying("skip", "skip-2")).await.expect("runs");
    // The policy of now counts, not that of then.
    let spec = wire::ScheduleSpec {
        overlap_policy: wire::OverlapPolicy::Allow.into(),
        ..wire::ScheduleSpec::default()
    };
    client
        .update_schedule(update("skip", &["spec.overlap_policy"], Some(spec)))
        .await
        .expect("changed");
    client.trigger_schedule(obeying("skip", "skip-3")).await.expect("runs");
    scheduler.stop().await;
}
