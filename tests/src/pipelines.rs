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

/// A random DAG: every step has up to three upstream steps among the 50 before it. Each attempt appends `STEP ATTEMPT` to `witness`.
pub fn random_dag(steps: usize, seed: u64, witness: Option<&Path>) -> Pipeline {
    let mut random = StdRng::seed_from_u64(seed);
    let steps: Vec<_> = (0..steps)
        .map(|index| {
            let mut upstream: Vec<usize> = Vec::new();
            for _ in 0..random.random_range(0..=3_u8) {
                if index > 0 {
                    upstream.push(random.random_range(index.saturating_sub(50)..index));
                }
            }
            upstream.sort_unstable();
            upstream.dedup();
            let upstream: Vec<_> = upstream.into_iter().map(|index| format!("s{index}")).collect();
            json!({"name": format!("s{index}"), "upstream": upstream})
        })
        .collect();
    let command = match witness {
        Some(path) => {
            let line = format!(
                "echo \"$WINDLASS_STEP $WINDLASS_ATTEMPT\" >> {}; echo \"did $WINDLASS_STEP\"",
                path.display()
            );
            json!(["/bin/sh", "-c", line])
        }
        None => json!(["/bin/true"]),
    };
    from_json(json!({
        "name": "random",
        "defaults": {"image": "busybox:1.36", "command": command},
        "steps": steps,
    }))
}
