//! Secrets from end to end, and I8: values that went through every path are nowhere but in Kubernetes and in the step's environment.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use windlass_api::run::v1::{RunState, StepState};
use windlass_api::secret::v1::secret_service_client::SecretServiceClient;
use windlass_api::secret::v1::{PutSecretMode, PutSecretRequest};
use windlass_tests::binaries::binary;
use windlass_tests::client::{steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

/// What a command of `windlass` did.
#[derive(Debug)]
struct Said {
    status: i32,
    out: String,
    notes: String,
}

fn windlass(deployment: &Deployment, args: &[&str], input: &[u8]) -> Said {
    let mut child = Command::new(binary("windlass"))
        .args(args)
        .args(["--server", &deployment.address(Part::Scheduler).to_string()])
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
struct Canaries(Vec<String>);

impl Canaries {
    fn new_one(&mut self) -> String {
        let canary = format!("canary-{}", uuid::Uuid::new_v4().simple());
        self.0.push(canary.clone());
        canary
    }

    fn are_in(&self, content: &[u8]) -> bool {
        let forms = self.0.iter().flat_map(|canary| forms(canary));
        forms.into_iter().any(|form| memmem(content, &form))
    }

    /// The files below a folder that have a canary, but for those below `but`.
    fn files(&self, folder: &Path, but: &[PathBuf]) -> Vec<PathBuf> {
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
    fn processes(&self, deployment: &Deployment) -> Vec<String> {
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
fn checks(name: &str, variable: &str, secret: (&str, &str), value: &str, then: &Path) -> serde_json::Value {
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
        "env": [{"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.0, "key": secret.1}}}],
    })
}

/// A step that prints a value in every way: in a line, encoded, and where a long line is split.
fn prints(secret: (&str, &str)) -> serde_json::Value {
    let script = r#"echo "it is $VALUE."; printf %s "$VALUE" | base64 -w0; echo
        printf '%262130s%s and more\n' '' "$VALUE"; echo "$VALUE" >&2"#;
    json!({
        "name": "prints",
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "VALUE", "valueFrom": {"secretKeyRef": {"name": secret.0, "key": secret.1}}}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_values_that_went_through_every_path_are_nowhere_but_in_kubernetes() {
    let deployment = Deployment::start(Options {
        talkative: true,
        ..Options::default()
    })
    .await;
    let own = tempfile::tempdir().expect("a folder");
    let mut canaries = Canaries(Vec::new());
    let mut said: Vec<Said> = Vec::new();
    let write = |name: &str, content: &str| {
        let path = own.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };

    // From a file, from standard input, from an env file; created, changed, created or changed.
    let (first, from_file) = (canaries.new_one(), canaries.new_one());
    let (piped, from_env) = (canaries.new_one(), canaries.new_one());
    let file = format!("password={}", write("first", &first));
    said.push(windlass(
        &deployment,
        &["secret", "put", "warehouse", "--create-only", "--from-file", &file],
        b"",
    ));
    let file = format!("password={}", write("second", &from_file));
    let update = [
        "secret",
        "put",
        "warehouse",
        "--update-only",
        "--from-file",
        &file,
        "--from-stdin",
        "pin",
        "-o",
        "json",
    ];
    said.push(windlass(&deployment, &update, piped.as_bytes()));
    let env = write("env", &format!("# {}\nUSER={from_env}\n", canaries.new_one()));
    said.push(windlass(
        &deployment,
        &["secret", "put", "warehouse", "--env-file", &env, "-o", "yaml"],
        b"",
    ));
    assert!(said.iter().all(|said| said.status == 0), "{said:#?}");
    assert_eq!(
        said[0].out,
        "secret warehouse in namespace default is created; its keys: password\n"
    );

    // What is refused: by the command line, by the scheduler, by Kubernetes before and after it has looked.
    let refused = canaries.new_one();
    let broken_env = write("broken", &format!("USER=ana\n{refused}\n"));
    let large = format!("large={}", write("large", &refused.repeat(24_000)));
    for (args, expected) in [
        (
            &[
                "secret",
                "put",
                "warehouse",
                "--create-only",
                "--from-stdin",
                "password",
            ][..],
            "exists already",
        ),
        (
            &["secret", "put", "nothing", "--update-only", "--from-stdin", "password"],
            "no secret nothing",
        ),
        (
            &["secret", "put", "Ware_House", "--from-stdin", "password"],
            "DNS subdomain",
        ),
        (
            &["secret", "put", "warehouse", "--from-stdin", "pass word"],
            "is no key",
        ),
        (
            &["secret", "put", "warehouse", "--env-file", &broken_env],
            ":2: is no KEY=VALUE line",
        ),
        (
            &["secret", "put", "warehouse", "--from-stdin", "x", "--cluster", "absent"],
            "cluster absent",
        ),
        (
            &[
                "secret",
                "put",
                "warehouse",
                "--from-stdin",
                "x",
                "-n",
                "no-such-namespace",
            ],
            "no namespace",
        ),
        (
            &["secret", "put", "warehouse", "--from-literal", "x=y"],
            "not taken from the command line",
        ),
        (
            &["secret", "put", "warehouse", "x=y"],
            "not taken from the command line",
        ),
    ] {
        let refusal = windlass(&deployment, args, refused.as_bytes());
        assert!(refusal.notes.contains(expected), "{args:?}: {refusal:?}");
        assert!([2, 3].contains(&refusal.status), "{args:?}: {refusal:?}");
        said.push(refusal);
    }
    let fills = windlass(&deployment, &["secret", "put", "large", "--from-file", &large], b"");
    assert_eq!(fills.status, 0, "{fills:?}");
    let overflow = ["secret", "put", "large", "--from-stdin", "more"];
    let overflow = windlass(&deployment, &overflow, refused.repeat(24_000).as_bytes());
    assert!(overflow.notes.contains("Too long"), "{overflow:?}");
    said.extend([fills, overflow]);
    // And by clients that are not ours.
    let mut client = SecretServiceClient::new(deployment.channel(Part::Scheduler));
    let mut told = Vec::new();
    for (name, key, mode) in [
        ("Ware_House", "a", PutSecretMode::Upsert),
        ("warehouse", "a b", PutSecretMode::Upsert),
        ("absent", "a", PutSecretMode::Update),
    ] {
        let request = PutSecretRequest {
            name: name.to_owned(),
            mode: mode.into(),
            data: BTreeMap::from([(key.to_owned(), refused.clone().into_bytes())]),
            ..PutSecretRequest::default()
        };
        told.push(format!("{:?}", client.put_secret(request).await.expect_err("refused")));
    }

    // A step gets them by reference.
    let go = own.path().join("go");
    let pipeline = from_json(json!({
        "name": "uses",
        "defaults": {"image": "busybox:1.36"},
        "steps": [
            checks("file", "DB_PASSWORD", ("warehouse", "password"), &from_file, &go),
            checks("pipe", "PIN", ("warehouse", "pin"), &piped, &go),
            checks("env", "DB_USER", ("warehouse", "USER"), &from_env, &go),
            prints(("warehouse", "password")),
        ],
    }));
    let run = submit(&deployment, &pipeline, "uses").await;
    until("the steps run", async || {
        let steps = steps(&deployment, &run.name).await;
        let running = steps.iter().filter(|step| step.state() == StepState::Running).count();
        (running == 3).then_some(()).ok_or_else(|| format!("{steps:?}"))
    })
    .await;
    assert_eq!(canaries.processes(&deployment), Vec::<String>::new());
    std::fs::write(&go, "").expect("a file");
    let ended = watch_to_end(&deployment, &run.name).await;
    assert_eq!(
        ended.state(),
        RunState::Succeeded,
        "{:?}",
        steps(&deployment, &run.name).await
    );
    told.push(format!("{ended:?}"));
    for args in [
        &["get", &run.name, "-o", "yaml"][..],
        &["get", &run.name, "file", "-o", "json"],
        &["get", &run.name, "--pipeline"],
        &["logs", &run.name],
        &["explain", &run.name],
        &["watch", &run.name],
        &["list", "-o", "json"],
        &["secret", "list"],
        &["secret", "list", "-o", "json"],
        &["secret", "delete", "warehouse"],
        &["secret", "delete", "warehouse"],
    ] {
        said.push(windlass(&deployment, args, b""));
    }
    let printed = said.iter().find(|said| said.out.contains("| it is")).expect("the logs");
    let lines: Vec<&str> = printed.out.lines().filter(|line| line.contains("***")).collect();
    assert_eq!(lines.len(), 4, "every line with a value is there: {printed:?}");
    assert!(lines.iter().any(|line| line.ends_with("| it is ***.")), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" and more")), "{lines:?}");
    let listed = &said[said.len() - 4];
    assert!(listed.out.contains("USER, password, pin"), "{listed:?}");
    let [deleted, again] = &said[said.len() - 2..] else {
        panic!("the last two")
    };
    assert_eq!((deleted.status, again.status), (0, 2), "{deleted:?} {again:?}");
    assert!(again.notes.contains("no secret warehouse"), "{again:?}");

    // Nothing of it is anywhere but in the object store of Kubernetes.
    let cluster = deployment.folder().join("cluster");
    assert!(
        !canaries.files(&cluster, &[]).is_empty(),
        "this search would find a value"
    );
    assert_eq!(canaries.files(deployment.folder(), &[cluster]), Vec::<PathBuf>::new());
    for part in Part::SERVICES {
        let log = deployment.log(part);
        assert!(log.lines().count() > 100, "{part:?} logs everything: {log}");
        let metrics = metrics(&deployment, part).await;
        assert!(!metrics.is_empty() && !canaries.are_in(&metrics), "{part:?}");
    }
    assert!(
        deployment.log(Part::Executor).contains("call about a secret refused"),
        "secrets are logged about"
    );
    let said: Vec<_> = said.iter().map(|said| format!("{said:?}")).collect();
    for text in said.iter().chain(&told) {
        assert!(!canaries.are_in(text.as_bytes()), "{text}");
    }
    assert_eq!(canaries.processes(&deployment), Vec::<String>::new());
}
