//! Several log relays share the work: whichever a client asks, it reads as if that one owned all.

#[path = "../../../services/log-relay/tests/support/mod.rs"]
mod support;

use std::process::Command;

use serde_json::json;
use support::client::Client;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Streaming;
use windlass_api::log::v1::tail_logs_request::From;
use windlass_api::log::v1::{EndReason, MarkKind, TailLogsRequest, TailLogsResponse};
use windlass_pipeline::Pipeline;
use windlass_tests::binaries::binary;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

const RELAYS: [Part; 2] = [Part::Relay, Part::SecondRelay];

/// Two relays with one archive.
async fn start(talkative: bool) -> (Deployment, TempDir) {
    let archive = tempfile::tempdir().expect("a folder");
    let options = Options {
        two_relays: true,
        relay_args: vec![format!("--archive=file://{}", archive.path().display())],
        talkative,
        ..Options::default()
    };
    (Deployment::start(options).await, archive)
}

/// Steps that write 300 lines, wait for the file `go`, and write 300 more.
fn pipeline(steps: usize, go: &std::path::Path) -> Pipeline {
    let script = |step| {
        format!(
            "i=0; while [ $i -lt 600 ]; do echo \"line $i of {step}\"; i=$((i+1)); \
             [ $i = 300 ] && while [ ! -e {} ]; do sleep 0.02; done; done; true",
            go.display()
        )
    };
    let steps: Vec<_> = (0..steps)
        .map(|step| json!({"name": format!("s{step}"), "command": ["/bin/sh", "-c", script(step)]}))
        .collect();
    from_json(json!({"name": "shared", "defaults": {"image": "busybox:1.36"}, "steps": steps}))
}

fn written(step: usize) -> Vec<String> {
    (0..600).map(|line| format!("line {line} of {step}")).collect()
}

fn follow(run: &str) -> TailLogsRequest {
    TailLogsRequest {
        run: run.to_owned(),
        follow: true,
        ..TailLogsRequest::default()
    }
}

async fn next(stream: &mut Streaming<TailLogsResponse>) -> TailLogsResponse {
    let message = tokio::time::timeout(std::time::Duration::from_secs(120), stream.message()).await;
    let message = message.expect("in time").expect("no failure");
    message.expect("no end before the end")
}

/// A reader at a relay, over as many streams as it takes.
async fn read(deployment: &Deployment, relay: Part, request: &TailLogsRequest, client: &mut Client, lines: usize) {
    let from = client.tracker.cursor().map(|cursor| From::Cursor(cursor.to_vec()));
    client.restart();
    let request = TailLogsRequest {
        from,
        ..request.clone()
    };
    let mut stream = deployment.tail(relay, request).await;
    while client.received < lines && client.end.is_none() {
        client.take(next(&mut stream).await);
    }
}

/// A counter or gauge of a relay.
async fn metric(deployment: &Deployment, relay: Part, name: &str) -> f64 {
    let url = deployment.metrics_url(relay);
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("metrics");
    let request = "GET /metrics HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' '));
    line.map(|(_, value)| value)
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .expect("a number")
}

/// Which relay has the live log of a run's only container.
async fn owner(deployment: &Deployment, run: &str) -> (Part, Part) {
    until("a relay has the log", async || {
        let has = |name: &str| deployment.folder().join(name).join("live").join(run).is_dir();
        match (has("relay"), has("second-relay")) {
            (true, false) => Ok((Part::Relay, Part::SecondRelay)),
            (false, true) => Ok((Part::SecondRelay, Part::Relay)),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// behaviours E8
#[tokio::test(flavor = "multi_thread")]
async fn i7_i11_a_run_over_two_relays_is_read_at_either_as_if_it_owned_all() {
    const STEPS: usize = 10;
    const READERS: usize = 25;
    let (deployment, _archive) = start(true).await;
    let go = deployment.folder().join("go");
    let run = submit(&deployment, &pipeline(STEPS, &go), "r").await.name;
    let request = follow(&run);
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..2 * READERS {
        let (mut logs, request) = (deployment.logs_at(RELAYS[reader % 2]), request.clone());
        readers.spawn(async move {
            let mut stream = logs.tail_logs(request).await.expect("accepted").into_inner();
            let mut client = Client::default();
            while let Some(message) = stream.message().await.expect("no failure") {
                client.take(message);
            }
            client
        });
    }
    let mut early = Client::default();
    read(&deployment, Part::Relay, &request, &mut early, 300 * STEPS).await;
    let mut proxied = Vec::new();
    for relay in RELAYS {
        assert!(
            metric(&deployment, relay, "windlass_relay_lines_stored_total").await > 0.0,
            "{relay:?} has a share"
        );
        proxied.push(metric(&deployment, relay, "windlass_relay_proxied_sources").await);
    }
    assert!(
        proxied.iter().all(|sources| *sources > 0.0),
        "each reads through the other: {proxied:?}"
    );
    std::fs::write(&go, "").expect("a file");
    watch_to_end(&deployment, &run).await;
    while let Some(client) = readers.join_next().await {
        let client = client.expect("a reader");
        assert_eq!(
            (client.reason(), client.count(MarkKind::Lost)),
            (EndReason::Complete, 0)
        );
        assert_eq!(client.count(MarkKind::AttemptStarted), STEPS);
        assert_eq!(client.count(MarkKind::SourceEnded), STEPS);
        for step in 0..STEPS {
            assert_eq!(client.of(&format!("s{step}/1/main")), written(step));
        }
    }
    let mut upstreams = 0.0;
    for relay in RELAYS {
        upstreams += metric(&deployment, relay, "windlass_relay_feeds_opened_total").await;
        assert_eq!(
            metric(&deployment, relay, "windlass_relay_proxied_sources").await,
            0.0,
            "{relay:?}"
        );
    }
    assert_eq!(
        upstreams, STEPS as f64,
        "one for each container, however many read at whichever relay"
    );
    // At the end, and later, by the command line: byte for byte.
    for step in 0..2 {
        let printed = Command::new(binary("windlass"))
            .args(["logs", &run, &format!("s{step}"), "--output", "raw", "--server"])
            .arg(deployment.address(Part::Scheduler).to_string())
            .env("WINDLASS_TOKEN", TOKEN)
            .output()
            .expect("windlass runs");
        let expected: String = written(step).iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&printed.stdout), expected, "{printed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_cursor_goes_from_relay_to_relay_and_from_live_to_archive() {
    let (deployment, archive) = start(false).await;
    let go = deployment.folder().join("go");
    let run = submit(&deployment, &pipeline(1, &go), "r").await;
    let (owner, other) = owner(&deployment, &run.id).await;
    let request = follow(&run.name);
    let mut client = Client::default();
    // A part through the other one, a part from the owner, and back; what is there so far, and no more, for who does not follow.
    read(&deployment, other, &request, &mut client, 100).await;
    read(&deployment, owner, &request, &mut client, 200).await;
    read(&deployment, other, &request, &mut client, 300).await;
    for (tail_lines, lines) in [(None, 300), (Some(7), 7)] {
        let request = TailLogsRequest {
            from: tail_lines.map(From::TailLines),
            follow: false,
            ..request.clone()
        };
        let mut there = Client {
            filtered: tail_lines.is_some(),
            ..Client::default()
        };
        let mut stream = deployment.tail(other, request).await;
        there.read_all(&mut stream).await;
        assert_eq!((there.reason(), there.received), (EndReason::CaughtUp, lines));
        assert_eq!(there.of("s0/1/main").last().map(String::as_str), Some("line 299 of 0"));
    }
    std::fs::write(&go, "").expect("a file");
    watch_to_end(&deployment, &run.name).await;
    until("the log is sealed", async || {
        let folder = archive.path().join(&run.id);
        if folder.is_dir() { Ok(()) } else { Err("not yet") }
    })
    .await;
    read(&deployment, owner, &request, &mut client, 450).await;
    read(&deployment, other, &request, &mut client, usize::MAX).await;
    assert_eq!(client.of("s0/1/main"), written(0));
    assert_eq!(
        (client.reason(), client.count(MarkKind::Lost)),
        (EndReason::Complete, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_reader_goes_on_when_the_relay_that_owns_its_log_is_killed() {
    let (mut deployment, _archive) = start(false).await;
    let go = deployment.folder().join("go");
    let run = submit(&deployment, &pipeline(1, &go), "r").await;
    let (owner, other) = owner(&deployment, &run.id).await;
    let request = follow(&run.name);
    let mut client = Client::default();
    let mut stream = deployment.tail(other, request).await;
    client.read_lines(&mut stream, 300).await;
    // At first it comes back, then it does not, and the scheduler gives the log to the other one.
    deployment.restart(owner);
    deployment.ready().await;
    deployment.kill(owner);
    std::fs::write(&go, "").expect("a file");
    while client.end.is_none() {
        client.take(next(&mut stream).await);
    }
    assert_eq!(client.of("s0/1/main"), written(0));
    assert_eq!(
        (client.reason(), client.count(MarkKind::Lost)),
        (EndReason::Complete, 0)
    );
}
