//! The Secrets that a schedule's pipeline refers to are looked for when it fires: behaviours R10, R11, U8.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tonic::Code;
use windlass_api::convert::timestamp_to_proto;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::pipeline::v1 as model;
use windlass_api::schedule::v1 as wire;

use super::{creation, minute, outcomes, seconds, spec, trigger};
use crate::executor::{Executor, Identity, Play};
use crate::run_secrets::fields;
use crate::support::{Scheduler, config, eventually, pipeline, reason};

/// Every second, of a pipeline that refers to a Secret.
fn every_second(name: &str) -> wire::CreateScheduleRequest {
    let mut pipeline = pipeline(&[("extract", &[])]);
    pipeline.steps[0].env = vec![model::EnvVar {
        name: "PASSWORD".to_owned(),
        value: None,
        value_from: Some(model::EnvVarSource {
            secret_key_ref: Some(model::KeySelector {
                name: "warehouse".to_owned(),
                key: "password".to_owned(),
                optional: None,
            }),
            ..model::EnvVarSource::default()
        }),
    }];
    wire::CreateScheduleRequest {
        pipeline: Some(pipeline),
        ..creation(
            name,
            wire::ScheduleSpec {
                timing: Some(wire::schedule_spec::Timing::Interval(seconds(1).expect("a duration"))),
                overlap_policy: wire::OverlapPolicy::Allow.into(),
                ..wire::ScheduleSpec::default()
            },
        )
    }
}

/// An executor in whose cluster the Secret is there from when it `is_there`.
fn looking(is_there: &Arc<AtomicBool>) -> Executor {
    let is_there = Arc::clone(is_there);
    Executor::new(Identity::new(1), |_, _| Play::Succeed).with_secrets(move |call| {
        let Some(CallKind::Lookup(lookup)) = &call.call_kind else {
            return None;
        };
        let found = is_there.load(Ordering::Relaxed);
        let seen = lookup.secrets.iter().map(|wanted| dispatch::SecretSeen {
            name: wanted.name.clone(),
            found,
            missing_keys: if found { Vec::new() } else { wanted.keys.clone() },
            ..dispatch::SecretSeen::default()
        });
        Some(Outcome::Looked(dispatch::SecretLooked {
            secrets: seen.collect(),
        }))
    })
}

async fn fired(scheduler: &Scheduler, name: &str, outcome: wire::FireOutcome) -> wire::Schedule {
    eventually("a fire", || async {
        let schedule = scheduler.schedule(name).await;
        let last = outcomes(&schedule).last().map(|(last, _)| *last);
        (last == Some(outcome)).then_some(schedule)
    })
    .await
}

#[tokio::test]
async fn r11_a_fire_whose_secret_is_missing_is_refused_and_says_so_and_the_next_one_finds_it() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    // Nobody can tell: it starts.
    let made = scheduler.schedules().create_schedule(every_second("blind")).await;
    made.expect("made");
    fired(&scheduler, "blind", wire::FireOutcome::Started).await;
    let is_there = Arc::new(AtomicBool::new(false));
    let executor = looking(&is_there);
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let schedule = fired(&scheduler, "blind", wire::FireOutcome::Refused).await;
    let why = &schedule.fires[0].message;
    assert!(
        why.contains("there is no Secret warehouse in namespace ml") && why.contains("SECRET_NOT_FOUND"),
        "{why}"
    );
    assert!(
        !why.contains("--no-check-references"),
        "a schedule has no such flag: {why}"
    );
    let refused = scheduler.schedules().trigger_schedule(trigger("blind", "t1")).await;
    let refused = refused.expect_err("missing");
    assert_eq!(
        (refused.code(), reason(&refused).as_str(), fields(&refused)),
        (
            Code::FailedPrecondition,
            "REFERENCES_MISSING",
            vec!["pipeline.steps[0].env[0].valueFrom.secretKeyRef.name".to_owned()]
        )
    );
    is_there.store(true, Ordering::Relaxed);
    fired(&scheduler, "blind", wire::FireOutcome::Started).await;
    let triggered = scheduler.schedules().trigger_schedule(trigger("blind", "t1")).await;
    triggered.expect("it is there");
    scheduler.stop().await;
}

/// An executor that does not answer delays the fires that ask it a little, and no others.
#[tokio::test]
async fn i3_r11_fires_start_although_an_executor_does_not_answer_and_no_others_wait_for_it() {
    let data = tempfile::tempdir().expect("a folder");
    let (scheduler, clock) = Scheduler::start_at(config(data.path()), minute(0)).await;
    let asked = Arc::new(AtomicU8::new(0));
    let count = Arc::clone(&asked);
    let executor = Executor::new(Identity::new(1), |_, _| Play::Succeed).with_secrets(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        None
    });
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    // More than are prepared at a time; at a time that comes before the executor's lease is over.
    let due = minute(0).saturating_add(std::time::Duration::from_secs(20));
    let once = || wire::ScheduleSpec {
        timing: Some(wire::schedule_spec::Timing::RunOnceTime(timestamp_to_proto(due))),
        ..wire::ScheduleSpec::default()
    };
    let asking: Vec<String> = (0..40).map(|number| format!("asks-{number}")).collect();
    for name in &asking {
        let asking = wire::CreateScheduleRequest {
            spec: Some(once()),
            ..every_second(name)
        };
        scheduler.schedules().create_schedule(asking).await.expect("made");
    }
    let plain = creation("plain", once());
    scheduler.schedules().create_schedule(plain).await.expect("made");
    let began = std::time::Instant::now();
    clock.advance_to(due);
    // Any change has the clock looked at.
    let paused = wire::CreateScheduleRequest {
        paused: true,
        ..creation("wakes", spec("0 4 1 1 *"))
    };
    scheduler.schedules().create_schedule(paused).await.expect("made");
    fired(&scheduler, "plain", wire::FireOutcome::Started).await;
    for name in &asking {
        fired(&scheduler, name, wire::FireOutcome::Started).await;
    }
    assert!(
        asked.load(Ordering::Relaxed) <= 8,
        "no more are asked at a time: {asked:?}"
    );
    assert!(asked.load(Ordering::Relaxed) > 0, "some are");
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    scheduler.stop().await;
}
