//! `windlass cluster purge` on the local cluster: what it lists, refuses and removes. `real_faults` has it on a real Kubernetes.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use windlass_tests::binaries::binary;
use windlass_tests::client::{steps, submit};
use windlass_tests::deployment::{Deployment, Options};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

/// Exit status, standard output, standard error.
fn purge(kubeconfig: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary("windlass"))
        .args(["cluster", "purge", "--kubeconfig"])
        .arg(kubeconfig)
        .args(["--data-dir", "/nonexistent"])
        .args(args)
        .env_remove("WINDLASS_SERVER")
        .env("NO_COLOR", "1")
        .output()
        .expect("windlass runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().unwrap_or(-1);
    (status, text(&output.stdout), text(&output.stderr))
}

/// Whether a shell with this text in its script runs. (Its own pid is one of the container.)
fn lives(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.any(|line| line.starts_with("/bin/sh\0") && line.contains(mark))
}

/// behaviours U13
#[tokio::test(flavor = "multi_thread")]
async fn i4_a_purge_ends_what_runs_and_leaves_nothing() {
    let mut deployment = Deployment::start(Options::default()).await;
    let kubeconfig = deployment.kubeconfig();
    let (status, out, notes) = purge(&kubeconfig, &[]);
    assert_eq!((status, out.as_str()), (0, ""));
    assert_eq!(notes, "no installation owns anything in this cluster\n");

    let mark = deployment.folder().join("runs").display().to_string();
    let script = format!("echo > {mark}; sleep 600");
    let pipeline = from_json(json!({
        "name": "left",
        "steps": [{"name": "left", "image": "busybox:1.36", "command": ["/bin/sh", "-c", script]}],
    }));
    let run = submit(&deployment, &pipeline, "left").await.name;
    until("the step runs", async || std::fs::read_to_string(&mark)).await;
    assert!(lives(&mark));
    until("the step is known to run", async || {
        let steps = steps(&deployment, &run).await;
        if steps[0].state() == windlass_api::run::v1::StepState::Running {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    deployment.kill_services();

    let (status, listed, notes) = purge(&kubeconfig, &["-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed} {notes}"));
    let found = &listed["installations"][0];
    assert_eq!(
        (status, &found["objects"]["Pod"], &found["livePods"]),
        (0, &json!(1), &json!(1)),
        "{listed:#}"
    );
    let installation = found["installation"].as_str().expect("an id");

    // A list is no removal, and neither is a refusal.
    let (status, table, notes) = purge(&kubeconfig, &["--installation", installation]);
    assert_eq!(status, 0, "{notes}");
    assert!(
        table.starts_with("KIND") && table.contains("would be removed"),
        "{table}"
    );
    assert!(notes.contains("1 of its pods may still run"), "{notes}");
    let (status, _, notes) = purge(&kubeconfig, &["--installation", installation, "--yes"]);
    assert_eq!(status, 2, "{notes}");
    assert!(
        notes.starts_with(&format!("error: installation {installation} may live\n")),
        "{notes}"
    );
    assert!(lives(&mark));

    let (status, out, notes) = purge(
        &kubeconfig,
        &["--installation", installation, "--yes", "--force", "-o", "json"],
    );
    assert_eq!(status, 0, "{out}\n{notes}");
    let removed: Value = serde_json::from_str(&out).expect("JSON");
    let outcomes: Vec<_> = removed["objects"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| &one["outcome"])
        .collect();
    assert!(
        !outcomes.is_empty() && outcomes.iter().all(|outcome| **outcome == json!("removed")),
        "{removed:#}"
    );
    until("its process is gone", async || {
        if lives(&mark) { Err("it lives") } else { Ok(()) }
    })
    .await;
    let (status, out, _) = purge(&kubeconfig, &[]);
    assert_eq!((status, out.as_str()), (0, ""), "nothing is left");
}

/// behaviours K3
#[test]
fn what_cannot_be_meant_is_refused() {
    let nothing = Path::new("/nonexistent/kubeconfig");
    for (args, says) in [
        (&["--yes"][..], "--installation <UUID>"),
        (&["--installation", "mine"][..], "invalid value 'mine'"),
        (
            &["--installation", "01234567-89ab-4def-8123-456789abcdef", "--force"][..],
            "--yes",
        ),
        (&[][..], "the kubeconfig cannot be used"),
        (&["--local"][..], "--local starts a cluster of its own"),
    ] {
        let (status, _, notes) = purge(nothing, args);
        assert_eq!(status, 2, "{args:?}: {notes}");
        assert!(notes.contains(says), "{args:?}: {notes}");
    }
}
