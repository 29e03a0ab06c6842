//! Signed messages at the end of runs: to a real receiver, through failures of both sides.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::tls::TlsListener;
use windlass_tests::wait::until;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_b3RoZXItc2VjcmV0LW9mLXdlYmhvb2tz";

/// What the receiver got.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Received {
    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    fn message(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// A receiver that answers each path with its statuses in turn, and with 200 after them; 0 is no answer at all.
#[derive(Clone, Debug)]
struct Receiver {
    address: String,
    answers: Arc<Mutex<BTreeMap<String, Vec<u16>>>>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    fn new(address: SocketAddr, answers: &[(&str, &[u16])]) -> Self {
        let answers = answers.iter().map(|(path, list)| ((*path).to_owned(), list.to_vec()));
        Self {
            address: address.to_string(),
            answers: Arc::new(Mutex::new(answers.collect())),
            received: Arc::default(),
        }
    }

    fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    async fn start(answers: &[(&str, &[u16])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let receiver = Self::new(listener.local_addr().expect("an address"), answers);
        let router = receiver.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    /// One that is reached by TLS; with its certificate.
    async fn start_tls() -> (Self, String) {
        let (listener, certificate) = TlsListener::bind().await;
        let receiver = Self::new(listener.address(), &[]);
        let router = receiver.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, certificate)
    }

    fn on(&self, path: &str) -> Vec<Received> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received
            .iter()
            .filter(|message| message.path == path)
            .cloned()
            .collect()
    }

    async fn wait_for(&self, path: &str, count: usize) -> Vec<Received> {
        until(&format!("{count} messages on {path}"), async || {
            let found = self.on(path);
            if found.len() >= count {
                Ok(found)
            } else {
                Err(found.len())
            }
        })
        .await
    }
}

async fn answer(State(receiver): State<Receiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = |value: &axum::http::HeaderValue| value.to_str().expect("text").to_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let path = uri.path().to_owned();
    let message = Received {
        path: path.clone(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
    };
    receiver
        .received
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(message);
    let status = {
        let mut answers = receiver.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let list = answers.entry(path).or_default();
        if list.is_empty() { 200 } else { list.remove(0) }
    };
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::LOCATION, "/redirected")]).into_response()
}

/// Verifies as the example in the documentation does, which knows nothing of our code.
fn verify(secret: &str, message: &Received) -> Result<Value, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, example) = page.split_once("```python\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let call = "import sys\nm = json.load(sys.stdin)\nprint(json.dumps(verify(m['secret'], m['headers'], m['body'].encode())))";
    let mut python = Command::new("python3")
        .args(["-c", &format!("{example}\n{call}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3");
    let input = json!({"secret": secret, "headers": message.headers, "body": message.body});
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all(input.to_string().as_bytes()).expect("written");
    drop(stdin);
    let output = python.wait_with_output().expect("ended");
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).expect("JSON"));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A folder with the file of webhooks and the secret that they name.
fn configured(webhooks: &str) -> (TempDir, Options) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("written");
    let file = folder.path().join("webhooks.yaml");
    std::fs::write(&file, webhooks).expect("written");
    let options = Options {
        scheduler_args: vec![format!("--webhooks={}", file.display())],
        scheduler_env: BTreeMap::from([("HOOK_SECRET".to_owned(), OTHER_SECRET.to_owned())]),
        ..Options::default()
    };
    (folder, options)
}

fn pipeline(script: &str) -> windlass_pipeline::Pipeline {
    from_json(json!({
        "name": "small",
        "defaults": {"image": "busybox"},
        "steps": [{"name": "first", "script": "true"}, {"name": "second", "upstream": ["first"], "script": script}],
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_is_told_signed_and_again_until_it_is_taken() {
    let receiver = Receiver::start(&[("/all", &[500, 307]), ("/gone", &[410, 410])]).await;
    let at = &receiver.address;
    let (_folder, options) = configured(&format!(
        "webhooks:\n\
         - {{name: all, url: 'http://{at}/all?token=hush', secretFile: secret}}\n\
         - {{name: failed, url: 'http://{at}/failed', secretEnv: HOOK_SECRET, states: [FAILED]}}\n\
         - {{name: elsewhere, url: 'http://{at}/elsewhere', secretFile: secret, namespaces: [other]}}\n\
         - {{name: gone, url: 'http://{at}/gone', secretFile: secret}}\n"
    ));
    let deployment = Deployment::start(Options {
        talkative: true,
        ..options
    })
    .await;
    let failed = submit(&deployment, &pipeline("exit 3"), "r1").await;
    let failed = watch_to_end(&deployment, &failed.name).await;

    let tries = receiver.wait_for("/all", 3).await;
    assert_eq!(tries.len(), 3, "500, a redirect that is not followed, 200");
    for message in &tries {
        assert_eq!(
            (message.id(), &message.body),
            (tries[0].id(), &tries[0].body),
            "the same each time"
        );
        verify(SECRET, message).expect("signed");
        assert_eq!(message.headers["content-type"], "application/json");
    }
    let message = verify(SECRET, &tries[2]).expect("signed");
    assert_eq!(message["type"], "run.ended");
    let run = &message["data"]["run"];
    assert_eq!(
        (run["id"].as_str(), run["name"].as_str()),
        (Some(&*failed.id), Some(&*failed.name))
    );
    assert_eq!(
        (&run["state"], &run["namespace"]),
        (&json!("FAILED"), &json!("default"))
    );
    assert_eq!(
        run["stepCounts"],
        json!([{"state": "SUCCEEDED", "count": 1}, {"state": "FAILED", "count": 1}])
    );
    let step = &run["failedSteps"][0];
    assert_eq!(
        (&step["step"], &step["failureClass"]),
        (&json!("second"), &json!("USER_ERROR"))
    );
    assert_eq!(step["exitCode"], 3);
    assert_eq!(message["timestamp"], run["endTime"]);

    let forged = Received {
        body: tries[0].body.replace("FAILED", "SUCCEEDED"),
        ..tries[0].clone()
    };
    assert!(verify(SECRET, &forged).expect_err("forged").contains("wrong signature"));
    assert!(
        verify(OTHER_SECRET, &tries[0]).is_err(),
        "signed with the target's own secret"
    );
    verify(OTHER_SECRET, &receiver.wait_for("/failed", 1).await[0]).expect("signed");

    let succeeded = submit(&deployment, &pipeline("true"), "r2").await;
    watch_to_end(&deployment, &succeeded.name).await;
    let later = receiver.wait_for("/all", 4).await;
    assert_eq!(later[3].message()["data"]["run"]["state"], "SUCCEEDED");
    assert_ne!(later[3].id(), later[0].id());
    let refused = receiver.wait_for("/gone", 2).await;
    assert_ne!(refused[0].id(), refused[1].id(), "410 is not tried again");
    for (path, count) in [("/failed", 1), ("/gone", 2), ("/elsewhere", 0), ("/redirected", 0)] {
        assert_eq!(receiver.on(path).len(), count, "{path}");
    }
    // I8, at any level of logging.
    let log = deployment.log(Part::Scheduler);
    assert!(log.contains("message is sent again later"));
    for secret in [
        "hush",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "b3RoZXItc2VjcmV0LW9mLXdlYmhvb2tz",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_message_outlives_kill_9_of_the_scheduler() {
    let receiver = Receiver::start(&[("/hook", &[0])]).await;
    let (_folder, options) = configured(&format!(
        "webhooks: [{{name: only, url: 'http://{}/hook', secretFile: secret}}]",
        receiver.address
    ));
    let mut deployment = Deployment::start(options).await;
    let run = submit(&deployment, &pipeline("true"), "r1").await;
    let run = watch_to_end(&deployment, &run.name).await;
    // It is on its way, and nobody has answered.
    receiver.wait_for("/hook", 1).await;
    deployment.restart(Part::Scheduler);
    let messages = receiver.wait_for("/hook", 2).await;
    assert_eq!(messages[0].id(), messages[1].id());
    assert_eq!(messages[0].body, messages[1].body);
    let message = verify(SECRET, &messages[1]).expect("signed");
    assert_eq!(message["data"]["run"]["id"], run.id);
    // What was taken is not sent again.
    deployment.restart(Part::Scheduler);
    let later = submit(&deployment, &pipeline("true"), "r2").await;
    watch_to_end(&deployment, &later.name).await;
    let messages = receiver.wait_for("/hook", 3).await;
    assert_eq!(
        (messages.len(), messages[2].message()["data"]["run"]["name"].as_str()),
        (3, Some(&*later.name))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_receiver_is_reached_by_tls_and_none_whose_certificate_is_not_known() {
    let (receiver, certificate) = Receiver::start_tls().await;
    let (other, _) = Receiver::start_tls().await;
    let (folder, options) = configured(&format!(
        "webhooks:\n\
         - {{name: known, url: 'https://{}/known', secretFile: secret, caFile: ca.pem}}\n\
         - {{name: unknown, url: 'https://{}/unknown', secretFile: secret, caFile: ca.pem}}\n",
        receiver.address, other.address
    ));
    std::fs::write(folder.path().join("ca.pem"), certificate).expect("written");
    let deployment = Deployment::start(options).await;
    let run = submit(&deployment, &pipeline("true"), "r1").await;
    watch_to_end(&deployment, &run.name).await;
    let message = receiver.wait_for("/known", 1).await;
    verify(SECRET, &message[0]).expect("signed");
    until("the other one was tried", async || {
        let log = deployment.log(Part::Scheduler);
        log.contains("no TLS").then_some(()).ok_or(log)
    })
    .await;
    assert_eq!(other.on("/unknown").len(), 0);
}
