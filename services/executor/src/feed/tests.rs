//! A reader against an API server that answers what the test says; time is simulated.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use windlass_api::feed::v1::feed_request::Message;
use windlass_api::feed::v1::{FeedEndReason, FeedOpen, FeedRequest};
use windlass_ids::Timestamp;
use windlass_service::Clock;

use super::container::{MAX_FAILURES, Reader, Sources};
use super::window::Window;
use crate::agent::{ContainerPhase, Containers, Event};
use crate::attempts::SecretUse;
use crate::kubernetes::Api;

/// Seconds at the begin; most logs of the tests are older.
const NOW: i64 = 1_000_000;

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// A request for the log that waits for its answer.
struct LogRequest {
    query: String,
    reply: oneshot::Sender<Answer>,
}

/// What is open of an answer.
type Open = mpsc::UnboundedSender<Result<Bytes, std::io::Error>>;

impl LogRequest {
    fn refuse(self, code: u16, message: &str) {
        let body = json!({"kind": "Status", "message": message, "code": code}).to_string();
        self.reply.send(full(code, body)).ok();
    }

    /// Begins the log with this text; it ends when what is returned is dropped.
    fn begin(self, text: &str) -> Open {
        let (open, chunks) = mpsc::unbounded_channel();
        open.send(Ok(Bytes::copy_from_slice(text.as_bytes()))).ok();
        let frames = UnboundedReceiverStream::new(chunks).map(|chunk| chunk.map(http_body::Frame::data));
        self.reply
            .send(Response::new(StreamBody::new(frames).boxed_unsync()))
            .ok();
        open
    }

    fn answer(self, text: &str) {
        drop(self.begin(text));
    }
}

fn full(code: u16, body: String) -> Answer {
    let never = |never: std::convert::Infallible| match never {};
    let mut answer = Response::new(Full::new(Bytes::from(body)).map_err(never).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).expect("a code");
    answer
}

/// A reader, and everything around it.
struct World {
    logs: mpsc::UnboundedReceiver<LogRequest>,
    news: watch::Sender<Containers>,
    sent: mpsc::Receiver<FeedRequest>,
    pod: Arc<Mutex<Option<Value>>>,
    pod_reads: Arc<AtomicUsize>,
    /// How the Secret is answered.
    secret: Arc<AtomicU16>,
    /// How often it was asked for.
    secret_reads: watch::Receiver<usize>,
}

impl World {
    /// With a container in this phase, of which the agent knows.
    fn new(phase: Option<ContainerPhase>) -> Self {
        Self::with(phase, None)
    }

    /// With a running container that uses the Secret `warehouse`.
    fn secretive(answer: u16) -> Self {
        let warehouse = SecretUse {
            name: "warehouse".into(),
            key: Some("password".into()),
        };
        let world = Self::with(Some(ContainerPhase::Running), Some(Arc::new([warehouse])));
        world.secret.store(answer, Ordering::Relaxed);
        world
    }

    fn with(phase: Option<ContainerPhase>, secrets: Option<Arc<[SecretUse]>>) -> Self {
        let (send_logs, logs) = mpsc::unbounded_channel();
        let (pod, pod_reads) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
        let (the_pod, reads) = (pod.clone(), pod_reads.clone());
        let secret = Arc::new(AtomicU16::new(200));
        let the_secret = secret.clone();
        let (asked, secret_reads) = watch::channel(0);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (send_logs, the_pod, reads) = (send_logs.clone(), the_pod.clone(), reads.clone());
            let (the_secret, asked) = (the_secret.clone(), asked.clone());
            async move {
                if request.uri().path().ends_with("/secrets/warehouse") {
                    asked.send_modify(|asked| *asked += 1);
                    let value = STANDARD.encode("canary-7b1f");
                    return Ok::<_, std::io::Error>(match the_secret.load(Ordering::Relaxed) {
                        200 => full(200, json!({"data": {"password": value}}).to_string()),
                        code => full(code, "{}".to_owned()),
                    });
                }
                if !request.uri().path().ends_with("/log") {
                    reads.fetch_add(1, Ordering::Relaxed);
                    let pod: Option<Value> = the_pod.lock().expect("no panic").clone();
                    return Ok(match pod {
                        Some(pod) => full(200, pod.to_string()),
                        None => full(404, "{}".to_owned()),
                    });
                }
                let (reply, answer) = oneshot::channel();
                let query = request.uri().query().unwrap_or_default().to_owned();
                send_logs.send(LogRequest { query, reply }).ok();
                answer.await.map_err(std::io::Error::other)
            }
        });
        let mut known = Containers::default();
        known.secrets = secrets;
        known.phases.extend(phase.map(|phase| ("main".to_owned(), phase)));
        let (news, heard) = watch::channel(known);
        let (agent, mut events) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Follow(request) = event {
                    request.reply.send(heard.clone()).ok();
                }
            }
        });
        let api = Api::new(kube::Client::new(service, "ml"));
        let (out, sent) = mpsc::channel(64);
        let open = FeedOpen {
            stream: 1,
            namespace: "ml".to_owned(),
            pod_name: "p".to_owned(),
            pod_uid: "u".to_owned(),
            container: "main".to_owned(),
            window: 1 << 20,
            ..FeedOpen::default()
        };
        let reader = Reader::new(
            Sources {
                api,
                agent,
                clock: Clock::starting_at(Timestamp::from_millis(NOW * 1000)),
                known: Arc::default(),
            },
            open,
            Arc::new(Window::new(1 << 20)),
            out,
        );
        tokio::spawn(reader.run());
        Self {
            logs,
            news,
            sent,
            pod,
            pod_reads,
            secret,
            secret_reads,
        }
    }

    fn hear(&self, phase: ContainerPhase) {
        self.news.send_modify(|known| {
            known.phases.insert("main".to_owned(), phase);
        });
    }

    /// What a read of the pod finds.
    fn set_pod(&self, state: Value) {
        *self.pod.lock().expect("no panic") =
            Some(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n"},
            "status": {"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]}}));
    }

    async fn log(&mut self) -> LogRequest {
        self.logs.recv().await.expect("the reader asks")
    }

    /// All lines, and how it ended.
    async fn rest(&mut self) -> (Vec<String>, FeedEndReason) {
        let mut lines = Vec::new();
        loop {
            match self.sent.recv().await.expect("an end").message.expect("a message") {
                Message::Chunk(chunk) => {
                    assert!(!chunk.gap, "nothing was lost");
                    let texts = chunk.lines.iter();
                    lines.extend(texts.map(|line| String::from_utf8_lossy(&line.content).into_owned()));
                }
                Message::End(end) => return (lines, end.reason()),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn ended() -> Value {
    json!({"terminated": {"exitCode": 0, "containerID": "x"}})
}

const TWO: &str = "1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z b\n";

fn lines(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn i7_a_kubelet_that_does_not_know_its_pod_yet_ends_no_log() {
    let mut world = World::new(Some(ContainerPhase::Running));
    world.set_pod(json!({"running": {}}));
    for _ in 0..3 {
        world.log().await.refuse(404, "pod \"p\" does not exist");
    }
    let open = world.log().await.begin(TWO);
    world.hear(ContainerPhase::Ended);
    drop(open);
    world.log().await.answer(TWO);
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i7_a_refusal_that_lasts_is_for_the_relay_to_ask_again() {
    let mut world = World::new(Some(ContainerPhase::Running));
    world.set_pod(json!({"running": {}}));
    for _ in 0..MAX_FAILURES {
        world.log().await.refuse(404, "pod \"p\" does not exist");
    }
    let end = world.sent.recv().await.expect("an end");
    assert!(matches!(end.message, Some(Message::End(end)) if end.reason() == FeedEndReason::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_started_has_a_complete_log() {
    let mut world = World::new(Some(ContainerPhase::Running));
    world.set_pod(json!({"terminated": {"exitCode": 137}}));
    world
        .log()
        .await
        .refuse(400, "container \"main\" in pod \"p\" is terminated");
    assert_eq!(world.rest().await, (vec![], FeedEndReason::Complete));
    let mut cancelled = World::new(None);
    *cancelled.pod.lock().expect("no panic") = Some(
        json!({"metadata": {"uid": "u", "deletionTimestamp": "2026-11-23T10:00:00Z"},
        "status": {"phase": "Pending"}}),
    );
    assert_eq!(cancelled.rest().await, (vec![], FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_ends_its_log_as_gone() {
    let mut world = World::new(Some(ContainerPhase::Running));
    world.log().await.refuse(404, "pods \"p\" not found");
    assert_eq!(world.rest().await, (vec![], FeedEndReason::Gone));
    let mut lost = World::new(Some(ContainerPhase::Ended));
    lost.set_pod(ended());
    lost.log()
        .await
        .refuse(400, "container \"main\" in pod \"p\" is terminated");
    assert_eq!(lost.rest().await, (vec![], FeedEndReason::Gone));
}

#[tokio::test(start_paused = true)]
async fn i7_a_clean_end_before_the_container_ended_is_read_again() {
    let mut world = World::new(Some(ContainerPhase::Running));
    // A broken kubelet connection is a clean end, in the middle of a line.
    let open = world.log().await.begin("1970-01-01T00:00:01Z a\n1970-01-01T00:0");
    world.hear(ContainerPhase::Ended);
    drop(open);
    // The end of the log is another one.
    let end = world.log().await;
    assert!(end.query.ends_with("tailLines=2"), "{}", end.query);
    end.answer("1970-01-01T00:00:02Z b\n1970-01-01T00:00:02Z unfinished");
    let again = world.log().await;
    assert!(
        again.query.contains("sinceTime=1970-01-01T00%3A00%3A01Z"),
        "{}",
        again.query
    );
    // That end was none, either: it came before the last line.
    again.answer("1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z b\n");
    let end = world.log().await;
    end.answer("1970-01-01T00:00:02Z b\n1970-01-01T00:00:02Z unfinished");
    let whole = "1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z b\n1970-01-01T00:00:02Z unfinished";
    world.log().await.answer(whole);
    let end = world.log().await;
    assert!(
        end.query.ends_with("tailLines=3"),
        "two lines have that time: {}",
        end.query
    );
    end.answer(whole);
    assert_eq!(
        world.rest().await,
        (lines(&["a", "b", "unfinished"]), FeedEndReason::Complete)
    );
}

#[tokio::test(start_paused = true)]
async fn i7_a_log_that_vanished_after_a_clean_end_is_complete_with_its_unfinished_line() {
    let mut world = World::new(Some(ContainerPhase::Running));
    world.set_pod(ended());
    world
        .log()
        .await
        .answer(&format!("{TWO}1970-01-01T00:00:03Z no newline"));
    world.hear(ContainerPhase::Ended);
    // The kubelet's words come as if they were the log.
    world
        .log()
        .await
        .answer("unable to retrieve container logs for containerd://1");
    let all = lines(&["a", "b", "no newline"]);
    assert_eq!(world.rest().await, (all, FeedEndReason::Complete));

    let mut gone = World::new(Some(ContainerPhase::Running));
    gone.log().await.answer(TWO);
    gone.hear(ContainerPhase::Ended);
    gone.log().await.refuse(404, "pods \"p\" not found");
    assert_eq!(gone.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i7_a_kubelet_that_cannot_read_a_log_is_asked_again_or_the_loss_is_told() {
    let mut world = World::new(Some(ContainerPhase::Running));
    world.set_pod(json!({"running": {}}));
    let complaint = "failed to watch file \"/var/log/pods/p/main/0.log\": no space left on device";
    world
        .log()
        .await
        .answer(&format!("1970-01-01T00:00:01Z a\n{complaint}"));
    world.hear(ContainerPhase::Ended);
    world.log().await.answer(TWO);
    world.log().await.answer(TWO);
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));

    let mut lost = World::new(Some(ContainerPhase::Ended));
    lost.set_pod(ended());
    lost.log()
        .await
        .answer("unable to retrieve container logs for containerd://1");
    assert_eq!(lost.rest().await, (vec![], FeedEndReason::Gone));
}

#[tokio::test(start_paused = true)]
async fn i7_a_renewed_follow_keeps_no_half_of_a_line() {
    let mut world = World::new(Some(ContainerPhase::Running));
    let old = world
        .log()
        .await
        .begin("1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z hal");
    // Renewed after some hours, which pass at once.
    let new = world
        .log()
        .await
        .begin("1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z half\n");
    world.hear(ContainerPhase::Ended);
    drop((old, new));
    world.log().await.answer("1970-01-01T00:00:02Z half\n");
    assert_eq!(world.rest().await, (lines(&["a", "half"]), FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i10_a_connection_that_died_without_a_sign_is_given_up_after_the_containers_end() {
    let mut world = World::new(Some(ContainerPhase::Running));
    let dead = world.log().await.begin("1970-01-01T00:00:01Z a\n");
    world.hear(ContainerPhase::Ended);
    let began = tokio::time::Instant::now();
    world.log().await.answer(TWO);
    world.log().await.answer(TWO);
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
    drop(dead);
}

#[tokio::test(start_paused = true)]
async fn a_pending_container_is_not_asked_for_its_log() {
    let mut world = World::new(Some(ContainerPhase::Waiting));
    world.set_pod(json!({"waiting": {"reason": "ContainerCreating"}}));
    let silent = tokio::time::timeout(Duration::from_secs(3600), world.logs.recv()).await;
    assert!(silent.is_err(), "an hour of nothing");
    assert!(world.pod_reads.load(Ordering::Relaxed) <= 60, "a slow tick");
    world.hear(ContainerPhase::Running);
    let open = world.log().await.begin(TWO);
    world.hear(ContainerPhase::Ended);
    drop(open);
    world.log().await.answer(TWO);
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i8_values_of_the_secrets_that_a_pod_uses_are_masked() {
    let mut world = World::secretive(200);
    world.hear(ContainerPhase::Ended);
    let log = "1970-01-01T00:00:01Z password is canary-7b1f.\n1970-01-01T00:00:02Z canary-7b1f";
    world.log().await.answer(log);
    world.log().await.answer(log);
    let (found, reason) = world.rest().await;
    assert_eq!(found, ["password is ***.", "***"]);
    assert_eq!(reason, FeedEndReason::Complete);
}

#[tokio::test(start_paused = true)]
async fn i8_a_log_is_not_read_before_it_is_known_what_to_mask() {
    let mut world = World::secretive(500);
    world.hear(ContainerPhase::Ended);
    world
        .secret_reads
        .wait_for(|reads| *reads == 3)
        .await
        .expect("it is asked for again");
    assert!(world.logs.try_recv().is_err(), "the Secret could not be read");
    world.secret.store(200, Ordering::Relaxed);
    for _ in 0..2 {
        world.log().await.answer("1970-01-01T00:00:01Z canary-7b1f\n");
    }
    assert_eq!(world.rest().await, (vec!["***".to_owned()], FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_may_not_be_read_or_is_gone_masks_nothing() {
    for code in [403, 404] {
        let mut world = World::secretive(code);
        world.hear(ContainerPhase::Ended);
        for _ in 0..2 {
            world.log().await.answer("1970-01-01T00:00:01Z canary-7b1f\n");
        }
        assert_eq!(
            world.rest().await,
            (vec!["canary-7b1f".to_owned()], FeedEndReason::Complete)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn i7_an_end_that_cannot_be_proven_is_believed_after_a_while() {
    let mut world = World::new(Some(ContainerPhase::Ended));
    world.log().await.answer(TWO);
    // The log was rotated away, or its end is never told.
    for _ in 0..MAX_FAILURES {
        world.log().await.answer("");
        world.log().await.answer(TWO);
    }
    world.log().await.answer("");
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i7_an_empty_log_is_empty_only_if_its_end_is() {
    let mut world = World::new(Some(ContainerPhase::Ended));
    world.log().await.answer("");
    world.log().await.answer("1970-01-01T00:00:02Z b\n");
    world.log().await.answer(TWO);
    world.log().await.answer(TWO);
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
    let mut empty = World::new(Some(ContainerPhase::Ended));
    empty.log().await.answer("");
    empty.log().await.answer("");
    assert_eq!(empty.rest().await, (vec![], FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i7_a_connection_that_died_without_a_sign_costs_minutes_while_the_container_runs() {
    let mut world = World::new(Some(ContainerPhase::Running));
    let began = tokio::time::Instant::now();
    let dead = world.log().await.begin("1970-01-01T00:00:01Z a\n");
    let again = world.log().await;
    assert!(began.elapsed() < Duration::from_secs(400), "{:?}", began.elapsed());
    assert!(
        again.query.contains("sinceTime=1970-01-01T00%3A00%3A01Z"),
        "{}",
        again.query
    );
    let open = again.begin(TWO);
    world.hear(ContainerPhase::Ended);
    drop((dead, open));
    world.log().await.answer(TWO);
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
}

#[tokio::test(start_paused = true)]
async fn i7_the_end_of_a_log_with_a_long_last_line_is_asked_for_in_the_runtimes_pieces() {
    let mut world = World::new(Some(ContainerPhase::Ended));
    let log = format!(
        "1970-01-01T00:00:01Z a\n1970-01-01T00:00:02Z {}\n",
        "x".repeat(300 * 1024)
    );
    world.log().await.answer(&log);
    let end = world.log().await;
    // Two parts have the time of the line; one more, and as many as 300 KiB can have pieces.
    assert!(end.query.ends_with("tailLines=40"), "{}", end.query);
    end.answer(&log);
    let (found, reason) = world.rest().await;
    assert_eq!(
        found.iter().map(String::len).collect::<Vec<_>>(),
        [1, 256 * 1024, 44 * 1024]
    );
    assert_eq!(reason, FeedEndReason::Complete);
}

/// behaviours E10
#[tokio::test(start_paused = true)]
async fn e10_files_that_the_kubelet_leaves_out_are_marked() {
    let mut world = World::new(Some(ContainerPhase::Running));
    let line = |after: i64, text: &str| {
        let time = jiff::Timestamp::from_second(NOW + after).expect("a time");
        format!("{time} {text}\n")
    };
    // As much as a file has that rotates.
    let (long, longer) = ("x".repeat(16 << 10), "y".repeat(16 << 10));
    let open = world.log().await.begin(&(line(1, &long) + &line(5, "silence before")));
    // What came before the silence is there still.
    let asked = world.log().await;
    assert!(!asked.query.contains("follow"), "{}", asked.query);
    asked.answer(&(line(1, &long) + &line(5, "silence before")));
    open.send(Ok(Bytes::from(line(5, &longer) + &line(9, "files before"))))
        .ok();
    world.log().await.answer(&line(9, "files before"));
    let mut found = Vec::new();
    while found.last().is_none_or(|text| text != "files before") {
        let Some(Message::Chunk(chunk)) = world.sent.recv().await.expect("more").message else {
            panic!("a chunk")
        };
        found.extend(chunk.gap.then(|| "gap".to_owned()));
        let texts = chunk.lines.iter();
        found.extend(texts.map(|line| String::from_utf8_lossy(&line.content).into_owned()));
    }
    let expected = [&*long, "silence before", &longer, "gap", "files before"];
    assert!(found == expected, "{} lines", found.len());
}

#[tokio::test(start_paused = true)]
async fn i7_a_follow_that_was_cut_is_opened_anew_at_once() {
    let mut world = World::new(Some(ContainerPhase::Running));
    let open = world.log().await.begin(TWO);
    tokio::time::advance(Duration::from_secs(10)).await;
    let cut = tokio::time::Instant::now();
    drop(open);
    let again = world.log().await.begin(TWO);
    assert!(cut.elapsed() < Duration::from_millis(100), "{:?}", cut.elapsed());
    // That one ends with the container, of which is heard later.
    drop(again);
    world.hear(ContainerPhase::Ended);
    world.log().await.answer(TWO);
    assert_eq!(world.rest().await, (lines(&["a", "b"]), FeedEndReason::Complete));
}
