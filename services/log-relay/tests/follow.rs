//! Following live logs: seams, kills, changes of executor, sealing.

mod support;

use support::client::{Client, open, request, tail};
use support::executor::{Cluster, Executor};
use support::scheduler::{Scheduler, source};
use support::{Relay, until};
use windlass_api::feed::v1::FeedEndReason;
use windlass_api::log::v1::{EndReason, MarkKind};

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

/// behaviours K15, M9, E12, X1
#[tokio::test]
async fn a_run_is_followed_to_its_end_and_read_again_from_the_archive() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..100));

    let mut stream = open(relay.channel(), request()).await.expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 100).await;
    // A step that starts later joins by itself.
    scheduler.assign(source(1, 1, "e1"));
    cluster.write("uid-1-1", numbered(0..10));
    client.read_lines(&mut stream, 110).await;
    for pod in ["uid-0-1", "uid-1-1"] {
        cluster.write(pod, ["last words"]);
        cluster.end(pod, FeedEndReason::Complete);
    }
    scheduler.end_run();
    client.read_all(&mut stream).await;
    assert_eq!(client.reason(), EndReason::Complete);
    assert_eq!(client.end.as_ref().expect("end").run_state, "SUCCEEDED");
    assert_eq!(client.of("step[0]/1/main").len(), 101);
    assert_eq!(client.of("step[1]/1/main").last().expect("lines"), "last words");
    assert_eq!(client.count(MarkKind::AttemptStarted), 2);
    assert_eq!(client.count(MarkKind::SourceEnded), 2);

    let sealed = scheduler.sealed(2).await;
    assert!(sealed.iter().all(|sealed| sealed.complete && sealed.digest.len() == 32));
    until("the live files are gone", || {
        std::fs::read_dir(folder.path().join("live"))
            .expect("there")
            .next()
            .is_none()
    })
    .await;
    for follow in [true, false] {
        let again = tail(
            relay.channel(),
            windlass_api::log::v1::TailLogsRequest { follow, ..request() },
        )
        .await;
        assert_eq!(again.lines, client.lines);
        assert_eq!(again.reason(), EndReason::Complete);
    }
    relay.stop().await;
}

/// behaviours K15
#[tokio::test]
async fn i7_no_line_is_lost_or_doubled_when_the_relay_is_killed() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let cluster = Cluster::default();
    cluster.state().chunk = 3;
    // Executors that send more than they are asked for must do no harm.
    cluster.state().overlap = 5;
    let executor = Executor::new("e1", &cluster);
    scheduler.assign(source(0, 1, "e1"));

    let mut client = Client::default();
    let mut relay = Relay::start(folder.path(), &scheduler.address).await;
    for round in 0..5_usize {
        executor.connect(relay.channel());
        cluster.write("uid-0-1", numbered(round * 50..(round + 1) * 50));
        let mut request = request();
        request.from = client
            .tracker
            .cursor()
            .map(|cursor| windlass_api::log::v1::tail_logs_request::From::Cursor(cursor.to_vec()));
        client.restart();
        let mut stream = open(relay.channel(), request).await.expect("accepted");
        // It is killed at a point where neither the client nor the relay has everything.
        client.read_lines(&mut stream, (round + 1) * 50 - 20).await;
        relay.kill().await;
        relay = Relay::start(folder.path(), &scheduler.address).await;
    }
    executor.connect(relay.channel());
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_run();
    let whole = tail(relay.channel(), request()).await;
    assert_eq!(whole.of("step[0]/1/main"), numbered(0..250));
    assert_eq!(whole.count(MarkKind::Lost), 0);
    let sealed = scheduler.sealed(1).await;
    assert_eq!((sealed[0].lines, sealed[0].complete), (250, true));
}

#[tokio::test]
async fn i7_another_executor_goes_on_where_the_first_stopped() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    let (first, second) = (Executor::new("e1", &cluster), Executor::new("e2", &cluster));
    first.connect(relay.channel());
    second.connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..31));
    let mut stream = open(relay.channel(), request()).await.expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 31).await;
    scheduler.reassign(0, 1, |source| "e2".clone_into(&mut source.executor));
    until("the second is asked", || cluster.opens() == 2).await;
    cluster.write("uid-0-1", numbered(31..60));
    client.read_lines(&mut stream, 60).await;
    second.disconnect();
    scheduler.reassign(0, 1, |source| "e1".clone_into(&mut source.executor));
    cluster.write("uid-0-1", numbered(60..90));
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_run();
    client.read_all(&mut stream).await;
    assert_eq!(client.of("step[0]/1/main"), numbered(0..90));
    assert_eq!(client.count(MarkKind::Lost), 0);
}

#[tokio::test]
async fn i7_what_the_cluster_lost_is_said_in_its_place() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    let executor = Executor::new("e1", &cluster);
    executor.connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..10));
    let mut stream = open(relay.channel(), request()).await.expect("accepted");
    let mut client = Client {
        filtered: true,
        ..Client::default()
    };
    client.read_lines(&mut stream, 10).await;
    executor.disconnect();
    cluster.write("uid-0-1", numbered(10..20));
    cluster.change(|state| state.logs.get_mut("uid-0-1/main").expect("log").rotated = 15);
    executor.connect(relay.channel());
    client.read_lines(&mut stream, 15).await;
    assert_eq!(client.marks.last().expect("a mark").2, Some(5));
    cluster.end("uid-0-1", FeedEndReason::Gone);
    scheduler.end_run();
    client.read_all(&mut stream).await;
    assert_eq!(client.count(MarkKind::Lost), 2, "five lines, and an unknown end");
    let sealed = scheduler.sealed(1).await;
    assert!(!sealed[0].complete);
    // The archive says the same, in the same places.
    let again = tail(relay.channel(), request()).await;
    assert_eq!(again.lines, client.lines);
    assert_eq!(again.count(MarkKind::Lost), 2);
}

#[tokio::test]
async fn an_executor_that_cannot_read_for_a_while_is_asked_again() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    cluster.write("uid-0-1", numbered(0..3));
    cluster.change(|state| state.logs.get_mut("uid-0-1/main").expect("log").unavailable = 2);
    cluster.end("uid-0-1", FeedEndReason::Complete);
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    scheduler.end_attempt(0, 1);
    let sealed = scheduler.sealed(1).await;
    assert_eq!((sealed[0].lines, sealed[0].complete), (3, true));
    assert_eq!(cluster.opens(), 3);
}

#[tokio::test]
async fn sealed_is_said_until_it_is_acknowledged_and_again_for_a_new_assignment() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    scheduler.state().deaf = true;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    cluster.write("uid-0-1", numbered(0..3));
    cluster.end("uid-0-1", FeedEndReason::Complete);
    Executor::new("e1", &cluster).connect(relay.channel());
    let grant = scheduler.assign(source(0, 1, "e1"));
    scheduler.end_attempt(0, 1);
    scheduler.sealed(1).await;
    let said = scheduler.state().sealed.len();
    scheduler.change(|state| state.cut += 1);
    until("said again", || scheduler.state().sealed.len() > said).await;
    relay.kill().await;

    scheduler.state().sealed.clear();
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let sealed = scheduler.sealed(1).await;
    assert_eq!((sealed[0].grant, sealed[0].lines), (grant, 3));
    assert_eq!(cluster.opens(), 1, "what is sealed is not read again");
    relay.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_asked_for_again() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    let run = folder.path().join("live/07070707-0707-0707-0707-070707070707");
    scheduler.assign(source(1, 1, "e1"));
    until("asked", || cluster.opens() == 1).await;
    // A file is where the run's folder should be.
    std::fs::write(&run, "in the way").expect("written");
    cluster.write("uid-1-1", numbered(0..20));
    until("asked again", || cluster.opens() >= 2).await;
    std::fs::remove_file(&run).expect("removed");
    cluster.end("uid-1-1", FeedEndReason::Complete);
    scheduler.end_attempt(1, 1);
    let sealed = scheduler.sealed(1).await;
    assert_eq!((sealed[0].lines, sealed[0].complete), (20, true));
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    until("started", || !scheduler.state().hellos.is_empty()).await;
    let config = ["relay", "--data-dir", folder.path().to_str().expect("UTF-8")];
    let config = <windlass_log_relay::Config as clap::Parser>::parse_from(config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let refused = windlass_log_relay::server::run(config, listener, Default::default()).await;
    let error = refused.expect_err("refused").to_string();
    assert!(error.ends_with("is in use by another process"), "{error}");
    relay.stop().await;
}

#[tokio::test]
async fn a_forgotten_run_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    scheduler.assign(source(1, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..3));
    cluster.write("uid-1-1", numbered(0..3));
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_attempt(0, 1);
    scheduler.sealed(1).await;
    let run = "07070707-0707-0707-0707-070707070707";
    // What a relay leaves that is killed while it archives.
    std::fs::write(folder.path().join("archive").join(run).join("main.log#1"), "half").expect("written");
    scheduler.change(|state| {
        state.assigned.clear();
        state.forget = true;
    });
    until("gone", || {
        let archived = walk(&folder.path().join("archive").join(run));
        archived == 0 && walk(&folder.path().join("live").join(run)) == 0
    })
    .await;
}

#[tokio::test]
async fn i6_a_relay_says_of_which_runs_it_has_logs_when_it_connects() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    // Another run is archived, and one more was being written when the relay was stopped.
    for (place, run) in [("archive", 9), ("live", 8)] {
        let run = windlass_ids::RunId::from_bytes([run; 16]);
        std::fs::create_dir_all(folder.path().join(place).join(run.to_string()).join("0")).expect("made");
    }
    std::fs::create_dir_all(folder.path().join("archive/lost+found")).expect("made");
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    until("what is kept is said", || scheduler.state().kept.len() == 2).await;
    assert_eq!(Vec::from_iter(scheduler.state().kept.clone()), [[8; 16], [9; 16]]);
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..3));
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_attempt(0, 1);
    scheduler.sealed(1).await;
    // A scheduler that was started anew is told again.
    scheduler.change(|state| state.cut += 1);
    until("the new run is said, too", || {
        scheduler.state().kept.contains(&support::RUN[..])
    })
    .await;
    relay.stop().await;
}

/// behaviours E12
#[tokio::test]
async fn a_reader_of_a_run_that_is_deleted_is_told_so() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..3));
    let mut stream = open(relay.channel(), request()).await.expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 3).await;
    scheduler.change(|state| state.refuse = Some("run run-1 was deleted".to_owned()));
    let status = loop {
        match support::within(stream.message()).await {
            Ok(message) => assert!(message.is_some(), "the stream ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::NotFound, "run run-1 was deleted")
    );
    relay.stop().await;
}

#[tokio::test]
async fn i7_a_pod_that_was_let_go_too_early_ends_its_log_with_a_mark() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    let executor = Executor::new("e1", &cluster);
    executor.connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..5));
    let mut stream = open(relay.channel(), request()).await.expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 5).await;
    // The executor dies, the attempt ends, and the pod has to go before another one could read on.
    executor.disconnect();
    scheduler.end_run();
    scheduler.change(|state| state.abandoned.push((0, 1)));
    client.read_all(&mut stream).await;
    assert_eq!(client.of("step[0]/1/main"), numbered(0..5));
    assert_eq!(
        (client.count(MarkKind::Lost), client.reason()),
        (1, EndReason::Complete)
    );
    let sealed = scheduler.sealed(1).await;
    assert_eq!((sealed[0].lines, sealed[0].complete), (5, false));
}

#[tokio::test]
async fn i7_a_relay_that_was_given_up_goes_on_with_what_is_assigned_again() {
    let folder = tempfile::tempdir().expect("folder");
    let scheduler = Scheduler::start().await;
    let relay = Relay::start(folder.path(), &scheduler.address).await;
    let cluster = Cluster::default();
    Executor::new("e1", &cluster).connect(relay.channel());
    scheduler.assign(source(0, 1, "e1"));
    cluster.write("uid-0-1", numbered(0..5));
    let mut stream = open(relay.channel(), request()).await.expect("accepted");
    let mut client = Client::default();
    client.read_lines(&mut stream, 5).await;
    scheduler.change(|state| {
        state.known = false;
        state.cut += 1;
    });
    until("asked again", || cluster.opens() == 2).await;
    cluster.write("uid-0-1", numbered(5..9));
    cluster.end("uid-0-1", FeedEndReason::Complete);
    scheduler.end_run();
    client.read_all(&mut stream).await;
    assert_eq!(client.of("step[0]/1/main"), numbered(0..9));
    assert_eq!(client.count(MarkKind::Lost), 0);
    let sealed = scheduler.sealed(1).await;
    assert_eq!((sealed[0].lines, sealed[0].complete), (9, true));
}

fn walk(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .map(|entry| entry.expect("entry").path())
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}
