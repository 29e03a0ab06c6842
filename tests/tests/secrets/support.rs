//! `windlass` as a user runs it, and the search for what must not be found.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use windlass_local_cluster::{Action, FaultConfig, Rule};
use windlass_tests::binaries::binary;
use windlass_tests::deployment::{Deployment, Part, TOKEN};
use windlass_tests::wait::until;

/// What a command of `windlass` did.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) notes: String,
}

pub(crate) fn windlass(deployment: &Deployment, args: &[&str], input: &[u8]) -> Said {
    windlass_with(deployment, args, input, &[])
}

/// With more variables in its environment. Arguments of the server go first: a command of a step may follow.
pub(crate) fn windlass_with(deployment: &Deployment, args: &[&str], input: &[u8], env: &[(&str, &str)]) -> Said {
    let mut child = Command::new(binary("windlass"))
        .args(["--server", &deployment.address(Part::Scheduler).to_string()])
        .args(args)
        .envs(env.iter().copied())
        .env("WINDLASS_TOKEN", TOKEN)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("windlass runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that is refused before it reads leaves the pipe.
    stdin.write_all(input).ok();
    drop(stdin);
    let output = child.wait_with_output().expect("windlass ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        status: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        notes: text(&output.stderr),
    }
}

/// What betrays a value: itself, and the forms that it takes in JSON, in base64 at any place, in hex and in Rust's `Debug`.
fn forms(canary: &str) -> Vec<Vec<u8>> {
    let bytes = canary.as_bytes();
    let mut forms = vec![bytes.to_vec()];
    for offset in 0..3 {
        let encoded = STANDARD.encode([&vec![b'x'; offset], bytes].concat());
        // Without the characters that its neighbours have a part in.
        let (first, last) = ([0, 2, 3][offset], encoded.trim_end_matches('=').len() - 1);
        forms.push(encoded.as_bytes()[first..last].to_vec());
    }
    forms.push(
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into_bytes(),
    );
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    forms.push(numbers.join(", ").into_bytes());
    forms
}

/// The canaries of a test, and where they must not be.
pub(crate) struct Canaries(pub(crate) Vec<String>);

impl Canaries {
    pub(crate) fn new_one(&mut self) -> String {
        let canary = format!("canary-{}", uuid::Uuid::new_v4().simple());
        self.0.push(canary.clone());
        canary
    }

    pub(crate) fn are_in(&self, content: &[u8]) -> bool {
        let forms = self.0.iter().flat_map(|canary| forms(canary));
        forms.into_iter().any(|form| memmem(content, &form))
    }

    /// The files below a folder that have a canary, but for those below `but`.
    pub(crate) fn files(&self, folder: &Path, but: &[PathBuf]) -> Vec<PathBuf> {
        let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                let kind = entry.file_type().expect("a type");
                if but.contains(&path) {
                    continue;
                } else if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && self.are_in(&std::fs::read(&path).unwrap_or_default()) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The processes whose command line has a canary; and the services whose environment has one.
    pub(crate) fn processes(&self, deployment: &Deployment) -> Vec<String> {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = all.map(|entry| entry.path().join("cmdline"));
        let services = Part::SERVICES.map(|part| PathBuf::from(format!("/proc/{}/environ", deployment.pid(part))));
        // One that has ended meanwhile has none.
        let told = lines.chain(services);
        told.filter(|path| self.are_in(&std::fs::read(path).unwrap_or_default()))
            .map(|path| path.display().to_string())
            .collect()
    }
}

impl Canaries {
    /// Whatever the services wrote and said of themselves: only the object store of Kubernetes has them.
    pub(crate) async fn are_in_kubernetes_alone(&self, deployment: &Deployment) {
        let cluster = deployment.folder().join("cluster");
        assert!(!self.files(&cluster, &[]).is_empty(), "this search would find a value");
        assert_eq!(self.files(deployment.folder(), &[cluster]), Vec::<PathBuf>::new());
        for part in Part::SERVICES {
            let log = deployment.log(part);
            assert!(log.lines().count() > 100, "{part:?} logs everything: {log}");
            let metrics = metrics(deployment, part).await;
            assert!(!metrics.is_empty() && !self.are_in(&metrics), "{part:?}");
        }
        assert_eq!(self.processes(deployment), Vec::<String>::new());
    }

    /// No text has one.
    pub(crate) fn are_not_in(&self, texts: impl Iterator<Item = String>) {
        for text in texts {
            assert!(!self.are_in(text.as_bytes()), "{text}");
        }
    }
}

fn memmem(content: &[u8], part: &[u8]) -> bool {
    let first = part[0];
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(part) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

async fn metrics(deployment: &Deployment, part: Part) -> Vec<u8> {
    use http_body_util::BodyExt as _;
    let client =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http::<String>();
    let answer = client
        .get(deployment.metrics_url(part).parse().expect("an address"))
        .await;
    let body = answer.expect("metrics").into_body().collect().await.expect("a body");
    body.to_bytes().to_vec()
}

/// A step that fails unless a variable has the value, and then waits for a file; it prints nothing of it.
pub(crate) fn checks(name: &str, variable: &str, source: Value, value: &str, then: &Path) -> Value {
    let digest = Sha256::digest(value.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = format!(
        r#"found=$(printf %s "${variable}" | sha256sum); [ "${{found%% *}}" = {digest} ] || exit 3
        echo right; until [ -e {} ]; do sleep 0.1; done"#,
        then.display()
    );
    json!({
        "name": name,
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": variable, "valueFrom": source}],
    })
}

/// A step that prints a value in every way: in a line, encoded, where a long line is split, and as its last words.
pub(crate) fn prints(name: &str, source: Value) -> Value {
    let script = r#"echo "it is $VALUE."; printf %s "$VALUE" | base64 -w0; echo
        printf '%262130s%s and more\n' '' "$VALUE"; echo "$VALUE" >&2
        echo "it was $VALUE." > "$WINDLASS_TERMINATION_LOG""#;
    json!({
        "name": name,
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "VALUE", "valueFrom": source}],
    })
}

async fn kube(deployment: &Deployment) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(deployment.kubeconfig()).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await;
    kube::Client::try_from(config.expect("a config")).expect("a client")
}

/// The Secrets with a label that are there.
pub(crate) async fn secrets_with(deployment: &Deployment, label: &str) -> Vec<Secret> {
    let labelled = ListParams::default().labels(label);
    let all = Api::<Secret>::all(kube(deployment).await).list(&labelled).await;
    all.expect("listed").items
}

/// Waits until so many Secrets with a label are there.
pub(crate) async fn remain(deployment: &Deployment, label: &str, count: usize) {
    until(
        "the Secrets that nothing needs are gone",
        async || match secrets_with(deployment, label).await {
            found if found.len() == count => Ok(()),
            found => Err(format!("{} are there", found.len())),
        },
    )
    .await;
}

/// What the cluster's clients meet from now on.
pub(crate) async fn set_faults(deployment: &Deployment, rules: Vec<Rule>) {
    let faults = FaultConfig {
        rules,
        ..FaultConfig::default()
    };
    let request = http::Request::put("/local-cluster/faults")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&faults).expect("JSON"))
        .expect("a request");
    kube(deployment).await.request_text(request).await.expect("set");
}

pub(crate) fn on_secrets(verb: &str, action: Action) -> Rule {
    Rule {
        verb: Some(verb.to_owned()),
        resource: Some("secrets".to_owned()),
        ..Rule::new(action)
    }
}

pub(crate) fn written(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    path.display().to_string()
}

/// A key that is given with the run or its schedule.
pub(crate) fn of_run(key: &str) -> Value {
    json!({"runSecretKeyRef": {"key": key}})
}

/// Values of a run or a schedule, each given in a way of its own, and the steps that find them.
pub(crate) struct Given {
    pub(crate) file: String,
    env: String,
    lines: String,
    pub(crate) piped: String,
    from_file: String,
    env_file: String,
}

impl Given {
    /// New values, whose files are in this folder.
    pub(crate) fn new(folder: &Path, canaries: &mut Canaries) -> Self {
        let [file, env, lines, piped] = std::array::from_fn(|_| canaries.new_one());
        let comment = canaries.new_one();
        Self {
            from_file: format!("FILE={}", written(folder, "file", &file)),
            env_file: written(folder, "lines", &format!("# {comment}\nLINES={lines}\n")),
            file,
            env,
            lines,
            piped,
        }
    }

    /// Four that fail unless they find their values, and wait for the file `go`; and one that prints one.
    pub(crate) fn steps(&self, go: &Path) -> Vec<Value> {
        vec![
            checks("file", "A", of_run("FILE"), &self.file, go),
            checks("env", "B", of_run("ENV_CANARY"), &self.env, go),
            checks("lines", "C", of_run("LINES"), &self.lines, go),
            checks("pipe", "D", of_run("pipe.d"), &self.piped, go),
            prints("prints", of_run("FILE")),
        ]
    }

    /// Calls a command with all of them.
    pub(crate) fn give(&self, deployment: &Deployment, command: &[&str]) -> Said {
        let flags = [
            "--secret-file",
            &self.from_file,
            "--secret-env",
            "ENV_CANARY",
            "--secret-env-file",
            &self.env_file,
            "--secret-stdin",
            "pipe.d",
        ];
        let env = [("ENV_CANARY", &*self.env)];
        windlass_with(deployment, &[command, &flags].concat(), self.piped.as_bytes(), &env)
    }
}
