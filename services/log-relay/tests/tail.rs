//! TailLogs: selections, cursors, fan-out, slow clients.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::client::{Client, open, request, tail};
use support::executor::{Cluster, Executor};
use support::scheduler::{Scheduler, source};
use support::{Relay, until, within};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::feed::v1::FeedEndReason;
use windlass_api::log::v1::tail_logs_request::From;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{EndReason, EndWhen, MarkKind, TailLogsRequest};

struct Setting {
    _folder: tempfile::TempDir,
    scheduler: Scheduler,
    relay: Relay,
    cluster: Cluster,
    _executor: Executor,
}

async fn setting(more: &[&str]) -> Setting {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start_at(folder.path(), &scheduler.address, "127.0.0.1:0", more).await;
    let cluster = Cluster::default();
    cluster.state().chunk = 64;
    let executor = Executor::new("e1", &cluster);
    executor.connect(relay.channel());
    Setting {
        _folder: folder,
        scheduler,
        relay,
        cluster,
        _executor: executor,
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

impl Setting {
    /// A step with lines, and with an end when it is over.
    fn step(&self, step: u32, lines: usize, over: bool) {
        self.scheduler.assign(source(step, 1, "e1"));
        let pod = format!("uid-{step}-1");
        self.cluster.write(&pod, numbered(0..lines));
        if over {
            self.cluster.end(&pod, FeedEndReason::Complete);
            self.scheduler.end_attempt(step, 1);
        }
    }

    async fn refusal(&self, request: TailLogsRequest) -> (Code, String, String) {
        let status = open(self.relay.channel(), request).await.expect_err("refused");
        let reason = status
            .get_details_error_info()
            .map(|info| info.reason)
            .unwrap_or_default();
        (status.code(), reason, status.message().to_owned())
    }
}

/// behaviours E8
#[tokio::test]
async fn i11_a_hundred_followers_cost_one_upstream_and_none_misses_a_line() {
    let setting = setting(&[]).await;
    setting.step(0, 10, false);
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let channel = setting.relay.channel();
        followers.spawn(async move { tail(channel, request()).await });
    }
    for round in 1..20 {
        setting.cluster.write("uid-0-1", numbered(round * 10..(round + 1) * 10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    setting.cluster.end("uid-0-1", FeedEndReason::Complete);
    setting.scheduler.end_run();
    while let Some(client) = within(followers.join_next()).await {
        let client = client.expect("no panic");
        assert_eq!(client.of("step[0]/1/main"), numbered(0..200));
        assert_eq!(client.reason(), EndReason::Complete);
    }
    assert_eq!(setting.cluster.opens(), 1);
}

#[tokio::test]
async fn i11_stalled_clients_slow_only_themselves_and_lose_nothing() {
    let setting = setting(&[]).await;
    setting.step(0, 10, false);
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut stream = open(setting.relay.channel(), request()).await.expect("accepted");
        let mut client = Client::default();
        client.read_lines(&mut stream, 1).await;
        stalled.push((client, stream));
    }
    let channel = setting.relay.channel();
    let reading = tokio::spawn(async move { tail(channel, request()).await });
    // Far more than the ring and all windows on the way hold.
    let long = "x".repeat(4_000);
    for _ in 0..20 {
        setting
            .cluster
            .write("uid-0-1", (0..200).map(|number| format!("{number} {long}")));
    }
    setting.cluster.end("uid-0-1", FeedEndReason::Complete);
    setting.scheduler.end_run();
    let client = within(reading).await.expect("no panic");
    assert_eq!(client.of("step[0]/1/main").len(), 4_010);
    // Meanwhile the log was sealed and its live file deleted.
    setting.scheduler.sealed(1).await;
    for (mut late, mut stream) in stalled {
        late.read_all(&mut stream).await;
        assert_eq!(late.of("step[0]/1/main"), client.of("step[0]/1/main"));
    }
    assert_eq!(setting.cluster.opens(), 1);
}

/// behaviours E12
#[tokio::test]
async fn i7_a_stream_resumed_at_any_point_equals_the_whole() {
    let setting = setting(&[]).await;
    for step in 0..4 {
        setting.step(step, 120 + step as usize * 37, step != 3);
    }
    setting.scheduler.sealed(3).await;
    setting.cluster.end("uid-3-1", FeedEndReason::Gone);
    setting.scheduler.end_run();
    let whole = tail(setting.relay.channel(), request()).await;
    let total = whole.received;
    assert_eq!(total, 4 * 120 + 6 * 37);

    let cases = std::env::var("WINDLASS_PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let runtime = tokio::runtime::Handle::current();
    let address = setting.relay.address.clone();
    let lines = whole.lines.clone();
    let test = move || {
        runner.run(&prop::collection::vec(0..total, 1..4), |mut stops| {
            stops.sort_unstable();
            let resumed = runtime.block_on(resume(&address, &stops));
            prop_assert_eq!(&resumed.lines, &lines);
            prop_assert_eq!(resumed.reason(), EndReason::Complete);
            prop_assert_eq!(resumed.count(MarkKind::Lost), 1);
            Ok(())
        })
    };
    tokio::task::spawn_blocking(test)
        .await
        .expect("no panic")
        .expect("every case");
}

/// Reads up to each stop message by message, and goes on from where the client got to by rolling its cursor forward.
async fn resume(address: &str, stops: &[usize]) -> Client {
    let mut client = Client::default();
    for stop in stops {
        let mut stream = resumed(address, &mut client).await;
        while client.received < *stop && client.end.is_none() {
            let mut message = within(stream.next()).await.expect("more").expect("no failure");
            let wanted = stop - client.received;
            // The client goes away with a message half used.
            if let Some(Message::Lines(lines)) = &mut message.message {
                lines.lines.truncate(wanted);
            }
            client.take(message);
        }
    }
    let mut stream = resumed(address, &mut client).await;
    client.read_all(&mut stream).await;
    client
}

async fn resumed(address: &str, client: &mut Client) -> tonic::Streaming<windlass_api::log::v1::TailLogsResponse> {
    let from = client.tracker.cursor().map(|cursor| From::Cursor(cursor.to_vec()));
    client.restart();
    let request = TailLogsRequest { from, ..request() };
    open(support::channel(address), request).await.expect("accepted")
}

#[tokio::test]
async fn i7_a_cursor_is_good_on_another_relay() {
    let setting = setting(&[]).await;
    setting.step(0, 50, false);
    let limited = TailLogsRequest {
        max_lines: 20,
        ..request()
    };
    let mut client = Client::default();
    let mut stream = open(setting.relay.channel(), limited).await.expect("accepted");
    client.read_all(&mut stream).await;
    assert_eq!((client.reason(), client.received), (EndReason::Limit, 20));
    // The other relay reads the same containers from their start, so its lines have the same numbers.
    let other = tempfile::tempdir().expect("folder");
    let relay = Relay::start(other.path(), &setting.scheduler.address).await;
    let executor = Executor::new("e1", &setting.cluster);
    executor.connect(relay.channel());
    // What the first one has sealed is not assigned to another.
    until("the other relay reads", || setting.cluster.state().opens.len() == 2).await;
    setting.cluster.end("uid-0-1", FeedEndReason::Complete);
    setting.scheduler.end_run();
    let mut stream = resumed(&relay.address, &mut client).await;
    client.read_all(&mut stream).await;
    assert_eq!(client.of("step[0]/1/main"), numbered(0..50));
}

#[tokio::test]
async fn selections_and_limits_are_kept_to() {
    let setting = setting(&[]).await;
    for step in 0..3 {
        setting.step(step, 30, true);
    }
    setting.scheduler.sealed(2).await;
    setting.scheduler.sealed(3).await;
    setting.scheduler.end_run();
    let read = |request: TailLogsRequest| tail(setting.relay.channel(), request);

    let steps = vec!["step[1]".to_owned()];
    let one = read(TailLogsRequest { steps, ..request() }).await;
    assert_eq!(one.lines.keys().collect::<Vec<_>>(), ["step[1]/1/main"]);
    let all = read(TailLogsRequest {
        steps: vec!["step".to_owned()],
        ..request()
    })
    .await;
    assert_eq!(all.received, 90);
    let none = read(TailLogsRequest {
        attempt: 2,
        ..request()
    })
    .await;
    assert_eq!((none.received, none.reason()), (0, EndReason::Complete));
    let some = read(TailLogsRequest {
        contains: "7".to_owned(),
        ..request()
    })
    .await;
    assert_eq!(some.of("step[2]/1/main"), ["line 7", "line 17", "line 27"]);
    let last = read(TailLogsRequest {
        from: Some(From::TailLines(2)),
        ..request()
    })
    .await;
    assert_eq!(last.of("step[0]/1/main"), ["line 28", "line 29"]);
    // Two lines share a time, a microsecond apart from the next two.
    let since = prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 13_000,
    };
    let late = read(TailLogsRequest {
        from: Some(From::Since(since)),
        ..request()
    })
    .await;
    assert_eq!(late.of("step[0]/1/main"), numbered(26..30));
    let short = read(TailLogsRequest {
        max_bytes: 21,
        ..request()
    })
    .await;
    assert_eq!((short.received, short.reason()), (3, EndReason::Limit));
    let every = read(TailLogsRequest {
        container: "*".to_owned(),
        ..request()
    })
    .await;
    assert_eq!(every.received, 90);
}

#[tokio::test]
async fn without_following_a_stream_ends_where_the_log_ends_now() {
    let setting = setting(&[]).await;
    setting.step(0, 25, false);
    let follow = false;
    // Wait until everything has arrived.
    let mut stream = open(setting.relay.channel(), request()).await.expect("accepted");
    Client::default().read_lines(&mut stream, 25).await;
    let now = tail(setting.relay.channel(), TailLogsRequest { follow, ..request() }).await;
    assert_eq!((now.received, now.reason()), (25, EndReason::CaughtUp));
    let from = Some(From::TailLines(3));
    let last = tail(
        setting.relay.channel(),
        TailLogsRequest {
            follow,
            from,
            ..request()
        },
    )
    .await;
    assert_eq!(last.of("step[0]/1/main"), numbered(22..25));
}

#[tokio::test]
async fn a_stream_ends_when_the_selection_has_ended() {
    let setting = setting(&[]).await;
    setting.step(0, 5, false);
    setting.step(1, 5, false);
    let steps = vec!["step[0]".to_owned()];
    let end_when = EndWhen::SelectionFinished.into();
    let mut stream = open(
        setting.relay.channel(),
        TailLogsRequest {
            steps,
            end_when,
            ..request()
        },
    )
    .await
    .expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 5).await;
    setting.cluster.end("uid-0-1", FeedEndReason::Complete);
    setting.scheduler.change(|state| {
        state
            .steps
            .iter_mut()
            .filter(|step| step.index == 0)
            .for_each(|step| step.ended = true);
    });
    setting.scheduler.reassign(0, 1, |source| source.ended = true);
    client.read_all(&mut stream).await;
    assert_eq!(client.reason(), EndReason::Complete);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason() {
    let setting = setting(&[]).await;
    setting.step(0, 5, true);
    setting.scheduler.sealed(1).await;
    let refused = |request| setting.refusal(request);
    let run = |run: &str| TailLogsRequest {
        run: run.to_owned(),
        ..request()
    };
    assert_eq!(refused(run("")).await.1, "INVALID_ARGUMENT");
    let unknown = refused(run("unknown")).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (Code::NotFound, "RUN_REFUSED"));
    let step = refused(TailLogsRequest {
        steps: vec!["stop".to_owned()],
        ..request()
    })
    .await;
    assert_eq!((step.0, step.1.as_str()), (Code::NotFound, "STEP_NOT_FOUND"));
    assert!(step.2.contains("\"step\""), "{}", step.2);
    let from = Some(From::Cursor(vec![9; 40]));
    let cursor = refused(TailLogsRequest { from, ..request() }).await;
    assert_eq!((cursor.0, cursor.1.as_str()), (Code::InvalidArgument, "CURSOR_INVALID"));
    let other = windlass_log_relay::cursor::Cursor::new(windlass_ids::RunId::from_bytes([1; 16]));
    let from = Some(From::Cursor(other.encode().to_vec()));
    assert_eq!(
        refused(TailLogsRequest { from, ..request() }).await.1,
        "CURSOR_OF_OTHER_RUN"
    );
    setting.scheduler.end_run();
    let container = "sidecar".to_owned();
    let refusal = refused(TailLogsRequest { container, ..request() }).await;
    assert_eq!((refusal.0, refusal.1.as_str()), (Code::NotFound, "CONTAINER_NOT_FOUND"));
}

#[tokio::test]
async fn logs_of_a_relay_that_is_not_reached_are_refused_with_its_address() {
    let setting = setting(&[]).await;
    let mut elsewhere = source(0, 1, "e1");
    "00000000-0000-0000-0000-000000000001".clone_into(&mut elsewhere.relay);
    // Nobody listens there.
    "http://127.0.0.1:9".clone_into(&mut elsewhere.relay_address);
    setting.scheduler.change(|state| state.elsewhere.push(elsewhere));
    let follow = false;
    let request = TailLogsRequest { follow, ..request() };
    let mut stream = open(setting.relay.channel(), request).await.expect("accepted");
    let status = loop {
        match within(stream.next()).await.expect("a status") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    let info = status.get_details_error_info().expect("details");
    assert_eq!(
        (status.code(), info.reason.as_str()),
        (Code::Unavailable, "LOGS_ON_OTHER_RELAY")
    );
    assert_eq!(info.metadata["address"], "http://127.0.0.1:9");
}

/// Two relays that each take the other for the owner: nothing goes round in circles.
#[tokio::test]
async fn what_another_relay_does_not_own_is_not_asked_for_any_further() {
    let setting = setting(&[]).await;
    let (folder, other) = (tempfile::tempdir().expect("folder"), Scheduler::start().await);
    let second = Relay::start(folder.path(), &other.address).await;
    for (scheduler, address) in [(&setting.scheduler, &second.address), (&other, &setting.relay.address)] {
        let mut elsewhere = source(0, 1, "e1");
        "00000000-0000-0000-0000-000000000001".clone_into(&mut elsewhere.relay);
        address.clone_into(&mut elsewhere.relay_address);
        scheduler.change(|state| state.elsewhere.push(elsewhere));
    }
    let follow = false;
    for relay in [&setting.relay, &second] {
        let request = TailLogsRequest { follow, ..request() };
        let client = tail(relay.channel(), request).await;
        assert_eq!((client.reason(), client.received), (EndReason::CaughtUp, 0));
    }
}

#[tokio::test]
async fn i11_too_many_readers_are_refused() {
    let setting = setting(&["--max-readers", "1"]).await;
    setting.step(0, 5, false);
    let mut stream = open(setting.relay.channel(), request()).await.expect("accepted");
    Client::default().read_lines(&mut stream, 5).await;
    let refusal = setting.refusal(request()).await;
    assert_eq!(
        (refusal.0, refusal.1.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_READERS")
    );
}

#[tokio::test]
async fn a_relay_that_goes_away_says_where_to_resume() {
    let setting = setting(&[]).await;
    setting.step(0, 40, false);
    let mut client = Client::default();
    let mut stream = open(setting.relay.channel(), request()).await.expect("accepted");
    client.read_lines(&mut stream, 40).await;
    setting.relay.begin_shutdown();
    client.read_all(&mut stream).await;
    assert_eq!(client.reason(), EndReason::ShuttingDown);
    let cursor = client.tracker.cursor().expect("a cursor");
    let cursor = windlass_log_relay::cursor::Cursor::decode(&cursor).expect("readable");
    assert_eq!(cursor.open.values().next().expect("one").line, 40);
}

#[tokio::test]
async fn on_demand_logs_are_read_only_while_somebody_reads() {
    let setting = setting(&[]).await;
    let mut quiet = source(0, 1, "e1");
    quiet.on_demand = true;
    setting.scheduler.assign(quiet.clone());
    setting.step(1, 1, true);
    setting.cluster.write("uid-0-1", numbered(0..9));
    setting.scheduler.sealed(1).await;
    assert_eq!(setting.cluster.opens(), 1, "nobody asked for the other");
    let mut stream = open(setting.relay.channel(), request()).await.expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 10).await;
    drop(stream);
    until("no longer read", || setting.cluster.state().closes == 1).await;
    setting.scheduler.end_attempt(0, 1);
    let sealed = setting.scheduler.sealed(2).await;
    let quiet = sealed.iter().find(|sealed| sealed.step == 0).expect("sealed");
    assert_eq!((quiet.lines, quiet.complete), (9, false));
}

#[tokio::test]
async fn secrets_that_were_masked_are_said_once_and_offsets_count_the_original() {
    let setting = setting(&[]).await;
    setting.scheduler.assign(source(0, 1, "e1"));
    setting.cluster.change(|state| {
        let log = state.logs.entry("uid-0-1/main".to_owned()).or_default();
        for (time_nanos, text, unmasked_length) in [(1, "a", 0), (2, "key ***", 30), (3, "***", 26)] {
            log.lines.push(windlass_api::feed::v1::FeedLine {
                time_nanos,
                content: text.into(),
                unmasked_length,
                ..Default::default()
            });
        }
        log.end = Some(FeedEndReason::Complete);
    });
    setting.scheduler.end_run();
    let client = tail(setting.relay.channel(), request()).await;
    assert_eq!(client.count(MarkKind::Masked), 1);
    let sealed = setting.scheduler.sealed(1).await;
    assert_eq!((sealed[0].lines, sealed[0].bytes), (3, 2 + 31 + 27));
}

#[tokio::test]
async fn side_containers_can_be_read_after_their_pod_was_released() {
    let setting = setting(&[]).await;
    let mut pod = source(0, 1, "e1");
    pod.containers.push("proxy".to_owned());
    setting.scheduler.assign(pod);
    setting.cluster.write("uid-0-1", numbered(0..2));
    setting.cluster.change(|state| {
        let line = |text: &str| windlass_api::feed::v1::FeedLine {
            time_nanos: 1,
            content: text.to_owned().into(),
            ..Default::default()
        };
        let log = state.logs.entry("uid-0-1/proxy".to_owned()).or_default();
        log.lines.push(line("proxied"));
        log.end = Some(FeedEndReason::Complete);
    });
    setting.cluster.end("uid-0-1", FeedEndReason::Complete);
    setting.scheduler.end_run();
    setting.scheduler.sealed(1).await;
    // What the scheduler knows once the pod is gone.
    setting.scheduler.change(|state| {
        state.assigned.clear();
        state.elsewhere.push(windlass_api::follow::v1::LogSource {
            ended: true,
            ..source(0, 1, "")
        });
    });
    let of = async |container: &str| {
        let container = container.to_owned();
        tail(setting.relay.channel(), TailLogsRequest { container, ..request() }).await
    };
    assert_eq!(of("proxy").await.of("step[0]/1/proxy"), ["proxied"]);
    assert_eq!(of("*").await.lines.len(), 2);
    assert_eq!(of("main").await.lines.len(), 1);
    let unknown = TailLogsRequest {
        container: "prox".to_owned(),
        ..request()
    };
    assert_eq!(setting.refusal(unknown).await.1, "CONTAINER_NOT_FOUND");
}

#[tokio::test]
async fn only_lines_that_the_patterns_take_are_sent_and_the_cursor_passes_the_others() {
    let setting = setting(&[]).await;
    setting.step(0, 200, true);
    setting.scheduler.end_run();
    let filtered = TailLogsRequest {
        include: vec!["7$".to_owned(), "(?i)LINE 1..$".to_owned()],
        exclude: vec!["^line 1[0-8]".to_owned()],
        ..request()
    };
    let client = tail(setting.relay.channel(), filtered.clone()).await;
    let taken = |line: &String| {
        let number: usize = line["line ".len()..].parse().expect("a number");
        (number % 10 == 7 || number > 99) && !(10..=18).contains(&number) && !(100..190).contains(&number)
    };
    let expected: Vec<String> = numbered(0..200).into_iter().filter(taken).collect();
    assert_eq!(expected.len(), 1 + 8 + 10, "{expected:?}");
    assert_eq!(client.of("step[0]/1/main"), expected);
    let resumed = TailLogsRequest {
        from: Some(From::Cursor(client.end.expect("an end").cursor)),
        ..filtered
    };
    assert!(
        tail(setting.relay.channel(), resumed)
            .await
            .of("step[0]/1/main")
            .is_empty()
    );
}

#[tokio::test]
async fn the_previous_attempt_is_that_before_the_newest() {
    let setting = setting(&[]).await;
    for attempt in 1..=3 {
        setting.scheduler.assign(source(0, attempt, "e1"));
        let pod = format!("uid-0-{attempt}");
        setting.cluster.write(&pod, [format!("attempt {attempt}")]);
        setting.cluster.end(&pod, FeedEndReason::Complete);
        setting.scheduler.end_attempt(0, attempt);
    }
    setting.step(1, 3, true);
    setting.scheduler.end_run();
    let previous = TailLogsRequest {
        previous: true,
        follow: false,
        ..request()
    };
    let client = tail(setting.relay.channel(), previous).await;
    assert_eq!(client.of("step[0]/2/main"), ["attempt 2"]);
    assert_eq!(client.received, 1, "a step with one attempt has none before it");
}
