//! `windlass run-step` as a person and a script meet it, on the local cluster: behaviours Q4, Q5, SO1 to SO5.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::binaries::binary;
use windlass_tests::client::watch_to_end;
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::wait::until;

/// A `windlass run-step` that runs, after its first line.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

/// How it ended.
struct Ended {
    status: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Running {
    /// Starts it and waits for the first line of its output, which is checked.
    fn start(place: &[&str], script: &str, first: &[u8]) -> Self {
        let mut child = Command::new(binary("windlass"))
            .args(["run-step", "--image", "busybox", "--name", "only"])
            .args(place)
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("windlass starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = Vec::new();
        out.read_until(b'\n', &mut line).expect("it prints");
        assert_eq!(line, first, "{}", String::from_utf8_lossy(&line));
        Self { child, out }
    }

    fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it is there");
    }

    /// Waits for its end.
    fn end(mut self) -> Ended {
        let mut out = Vec::new();
        self.out.read_to_end(&mut out).expect("its output ends");
        let output = self.child.wait_with_output().expect("it ends");
        Ended {
            status: output.status.code(),
            out,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn server(deployment: &Deployment) -> [String; 4] {
    let token = deployment.folder().join("token").display().to_string();
    [
        "--server".to_owned(),
        deployment.url(Part::Scheduler),
        "--token-file".to_owned(),
        token,
    ]
}

/// Waits for a file, prints what it is told, and fails with 7.
fn waiting(file: &Path, then: &str) -> String {
    format!(
        "printf '\\377\\001 first\\n'; while [ ! -e {} ]; do sleep 0.05; done; {then}",
        file.display()
    )
}

const FIRST: &[u8] = b"\xff\x01 first\n";

/// behaviours X1: the last lines of what fails are there.
#[tokio::test(flavor = "multi_thread")]
async fn q4_i1_i7_output_is_whole_and_raw_also_when_scheduler_and_relay_are_killed_meanwhile() {
    let mut deployment = Deployment::start(Options::default()).await;
    let go = deployment.folder().join("go");
    let place = server(&deployment);
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    let running = Running::start(&place, &waiting(&go, "seq 20000; exit 7"), FIRST);
    deployment.restart(Part::Scheduler);
    deployment.restart(Part::Relay);
    deployment.ready().await;
    std::fs::write(&go, "").expect("a file");
    let ended = running.end();
    let numbers: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(
        ended.out == numbers.as_bytes(),
        "{} bytes, stderr: {}",
        ended.out.len(),
        ended.err
    );
    // behaviours Q5: a failed pod is an error, and it says how.
    assert_eq!(ended.status, Some(1), "{}", ended.err);
    assert!(ended.err.contains("FAILED USER_ERROR  exit 7"), "{}", ended.err);
    assert!(ended.err.contains("run only on default"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn q4_ctrl_c_detaches_from_a_server_and_the_command_goes_on() {
    let deployment = Deployment::start(Options::default()).await;
    let go = deployment.folder().join("go");
    let place = server(&deployment);
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    let running = Running::start(&place, &waiting(&go, "true"), FIRST);
    running.interrupt();
    let ended = running.end();
    assert_eq!(ended.status, Some(130), "{}", ended.err);
    assert!(ended.out.is_empty(), "what is said is no output of the command");
    assert!(ended.err.contains("detached: run only goes on"), "{}", ended.err);
    assert!(ended.err.contains("windlass cancel only --server"), "{}", ended.err);
    std::fs::write(&go, "").expect("a file");
    assert_eq!(watch_to_end(&deployment, "only").await.state(), RunState::Succeeded);
}

#[test]
fn q4_ctrl_c_cancels_a_local_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let running = Running::start(&["--local", "--data-dir", &data], "echo on; sleep 600", b"on\n");
    running.interrupt();
    let ended = running.end();
    assert_eq!(ended.status, Some(5), "{}", ended.err);
    assert!(ended.err.contains("run only CANCELLED"), "{}", ended.err);
}

/// The pods of the only run that there is, those that run or wait.
async fn pods(pods: &Api<Pod>) -> Result<Vec<Pod>, String> {
    let listed = pods.list(&ListParams::default()).await;
    let mut listed = listed.map_err(|error| error.to_string())?.items;
    listed.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(listed)
}

/// behaviours SO1, SO2, SO3, SO4, SO5, PS3, PS5, PS10 and U10: the pod as the API server has it, and its replacement once it was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn the_pod_is_as_its_settings_say_where_it_was_asked_for_and_is_replaced_when_it_is_lost() {
    let deployment = Deployment::start(Options::default()).await;
    let client = deployment.kube().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "team-a"}})).expect("an object");
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .expect("a namespace");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "team-a");
    let account = serde_json::from_value(json!({"metadata": {"name": "trainer"}})).expect("an object");
    accounts
        .create(&PostParams::default(), &account)
        .await
        .expect("an account");
    let settings = deployment.folder().join("pod.yaml");
    let text = "serviceAccountName: trainer\nprivileged: true\nlabels: {team: ml}\nannotations: {acme.com/note: mine}\n\
                tolerations: [{key: gpu, operator: Exists}]\noverlay: {hostname: alone}\n";
    std::fs::write(&settings, text).expect("a file");
    let settings = settings.display().to_string();
    let go = deployment.folder().join("go");
    let place = server(&deployment);
    let more = ["-n", "team-a", "--cluster", "default", "--pod", &settings];
    let place: Vec<&str> = place.iter().map(String::as_str).chain(more).collect();
    let running = Running::start(&place, &waiting(&go, "echo done"), FIRST);

    let api: Api<Pod> = Api::namespaced(client, "team-a");
    let first = pods(&api).await.expect("listed").remove(0);
    let name = first.metadata.name.clone().expect("a name");
    assert_eq!(first.metadata.labels.as_ref().expect("labels")["team"], "ml");
    let annotations = first.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(
        annotations.get("acme.com/note").map(String::as_str),
        Some("mine"),
        "{annotations:?}"
    );
    let spec = first.spec.expect("a spec");
    assert_eq!(spec.hostname.as_deref(), Some("alone"), "of the overlay");
    assert_eq!(spec.service_account_name.as_deref(), Some("trainer"));
    assert!(
        spec.tolerations
            .iter()
            .flatten()
            .any(|toleration| toleration.key.as_deref() == Some("gpu")),
        "{:?}",
        spec.tolerations
    );
    let main = &spec.containers[0];
    let security = main.security_context.as_ref().expect("a security context");
    assert_eq!(security.privileged, Some(true));
    let resources = main.resources.clone().unwrap_or_default();
    assert_eq!(
        (resources.requests, resources.limits),
        (None, None),
        "nothing is requested that nobody asked for"
    );

    // A loss of infrastructure is tried again with the bounds that every step has.
    api.delete(&name, &DeleteParams::default()).await.expect("deleted");
    until("another pod runs", async || {
        let pods = pods(&api).await?;
        let runs = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let another = pods
            .iter()
            .any(|pod| pod.metadata.name.as_ref() != Some(&name) && runs(pod));
        another.then_some(()).ok_or_else(|| format!("{pods:?}"))
    })
    .await;
    std::fs::write(&go, "").expect("a file");
    let ended = running.end();
    assert_eq!(ended.status, Some(0), "{}", ended.err);
    assert_eq!(ended.out, [FIRST, b"done\n"].concat(), "{}", ended.err);
}
