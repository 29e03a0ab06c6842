//! The executor with steps that are real processes: logs, signals, files, lost nodes.
//!
//! The local cluster calls this program again as the keeper of each container, so that it has a `main` of its own.

#[path = "executor/common.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::{PATIENCE, Session, World};
use futures::future::BoxFuture;
use prost_types::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use windlass_api::dispatch::v1::connect_response::Message as ToExecutor;
use windlass_api::dispatch::v1::{self as dispatch, AttemptPhase, Observation};
use windlass_api::feed::v1::feed_request::Message as FromFeeder;
use windlass_api::feed::v1::feed_response::Message as ToFeeder;
use windlass_api::feed::v1::feed_service_server::{FeedService, FeedServiceServer};
use windlass_api::feed::v1::{self as feed, FeedEndReason, FeedLine, FeedOpen};
use windlass_api::run::v1::FailureClass;
use windlass_local_cluster::{Action, Completion, RefusalReason, Rule, SHIM_ARGUMENT, shim_main};

/// Of a pod that never was.
const OTHER_UID: &str = "99999999-9999-4999-8999-999999999999";

type Test = (&'static str, fn() -> BoxFuture<'static, ()>);

const TESTS: &[Test] = &[
    ("i7_a_log_arrives_once_and_in_order", || {
        Box::pin(i7_a_log_arrives_once_and_in_order())
    }),
    ("i7_a_reader_goes_on_where_the_relay_was", || {
        Box::pin(i7_a_reader_goes_on_where_the_relay_was())
    }),
    ("i7_a_kubelet_that_does_not_know_its_pod_yet_ends_no_log", || {
        Box::pin(i7_a_kubelet_that_does_not_know_its_pod_yet_ends_no_log())
    }),
    ("i11_a_reader_sends_no_more_than_its_window", || {
        Box::pin(i11_a_reader_sends_no_more_than_its_window())
    }),
    ("a_log_is_followed_while_it_is_written", || {
        Box::pin(a_log_is_followed_while_it_is_written())
    }),
    ("another_pod_of_that_name_is_not_read", || {
        Box::pin(another_pod_of_that_name_is_not_read())
    }),
    ("scripts_get_their_files_and_workspace", || {
        Box::pin(scripts_get_their_files_and_workspace())
    }),
    ("memory_and_eviction_have_their_classes", || {
        Box::pin(memory_and_eviction_have_their_classes())
    }),
    ("a_trapped_signal_is_no_success", || {
        Box::pin(a_trapped_signal_is_no_success())
    }),
    ("i2_a_lost_node_is_lost_contact_until_it_rebooted", || {
        Box::pin(i2_a_lost_node_is_lost_contact_until_it_rebooted())
    }),
    ("x11_an_image_that_cannot_be_had_ends_the_attempt", || {
        Box::pin(x11_an_image_that_cannot_be_had_ends_the_attempt())
    }),
];

const LOCAL_ONLY: [&str; 3] = [
    "memory_and_eviction_have_their_classes",
    "i2_a_lost_node_is_lost_contact_until_it_rebooted",
    "x11_an_image_that_cannot_be_had_ends_the_attempt",
];

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == SHIM_ARGUMENT) {
        return shim_main(arguments.into_iter().skip(1));
    }
    let arguments: Vec<String> = arguments
        .into_iter()
        .filter_map(|argument| argument.into_string().ok())
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        let ignored = arguments.iter().any(|argument| argument == "--ignored");
        TESTS
            .iter()
            .filter(|_| !ignored)
            .for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // What only the local cluster can be told to do; tests/only-one-cluster.txt at the top says why.
    let is_real = std::env::var_os(common::KUBECONFIG).is_some();
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str()));
    let mut failed = 0;
    let runs = |name: &str| wanted(name) && !(is_real && LOCAL_ONLY.contains(&name));
    for (name, test) in TESTS.iter().filter(|(name, _)| runs(name)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(test())));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(result.is_err());
    }
    println!("{failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn world() -> World {
    let change = |config: &mut windlass_executor::Config| config.image_tolerance = Duration::from_secs(1);
    World::with(Completion::Processes, change, |cluster| {
        cluster.on_stop = windlass_local_cluster::OnStop::Kill
    })
    .await
}

/// Describes a run with these scripts, and launches each as the step of its position.
async fn scripts(session: &mut Session, scripts: &[&str]) {
    describe(session, scripts).await;
    for (step, script) in (0..).zip(scripts) {
        start(session, step, script).await;
    }
}

async fn describe(session: &mut Session, scripts: &[&str]) {
    // "hello from a file"
    let file = json!({"path": "data/greeting.txt", "content": "aGVsbG8gZnJvbSBhIGZpbGU="});
    let scripts: std::collections::BTreeMap<String, &str> = scripts
        .iter()
        .map(|script| (windlass_manifest::script_key(script), *script))
        .collect();
    let json = json!({"scripts": scripts, "files": [file], "workspace": {}});
    let context = dispatch::RunContext {
        run_id: windlass_ids::RunId::from_bytes(common::RUN).to_string(),
        run_name: common::RUN_NAME.to_owned(),
        namespace: session.namespace.clone(),
        pipeline: "churn".to_owned(),
        context_json: json.to_string().into_bytes(),
    };
    session.send(ToExecutor::Run(context)).await;
}

async fn start(session: &mut Session, step: u32, script: &str) {
    let template = u64::from(step) + 10;
    session
        .template(template, json!({"merged": {"image": common::IMAGE, "script": script}}))
        .await;
    session.launch_with(template, [step]).await;
}

struct FakeRelay(mpsc::Sender<Feeder>);

/// The relay's side of a Feed stream.
struct Feeder {
    requests: Streaming<feed::FeedRequest>,
    responses: mpsc::Sender<Result<feed::FeedResponse, Status>>,
    /// Of the pods.
    namespace: String,
}

#[tonic::async_trait]
impl FeedService for FakeRelay {
    type FeedStream = ReceiverStream<Result<feed::FeedResponse, Status>>;

    async fn feed(&self, request: Request<Streaming<feed::FeedRequest>>) -> Result<Response<Self::FeedStream>, Status> {
        let (responses, out) = mpsc::channel(64);
        let feeder = Feeder {
            requests: request.into_inner(),
            responses,
            namespace: String::new(),
        };
        self.0
            .send(feeder)
            .await
            .map_err(|_| Status::unavailable("test is over"))?;
        Ok(Response::new(ReceiverStream::new(out)))
    }
}

impl Feeder {
    /// Makes the executor dial a relay.
    async fn dial(session: &mut Session) -> Self {
        let (send, mut feeders) = mpsc::channel(4);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let service = FeedServiceServer::new(FakeRelay(send));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let relay = dispatch::Relay {
            relay: "relay-1".to_owned(),
            address,
        };
        session
            .send(ToExecutor::Relays(dispatch::Relays { relays: vec![relay] }))
            .await;
        let mut feeder = tokio::time::timeout(PATIENCE, feeders.recv())
            .await
            .expect("in time")
            .expect("a feeder");
        feeder.namespace.clone_from(&session.namespace);
        assert!(matches!(feeder.next().await, FromFeeder::Hello(hello) if !hello.cluster_uid.is_empty()));
        feeder
            .say(ToFeeder::Welcome(feed::FeedWelcome {
                relay: "relay-1".to_owned(),
                protocol: 1,
            }))
            .await;
        feeder
    }

    async fn say(&self, message: ToFeeder) {
        self.responses
            .send(Ok(feed::FeedResponse { message: Some(message) }))
            .await
            .expect("the executor listens");
    }

    async fn next(&mut self) -> FromFeeder {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.requests.message())
                .await
                .expect("in time");
            match next.expect("no error").expect("no end").message {
                Some(FromFeeder::Heartbeat(_)) | None => {}
                Some(message) => return message,
            }
        }
    }

    async fn open(&self, stream: u64, pod: &Observation, window: u64, after: Option<(&FeedLine, u64)>) {
        self.say(ToFeeder::Open(FeedOpen {
            stream,
            namespace: self.namespace.clone(),
            pod_name: pod.pod_name.clone(),
            pod_uid: pod.pod_uid.clone(),
            container: "main".to_owned(),
            window,
            after_time: after.map(|(line, _)| Timestamp {
                seconds: line.time_nanos.div_euclid(1_000_000_000),
                nanos: i32::try_from(line.time_nanos.rem_euclid(1_000_000_000)).expect("small"),
            }),
            after_ordinal: after.map_or(0, |(_, ordinal)| ordinal),
            last_line_digest: after.map_or_else(Vec::new, |(line, _)| Sha256::digest(&line.content).to_vec()),
        }))
        .await;
    }

    /// Asks for a pod that is not there, and hears of nothing else before the answer.
    async fn nothing_before_the_answer_to(&mut self, stream: u64, pod: &Observation) {
        let mut other = pod.clone();
        other.pod_uid = OTHER_UID.to_owned();
        self.open(stream, &other, 1000, None).await;
        let answer = self.next().await;
        assert!(
            matches!(&answer, FromFeeder::End(end) if end.stream == stream),
            "more than the window came: {answer:?}"
        );
    }

    /// The lines of a stream to its end, which must be this one.
    async fn read_all(&mut self, stream: u64, reason: FeedEndReason) -> Vec<FeedLine> {
        let mut lines = Vec::new();
        loop {
            match self.next().await {
                FromFeeder::Chunk(chunk) if chunk.stream == stream => {
                    assert!(!chunk.gap, "nothing was lost");
                    lines.extend(chunk.lines);
                }
                FromFeeder::End(end) if end.stream == stream => {
                    assert_eq!(end.reason(), reason, "{}", end.message);
                    return lines;
                }
                _ => {}
            }
        }
    }
}

fn texts(lines: &[FeedLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| String::from_utf8_lossy(&line.content).into_owned())
        .collect()
}

async fn i7_a_log_arrives_once_and_in_order() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    scripts(
        &mut session,
        &["i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf unfinished"],
    )
    .await;
    let pod = session.observe(0, |one| one.containers == ["main"]).await;
    feeder.open(1, &pod, 1 << 20, None).await;
    let lines = feeder.read_all(1, FeedEndReason::Complete).await;
    let mut expected: Vec<String> = (0..2000).map(|number| format!("line {number}")).collect();
    expected.push("unfinished".to_owned());
    assert_eq!(texts(&lines), expected);
    session.ended(0).await;
    // One stream, one more reading when it ended before the news of the container's end came, and some if those are late.
    assert!(
        world.requests.count("GET pods/log") <= 5 && world.requests.count("GET pods") <= 2,
        "no polling: {:?}",
        world.requests
    );
}

async fn i7_a_kubelet_that_does_not_know_its_pod_yet_ends_no_log() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    world.faults().add(Rule {
        verb: Some("log".to_owned()),
        count: Some(3),
        ..Rule::new(Action::Refuse {
            code: 404,
            reason: RefusalReason::NotFound,
            message: "pod \"churn\" does not exist".to_owned(),
        })
    });
    scripts(&mut session, &["echo first; echo second"]).await;
    let pod = session.observe(0, |one| one.containers == ["main"]).await;
    feeder.open(1, &pod, 1 << 20, None).await;
    let lines = feeder.read_all(1, FeedEndReason::Complete).await;
    assert_eq!(texts(&lines), ["first", "second"]);
}

async fn i7_a_reader_goes_on_where_the_relay_was() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    scripts(
        &mut session,
        &["i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done"],
    )
    .await;
    let pod = session.ended(0).await;
    feeder.open(1, &pod, 1 << 20, None).await;
    let all = feeder.read_all(1, FeedEndReason::Complete).await;
    assert_eq!(all.len(), 50);
    for (stream, held) in [(2, 1), (3, 25), (4, 50)] {
        let last = &all[held - 1];
        let ordinal = all[..held]
            .iter()
            .filter(|line| line.time_nanos == last.time_nanos)
            .count();
        feeder.open(stream, &pod, 1 << 20, Some((last, ordinal as u64))).await;
        let rest = feeder.read_all(stream, FeedEndReason::Complete).await;
        assert_eq!(texts(&rest), texts(&all[held..]), "{held} lines held");
    }
}

async fn i11_a_reader_sends_no_more_than_its_window() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    let line = "x".repeat(99);
    let noisy = format!("i=0; while [ $i -lt 3000 ]; do echo {line}; i=$((i+1)); done");
    scripts(&mut session, &[&noisy]).await;
    let pod = session.ended(0).await;
    feeder.open(1, &pod, 1000, None).await;
    let FromFeeder::Chunk(first) = feeder.next().await else {
        panic!("a chunk")
    };
    let cost = |chunk: &feed::FeedChunk| {
        chunk
            .lines
            .iter()
            .map(|line| line.content.len() as u64 + 1)
            .sum::<u64>()
    };
    // One chunk may overdraw what is left of a window; then nothing comes until there is room again.
    let (mut given, mut sent, mut count) = (1000, cost(&first), first.lines.len());
    let mut barrier = 1;
    while count < 3000 {
        if sent >= given {
            // Whatever the reader would send without room comes before the answer to a later question.
            barrier += 1;
            feeder.nothing_before_the_answer_to(barrier, &pod).await;
            let room = sent - given + 1;
            feeder
                .say(ToFeeder::Window(feed::FeedWindow { stream: 1, bytes: room }))
                .await;
            given += room;
        }
        if let FromFeeder::Chunk(chunk) = feeder.next().await {
            sent += cost(&chunk);
            count += chunk.lines.len();
            assert!(cost(&chunk) <= 2 * 64 * 1024);
        }
    }
    assert_eq!(count, 3000);
}

async fn a_log_is_followed_while_it_is_written() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    let (waits, goes) = (
        "echo first; while [ ! -e \"$WINDLASS_WORKSPACE/go\" ]; do sleep 0.05; done; echo second",
        "touch \"$WINDLASS_WORKSPACE/go\"",
    );
    describe(&mut session, &[waits, goes]).await;
    start(&mut session, 0, waits).await;
    let pod = session.phase(0, AttemptPhase::Running).await;
    feeder.open(1, &pod, 1 << 20, None).await;
    let FromFeeder::Chunk(chunk) = feeder.next().await else {
        panic!("a chunk")
    };
    assert_eq!(texts(&chunk.lines), ["first"]);
    start(&mut session, 1, goes).await;
    let rest = feeder.read_all(1, FeedEndReason::Complete).await;
    assert_eq!(texts(&rest), ["second"]);
}

async fn another_pod_of_that_name_is_not_read() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    scripts(&mut session, &["echo secret"]).await;
    let mut pod = session.ended(0).await;
    pod.pod_uid = OTHER_UID.to_owned();
    feeder.open(1, &pod, 1 << 20, None).await;
    assert!(feeder.read_all(1, FeedEndReason::Gone).await.is_empty());
}

async fn scripts_get_their_files_and_workspace() {
    let mut world = world().await;
    let mut session = world.session().await;
    let mut feeder = Feeder::dial(&mut session).await;
    let (writes, reads) = (
        "cat data/greeting.txt; echo; cat \"$WINDLASS_FILES/data/greeting.txt\"; echo; echo kept > \"$WINDLASS_WORKSPACE/kept\"; echo $WINDLASS_STEP $WINDLASS_ATTEMPT",
        "grep -q kept \"$WINDLASS_WORKSPACE/kept\" || exit 9",
    );
    describe(&mut session, &[writes, reads]).await;
    start(&mut session, 0, writes).await;
    let pod = session.ended(0).await;
    assert!(pod.end.as_ref().is_some_and(|end| end.succeeded), "{:?}", pod.end);
    feeder.open(1, &pod, 1 << 20, None).await;
    let lines = texts(&feeder.read_all(1, FeedEndReason::Complete).await);
    assert_eq!(lines, ["hello from a file", "hello from a file", "step-0 1"]);
    start(&mut session, 1, reads).await;
    assert!(session.ended(1).await.end.is_some_and(|end| end.succeeded));
}

async fn memory_and_eviction_have_their_classes() {
    let mut world = world().await;
    let mut session = world.session().await;
    scripts(&mut session, &["sleep 60", "sleep 61"]).await;
    let (first, second) = (
        session.phase(0, AttemptPhase::Running).await,
        session.phase(1, AttemptPhase::Running).await,
    );
    world
        .local()
        .out_of_memory(&world.namespace, &first.pod_name, "main")
        .expect("a fault");
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!(
        (end.failure_class(), end.exit_code),
        (FailureClass::OomKilled, Some(137))
    );
    world
        .local()
        .evict(&world.namespace, &second.pod_name, "the node was low on disk")
        .expect("a fault");
    let end = session.ended(1).await.end.expect("an end");
    assert_eq!(end.failure_class(), FailureClass::Evicted, "{end:?}");
}

async fn a_trapped_signal_is_no_success() {
    let mut world = world().await;
    let mut session = world.session().await;
    scripts(
        &mut session,
        &["trap 'exit 0' TERM; echo ready; while true; do sleep 0.05; done"],
    )
    .await;
    let mut feeder = Feeder::dial(&mut session).await;
    let pod = session.phase(0, AttemptPhase::Running).await;
    feeder.open(1, &pod, 1 << 20, None).await;
    assert!(matches!(feeder.next().await, FromFeeder::Chunk(_)), "the trap is set");
    session.stop(0, &pod.pod_uid).await;
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!(
        (end.failure_class(), end.exit_code, end.succeeded),
        (FailureClass::PodDeleted, Some(0), false)
    );
}

async fn i2_a_lost_node_is_lost_contact_until_it_rebooted() {
    let mut world = world().await;
    let mut session = world.session().await;
    scripts(&mut session, &["sleep 60"]).await;
    session.phase(0, AttemptPhase::Running).await;
    world.local().lose_node().await.expect("a lost node");
    let lost = session.phase(0, AttemptPhase::Unreachable).await;
    assert!(lost.end.is_none(), "not a failure");
    world.local().return_node(true).await.expect("a node");
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!(
        (end.failure_class(), end.proof_of_death),
        (FailureClass::NodeLost, true),
        "{end:?}"
    );
}

async fn x11_an_image_that_cannot_be_had_ends_the_attempt() {
    let mut world = world().await;
    let mut session = world.session().await;
    let message = "failed to resolve reference: not found".to_owned();
    world.faults().add_bad_image(windlass_local_cluster::BadImage {
        contains: "broken".to_owned(),
        message,
    });
    session
        .template(3, json!({"merged": {"image": "acme/broken:1", "command": ["true"]}}))
        .await;
    session.launch_with(3, [0]).await;
    let end = session.ended(0).await.end.expect("an end");
    assert_eq!((end.failure_class(), end.proof_of_death), (FailureClass::Image, false));
    assert!(end.reason.contains("Pull"), "{end:?}");
}
