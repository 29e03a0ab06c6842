//! What people type: `kubectl` against a cluster. Skipped where there is no `kubectl`.

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use support::{Cluster, shell_pod};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

fn command(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command
        .args(args)
        .env("KUBECONFIG", &cluster.handle.kubeconfig)
        .env("HOME", cluster.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs `kubectl`; standard output, or standard error with a mark in front where it failed.
async fn kubectl(cluster: &Cluster, args: &[&str], input: &str) -> String {
    let mut child = command(cluster, args).spawn().expect("kubectl");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(input.as_bytes())
        .await
        .expect("written");
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = ended.expect("in time").expect("output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        text(&output.stdout)
    } else {
        format!("failed: {}", text(&output.stderr))
    }
}

fn installed() -> bool {
    let there = std::process::Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_ok();
    if !there {
        eprintln!("skipped: kubectl is not installed");
    }
    there
}

/// Cells of every row but the first, without the changing age.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|l| l.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn kubectl_shows_creates_follows_and_deletes() {
    if !installed() {
        return;
    }
    let cluster = Cluster::start().await;
    let nodes = kubectl(&cluster, &["get", "nodes"], "").await;
    assert_eq!(rows(&nodes)[0][..3], ["local", "Ready", "<none>"], "{nodes}");
    let pod = shell_pod("hello", "echo one; echo two; sleep 0.3; echo three")
        .to_string()
        .replacen('{', "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", ", 1);
    assert_eq!(
        kubectl(&cluster, &["create", "-f", "-"], &pod).await,
        "pod/hello created\n"
    );
    let misspelt = pod.replace("restartPolicy", "restartPolice").replace("hello", "bad");
    let refused = kubectl(&cluster, &["create", "-f", "-"], &misspelt).await;
    assert!(refused.contains("unknown field \"spec.restartPolice\""), "{refused}");
    cluster
        .wait("hello", "started", |p| p["status"]["phase"] != "Pending")
        .await;
    assert_eq!(
        kubectl(&cluster, &["logs", "-f", "hello"], "").await,
        "one\ntwo\nthree\n"
    );
    cluster.wait_phase("hello", "Succeeded").await;
    let pods = kubectl(&cluster, &["get", "pods", "-o", "wide"], "").await;
    assert!(
        pods.starts_with("NAME    READY   STATUS      RESTARTS   AGE   IP"),
        "{pods}"
    );
    assert_eq!(rows(&pods)[0][..4], ["hello", "0/1", "Completed", "0"]);
    let described = kubectl(&cluster, &["describe", "pod", "hello"], "").await;
    assert!(
        described.contains("Exit Code:    0") && described.contains("Started container main"),
        "{described}"
    );
    assert_eq!(
        kubectl(&cluster, &["get", "pod", "hello", "-o", "jsonpath={.status.phase}"], "").await,
        "Succeeded"
    );
    let events = kubectl(&cluster, &["get", "events"], "").await;
    assert!(
        events.contains("Successfully assigned default/hello to local"),
        "{events}"
    );
    assert_eq!(
        kubectl(&cluster, &["delete", "pod", "hello"], "")
            .await
            .trim_end()
            .replace(" from default namespace", ""),
        "pod \"hello\" deleted"
    );
    let missing = kubectl(&cluster, &["get", "pod", "hello"], "").await;
    assert_eq!(
        missing,
        "failed: Error from server (NotFound): pods \"hello\" not found\n"
    );
}

#[tokio::test]
async fn kubectl_waits_watches_applies_and_lists_the_rest() {
    if !installed() {
        return;
    }
    let cluster = Cluster::start().await;
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}).to_string();
    assert_eq!(
        kubectl(&cluster, &["apply", "-f", "-"], &map).await,
        "configmap/m created\n"
    );
    let changed = map.replace("\"1\"", "\"2\"");
    assert_eq!(
        kubectl(&cluster, &["apply", "-f", "-"], &changed).await,
        "configmap/m configured\n"
    );
    assert_eq!(
        kubectl(&cluster, &["apply", "-f", "-"], &changed).await,
        "configmap/m unchanged\n"
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}});
    assert_eq!(
        kubectl(&cluster, &["create", "-f", "-"], &secret.to_string()).await,
        "secret/s created\n"
    );
    let listed = kubectl(&cluster, &["get", "cm,secrets,sa,ns"], "").await;
    for line in [
        "configmap/m",
        "secret/s",
        "serviceaccount/default",
        "namespace/kube-system",
    ] {
        assert!(listed.contains(line), "{listed}");
    }
    cluster
        .create(shell_pod("long", "trap 'exit 0' TERM; while :; do sleep 0.05; done"))
        .await;
    let waited = kubectl(
        &cluster,
        &["wait", "pod/long", "--for=condition=Ready", "--timeout=30s"],
        "",
    )
    .await;
    assert_eq!(waited, "pod/long condition met\n");
    let mut watch = command(&cluster, &["get", "pods", "--watch", "--no-headers"])
        .spawn()
        .expect("kubectl");
    let mut lines = BufReader::new(watch.stdout.take().expect("stdout")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line())
            .await
            .expect("in time");
        line.expect("read").expect("a line")
    };
    assert!(next().await.contains("Running"));
    let deleted = kubectl(&cluster, &["delete", "pod", "long"], "").await;
    assert!(deleted.starts_with("pod \"long\" deleted"), "{deleted}");
    assert!(next().await.contains("Terminating"));
    watch.kill().await.expect("killed");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let refused = kubectl(&cluster, &["create", "-f", "-"], &job.to_string()).await;
    assert!(refused.contains("the local cluster does not run Jobs"), "{refused}");
}
