//! SecretService: checked, handed to an executor of the right cluster, and kept nowhere (behaviours K9 to K12, I8).

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::secret::v1 as wire;
use windlass_api::secret::v1::secret_service_client::SecretServiceClient;
use windlass_service::AuthenticatedChannel;

use crate::executor::Executor;
use crate::support::{Scheduler, config, eventually, reason};

const CANARY: &str = "canary-5d1b8c";

fn secrets(scheduler: &Scheduler) -> SecretServiceClient<AuthenticatedChannel> {
    SecretServiceClient::new(scheduler.channel())
}

fn put(cluster: &str) -> wire::PutSecretRequest {
    wire::PutSecretRequest {
        namespace: "ml".to_owned(),
        cluster: cluster.to_owned(),
        name: "warehouse".to_owned(),
        mode: wire::PutSecretMode::Create.into(),
        data: [("password".to_owned(), CANARY.as_bytes().to_vec())].into(),
        request_id: "one".to_owned(),
        ..wire::PutSecretRequest::default()
    }
}

fn secret(name: &str) -> wire::Secret {
    wire::Secret {
        name: name.to_owned(),
        keys: vec!["password".to_owned()],
        key_count: 1,
        ..wire::Secret::default()
    }
}

/// Does what is asked.
fn obedient(call: &dispatch::SecretCall) -> Option<Outcome> {
    Some(match call.call_kind.as_ref()? {
        CallKind::Put(put) => Outcome::Put(dispatch::SecretPutDone {
            secret: Some(secret(&put.name)),
            created: true,
        }),
        CallKind::List(list) => {
            let (name, next) = match list.continue_token.as_str() {
                "" => ("first", "after/first=1"),
                _ => ("second", ""),
            };
            Outcome::Page(dispatch::SecretPage {
                secrets: vec![secret(name)],
                continue_token: next.to_owned(),
            })
        }
        CallKind::Delete(_) => Outcome::Deleted(dispatch::SecretDeleted {}),
        CallKind::Lookup(_) => return None,
    })
}

/// Whether a file below the folder has the bytes in it.
fn is_in_files(folder: &Path, bytes: &[u8]) -> bool {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).is_ok_and(|content| content.windows(bytes.len()).any(|part| part == bytes)) {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn k9_to_k12_calls_go_to_an_executor_and_i8_leave_nothing_behind() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::of(1, "prod").with_secrets(obedient);
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let mut client = secrets(&scheduler);

    let done = client.put_secret(put("")).await.expect("put").into_inner();
    assert!(done.created);
    assert_eq!(
        done.secret.expect("a secret").resource_name,
        "namespaces/ml/secrets/warehouse"
    );
    let list = |page_token: &str, namespace: &str| wire::ListSecretsRequest {
        namespace: namespace.to_owned(),
        cluster: "prod".to_owned(),
        page_size: 500,
        page_token: page_token.to_owned(),
    };
    let first = client.list_secrets(list("", "ml")).await.expect("listed").into_inner();
    assert_eq!(first.secrets[0].resource_name, "namespaces/ml/secrets/first");
    let token = first.next_page_token;
    let second = client
        .list_secrets(list(&token, "ml"))
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(
        (second.secrets[0].name.as_str(), second.next_page_token.as_str()),
        ("second", "")
    );
    for (token, namespace) in [(token.as_str(), "other"), ("what?", "ml")] {
        let refused = client
            .list_secrets(list(token, namespace))
            .await
            .expect_err("no token of this list");
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "BAD_PAGE_TOKEN")
        );
    }
    let delete = wire::DeleteSecretRequest {
        name: "warehouse".to_owned(),
        ..wire::DeleteSecretRequest::default()
    };
    let deleted = client.delete_secret(delete).await.expect("deleted").into_inner();
    assert_eq!(deleted.resource_name, "namespaces/default/secrets/warehouse");

    let calls = executor.seen().secret_calls.clone();
    let Some(CallKind::Put(sent)) = &calls[0].call_kind else {
        panic!("{calls:?}")
    };
    assert_eq!(sent.data["password"], CANARY.as_bytes());
    assert_eq!(
        (sent.mode(), sent.request_id.as_str()),
        (wire::PutSecretMode::Create, "one")
    );
    let pages: Vec<_> = calls
        .iter()
        .filter_map(|call| match &call.call_kind {
            Some(CallKind::List(list)) => Some((list.page_size, list.continue_token.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(pages, [(100, ""), (100, "after/first=1")], "pages are bounded");
    let namespaces: Vec<_> = calls.iter().map(|call| call.namespace.as_str()).collect();
    assert_eq!(namespaces, ["ml", "ml", "ml", "default"]);

    scheduler.stop().await;
    assert!(is_in_files(data.path(), b"SQLite format"), "the store is looked at");
    assert!(!is_in_files(data.path(), CANARY.as_bytes()));
}

#[tokio::test]
async fn i9_a_bad_request_reaches_no_executor() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::of(1, "prod").with_secrets(obedient);
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let wrong = wire::PutSecretRequest {
        name: "Ware_House".to_owned(),
        data: [("a b".to_owned(), CANARY.as_bytes().to_vec())].into(),
        ..put("")
    };
    let refused = secrets(&scheduler).put_secret(wrong).await.expect_err("refused");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_REQUEST")
    );
    let fields: Vec<_> = refused
        .get_details_bad_request()
        .expect("fields")
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    assert_eq!(fields, ["name", "data[a b]"]);
    assert!(!format!("{refused:?}").contains(CANARY));
    assert!(executor.seen().secret_calls.is_empty());
    scheduler.stop().await;
}

#[tokio::test]
async fn an_executor_of_the_right_cluster_is_asked_or_nobody() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let mut client = secrets(&scheduler);
    let nobody = client.put_secret(put("")).await.expect_err("nobody is there");
    assert_eq!(
        (nobody.code(), reason(&nobody).as_str()),
        (Code::Unavailable, "NO_EXECUTOR")
    );

    let mut old = Executor::of(1, "old");
    old.capabilities.clear();
    old.spawn(&scheduler);
    scheduler.connected(1).await;
    let too_old = client.put_secret(put("")).await.expect_err("too old");
    assert_eq!(
        (too_old.code(), reason(&too_old).as_str()),
        (Code::FailedPrecondition, "EXECUTOR_TOO_OLD")
    );

    let prod = Executor::of(2, "prod").with_secrets(obedient);
    prod.spawn(&scheduler);
    scheduler.connected(2).await;
    let ambiguous = client.put_secret(put("")).await.expect_err("two clusters");
    assert_eq!(
        (ambiguous.code(), reason(&ambiguous).as_str()),
        (Code::InvalidArgument, "CLUSTER_AMBIGUOUS")
    );
    assert!(ambiguous.message().contains("old, prod"), "{}", ambiguous.message());
    client.put_secret(put("prod")).await.expect("put");
    assert_eq!(prod.seen().secret_calls.len(), 1);
    let unknown = client.put_secret(put("prid")).await.expect_err("no such cluster");
    assert_eq!(reason(&unknown), "NO_EXECUTOR");
    assert_eq!(
        unknown.get_details_error_info().expect("info").metadata["cluster"],
        "prid"
    );
    scheduler.stop().await;
}

#[tokio::test]
async fn a_call_ends_with_the_stream_of_its_executor() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    // It answers nothing.
    let executor = Executor::of(1, "prod");
    let playing = executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let mut client = secrets(&scheduler);
    let asked = tokio::spawn(async move { client.put_secret(put("prod")).await });
    eventually("the call to arrive", || async {
        (!executor.seen().secret_calls.is_empty()).then_some(())
    })
    .await;
    let started = Instant::now();
    playing.abort();
    executor.hang_up();
    let lost = asked.await.expect("no panic").expect_err("nobody answers");
    assert_eq!(
        (lost.code(), reason(&lost).as_str()),
        (Code::Unavailable, "EXECUTOR_LOST")
    );
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "it does not wait for a timeout"
    );
    scheduler.stop().await;
}

#[tokio::test]
async fn k12_what_an_executor_refuses_is_typed() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::of(1, "prod").with_secrets(|call| {
        let fault = match &call.call_kind {
            Some(CallKind::Put(_)) => dispatch::SecretFault::RightMissing,
            _ => dispatch::SecretFault::NotFound,
        };
        Some(Outcome::Refusal(dispatch::SecretRefusal {
            fault: fault.into(),
            right: "create secrets".to_owned(),
            ..dispatch::SecretRefusal::default()
        }))
    });
    executor.spawn(&scheduler);
    scheduler.connected(1).await;
    let mut client = secrets(&scheduler);
    let missing = client.put_secret(put("")).await.expect_err("no right");
    assert_eq!(
        (missing.code(), reason(&missing).as_str()),
        (Code::FailedPrecondition, "RIGHT_MISSING")
    );
    assert_eq!(
        missing.get_details_error_info().expect("info").metadata["right"],
        "create secrets"
    );
    let delete = wire::DeleteSecretRequest {
        name: "warehouse".to_owned(),
        ..wire::DeleteSecretRequest::default()
    };
    let gone = client.delete_secret(delete).await.expect_err("none");
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::NotFound, "SECRET_NOT_FOUND")
    );
    scheduler.stop().await;
}
