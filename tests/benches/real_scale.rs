//! A large run through a real API server whose pods succeed at once (kwok), beside a bare loop that does the same requests: performance P3,
//! P4 and P7, with probes of the machine in the same run.
//!
//! `CLUSTER_NETWORK=127.0.9 tests/cluster/up.sh --fake-nodes 2`, then, with `WINDLASS_TEST_KUBECONFIG` set,
//! `cargo bench -p windlass-tests --features real-cluster --bench real_scale -- [pairs] [steps] [in flight]`.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use futures::TryFutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use windlass_tests::audit::Audit;
use windlass_tests::deployment::Part;
use windlass_tests::real_cluster::RealCluster;
use windlass_tests::real_scale::{self, Scale};
use windlass_tests::usage::usage;
use windlass_tests::wait::until;
use windlass_tests::{audit, bare};

struct Half {
    creates_per_second: f64,
    cpu: Duration,
    time: Duration,
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let pairs = numbers.first().copied().unwrap_or(7);
    let steps = numbers.get(1).copied().unwrap_or(5_000);
    let in_flight = numbers.get(2).copied().unwrap_or(32);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let cluster = RealCluster::of_environment();
        println!("{steps} independent steps on a real API server, {in_flight} creates in flight, {pairs} pairs; each half's probes: append + fdatasync a second, integer loops a second");
        let (mut rates, mut cpus) = (Vec::new(), Vec::new());
        for pair in 1..=pairs {
            print_probes(&format!("pair {pair}, ours"));
            let (ours, body) = ours(&cluster, steps, in_flight).await;
            print_probes(&format!("pair {pair}, bare"));
            let bare = bare(&cluster, &body, steps, in_flight).await;
            let rate = ours.creates_per_second / bare.creates_per_second;
            let cpu = ours.cpu.as_secs_f64() / bare.cpu.as_secs_f64();
            println!(
                "  pair {pair}: ours {:.0} pods/s, {:.0} us CPU a pod, {:.1} s · bare {:.0} pods/s, {:.0} us CPU a pod, {:.1} s · P7 {rate:.2} (goal 0.92) · P3 {cpu:.2} (goal 1.5)",
                ours.creates_per_second,
                per(ours.cpu, steps),
                ours.time.as_secs_f64(),
                bare.creates_per_second,
                per(bare.cpu, steps),
                bare.time.as_secs_f64(),
            );
            rates.push(rate);
            cpus.push(cpu);
        }
        for (name, ratios) in [("P7 pods created a second", &mut rates), ("P3 CPU a step", &mut cpus)] {
            ratios.sort_by(f64::total_cmp);
            let quartile = |part: usize| ratios[(ratios.len() - 1) * part / 4];
            println!("{name}, ours to the bare loop: median {:.2}, quartiles {:.2} and {:.2}", quartile(2), quartile(1), quartile(3));
        }
    });
}

fn per(cpu: Duration, steps: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(steps).expect("fewer"))
}

fn print_probes(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = File::create(folder.path().join("probe")).expect("a file");
    let (begun, mut syncs) = (Instant::now(), 0_u32);
    while begun.elapsed() < Duration::from_millis(500) {
        file.write_all(&[7; 256]).expect("written");
        file.sync_data().expect("synced");
        syncs += 1;
    }
    let syncs = f64::from(syncs) / begun.elapsed().as_secs_f64();
    let (begun, mut loops, mut state) = (Instant::now(), 0_u32, 1_u64);
    while begun.elapsed() < Duration::from_millis(200) {
        for _ in 0..10_000 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        loops += 1;
    }
    println!(
        "  probes of {name}: {syncs:.0} syncs/s, {:.0} loops/s",
        f64::from(loops) / begun.elapsed().as_secs_f64()
    );
}

async fn ours(cluster: &RealCluster, steps: usize, in_flight: usize) -> (Half, Pod) {
    let scale = Scale::start(cluster, &["--creates-in-flight", &in_flight.to_string()]).await;
    let parts = [Part::Scheduler, Part::Executor];
    let before: Duration = parts.iter().map(|part| scale.deployment.usage(*part).cpu).sum();
    let audit = Audit::begin(cluster);
    let begun = Instant::now();
    let run = scale.submit(&real_scale::fan(steps)).await;
    let body = body_like(&scale).await;
    scale.succeed(&run).await;
    scale.all_gone().await;
    let time = begun.elapsed();
    let cpu = parts
        .iter()
        .map(|part| scale.deployment.usage(*part).cpu)
        .sum::<Duration>()
        - before;
    let asked = audit.asked(audit::EXECUTOR);
    println!(
        "  P4: {} writes and {} reads for {steps} steps (goal {} and {})",
        asked.requests.writes(),
        asked.requests.reads(),
        steps * 201 / 100 + 6,
        steps / 100
    );
    let half = Half {
        creates_per_second: asked.creates_per_second(),
        cpu,
        time,
    };
    scale.end().await;
    (half, body)
}

/// A pod like those of the run, for the bare loop.
async fn body_like(scale: &Scale) -> Pod {
    let pods: Api<Pod> = Api::namespaced(scale.deployment.kube().await, scale.namespace());
    let mut pod = until("a pod is there", async || {
        let list = pods
            .list(&ListParams::default().limit(1))
            .map_err(|error| error.to_string())
            .await?;
        list.items.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await;
    pod.status = None;
    pod.metadata = kube::api::ObjectMeta {
        labels: pod.metadata.labels.map(|labels| {
            let ours = labels
                .into_iter()
                .filter(|(name, _)| !name.starts_with("windlass.dev/"));
            // As long as ours, but nobody's.
            ours.chain((0..5).map(|number| (format!("bare.test/label-{number}"), "x".repeat(24))))
                .collect()
        }),
        annotations: pod.metadata.annotations,
        finalizers: Some(vec!["windlass.dev/observed".to_owned()]),
        ..kube::api::ObjectMeta::default()
    };
    if let Some(spec) = &mut pod.spec {
        spec.node_name = None;
        spec.volumes = None;
        spec.service_account = None;
        for container in &mut spec.containers {
            container.volume_mounts = None;
        }
    }
    pod
}

async fn bare(cluster: &RealCluster, body: &Pod, steps: usize, in_flight: usize) -> Half {
    let namespace = cluster.namespace("bare").await;
    let audit = Audit::begin(cluster);
    let before = usage(std::process::id()).cpu;
    let client = cluster.client_as(bare::USER_AGENT).await;
    let time = bare::run(client, &namespace.name, body, steps, in_flight).await;
    let cpu = usage(std::process::id()).cpu - before;
    let asked = audit.asked(bare::USER_AGENT);
    namespace.delete().await;
    Half {
        creates_per_second: asked.creates_per_second(),
        cpu,
        time,
    }
}
