//! A large random DAG through the three services as processes: time, CPU, memory and API requests, beside a bare loop in the same run.
//!
//! `cargo bench -p windlass-tests --bench scale -- [pairs] [steps]`. Pods end at once. The bare loop creates, patches and deletes as many
//! pods through the same local cluster with an ordinary client, 32 at a time, which is what Kubernetes itself costs here.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::random_dag;
use windlass_tests::usage::usage;

const IN_FLIGHT: usize = 32;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let pairs = numbers.first().copied().unwrap_or(3);
    let steps = numbers.get(1).copied().unwrap_or(10_000);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        println!("a random DAG of {steps} steps, pods that end at once, three services and a local cluster as processes, {pairs} pairs");
        let mut ratios = Vec::new();
        for pair in 0..pairs {
            let (run, services) = run(steps).await;
            let (bare, client) = bare(steps).await;
            let ratio = run.as_secs_f64() / bare.as_secs_f64();
            println!(
                "  pair {}: the run {:.1} s, services {:.0} us CPU a step · the bare loop {:.1} s, {:.0} us CPU a pod · time ratio {ratio:.2}",
                pair + 1,
                run.as_secs_f64(),
                per(services, steps),
                bare.as_secs_f64(),
                per(client, steps),
            );
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        println!("  median time ratio {:.2}", ratios[ratios.len() / 2]);
    });
}

fn per(cpu: Duration, steps: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / steps as f64
}

/// Runs the DAG; how long it took, and what CPU the three services took.
async fn run(steps: usize) -> (Duration, Duration) {
    let deployment = Deployment::start(Options {
        instant_pods: true,
        ..Options::default()
    })
    .await;
    let before: Vec<_> = Part::SERVICES.map(|part| deployment.usage(part)).to_vec();
    let begun = Instant::now();
    let run = submit(&deployment, &random_dag(steps, 7), "large").await;
    let ended = watch_to_end(&deployment, &run.name).await;
    let elapsed = begun.elapsed();
    assert_eq!(ended.state(), RunState::Succeeded, "{ended:?}");
    let mut cpu = Duration::ZERO;
    for (part, before) in Part::SERVICES.into_iter().zip(before) {
        let after = deployment.usage(part);
        cpu += after.cpu - before.cpu;
        println!(
            "    {part:?}: {:.1} MiB before, {:.1} MiB at most, {:.0} us CPU a step",
            mebibytes(before.resident),
            mebibytes(after.peak),
            per(after.cpu - before.cpu, steps)
        );
    }
    let requests = deployment.requests().await;
    println!(
        "    API requests: {} writes and {} reads for {steps} steps",
        requests.writes(),
        requests.reads()
    );
    (elapsed, cpu)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The same requests by an ordinary client; how long they took, and what CPU this process took.
async fn bare(steps: usize) -> (Duration, Duration) {
    let deployment = Deployment::start(Options {
        instant_pods: true,
        ..Options::default()
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(deployment.kube().await, "default");
    let before = usage(std::process::id()).cpu;
    let begun = Instant::now();
    let all = futures::stream::iter(0..steps).map(async |number| {
        let name = format!("bare-{number}");
        let pod = json!({
            "metadata": {"name": name, "finalizers": ["windlass.dev/observed"]},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1.36", "command": ["/bin/true"]}]},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        pods.create(&PostParams::default(), &pod).await.expect("created");
        let free = json!({"metadata": {"labels": {"windlass.dev/released": "true"}, "finalizers": null}});
        let patched = pods.patch(&name, &PatchParams::default(), &Patch::Merge(&free)).await;
        patched.expect("patched");
    });
    all.buffer_unordered(IN_FLIGHT).for_each(async |()| {}).await;
    let released = ListParams::default().labels("windlass.dev/released").limit(500);
    while !pods.list(&released).await.expect("listed").items.is_empty() {
        pods.delete_collection(&DeleteParams::default(), &released)
            .await
            .expect("deleted");
    }
    (begun.elapsed(), usage(std::process::id()).cpu - before)
}
