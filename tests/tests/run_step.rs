//! `windlass run-step` as a person and a script meet it, on the local cluster: behaviours Q4, Q5, SO1 to SO5.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use windlass_api::run::v1::RunState;
use windlass_tests::binaries::binary;
use windlass_tests::client::watch_to_end;
use windlass_tests::deployment::{Deployment, Options, Part};

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
