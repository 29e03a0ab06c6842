//! `kill -9` of each service at random moments: the run ends as if nothing had happened.
//!
//! The short form kills each service a few times; `scripts/test-long` kills each 100 times. `WINDLASS_KILLS` sets the number, and
//! `WINDLASS_SEED` repeats a run.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use windlass_api::run::v1::RunState;
use windlass_tests::client::{logs, steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::witnessed_dag;

const STEPS: usize = 30;

fn kills() -> usize {
    let set = std::env::var("WINDLASS_KILLS").ok();
    set.map_or(6, |text| text.parse().expect("WINDLASS_KILLS is a number"))
}

fn seed() -> u64 {
    let set = std::env::var("WINDLASS_SEED").ok();
    set.map_or(20_261_123, |text| text.parse().expect("WINDLASS_SEED is a number"))
}

/// Runs a small random DAG again and again while `victim` is killed at random moments, sometimes once more while it recovers.
async fn survive(victim: Part, options: Options) {
    let mut random = StdRng::seed_from_u64(seed());
    let mut deployment = Deployment::start(options).await;
    for round in 0..kills() {
        let seed: u64 = random.random();
        println!("{victim:?} round {round} seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let witness = deployment.folder().join(format!("witness-{round}"));
        let (pipeline, attempts) = witnessed_dag(STEPS, seed, &witness);
        let run = submit(&deployment, &pipeline, &format!("{victim:?}-{round}"))
            .await
            .name;

        let mut ended = watch_for(&deployment, &run, Duration::from_millis(random.random_range(0..800))).await;
        deployment.restart(victim);
        if random.random_ratio(1, 3) {
            let moment = Duration::from_millis(random.random_range(0..400));
            ended = watch_for(&deployment, &run, moment).await.or(ended);
            deployment.restart(victim);
        }
        let ended = match ended {
            Some(ended) => ended,
            None => watch_to_end(&deployment, &run).await,
        };
        assert_eq!(ended.state(), RunState::Succeeded, "seed {seed}: {ended:?}");
        one_start_per_attempt(&deployment, &run, &witness, attempts, seed).await;
        let lines = logs(&deployment, &run).await;
        assert_eq!(lines.len(), attempts, "seed {seed}: every attempt has a log");
        for (source, lines) in lines {
            let step = source.split('/').next().expect("a step");
            assert_eq!(lines, [format!("did {step}")], "seed {seed}");
        }
    }
}

/// Watches for a while; the run when it has ended.
async fn watch_for(deployment: &Deployment, run: &str, moment: Duration) -> Option<windlass_api::run::v1::Run> {
    tokio::time::timeout(moment, watch_to_end(deployment, run)).await.ok()
}

/// Every attempt that the scheduler knows of was started exactly once, and no other.
async fn one_start_per_attempt(
    deployment: &Deployment,
    run: &str,
    witness: &std::path::Path,
    expected: usize,
    seed: u64,
) {
    let mut started = BTreeMap::<String, u32>::new();
    for line in std::fs::read_to_string(witness).expect("the steps wrote").lines() {
        *started.entry(line.to_owned()).or_default() += 1;
    }
    let attempts: BTreeMap<String, u32> = steps(deployment, run)
        .await
        .iter()
        .flat_map(|step| {
            step.attempts
                .iter()
                .map(move |attempt| (format!("{} {}", step.name, attempt.number), 1))
        })
        .collect();
    assert_eq!(
        attempts.len(),
        expected,
        "seed {seed}: as many attempts as the steps need"
    );
    assert_eq!(
        started, attempts,
        "seed {seed}: starts on the left, attempts on the right"
    );
}

/// A killed executor's shards are free when its lease has expired: short, so that the rounds are.
fn short_lease() -> Vec<String> {
    vec!["--lease".to_owned(), "3s".to_owned()]
}

/// behaviours E2, U1, U4
#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_i5_a_killed_scheduler_loses_nothing_and_starts_nothing_twice() {
    survive(Part::Scheduler, Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i3_i6_a_killed_executor_fails_no_step() {
    let options = Options {
        scheduler_args: short_lease(),
        ..Options::default()
    };
    survive(Part::Executor, options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i3_i7_another_executor_takes_over_from_a_killed_one() {
    let options = Options {
        scheduler_args: short_lease(),
        two_executors: true,
        ..Options::default()
    };
    survive(Part::Executor, options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_i7_a_killed_log_relay_loses_no_line() {
    survive(Part::Relay, Options::default()).await;
}
