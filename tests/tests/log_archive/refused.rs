//! Archives that cannot be used: a relay says so when it starts, and why, without the secret.

use std::process::{Child, Stdio};

use windlass_tests::object_store::BUCKET;
use windlass_tests::ports::Port;

use super::*;

/// A relay that is started with an archive; whether it ended well, and what it said until then.
fn start(archive: &str, environment: &[(&str, &str)], store: &ObjectStore) -> (bool, String) {
    let (mut child, _port, folder) = spawn(archive, environment, store);
    let ended = child.wait().expect("an end");
    let said = std::fs::read_to_string(folder.path().join("said")).expect("a file");
    (ended.success(), said)
}

fn spawn(archive: &str, environment: &[(&str, &str)], store: &ObjectStore) -> (Child, Port, tempfile::TempDir) {
    let (port, folder) = (Port::take(), tempfile::tempdir().expect("a folder"));
    let said = std::fs::File::create(folder.path().join("said")).expect("a file");
    let child = Command::new(binary("windlass-log-relay"))
        .args([
            "--listen",
            &format!("127.0.0.1:{}", port.number()),
            "--archive",
            archive,
        ])
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .envs(store.environment())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(said.try_clone().expect("a second handle"))
        .stderr(said)
        .spawn()
        .expect("the relay starts");
    (child, port, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_i9_an_archive_that_cannot_be_used_ends_the_start_with_the_reason() {
    let store = ObjectStore::start().await;
    let good = store.url("windlass");
    let wrong = "wrong-canary-9d1f3b";
    for (archive, environment, reason) in [
        (
            "ftp://host/logs",
            vec![],
            "--archive: the scheme \"ftp\" is not known; give file:///FOLDER, s3://BUCKET/PREFIX",
        ),
        ("logs", vec![], "--archive: not a URL"),
        ("s3:///prefix", vec![], "--archive: the URL names no bucket"),
        (
            "s3://key:wrong-canary-9d1f3b@logs/x",
            vec![],
            "--archive: the URL has user information, which is refused",
        ),
        (
            "s3://logs/x?secret=wrong-canary-9d1f3b",
            vec![],
            "--archive: the URL has a query",
        ),
        (
            &good,
            vec![("AWS_ALLOW_HTTP", "false")],
            "is not encrypted; set AWS_ALLOW_HTTP=true where that is meant",
        ),
        (
            &good,
            vec![("AWS_SECRET_ACCESS_KEY", wrong)],
            "the store does not accept the credentials of the environment",
        ),
        (
            &good,
            vec![("AWS_ACCESS_KEY_ID", "nobody")],
            "the store does not know the bucket or the key",
        ),
        ("s3://no-such-bucket/x", vec![], "there is no such bucket"),
        (&good, vec![("AWS_REGION", "mars-1")], "cannot be used: the store"),
        (
            &good,
            vec![("AWS_CONDITIONAL_PUT", "disabled")],
            "objects must be put only where there is none",
        ),
    ] {
        let (succeeded, said) = start(archive, &environment, &store);
        assert!(!succeeded, "{archive} {environment:?}: {said}");
        assert!(said.contains(reason), "{archive} {environment:?}: {said}");
        assert!(!said.contains(wrong) && !said.contains(SECRET_KEY), "i8: {said}");
    }
    assert_eq!(store.objects(""), Vec::<String>::new(), "nothing was put into {BUCKET}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_at_the_start_is_waited_for() {
    let mut store = ObjectStore::start().await;
    store.kill();
    let (mut child, port, folder) = spawn(&store.url("windlass"), &[], &store);
    let address = ("127.0.0.1", port.number());
    until("the relay serves without its archive", async || {
        assert_eq!(child.try_wait().expect("a state"), None, "it lives");
        let channel = support::channel(&format!("http://{}:{}", address.0, address.1));
        let request = tonic_health::pb::HealthCheckRequest::default();
        tonic_health::pb::health_client::HealthClient::new(channel)
            .check(request)
            .await
    })
    .await;
    store.revive().await;
    let said = || std::fs::read_to_string(folder.path().join("said")).expect("a file");
    until("the archive is found", async || {
        if said().contains("archive reached") {
            Ok(())
        } else {
            Err(said())
        }
    })
    .await;
    assert_eq!(store.objects("windlass"), ["windlass/windlass-archive.json"]);
    child.kill().expect("killed");
    child.wait().expect("an end");
    let said = said();
    assert!(
        said.contains("archive cannot be reached; logs stay in the data folder until it can"),
        "{said}"
    );
    assert!(!said.contains(SECRET_KEY), "{said}");
}
