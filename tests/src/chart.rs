//! The Helm chart of `deploy/chart`, and the programs that read it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::binaries::repository;

/// Folder of the chart.
pub fn folder() -> PathBuf {
    repository().join("deploy/chart")
}

/// `helm` or `kubectl`, as `tests/cluster/build.sh` has built them.
pub fn program(name: &str) -> Command {
    Command::new(repository().join("target/cluster/bin").join(name))
}

/// What the chart becomes: `helm template` with these arguments.
pub fn template(args: &[&str]) -> Output {
    let mut helm = program("helm");
    helm.arg("template").args(args).arg(folder());
    helm.output().expect("helm runs: tests/cluster/build.sh builds it")
}

/// The chart's rights of the executors whose account is in `home`, for steps in these namespaces.
///
/// # Panics
/// When the chart does not render.
pub fn rights(release: &str, home: &str, step_namespaces: &[&str]) -> String {
    let namespaces = format!("stepNamespaces={}", serde_json::json!(step_namespaces));
    let only = ["--show-only", "templates/rbac.yaml", "--set-json", &namespaces];
    let output = template(&[&[release, "--namespace", home], &only[..]].concat());
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problems}");
    String::from_utf8(output.stdout).expect("manifests are text")
}

/// `kubectl apply` of manifests, with all rights.
///
/// # Panics
/// When they are refused.
pub fn apply(kubeconfig: &Path, manifests: &str) {
    let args = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];
    kubectl(kubeconfig, &args, manifests);
}

/// Lets the API server check manifests as strictly as it can, without keeping them.
///
/// # Panics
/// When they are refused.
pub fn try_on(kubeconfig: &Path, manifests: &str) {
    let args = ["apply", "--dry-run=server", "--validate=strict", "--filename", "-"];
    kubectl(kubeconfig, &args, manifests);
}

fn kubectl(kubeconfig: &Path, args: &[&str], input: &str) {
    let mut kubectl = program("kubectl");
    kubectl
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = kubectl.spawn().expect("kubectl runs: tests/cluster/build.sh builds it");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(input.as_bytes()).expect("kubectl reads");
    drop(pipe);
    let output = child.wait_with_output().expect("kubectl ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
