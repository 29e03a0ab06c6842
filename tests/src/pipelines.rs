//! Pipelines that the tests run.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use windlass_pipeline::Pipeline;

/// A pipeline from its JSON form.
///
/// # Panics
/// When it is none.
pub fn from_json(value: serde_json::Value) -> Pipeline {
    serde_json::from_value(value).expect("a pipeline")
}

/// A random DAG whose steps do nothing: every step has up to three upstream steps among the 50 before it.
pub fn random_dag(steps: usize, seed: u64) -> Pipeline {
    let mut random = StdRng::seed_from_u64(seed);
    let steps: Vec<_> = (0..steps)
        .map(|index| json!({"name": format!("s{index}"), "upstream": upstream(index, &mut random)}))
        .collect();
    from_json(json!({
        "name": "random",
        "defaults": {"image": "busybox:1.36", "command": ["/bin/true"]},
        "steps": steps,
    }))
}

/// A random DAG whose every attempt appends `STEP ATTEMPT` to the file `witness`; about one step in six succeeds only at its second attempt.
/// With the number of attempts that it takes.
pub fn witnessed_dag(steps: usize, seed: u64, witness: &Path) -> (Pipeline, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut attempts = steps;
    let steps: Vec<_> = (0..steps)
        .map(|index| {
            let upstream = upstream(index, &mut random);
            let fails_first = random.random_ratio(1, 6);
            attempts += usize::from(fails_first);
            let env = json!([{"name": "FAILS_FIRST", "value": fails_first.to_string()}]);
            json!({"name": format!("s{index}"), "upstream": upstream, "env": env})
        })
        .collect();
    let script = format!(
        "echo \"$WINDLASS_STEP $WINDLASS_ATTEMPT\" >> {}; echo \"did $WINDLASS_STEP\"; [ \"$FAILS_FIRST $WINDLASS_ATTEMPT\" != 'true 1' ]",
        witness.display()
    );
    let pipeline = from_json(json!({
        "name": "witnessed",
        "defaults": {
            "image": "busybox:1.36",
            "command": ["/bin/sh", "-c", script],
            "retries": {"user": {"attempts": 2, "delay": "10ms"}},
        },
        "steps": steps,
    }));
    (pipeline, attempts)
}

fn upstream(index: usize, random: &mut StdRng) -> Vec<String> {
    let mut upstream: Vec<usize> = Vec::new();
    for _ in 0..random.random_range(0..=3_u8) {
        if index > 0 {
            upstream.push(random.random_range(index.saturating_sub(50)..index));
        }
    }
    upstream.sort_unstable();
    upstream.dedup();
    upstream.into_iter().map(|index| format!("s{index}")).collect()
}
