//! Schedules with real processes: `kill -9` around fires, at random moments and at every commit. Roadmap 24; behaviours E2, H4, X13.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tonic::Code;
use windlass_api::convert::{pipeline_to_proto, timestamp_from_proto};
use windlass_api::run::v1::{ListRunsRequest, Run, RunState};
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_api::schedule::v1::schedule_spec::Timing;
use windlass_ids::Timestamp;
use windlass_service::{AuthenticatedChannel, Clock};
use windlass_tests::binaries::binary;
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

const NAME: &str = "ticks";

fn seed() -> u64 {
    let set = std::env::var("WINDLASS_SEED").ok();
    set.map_or(20_261_130, |text| text.parse().expect("WINDLASS_SEED is a number"))
}

fn client(deployment: &Deployment) -> ScheduleServiceClient<AuthenticatedChannel> {
    ScheduleServiceClient::new(deployment.channel(Part::Scheduler))
}

/// Every second, whatever still runs, and nothing that was missed is left out.
fn every_second(witness: &std::path::Path) -> wire::CreateScheduleRequest {
    let pipeline = from_json(json!({
        "name": "tick",
        "defaults": {"image": "busybox"},
        "steps": [{
            "name": "tell",
            "script": format!("echo \"$WINDLASS_RUN $WINDLASS_SCHEDULED_TIME\" >> {}", witness.display()),
        }],
    }));
    wire::CreateScheduleRequest {
        request_id: "create".to_owned(),
        schedule: NAME.to_owned(),
        spec: Some(wire::ScheduleSpec {
            timing: Some(Timing::Interval(prost_types::Duration { seconds: 1, nanos: 0 })),
            overlap_policy: wire::OverlapPolicy::Allow.into(),
            catch_up: wire::CatchUp::All.into(),
            ..wire::ScheduleSpec::default()
        }),
        pipeline: Some(pipeline_to_proto(&pipeline)),
        ..wire::CreateScheduleRequest::default()
    }
}

/// Repeats a request while the scheduler is away, as a client should.
async fn repeat<T>(what: &str, once: impl AsyncFn() -> Result<tonic::Response<T>, tonic::Status>) -> T {
    until(what, async || match once().await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => Err(status.to_string()),
        Err(status) => panic!("refused: {status:?}"),
    })
    .await
}

async fn schedule(deployment: &Deployment) -> wire::Schedule {
    let request = wire::GetScheduleRequest {
        schedule: NAME.to_owned(),
        ..wire::GetScheduleRequest::default()
    };
    let got = repeat("the schedule is shown", async || {
        client(deployment).get_schedule(request.clone()).await
    })
    .await;
    got.schedule.expect("a schedule")
}

async fn started(deployment: &Deployment, count: u64) {
    until("the schedule fires", async || {
        let schedule = schedule(deployment).await;
        if schedule.started_count >= count {
            Ok(())
        } else {
            Err(format!("{schedule:?}"))
        }
    })
    .await;
}

/// Pauses the schedule and gives its runs once all have ended, in the order of their fires.
async fn stop(deployment: &Deployment) -> Vec<Run> {
    let request = wire::PauseScheduleRequest {
        request_id: "stop".to_owned(),
        schedule: NAME.to_owned(),
        ..wire::PauseScheduleRequest::default()
    };
    repeat("the schedule is paused", async || {
        client(deployment).pause_schedule(request.clone()).await
    })
    .await;
    let mut runs = until("all runs end", async || {
        let request = ListRunsRequest {
            page_size: 500,
            filter: format!("schedule={NAME}"),
            ..ListRunsRequest::default()
        };
        let runs = deployment
            .runs()
            .list_runs(request)
            .await
            .map_err(|status| status.to_string())?;
        let runs = runs.into_inner().runs;
        match runs.iter().find(|run| run.end_time.is_none()) {
            Some(run) => Err(format!("{} is {:?}", run.name, run.state())),
            None => Ok(runs),
        }
    })
    .await;
    runs.sort_by_key(|run| run.scheduled_time.expect("a time").seconds);
    runs
}

/// Every second has one run, and every run was started once and told its time.
fn one_run_for_every_second(runs: &[Run], witness: &std::path::Path, what: &str) {
    let times: Vec<_> = runs.iter().map(|run| run.scheduled_time.expect("a time")).collect();
    for pair in times.windows(2) {
        assert_eq!(pair[1].seconds - pair[0].seconds, 1, "{what}: {times:?}");
        assert_eq!(pair[1].nanos, pair[0].nanos, "{what}");
    }
    let expected: BTreeMap<String, String> = runs
        .iter()
        .map(|run| {
            assert_eq!(run.state(), RunState::Succeeded, "{what}: {run:?}");
            let time = run.scheduled_time.expect("a time");
            let time = jiff::Timestamp::new(time.seconds, time.nanos).expect("a time");
            (run.name.clone(), time.to_string())
        })
        .collect();
    let written = std::fs::read_to_string(witness).expect("the steps wrote");
    let lines: Vec<_> = written
        .lines()
        .map(|line| line.split_once(' ').expect("two words"))
        .collect();
    assert_eq!(lines.len(), expected.len(), "{what}: {written}");
    for (run, time) in lines {
        assert_eq!(expected.get(run).map(String::as_str), Some(time), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_a_scheduler_that_is_killed_around_its_fires_leaves_none_out_and_doubles_none() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut deployment = Deployment::start(Options::default()).await;
    let witness = deployment.folder().join("witness");
    let request = every_second(&witness);
    repeat("the schedule is made", async || {
        client(&deployment).create_schedule(request.clone()).await
    })
    .await;
    for round in 0..6 {
        let before = schedule(&deployment).await.started_count;
        started(&deployment, before + 1).await;
        // Somewhere in the half second before the next fire, or right in it.
        let next = schedule(&deployment).await.next_times;
        let next = timestamp_from_proto(next.first().expect("a next fire"));
        let moment = Timestamp::from_millis(next.as_millis() + random.random_range(-500..50));
        until("the moment of the kill", async || {
            let now = Clock::system().now();
            (now >= moment)
                .then_some(())
                .ok_or_else(|| format!("{now:?} is before {moment:?}"))
        })
        .await;
        println!("seed {} round {round}", seed());
        deployment.restart(Part::Scheduler);
    }
    let before = schedule(&deployment).await.started_count;
    started(&deployment, before + 2).await;
    let runs = stop(&deployment).await;
    assert!(runs.len() >= 8, "{} runs", runs.len());
    one_run_for_every_second(&runs, &witness, &format!("seed {}", seed()));
}

/// The scheduler dies at one commit and is started again.
async fn survive(moment: &str) {
    let options = Options {
        scheduler: Some(binary("crashing-scheduler")),
        scheduler_env: BTreeMap::from([("WINDLASS_CRASH".to_owned(), moment.to_owned())]),
        ..Options::default()
    };
    let mut deployment = Deployment::start(options).await;
    let witness = deployment.folder().join("witness");
    let request = every_second(&witness);
    {
        let making = repeat("the schedule is made", async || {
            client(&deployment).create_schedule(request.clone()).await
        });
        let death = async {
            let pid = deployment.pid(Part::Scheduler);
            until(
                "the scheduler dies",
                async || if is_alive(pid) { Err("alive") } else { Ok(()) },
            )
            .await;
        };
        tokio::select! {
            () = death => {}
            () = async { making.await; std::future::pending().await } => {}
        }
    }
    deployment.become_ordinary();
    deployment.restart(Part::Scheduler);
    let made = repeat("the schedule is made", async || {
        client(&deployment).create_schedule(request.clone()).await
    })
    .await;
    println!("{moment}: made anew: {}", made.created);
    started(&deployment, 3).await;
    let runs = stop(&deployment).await;
    one_run_for_every_second(&runs, &witness, moment);
}

fn is_alive(pid: u32) -> bool {
    // A zombie is dead: its state is the first letter after the name.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_x13_the_scheduler_dies_before_each_of_the_first_commits_of_a_schedule() {
    for number in 1..=6 {
        survive(&format!("before:{number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_x13_the_scheduler_dies_after_each_of_the_first_commits_of_a_schedule() {
    for number in 1..=6 {
        survive(&format!("after:{number}")).await;
    }
}
