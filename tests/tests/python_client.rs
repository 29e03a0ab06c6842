//! A client in Python, made from reflection alone, submits, watches and tails.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use windlass_tests::binaries::repository;
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};

/// The interpreter with grpcio: `$WINDLASS_TEST_PYTHON`, or `python3` when it has what is needed.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("WINDLASS_TEST_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let probe = Command::new(&python)
        .args(["-c", "import grpc, grpc_reflection"])
        .output()
        .ok()?;
    probe.status.success().then_some(python)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_made_from_reflection_submits_watches_and_tails() {
    let Some(python) = python() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have grpcio: set WINDLASS_TEST_PYTHON"
        );
        println!("skipped: no Python with grpcio and grpcio-reflection (scripts/test installs them)");
        return;
    };
    let deployment = Deployment::start(Options::default()).await;
    let pipeline = deployment.folder().join("pipeline.json");
    let steps = r#"[{"name": "hello", "script": "echo hello"}, {"name": "world", "upstream": ["hello"], "script": "echo world"}]"#;
    std::fs::write(
        &pipeline,
        format!(r#"{{"name": "greeting", "defaults": {{"image": "busybox"}}, "steps": {steps}}}"#),
    )
    .expect("written");
    let output = tokio::process::Command::new(python)
        .arg(repository().join("tests/python/client.py"))
        .args([
            "--server",
            &deployment.address(Part::Scheduler).to_string(),
            "--token",
            TOKEN,
        ])
        .arg(&pipeline)
        .output()
        .await
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result["state"], "RUN_STATE_SUCCEEDED", "{result}");
    assert_eq!(result["created"], serde_json::json!([true, false]));
    assert_eq!(result["submittedBy"], "python");
    assert_eq!(
        result["logs"],
        serde_json::json!({"hello": ["hello"], "world": ["world"]})
    );
    assert_eq!(result["logState"], "SUCCEEDED");
}
