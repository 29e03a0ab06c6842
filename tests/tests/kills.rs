//! `kill -9` of each service at random moments: the run ends as if nothing had happened.
//!
//! The short form kills each service a few times; `WINDLASS_KILLS=100` is the long form.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use windlass_api::run::v1::RunState;
use windlass_tests::client::{logs, steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::random_dag;

const STEPS: usize = 30;

fn kills() -> usize {
    std::env::var("WINDLASS_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4)
}

fn seed() -> u64 {
    std::env::var("WINDLASS_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_261_123)
}

/// Runs a small random DAG again and again while `victim` is killed at random moments.
async fn survive(victim: Part) {
    let mut random = StdRng::seed_from_u64(seed());
    // A killed executor's shards are free when its lease has expired: short, so that the rounds are.
    let options = Options {
        scheduler_args: vec!["--lease".to_owned(), "3s".to_owned()],
        ..Options::default()
    };
    let mut deployment = Deployment::start(options).await;
    for round in 0..kills() {
        let seed: u64 = random.random();
        println!("{victim:?} round {round} seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let witness = deployment.folder().join(format!("witness-{round}"));
        let pipeline = random_dag(STEPS, seed, Some(&witness));
        let run = submit(&deployment, &pipeline, &format!("{victim:?}-{round}"))
            .await
            .name;

        let moment = Duration::from_millis(random.random_range(0..800));
        let ended = {
            let watching = watch_to_end(&deployment, &run);
            tokio::select! {
                ended = watching => Some(ended),
                () = tokio::time::sleep(moment) => None,
            }
        };
        deployment.restart(victim);
        let ended = match ended {
            Some(ended) => ended,
            None => watch_to_end(&deployment, &run).await,
        };
        assert_eq!(ended.state(), RunState::Succeeded, "seed {seed}: {ended:?}");
        one_start_per_attempt(&deployment, &run, &witness, seed).await;
        let lines = logs(&deployment, &run).await;
        assert_eq!(lines.len(), STEPS, "seed {seed}: every step has a log");
        for (source, lines) in lines {
            let step = source.split('/').next().expect("a step");
            assert_eq!(lines, [format!("did {step}")], "seed {seed}");
        }
    }
}

/// Every attempt that the scheduler knows of was started exactly once, and no other.
async fn one_start_per_attempt(deployment: &Deployment, run: &str, witness: &std::path::Path, seed: u64) {
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
    assert_eq!(attempts.len(), STEPS, "seed {seed}: one attempt a step");
    assert_eq!(
        started, attempts,
        "seed {seed}: starts on the left, attempts on the right"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_i2_i5_a_killed_scheduler_loses_nothing_and_starts_nothing_twice() {
    survive(Part::Scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i3_i6_a_killed_executor_fails_no_step() {
    survive(Part::Executor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_i7_a_killed_log_relay_loses_no_line() {
    survive(Part::Relay).await;
}
