//! The store against what the disk can do: ratios of pairs that are measured in turn, never a verdict.
//!
//! `cargo bench -p windlass-scheduler --bench store`. Each pair is: ours, then a file to which the same number of bytes is
//! appended in the same groups, each with `fdatasync` (performance P8 and P10); or recovery, then a bare scan of the same rows
//! (performance P12). Printed are the median of the ratios and their quartiles.

mod commits;
mod recovery;
mod work;

use std::time::{Duration, Instant};

/// Pairs of a measurement.
const PAIRS: usize = 7;

/// Length of each half of a pair.
const HALF: Duration = Duration::from_millis(500);

fn main() {
    // `cargo test --benches` runs this too, without the flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench`");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // One of them alone, for a profiler: `WINDLASS_BENCH=submissions`.
    let only = std::env::var("WINDLASS_BENCH").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    runtime.block_on(async {
        for group in [1, 10, 100, 1_000, 5_000].into_iter().filter(|_| wanted("changes")) {
            commits::changes(group).await;
        }
        for in_flight in [1, 64, 1_024].into_iter().filter(|_| wanted("submissions")) {
            commits::submissions(in_flight).await;
        }
        if wanted("recovery") {
            recovery::recovery(100_000).await;
        }
    });
}

/// What one half did.
#[derive(Clone, Copy, Debug)]
struct Half {
    operations: u64,
    elapsed: Duration,
}

impl Half {
    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    fn rate(self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// Repeats an operation, which says how much it did, for the length of a half.
fn repeat(mut operation: impl FnMut() -> u64) -> Half {
    let began = Instant::now();
    let mut operations = 0;
    while began.elapsed() < HALF {
        operations += operation();
    }
    Half {
        operations,
        elapsed: began.elapsed(),
    }
}

/// First quartile, median and third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn report(name: &str, goal: &str, unit: &str, ours: Vec<f64>, bare: Vec<f64>) {
    let ratios = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
    let [low, ratio, high] = quartiles(ratios);
    let [_, ours, _] = quartiles(ours);
    let [_, bare, _] = quartiles(bare);
    println!("{name:<44} ratio {ratio:.2} ({low:.2} to {high:.2}), goal {goal}; {ours:.0} against {bare:.0} {unit}");
}
