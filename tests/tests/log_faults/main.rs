//! I7 under faults: between the API server, the executor, the relay and the client, streams end cleanly, break and stall at random, and
//! what the client gets is what the containers wrote, byte for byte.
//!
//! Each container's faults follow from a seed of its own. The short form has one round of 40; `scripts/test-long` has 50 rounds.
//! Many containers and many lines at once are in `crowds`: 200 containers, 1,000 in the long form (`WINDLASS_LOG_CONTAINERS`).
//! The longest line has 12 MiB, 100 in the long form (`WINDLASS_LOG_LINE_MIB`).
//! `WINDLASS_LOG_ROUNDS` sets the number of rounds, and `WINDLASS_SEED` the seed of the first one; the others count on from it.

mod crowds;
mod unsteady;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use unsteady::Faults;
use windlass_api::run::v1::RunState;
use windlass_tests::binaries::binary;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::log_reader::{Entry, Reader};
use windlass_tests::pipelines::from_json;

const CONTAINERS: usize = 40;
const LINES: usize = 400;

pub(crate) fn number(name: &str, or: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A container that writes numbered lines, in bursts of different sizes, some long, some empty, the last one without its end.
fn writer(step: usize, seed: u64) -> Value {
    let mut random = StdRng::seed_from_u64(seed);
    let (burst, pause) = (random.random_range(1..120), random.random_range(1..9));
    let script = format!(
        r#"i=0; while [ $i -lt {LINES} ]; do
            echo "line $i of step {step}"; [ $((i % 90)) = 7 ] && echo; [ $((i % 130)) = 9 ] && printf '%3000s\n' "$i"
            [ $((i % {burst})) = 0 ] && sleep 0.0{pause}; i=$((i+1))
        done; printf 'and the last of step {step}'"#
    );
    json!({"name": format!("s{step}"), "command": ["/bin/sh", "-c", script]})
}

fn written(step: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for i in 0..LINES {
        lines.push(format!("line {i} of step {step}"));
        if i % 90 == 7 {
            lines.push(String::new());
        }
        if i % 130 == 9 {
            lines.push(format!("{i:>3000}"));
        }
    }
    lines.push(format!("and the last of step {step}"));
    lines
}

/// Everything that terminals and parsers stumble over, and then a line without an end.
fn hostile(seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut output = b"\x1b[31mred\x1b[2J\x1b]0;title\x07\r\n\n\n50%\r100%\r\n\xff\xfe\0\0\n\t \n".to_vec();
    for _ in 0..2_000 {
        let length = random.random_range(0..300);
        output.extend((0..length).map(|_| random.random::<u8>()));
        output.push(b'\n');
    }
    let mebibytes = usize::try_from(number("WINDLASS_LOG_LINE_MIB", 12)).expect("a size");
    output.resize(output.len() + (mebibytes << 20), b'x');
    output.extend_from_slice(b"\nthe end\n");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_output_comes_byte_for_byte() {
    let deployment = Deployment::start(Options::default()).await;
    let output = hostile(number("WINDLASS_SEED", 20_261_130));
    let path = deployment.folder().join("hostile");
    std::fs::write(&path, &output).expect("a file");
    let pipeline = from_json(json!({
        "name": "hostile",
        "defaults": {"image": "busybox:1.36"},
        "steps": [{"name": "cat", "command": ["/bin/cat", path.display().to_string()]}],
    }));
    let run = submit(&deployment, &pipeline, "hostile").await.name;
    let path = path.to_str().expect("a path");
    let logs = ["logs", &run, "--follow", "--output", "raw"];
    let step = ["run-step", "--image", "busybox:1.36", "--", "/bin/cat", path];
    // While it is written, from the archive, and as what a step prints.
    for command in [&logs[..], &logs, &step] {
        let printed = Command::new(binary("windlass"))
            .env("WINDLASS_SERVER", deployment.address(Part::Scheduler).to_string())
            .env("WINDLASS_TOKEN", TOKEN)
            .args(command)
            .output()
            .expect("windlass runs");
        let mut both = printed.stdout.iter().zip(&output);
        let first = both.position(|(found, written)| found != written);
        let said = String::from_utf8_lossy(&printed.stderr);
        assert_eq!((printed.stdout.len(), first), (output.len(), None), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_what_a_client_gets_is_what_was_written_whatever_breaks_in_between() {
    let (rounds, seed) = (number("WINDLASS_LOG_ROUNDS", 1), number("WINDLASS_SEED", 20_261_130));
    let mut deployment = Deployment::start(Options::default()).await;
    let faults = Arc::new(Faults::default());
    let kubeconfig = kube::config::Kubeconfig::read_from(deployment.kubeconfig()).expect("a kubeconfig");
    let context = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &context).await;
    let client = kube::Client::try_from(config.expect("a config")).expect("a client");
    let api = windlass_tests::log_proxy::start(client, Arc::clone(&faults)).await;
    let relay = unsteady::relay(deployment.address(Part::Relay), Arc::clone(&faults)).await;
    deployment.hide_behind(Part::Cluster, api);
    deployment.hide_behind(Part::Relay, relay);
    deployment.ready().await;

    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        println!("round {round} seed {seed}");
        faults.begin(seed);
        let steps: Vec<_> = (0..CONTAINERS)
            .map(|step| writer(step, seed.wrapping_add(step as u64)))
            .collect();
        let pipeline = from_json(json!({"name": "writes", "defaults": {"image": "busybox:1.36"}, "steps": steps}));
        let run = submit(&deployment, &pipeline, &format!("round-{round}")).await;
        let reader = Reader::start(&deployment, &run.namespace, &run.name);
        let ended = watch_to_end(&deployment, &run.name).await;
        assert_eq!(ended.state(), RunState::Succeeded, "seed {seed}: {ended:?}");
        let logs = reader.end().await;
        for step in 0..CONTAINERS {
            let found = logs.of(&format!("s{step}/1"));
            let written: Vec<_> = written(step).into_iter().map(Entry::Line).collect();
            let first = found.iter().zip(&written).position(|(found, written)| found != written);
            let shape = (found.len(), first.map(|first| (first, &found[first])));
            assert_eq!(
                shape,
                (written.len(), None),
                "seed {seed}, step {step}: lines and marks, and the first wrong one"
            );
        }
    }
    let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed);
    let (clean, dirty) = (count(&faults.clean), count(&faults.dirty));
    let (stalled, cut) = (count(&faults.stalled), count(&faults.cut));
    println!("{clean} clean ends, {dirty} broken ones, {stalled} stalls, {cut} connections cut");
    let least = usize::try_from(rounds).expect("a few") * CONTAINERS / 2;
    assert!(
        clean > least && dirty > least && stalled > 0 && cut > 0,
        "the faults came"
    );
}
