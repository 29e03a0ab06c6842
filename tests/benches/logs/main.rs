//! What logs cost, and how late they come, through executor and log relay as processes (performance P13 to P16), beside bare servers and
//! readers in the same run.
//!
//! `cargo bench -p windlass-tests --bench logs -- [pairs] [readers] [seconds] [MiB]`. The endpoint that the executor reads serves logs from
//! memory, so that it is neither measured nor waited for. Only ratios of one run count.

mod bare;
mod endpoint;

use std::sync::Arc;
use std::time::{Duration, Instant};

use endpoint::{Endpoint, LINE};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::json;
use tokio::task::JoinSet;
use windlass_api::log::v1::log_service_client::LogServiceClient;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{TailLogsRequest, TailLogsResponse};
use windlass_service::{AuthenticatedChannel, ChannelSettings, connect_lazy};
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

/// Processor time of this process's threads whose name begins so.
fn threads(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let ticks: u64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .filter_map(|stat| {
            let (head, tail) = stat.rsplit_once(") ")?;
            let fields: Vec<&str> = tail.split(' ').collect();
            let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
            let ours = head.split_once('(')?.1.starts_with(name);
            ours.then_some(ticks(11)? + ticks(12)?)
        })
        .sum();
    Duration::from_millis(ticks * 10)
}

/// How late lines came, microseconds.
#[derive(Debug, Default)]
struct Delays(Vec<u64>);

impl Delays {
    fn at(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * share) as usize] as f64 / 1e3
    }
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 4];
    (at(2), at(1), at(3))
}

fn say(what: &str, values: Vec<f64>, goal: &str) {
    let (middle, low, high) = median(values);
    println!("  {what}: median {middle:.2}, quartiles {low:.2} to {high:.2} (goal {goal})");
}

/// An installation in front of whose cluster the endpoint stands.
struct Bench {
    deployment: Deployment,
    endpoint: Arc<Endpoint>,
    /// A client of the endpoint.
    front: kube::Client,
    runs: usize,
}

impl Bench {
    async fn start() -> Self {
        let mut deployment = Deployment::start(Options::default()).await;
        let endpoint = Endpoint::new();
        let address = Arc::clone(&endpoint).serve(deployment.kube().await).await;
        deployment.hide_behind(Part::Cluster, address);
        deployment.ready().await;
        let config = kube::Config::new(format!("http://{address}").parse().expect("an address"));
        Self {
            deployment,
            endpoint,
            front: kube::Client::try_from(config).expect("a client"),
            runs: 0,
        }
    }

    /// Starts a run of one step that ends when it is told to; names of the run, the step and the pod.
    async fn begin(&mut self) -> (String, String, String) {
        self.runs += 1;
        let step = format!("w{}", self.runs);
        let over = self.over(&step);
        let script = format!("while [ ! -e {over} ]; do sleep 0.05; done");
        let pipeline = from_json(json!({
            "name": "writes",
            "defaults": {"image": "busybox:1.36"},
            "steps": [{"name": step, "command": ["/bin/sh", "-c", script]}],
        }));
        let run = submit(&self.deployment, &pipeline, &step).await.name;
        let pods: Api<Pod> = Api::default_namespaced(self.front.clone());
        let pod = until("the pod runs", async || {
            let pods = pods.list(&ListParams::default()).await.expect("a list");
            let ours = pods.items.into_iter().find(|pod| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                name.rsplit('-').nth(2) == Some(&*step)
                    && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
            });
            ours.and_then(|pod| pod.metadata.name).ok_or("it does not run yet")
        })
        .await;
        (run, step, pod)
    }

    fn over(&self, step: &str) -> String {
        self.deployment
            .folder()
            .join(format!("over-{step}"))
            .display()
            .to_string()
    }

    /// Ends the step and its log.
    fn end(&self, step: &str) {
        std::fs::write(self.over(step), "").expect("a file");
        self.endpoint.log(step).end();
    }

    /// A connection and a request for all of a run's log.
    fn reader(&self, address: &str, run: &str) -> (AuthenticatedChannel, TailLogsRequest) {
        let settings = ChannelSettings {
            address: address.to_owned(),
            token: Some(TOKEN.to_owned()),
            user: Some("reader".to_owned()),
            tls: Default::default(),
        };
        let request = TailLogsRequest {
            run: run.to_owned(),
            follow: true,
            ..TailLogsRequest::default()
        };
        (connect_lazy(&settings).expect("an address"), request)
    }

    async fn stream(&self, address: &str, run: &str) -> tonic::Streaming<TailLogsResponse> {
        let (channel, request) = self.reader(address, run);
        let response = LogServiceClient::new(channel).tail_logs(request).await;
        response.expect("accepted").into_inner()
    }

    /// Readers of a log to its end who do not look at it; how long it takes.
    async fn drain(&self, address: &str, run: &str, readers: usize, least: usize) -> f64 {
        let clock = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..readers {
            let (channel, request) = self.reader(address, run);
            all.spawn(bare::drain(channel, request));
        }
        for bytes in all.join_all().await {
            assert!(bytes >= least, "{bytes} of {least}");
        }
        clock.elapsed().as_secs_f64()
    }

    /// Readers of a log to its end, each on a connection of its own, who check that the numbers of lines have no gap.
    async fn read(&self, address: &str, run: &str, readers: usize) -> JoinSet<(u64, Delays)> {
        let mut all = JoinSet::new();
        for _ in 0..readers {
            let mut stream = self.stream(address, run).await;
            let origin = self.endpoint.origin;
            all.spawn(async move {
                let (mut count, mut delays) = (0, Delays::default());
                while let Some(message) = stream.message().await.expect("no failure") {
                    let Some(Message::Lines(lines)) = message.message else {
                        continue;
                    };
                    let now = origin.elapsed().as_micros() as u64;
                    for line in lines.lines {
                        if let Some(position) = line.position {
                            assert_eq!(position.line, count, "no line lost, none twice");
                        }
                        count += 1;
                        delays.0.push(now.saturating_sub(number(&line.content)));
                    }
                }
                (count, delays)
            });
        }
        all
    }

    fn relay(&self) -> String {
        format!("http://{}", self.deployment.address(Part::Relay))
    }
}

/// The number that a line begins with.
fn number(line: &[u8]) -> u64 {
    std::str::from_utf8(&line[..16])
        .expect("text")
        .parse()
        .expect("a number")
}

async fn finish(mut all: JoinSet<(u64, Delays)>, lines: u64) -> Delays {
    let mut together = Delays::default();
    while let Some(read) = all.join_next().await {
        let (count, delays) = read.expect("no panic");
        assert_eq!(count, lines, "every reader got every line");
        together.0.extend(delays.0);
    }
    together
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    // `cargo test --benches` only wants to see that it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let number = |index: usize, quickly: usize, or: usize| match quick {
        true => quickly,
        false => numbers.get(index).copied().unwrap_or(or),
    };
    let (pairs, readers) = (number(0, 1, 7), number(1, 10, 100));
    let (seconds, mib) = (number(2, 1, 5), number(3, 2, 32));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("readers")
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut bench = Bench::start().await;
        bulk(&mut bench, pairs, readers, mib).await;
        live(&mut bench, pairs, readers, seconds).await;
        added(&mut bench, pairs, seconds).await;
        stalled(&mut bench, pairs, readers, mib).await;
    });
}

/// P13: a log that is sealed, read by many.
async fn bulk(bench: &mut Bench, pairs: usize, readers: usize, mib: usize) {
    let lines = mib * 1024 * 1024 / LINE;
    println!("P13: {readers} readers of {mib} MiB in lines of {LINE} bytes from the archive");
    let (run, step, _) = bench.begin().await;
    let begun = Instant::now();
    bench.endpoint.write_all(&step, lines);
    bench.end(&step);
    watch_to_end(&bench.deployment, &run).await;
    finish(bench.read(&bench.relay(), &run, 1).await, lines as u64).await;
    println!("  taken in and read once in {:.2} s", begun.elapsed().as_secs_f64());
    let chunks = bare::chunks(lines * LINE);
    let gigabytes = (readers * lines * LINE) as f64 / 1e9;
    let (mut times, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let before = bench.deployment.usage(Part::Relay).cpu;
        let wall = bench.drain(&bench.relay(), &run, readers, lines * LINE).await;
        let cpu = (bench.deployment.usage(Part::Relay).cpu - before).as_secs_f64();
        let before = threads("bare");
        let bare_wall = bench.drain(&chunks.address, &run, readers, lines * LINE).await;
        let bare_cpu = (threads("bare") - before).as_secs_f64();
        println!(
            "  relay {:.2} s/GB at {:.0} MB/s, bare tonic {:.2} s/GB at {:.0} MB/s; one core of the relay sends {:.0} MB/s",
            cpu / gigabytes,
            gigabytes * 1e3 / wall,
            bare_cpu / gigabytes,
            gigabytes * 1e3 / bare_wall,
            gigabytes * 1e3 / cpu,
        );
        times.push(cpu / bare_cpu);
        rates.push(bare_wall / wall);
    }
    say("processor time, relay to bare", times, "at most 1.25");
    say("rate, relay to bare", rates, "at least 0.85");
    assert_eq!(follows(bench, &step), 1, "P16: one upstream a container");
}

fn follows(bench: &Bench, step: &str) -> usize {
    bench
        .endpoint
        .log(step)
        .follows
        .load(std::sync::atomic::Ordering::Relaxed)
}

/// P14: many follow a container that writes a line a millisecond.
async fn live(bench: &mut Bench, pairs: usize, readers: usize, seconds: usize) {
    println!("P14: {readers} readers of 1,000 lines/s for {seconds} s");
    let lines = (seconds * 1_000) as u64;
    let delivered = lines as f64 * readers as f64;
    let (mut costs, mut ratios, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (run, step, pod) = bench.begin().await;
        let all = bench.read(&bench.relay(), &run, readers).await;
        let direct = spawn_direct(bench, pod);
        let before = bench.deployment.usage(Part::Relay).cpu;
        bench.endpoint.write_paced(&step, seconds).await;
        assert_eq!(follows(bench, &step), 2, "P16: one upstream a container, and ours");
        bench.end(&step);
        let mut delays = finish(all, lines).await;
        let cost = (bench.deployment.usage(Part::Relay).cpu - before).as_secs_f64() * 1e6 / delivered;
        let mut direct = direct.await.expect("no panic");

        let (_, step, pod) = bench.begin().await;
        let forwarder = bare::forwarder(bench.front.clone(), pod, readers);
        let all = bench.read(&forwarder.address, "any", readers).await;
        let before = threads("forward");
        bench.endpoint.write_paced(&step, seconds).await;
        bench.end(&step);
        let mut forwarded = finish(all, lines).await;
        let bare = (threads("forward") - before).as_secs_f64() * 1e6 / delivered;
        println!(
            "  relay {cost:.2} us a delivered line, flush-a-line {bare:.2} us; p50 and p99: relay {:.2} and {:.2} ms, flush-a-line {:.2} and {:.2} ms, direct beside the relay {:.2} and {:.2} ms",
            delays.at(0.5),
            delays.at(0.99),
            forwarded.at(0.5),
            forwarded.at(0.99),
            direct.at(0.5),
            direct.at(0.99),
        );
        costs.push(cost);
        ratios.push(bare / cost);
        added.push(delays.at(0.99) - direct.at(0.99));
    }
    say("us of the relay a delivered line", costs, "at most 1");
    say("flush-a-line to relay", ratios, "at least 8");
    say("ms added at p99", added, "at most 15");
}

fn spawn_direct(bench: &Bench, pod: String) -> tokio::task::JoinHandle<Delays> {
    let (front, origin) = (bench.front.clone(), bench.endpoint.origin);
    tokio::spawn(async move {
        let mut delays = Delays::default();
        let line = |line: &[u8]| {
            let now = origin.elapsed().as_micros() as u64;
            delays.0.push(now.saturating_sub(number(line)));
        };
        bare::direct(front, pod, line).await;
        delays
    })
}

/// P15: one reader, beside a bare forwarder and a direct reader of the same lines at the same time.
async fn added(bench: &mut Bench, pairs: usize, seconds: usize) {
    println!(
        "P15: one reader of 1,000 lines/s for {seconds} s, beside a bare forwarder and a direct reader of the same lines"
    );
    let lines = (seconds * 1_000) as u64;
    let (mut middles, mut ratios, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (run, step, pod) = bench.begin().await;
        let forwarder = bare::forwarder(bench.front.clone(), pod.clone(), 1);
        let through = bench.read(&bench.relay(), &run, 1).await;
        let forwarded = bench.read(&forwarder.address, "any", 1).await;
        let direct = spawn_direct(bench, pod);
        bench.endpoint.write_paced(&step, seconds).await;
        bench.end(&step);
        let (mut through, mut forwarded) = (finish(through, lines).await, finish(forwarded, lines).await);
        let mut direct = direct.await.expect("no panic");
        let at = |share: f64, delays: &mut Delays| delays.at(share) * 1e3;
        let ours = at(0.5, &mut through) - at(0.5, &mut direct);
        let bare = at(0.5, &mut forwarded) - at(0.5, &mut direct);
        println!(
            "  p50 {:.0} us, added {ours:.0} us; the forwarder added {bare:.0} us; p99 {:.0} us, forwarder {:.0} us, direct {:.0} us",
            at(0.5, &mut through),
            at(0.99, &mut through),
            at(0.99, &mut forwarded),
            at(0.99, &mut direct),
        );
        middles.push(ours);
        ratios.push(ours / bare.max(1.0));
        tails.push(at(0.99, &mut through) / at(0.99, &mut direct));
    }
    say("us added at p50", middles, "at most 60");
    say("added, relay to forwarder", ratios, "at most 2");
    say("p99, relay to direct", tails, "at most 2");
}

/// P16: some of the readers do not read.
async fn stalled(bench: &mut Bench, pairs: usize, readers: usize, mib: usize) {
    let lines = mib * 1024 * 1024 / LINE;
    let idle = readers / 10;
    println!(
        "P16: {readers} readers follow {mib} MiB as fast as they come, {idle} of them stalled in every second run"
    );
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let mut walls = [0.0; 2];
        for (stalls, wall) in walls.iter_mut().enumerate() {
            let (run, step, _) = bench.begin().await;
            let mut still = Vec::new();
            for _ in 0..idle * stalls {
                still.push(bench.stream(&bench.relay(), &run).await);
            }
            let all = bench.read(&bench.relay(), &run, readers - idle).await;
            let clock = Instant::now();
            bench.endpoint.write_all(&step, lines);
            bench.end(&step);
            finish(all, lines as u64).await;
            *wall = clock.elapsed().as_secs_f64();
            assert_eq!(follows(bench, &step), 1, "one upstream a container");
            // Those who stalled miss nothing when they go on.
            for mut stream in still {
                let mut count = 0;
                while let Some(message) = stream.message().await.expect("no failure") {
                    if let Some(Message::Lines(read)) = message.message {
                        count += read.lines.len();
                    }
                }
                assert_eq!(count, lines, "nothing is missed");
            }
        }
        println!("  without {:.2} s, with {:.2} s", walls[0], walls[1]);
        ratios.push(walls[0] / walls[1]);
    }
    say("rate with stalled readers to without", ratios, "at least 0.95");
    let (run, step, _) = bench.begin().await;
    bench.endpoint.write_all(&step, lines);
    bench.end(&step);
    watch_to_end(&bench.deployment, &run).await;
    // A relay that has kept nothing of what was measured before, and its caches full.
    bench.deployment.restart(Part::Relay);
    bench.deployment.ready().await;
    finish(bench.read(&bench.relay(), &run, 1).await, lines as u64).await;
    let before = bench.deployment.usage(Part::Relay).resident;
    let mut still = Vec::new();
    for _ in 0..readers * 2 {
        let mut stream = bench.stream(&bench.relay(), &run).await;
        stream.message().await.expect("no failure");
        still.push(stream);
    }
    let mut grown = 0;
    let settled = until("the relay has filled what it can", async || {
        let now = bench.deployment.usage(Part::Relay).resident;
        let steady = now == grown;
        grown = now;
        steady.then_some(now).ok_or("still growing")
    });
    let each = settled.await.saturating_sub(before) / 1024 / still.len() as u64;
    println!(
        "  {} stalled readers cost {each} KiB each (goal at most 256)",
        still.len()
    );
}
