//! The cluster as a process that is killed.

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use support::shell_pod;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A cluster in a process of its own.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_windlass-local-cluster"))
            .arg(folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line())
            .await
            .expect("in time");
        let kubeconfig = PathBuf::from(line.expect("read").expect("a path"));
        Self {
            child,
            client: support::client_of(&kubeconfig).await,
        }
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn wait_phase(&self, name: &str, phase: &str) -> serde_json::Value {
        for _ in 0..2400 {
            let pod = json!(self.pods().get(name).await.expect("get"));
            if pod["status"]["phase"] == phase {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{name} never was {phase}");
    }
}

#[tokio::test]
async fn i1_what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("folder");
    let cluster = Process::start(folder.path()).await;
    let maps = |client: &Client| Api::<ConfigMap>::namespaced(client.clone(), "default");
    let mut acknowledged = Vec::new();
    let creates = async {
        let api = maps(&cluster.client);
        for n in 0.. {
            let name = format!("m{n}");
            let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a map");
            match api.create(&PostParams::default(), &map).await {
                Ok(created) => acknowledged.push((name, created.resource_version().expect("version"))),
                Err(_) => break,
            }
            if n == 300 {
                break;
            }
        }
    };
    creates.await;
    cluster.kill().await;
    let cluster = Process::start(folder.path()).await;
    let listed = maps(&cluster.client)
        .list(&ListParams::default())
        .await
        .expect("listed");
    for (name, version) in &acknowledged {
        let found = listed
            .items
            .iter()
            .find(|m| m.name_any() == *name)
            .expect("still there");
        assert_eq!(found.resource_version().as_ref(), Some(version), "{name}");
    }
    cluster.kill().await;
}

#[tokio::test]
async fn i2_containers_outlive_kill_9_and_start_once() {
    let folder = tempfile::tempdir().expect("folder");
    let (gate, starts) = (folder.path().join("gate"), folder.path().join("starts"));
    let data = folder.path().join("cluster");
    let cluster = Process::start(&data).await;
    for n in 0..8 {
        let script = format!(
            "echo {n} >> {}; while ! test -e {}; do test -d {} || exit 99; sleep 0.02; done; echo done; exit {n}",
            starts.display(),
            gate.display(),
            folder.path().display()
        );
        let pod: Pod = serde_json::from_value(shell_pod(&format!("p{n}"), &script)).expect("a pod");
        cluster
            .pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("created");
    }
    // Killed while some of them are being started, and again while all run.
    cluster.wait_phase("p0", "Running").await;
    cluster.kill().await;
    let cluster = Process::start(&data).await;
    for n in 0..8 {
        cluster.wait_phase(&format!("p{n}"), "Running").await;
    }
    cluster.kill().await;
    std::fs::write(&gate, "").expect("gate");
    let cluster = Process::start(&data).await;
    for n in 0..8 {
        let phase = if n == 0 { "Succeeded" } else { "Failed" };
        let pod = cluster.wait_phase(&format!("p{n}"), phase).await;
        assert_eq!(
            pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
            n
        );
    }
    let text = std::fs::read_to_string(&starts).expect("starts");
    let mut started: Vec<&str> = text.lines().collect();
    started.sort_unstable();
    assert_eq!(started, ["0", "1", "2", "3", "4", "5", "6", "7"], "each once");
    cluster.kill().await;
}

#[tokio::test]
async fn a_container_whose_shim_died_is_unknown_and_its_processes_go() {
    let folder = tempfile::tempdir().expect("folder");
    let pids = folder.path().join("pids");
    let data = folder.path().join("cluster");
    let cluster = Process::start(&data).await;
    let script = format!("echo $PPID $$$$ > {}; sleep 600", pids.display());
    let pod: Pod = serde_json::from_value(shell_pod("one", &script)).expect("a pod");
    cluster
        .pods()
        .create(&PostParams::default(), &pod)
        .await
        .expect("created");
    let mut found = String::new();
    for _ in 0..400 {
        found = std::fs::read_to_string(&pids).unwrap_or_default();
        if found.ends_with('\n') {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let mut numbers = found.split_whitespace().map(|p| p.parse::<i32>().expect("a pid"));
    let (shim, main) = (numbers.next().expect("shim"), numbers.next().expect("main"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).expect("killed");
    let pod = cluster.wait_phase("one", "Failed").await;
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&end["reason"], &end["exitCode"]),
        (&json!("ContainerStatusUnknown"), &json!(137))
    );
    let running = || {
        let stat = std::fs::read_to_string(format!("/proc/{main}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    for _ in 0..200 {
        if !running() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(!running(), "{main} lives on");
    cluster.kill().await;
}

#[tokio::test]
async fn a_folder_in_use_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("folder");
    let cluster = Process::start(folder.path()).await;
    let second = Command::new(env!("CARGO_BIN_EXE_windlass-local-cluster"))
        .arg(folder.path())
        .output()
        .await;
    let text = String::from_utf8_lossy(&second.expect("ran").stderr).into_owned();
    assert!(text.contains("is in use by another local cluster"), "{text}");
    assert_eq!(text.lines().count(), 1);
    cluster.kill().await;
}
