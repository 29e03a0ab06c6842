//! The archive of logs in an object store: the whole life of a log through a real S3 server, which is killed and started again.

#[path = "../../../services/log-relay/tests/support/mod.rs"]
mod support;

mod refused;
mod sealing;

use std::process::{Command, Output};

use serde_json::json;
use support::client::Client;
use windlass_api::log::v1::tail_logs_request::From;
use windlass_api::log::v1::{EndReason, MarkKind, TailLogsRequest};
use windlass_pipeline::Pipeline;
use windlass_tests::binaries::binary;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::object_store::{ObjectStore, SECRET_KEY};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

/// An installation whose relays keep sealed logs in a store.
fn options(store: &ObjectStore) -> Options {
    Options {
        relay_args: vec!["--archive".to_owned(), store.url("windlass/archive")],
        relay_env: store.environment(),
        ..Options::default()
    }
}

/// What one step prints: more than one request takes, once compressed.
const PRINTED: usize = 24 << 20;

/// Steps that print little and one that prints what cannot be compressed much.
fn pipeline(steps: usize, large: &str) -> Pipeline {
    let mut all: Vec<_> = (0..steps)
        .map(|step| json!({"name": format!("s{step}"), "script": format!("echo line 0 of {step}; echo line 1 of {step}")}))
        .collect();
    if !large.is_empty() {
        all.push(json!({"name": "large", "command": ["/bin/cat", large]}));
    }
    from_json(json!({"name": "archived", "defaults": {"image": "busybox:1.36"}, "steps": all}))
}

/// Hexadecimal digits at random, in lines: zstd makes little more than half of them.
fn large_output() -> Vec<u8> {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(20_261_130);
    let mut output = Vec::with_capacity(PRINTED + 128);
    while output.len() < PRINTED {
        output.extend((0..100).map(|_| b"0123456789abcdef"[random.random_range(0..16_usize)]));
        output.push(b'\n');
    }
    output
}

/// `windlass logs` as a person calls it.
fn logs(deployment: &Deployment, arguments: &[&str]) -> Output {
    Command::new(binary("windlass"))
        .arg("logs")
        .args(arguments)
        .arg("--server")
        .arg(deployment.address(Part::Scheduler).to_string())
        .env("WINDLASS_TOKEN", TOKEN)
        .output()
        .expect("windlass runs")
}

/// Waits until so many attempts of a run are in the bucket.
async fn sealed(store: &ObjectStore, run: &str, attempts: usize) {
    let prefix = format!("windlass/archive/{run}");
    until("the logs are sealed", async || {
        let objects = store.objects(&prefix);
        let manifests = objects.iter().filter(|name| name.ends_with(".json")).count();
        if manifests == attempts {
            Ok(())
        } else {
            Err(format!("{objects:?}"))
        }
    })
    .await;
}

fn whole(run: &str) -> TailLogsRequest {
    TailLogsRequest {
        run: run.to_owned(),
        ..TailLogsRequest::default()
    }
}

/// Asks for a reader's stream until the relay knows the run.
async fn read(deployment: &Deployment, relay: Part, request: TailLogsRequest) -> Client {
    let mut client = Client::default();
    let mut stream = deployment.tail(relay, request).await;
    client.read_all(&mut stream).await;
    client
}

/// behaviours E12
#[tokio::test(flavor = "multi_thread")]
async fn i7_i8_a_log_is_sealed_in_an_object_store_and_read_there_by_any_relay() {
    const STEPS: usize = 20;
    let store = ObjectStore::start().await;
    let mut deployment = Deployment::start(Options {
        talkative: true,
        ..options(&store)
    })
    .await;
    let output = large_output();
    let path = deployment.folder().join("large");
    std::fs::write(&path, &output).expect("a file");
    let run = submit(&deployment, &pipeline(STEPS, &path.display().to_string()), "r").await;
    watch_to_end(&deployment, &run.name).await;
    sealed(&store, &run.id, STEPS + 1).await;

    let asked = store.requests();
    let of =
        |asked: &std::collections::BTreeMap<String, usize>, kind: &str| asked.get(kind).copied().unwrap_or_default();
    // One list for each attempt, an object and a manifest; twice the marker, and once the runs that are kept.
    assert!(of(&asked, "ListObjectsV2") <= STEPS + 1 + 2, "{asked:?}");
    assert!(of(&asked, "PutObject") <= 2 * (STEPS + 1) + 2, "{asked:?}");
    assert!(of(&asked, "UploadPart") >= 2, "the large log goes in parts: {asked:?}");
    let argv = std::fs::read_to_string(format!("/proc/{}/cmdline", deployment.pid(Part::Relay))).expect("argv");
    assert!(argv.contains("s3://") && !argv.contains(SECRET_KEY), "{argv}");

    // Another relay, with a folder of its own, that has nothing but the bucket.
    deployment.kill(Part::Relay);
    std::fs::remove_dir_all(deployment.folder().join("relay")).expect("the folder of the first relay");
    deployment.start_part(Part::SecondRelay);
    deployment.ready().await;
    let printed = logs(&deployment, &[&run.name, "large", "--output", "raw"]);
    assert_eq!(
        printed.stdout.len(),
        output.len(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    assert!(printed.stdout == output, "byte for byte");
    let before = store.requests();
    let small: Vec<String> = (0..STEPS).map(|step| format!("s{step}")).collect();
    let client = read(
        &deployment,
        Part::SecondRelay,
        TailLogsRequest {
            steps: small,
            ..whole(&run.name)
        },
    )
    .await;
    assert_eq!(client.reason(), EndReason::Complete);
    assert_eq!(client.count(MarkKind::Lost), 0);
    for step in 0..STEPS {
        let lines = client.of(&format!("s{step}/1/main"));
        assert_eq!(lines, [format!("line 0 of {step}"), format!("line 1 of {step}")]);
    }
    let asked = store.requests();
    assert!(
        of(&asked, "ListObjectsV2") - of(&before, "ListObjectsV2") <= 2,
        "a run is listed as a whole: {before:?} {asked:?}"
    );
    assert!(
        of(&asked, "GetObject") - of(&before, "GetObject") <= 2 * STEPS,
        "a manifest and a segment each: {before:?} {asked:?}"
    );

    for part in [Part::Scheduler, Part::Executor, Part::Relay, Part::SecondRelay] {
        let log = deployment.log(part);
        assert!(
            !log.is_empty() && !log.contains(SECRET_KEY),
            "{part:?} keeps the secret to itself"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_cursor_of_a_live_log_is_good_in_the_archive_on_another_relay() {
    let store = ObjectStore::start().await;
    let mut deployment = Deployment::start(options(&store)).await;
    let go = deployment.folder().join("go");
    let script = format!(
        "seq 0 499; while [ ! -e {} ]; do sleep 0.02; done; seq 500 999",
        go.display()
    );
    let steps = json!([{"name": "only", "command": ["/bin/sh", "-c", script]}]);
    let pipeline = from_json(json!({"name": "half", "defaults": {"image": "busybox:1.36"}, "steps": steps}));
    let run = submit(&deployment, &pipeline, "r").await;

    let mut client = Client::default();
    let request = TailLogsRequest {
        follow: true,
        ..whole(&run.name)
    };
    let mut stream = deployment
        .logs()
        .tail_logs(request.clone())
        .await
        .expect("accepted")
        .into_inner();
    client.read_lines(&mut stream, 500).await;
    drop(stream);
    std::fs::write(&go, "").expect("a file");
    watch_to_end(&deployment, &run.name).await;
    sealed(&store, &run.id, 1).await;
    deployment.kill(Part::Relay);
    deployment.start_part(Part::SecondRelay);
    deployment.ready().await;

    client.restart();
    let cursor = client.tracker.cursor().expect("a cursor");
    let request = TailLogsRequest {
        from: Some(From::Cursor(cursor.to_vec())),
        ..request
    };
    let mut stream = deployment.tail(Part::SecondRelay, request).await;
    client.read_all(&mut stream).await;
    let expected: Vec<String> = (0..1000).map(|line| line.to_string()).collect();
    assert_eq!(client.of("only/1/main"), expected);
    assert_eq!(
        (client.reason(), client.count(MarkKind::Lost)),
        (EndReason::Complete, 0)
    );
}
