//! What the relay costs a reader, beside a bare tonic stream of the same bytes (performance P13, P14 and P16).
//!
//! `cargo bench -p windlass-log-relay`; sizes by WINDLASS_BENCH_READERS, WINDLASS_BENCH_MIB and WINDLASS_BENCH_SECONDS. The relay and the
//! bare server have runtimes of their own, so that their processor time can be told from the clients'. Only ratios of one run count.

#[path = "../tests/support/mod.rs"]
mod support;

use std::pin::Pin;
use std::time::{Duration, Instant};

use support::client::open;
use support::executor::{Cluster, Executor};
use support::scheduler::{Scheduler, source};
use support::{Relay, channel};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use windlass_api::feed::v1::FeedEndReason;
use windlass_api::log::v1::log_service_server::{LogService, LogServiceServer};
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{Checkpoint, TailLogsRequest, TailLogsResponse};

const LINE: usize = 100;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Processor time of the threads whose name begins so.
fn cpu(prefix: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let ticks: u64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .filter_map(|stat| {
            let (head, tail) = stat.rsplit_once(") ")?;
            let name = head.split_once('(')?.1;
            let fields: Vec<&str> = tail.split(' ').collect();
            let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
            name.starts_with(prefix).then_some(ticks(11)? + ticks(12)?)
        })
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Sends the same bytes in messages of 64 KiB, and does nothing else.
struct Bare {
    bytes: usize,
}

#[tonic::async_trait]
impl LogService for Bare {
    type TailLogsStream = Pin<Box<dyn Stream<Item = Result<TailLogsResponse, Status>> + Send>>;

    async fn tail_logs(&self, _: Request<TailLogsRequest>) -> Result<Response<Self::TailLogsStream>, Status> {
        let (out, stream) = tokio::sync::mpsc::channel(1);
        let messages = self.bytes / (64 * 1024);
        tokio::spawn(async move {
            for _ in 0..messages {
                let cursor = vec![b'x'; 64 * 1024];
                let message = Some(Message::Checkpoint(Checkpoint { cursor }));
                if out.send(Ok(TailLogsResponse { message })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn bare(bytes: usize) -> (tokio::runtime::Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bare")
        .enable_all()
        .build()
        .expect("runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.set_nonblocking(true).expect("non-blocking");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
        tonic::transport::Server::builder()
            .add_service(LogServiceServer::new(Bare { bytes }))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
    });
    (runtime, address)
}

/// Lets clients read to the end; returns (seconds, processor seconds of the server).
async fn read(address: &str, readers: usize, threads: &str) -> (f64, f64) {
    let (clock, before) = (Instant::now(), cpu(threads));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..readers {
        let address = address.to_owned();
        clients.spawn(async move {
            let request = TailLogsRequest {
                run: "run-1".to_owned(),
                follow: true,
                ..TailLogsRequest::default()
            };
            let mut stream = open(channel(&address), request).await.expect("accepted");
            while let Some(message) = stream.next().await {
                message.expect("no failure");
            }
        });
    }
    clients.join_all().await;
    (clock.elapsed().as_secs_f64(), (cpu(threads) - before).as_secs_f64())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --benches` only wants to see that it runs.
    let quick = std::env::args().any(|argument| argument == "--test") || !std::env::args().any(|a| a == "--bench");
    let readers = setting("WINDLASS_BENCH_READERS", if quick { 2 } else { 20 });
    let mib = setting("WINDLASS_BENCH_MIB", if quick { 1 } else { 64 });
    let seconds = setting("WINDLASS_BENCH_SECONDS", if quick { 1 } else { 5 });
    bulk(readers, mib).await;
    live(readers, seconds).await;
}

async fn bulk(readers: usize, mib: usize) {
    let bytes = mib * 1024 * 1024;
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    cluster.state().chunk = 600;
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    let text = "x".repeat(LINE - 11);
    cluster.write("uid-0-1", (0..bytes / LINE).map(|number| format!("{number:010}{text}")));
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_run();
    let clock = Instant::now();
    while scheduler.state().sealed.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("take-in and seal: {mib} MiB in {:.2} s", clock.elapsed().as_secs_f64());
    let gigabytes = (readers * bytes) as f64 / 1e9;
    let (runtime, address) = bare(bytes);
    for round in 1..=3 {
        let (bare_wall, bare_cpu) = read(&address, readers, "bare").await;
        let (wall, cpu) = read(&relay.address, readers, "relay").await;
        println!(
            "P13 round {round}, {readers} readers: relay {:.2} s/GB at {:.0} MB/s, bare {:.2} s/GB at {:.0} MB/s, ratio of time {:.2}, of rate {:.2}",
            cpu / gigabytes,
            gigabytes * 1e3 / wall,
            bare_cpu / gigabytes,
            gigabytes * 1e3 / bare_wall,
            cpu / bare_cpu.max(0.001),
            bare_wall / wall,
        );
    }
    assert_eq!(cluster.opens(), 1, "P16: one upstream a container");
    runtime.shutdown_background();
}

async fn live(readers: usize, seconds: usize) {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    let origin = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..readers {
        let address = relay.address.clone();
        clients.spawn(async move {
            let request = TailLogsRequest {
                run: "run-1".to_owned(),
                follow: true,
                ..TailLogsRequest::default()
            };
            let mut stream = open(channel(&address), request).await.expect("accepted");
            let (mut next, mut delays) = (0, Vec::new());
            while let Some(message) = stream.next().await {
                let Some(Message::Lines(lines)) = message.expect("no failure").message else {
                    continue;
                };
                let now = origin.elapsed().as_micros() as u64;
                for line in lines.lines {
                    assert_eq!(
                        line.position.expect("a position").line,
                        next,
                        "no line lost, none twice"
                    );
                    next += 1;
                    let sent = std::str::from_utf8(&line.content[..16])
                        .expect("text")
                        .parse::<u64>()
                        .expect("a time");
                    delays.push(now.saturating_sub(sent));
                }
            }
            delays
        });
    }
    let before = (cpu("relay"), cpu("log-writer"));
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    for _ in 0..seconds * 1_000 {
        tick.tick().await;
        cluster.write(
            "uid-0-1",
            [format!("{:016}{}", origin.elapsed().as_micros(), "x".repeat(LINE - 17))],
        );
    }
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_run();
    let mut delays: Vec<u64> = clients.join_all().await.into_iter().flatten().collect();
    let spent = (cpu("relay") - before.0 + cpu("log-writer") - before.1).as_secs_f64();
    delays.sort_unstable();
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!(
        "P14, {readers} readers of 1,000 lines/s: {:.2} us of relay processor time a delivered line; delay p50 {:.2} ms, p99 {:.2} ms",
        spent * 1e6 / delays.len() as f64,
        at(0.5),
        at(0.99),
    );
}
