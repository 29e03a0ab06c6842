//! I11: many containers at once, and many lines.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use windlass_api::run::v1::RunState;
use windlass_tests::binaries::binary;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::log_reader::Reader;
use windlass_tests::pipelines::from_json;

use super::number;

/// One in ten writes nothing, one in ten dies before its first line, one in ten has no program that could start.
fn short(step: u64) -> (Value, Vec<String>) {
    let (script, lines) = match step % 10 {
        3 => ("true".to_owned(), 0),
        6 => ("kill -9 $$$$".to_owned(), 0),
        _ => (format!("for i in 1 2 3; do echo \"line $i of step {step}\"; done"), 3),
    };
    let command = match step % 10 {
        9 => json!(["/no/such/program"]),
        _ => json!(["/bin/sh", "-c", script]),
    };
    let lines = if step % 10 == 9 { 0 } else { lines };
    let written = (1..=lines).map(|line| format!("line {line} of step {step}"));
    (
        json!({"name": format!("s{step}"), "command": command}),
        written.collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_i11_containers_that_run_all_at_once_have_whole_logs() {
    let count = number("WINDLASS_LOG_CONTAINERS", 200);
    let deployment = Deployment::start(Options::default()).await;
    let (steps, written): (Vec<_>, Vec<_>) = (0..count).map(short).unzip();
    let pipeline = from_json(json!({"name": "crowd", "defaults": {"image": "busybox:1.36"}, "steps": steps}));
    let begin = Instant::now();
    let run = submit(&deployment, &pipeline, "crowd").await;
    let reader = Reader::start(&deployment, &run.namespace, &run.name);
    let ended = watch_to_end(&deployment, &run.name).await;
    assert_eq!(ended.state(), RunState::Failed, "some die: {ended:?}");
    let followed = reader.end().await;
    println!("{count} containers in {:?}", begin.elapsed());
    let again = Reader::start(&deployment, &run.namespace, &run.name).end().await;
    for (step, written) in written.iter().enumerate() {
        followed.is_whole(&format!("s{step}/1"), written);
        again.is_whole(&format!("s{step}/1"), written);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_million_lines_as_fast_as_they_can_be_written_come_in_order() {
    let lines = number("WINDLASS_LOG_LINES", 1_000_000);
    let deployment = Deployment::start(Options::default()).await;
    let path = deployment.folder().join("written");
    let seq = |to: Stdio| Command::new("seq").arg(lines.to_string()).stdout(to).status();
    let file = std::fs::File::create(&path).expect("a file");
    assert!(seq(file.into()).expect("seq runs").success());
    let pipeline = from_json(json!({
        "name": "million",
        "defaults": {"image": "busybox:1.36"},
        "steps": [{"name": "seq", "command": ["seq", lines.to_string()]}],
    }));
    let begin = Instant::now();
    let run = submit(&deployment, &pipeline, "million").await.name;
    let printed = Command::new(binary("windlass"))
        .args(["logs", &run, "--follow", "--output", "raw", "--server"])
        .arg(deployment.url(Part::Scheduler))
        .env("WINDLASS_TOKEN", TOKEN)
        .output()
        .expect("windlass runs");
    println!("{lines} lines in {:?}", begin.elapsed());
    let written = std::fs::read(&path).expect("a file");
    let first = printed
        .stdout
        .iter()
        .zip(&written)
        .position(|(found, written)| found != written);
    assert_eq!(
        (printed.stdout.len(), first),
        (written.len(), None),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
}
