//! Certificates between the services, as processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tonic::{Code, Status};
use windlass_api::run::v1::RunState;
use windlass_service::{AuthenticatedChannel, ChannelSettings, ClientTls, connect_lazy};
use windlass_tests::binaries::binary;
use windlass_tests::client::{submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part, Secured};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

use crate::authority::{Authority, Pair};
use crate::entries;
use crate::raw::{chain, reason, rpcs};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

async fn call(method: &str, channel: AuthenticatedChannel) -> Result<(), Status> {
    let rpcs = rpcs();
    let rpc = rpcs.iter().find(|rpc| rpc.path.ends_with(method)).expect("an RPC");
    rpc.call(channel, Vec::new()).await
}

fn channel(address: &str, token: Option<&str>, ca: &Path, identity: Option<&Pair>) -> AuthenticatedChannel {
    let settings = ChannelSettings {
        address: address.to_owned(),
        token: token.map(str::to_owned),
        user: None,
        tls: ClientTls {
            ca: Some(ca.to_owned()),
            identity: identity.map(|pair| (pair.cert.clone(), pair.key.clone())),
        },
    };
    connect_lazy(&settings).expect("usable settings")
}

fn windlass(server: &str, token: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary("windlass"));
    command
        .args(["--server", server])
        .arg("--token-file")
        .arg(token)
        .args(args);
    command.output().expect("windlass runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn services_with_certificates_run_pipelines_and_turn_away_whoever_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (ours, others) = (Authority::new(folder, "ours"), Authority::new(folder, "others"));
    let scheduler = ours.issue(folder, "scheduler", &NAMES, false);
    let relay = ours.issue(folder, "relay", &NAMES, false);
    let executor = ours.issue(folder, "executor", &["executor"], false);
    let text = |path: &Path| path.display().to_string();
    let ca = text(&ours.file);
    let server = |pair: &Pair| {
        [
            "--tls-cert",
            &text(&pair.cert),
            "--tls-key",
            &text(&pair.key),
            "--tls-client-ca",
            &ca,
            "--tls-ca",
            &ca,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let dialler = [
        "--tls-client-cert",
        &text(&executor.cert),
        "--tls-client-key",
        &text(&executor.key),
        "--tls-ca",
        &ca,
    ];
    let entries = [
        ("operator", "[{role: admin, namespaces: [\"*\"]}]"),
        ("service", "[{role: service}]"),
    ];
    // Executor and relay show their certificates and no token.
    let mut deployment = Deployment::start(Options {
        secured: Some(Secured {
            access_file: entries::write(folder, &entries),
            service_token: None,
            token: "operator".to_owned(),
            args: BTreeMap::from([
                (Part::Scheduler, server(&scheduler)),
                (Part::Relay, server(&relay)),
                (Part::Executor, dialler.map(str::to_owned).to_vec()),
            ]),
            tls: ClientTls {
                ca: Some(ours.file.clone()),
                identity: None,
            },
        }),
        ..Options::default()
    })
    .await;
    let pipeline = from_json(
        json!({"name": "safe", "defaults": {"image": "busybox:1.36"}, "steps": [{"name": "s", "command": ["echo", "over TLS"]}]}),
    );
    let run = submit(&deployment, &pipeline, "one").await;
    assert_eq!(watch_to_end(&deployment, &run.name).await.state(), RunState::Succeeded);

    // The command line, with the right authority, the wrong one, and in plain text.
    let address = deployment.url(Part::Scheduler);
    let token = entries::token_file(folder, "operator");
    let logs = windlass(&address, &token, &["--ca", &ca, "logs", &run.name, "-f"]);
    assert_eq!(String::from_utf8_lossy(&logs.stdout).trim(), "over TLS", "{logs:?}");
    let wrong = windlass(&address, &token, &["--ca", &text(&others.file), "list"]);
    assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("signed by no authority that is trusted here"),
        "{wrong:?}"
    );
    let plain = windlass(&address.replace("https", "http"), &token, &["list"]);
    assert!(
        String::from_utf8_lossy(&plain.stderr).contains("dial it with https://"),
        "{plain:?}"
    );
    // A server without TLS: the executor's health is one.
    let health = format!("https://localhost:{}", deployment.address(Part::Executor).port());
    let bare = windlass(&health, &token, &["--ca", &ca, "list"]);
    assert_eq!(bare.status.code(), Some(3), "{bare:?}");
    assert!(
        String::from_utf8_lossy(&bare.stderr).contains("does not speak TLS"),
        "{bare:?}"
    );

    // The internal RPCs want a certificate, whatever the token; the public ones do not care for one.
    for (part, method) in [
        (Part::Scheduler, "/Connect"),
        (Part::Scheduler, "/Follow"),
        (Part::Relay, "/Feed"),
    ] {
        let address = deployment.url(part);
        let bare = call(method, channel(&address, Some("service"), &ours.file, None)).await;
        let bare = bare.expect_err("refused");
        assert_eq!(
            (bare.code(), reason(&bare).as_str()),
            (Code::Unauthenticated, "NO_CLIENT_CERTIFICATE")
        );
        let person = call(method, channel(&address, Some("operator"), &ours.file, Some(&executor))).await;
        assert_eq!(reason(&person.expect_err("refused")), "ROLE_MISSING");
        for identity in [(Some("service"), &executor), (None, &executor)] {
            let served = call(method, channel(&address, identity.0, &ours.file, Some(identity.1))).await;
            let status = served.expect_err("an empty message is no hello");
            assert!(
                !matches!(
                    status.code(),
                    Code::Unauthenticated | Code::PermissionDenied | Code::Unavailable
                ),
                "{status}"
            );
        }
        // A certificate alone is no person's token.
        if part == Part::Scheduler {
            let runs = call("/ListRuns", channel(&address, None, &ours.file, Some(&executor))).await;
            assert_eq!(reason(&runs.expect_err("refused")), "ROLE_MISSING");
        }
        let expired = ours.issue(folder, "expired", &["executor"], true);
        let foreign = others.issue(folder, "foreign", &["executor"], false);
        for (pair, alert) in [(&expired, "CertificateExpired"), (&foreign, "UnknownCA")] {
            // In TLS 1.3 a client may write before the alert comes, and then hears only that the connection broke.
            until("the alert is told", async || {
                let refused = call(method, channel(&address, None, &ours.file, Some(pair))).await;
                let told = chain(&refused.expect_err("refused"));
                told.contains(alert).then_some(()).ok_or(told)
            })
            .await;
        }
    }

    // Kubernetes' probes speak plain text and get health, and nothing else, where TLS is served.
    let health = format!("http://{}", deployment.address(Part::Scheduler));
    let probe = channel(&health, None, &ours.file, None);
    let mut probe = tonic_health::pb::health_client::HealthClient::new(probe);
    let answer = probe
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .expect("answered");
    assert_eq!(
        answer.into_inner().status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );
    let more = call("/GetServerInfo", channel(&health, Some("operator"), &ours.file, None)).await;
    assert_eq!(reason(&more.expect_err("refused")), "TLS_REQUIRED");

    // Renewed certificates are in use without a restart: first one for another name, then one that is over, then a good one.
    for (names, expired, expected) in [
        (&["elsewhere.example"][..], false, "is not for this name"),
        (&NAMES[..], true, "is not valid now"),
    ] {
        ours.issue(folder, "scheduler", names, expired);
        until("the new certificate is shown", async || {
            let shown = call("/GetServerInfo", channel(&address, Some("operator"), &ours.file, None)).await;
            let told = shown.map_or_else(|status| chain(&status), |()| "answered".to_owned());
            told.contains(expected).then_some(()).ok_or(told)
        })
        .await;
    }
    ours.issue(folder, "scheduler", &NAMES, false);
    until("the good certificate is shown", async || {
        let shown = call("/GetServerInfo", channel(&address, Some("operator"), &ours.file, None)).await;
        shown.map_err(|status| chain(&status))
    })
    .await;
    // Half a pair is refused, and the old one stays.
    std::fs::write(&scheduler.key, "no key").expect("written");
    until("the bad key is refused", async || {
        let log = deployment.log(Part::Scheduler);
        log.contains("holds no private key").then_some(()).ok_or(log)
    })
    .await;
    call("/GetServerInfo", channel(&address, Some("operator"), &ours.file, None))
        .await
        .expect("still served");
    assert!(deployment.stop(Part::Executor).await);
}

#[test]
fn a_listener_off_loopback_wants_tls_and_tokens_unless_told_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = entries::token_file(folder.path(), "token");
    for program in ["windlass-scheduler", "windlass-log-relay"] {
        let mut command = Command::new(binary(program));
        command
            .args(["--listen", "0.0.0.0:0"])
            .arg("--data-dir")
            .arg(folder.path().join(program));
        let bare = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&bare.stderr).into_owned();
        assert!(
            !bare.status.success() && said.contains("--tls-cert and --tls-key, and --access-file"),
            "{said}"
        );
        let plain = command.arg("--token-file").arg(&token).output().expect("it runs");
        let said = String::from_utf8_lossy(&plain.stderr).into_owned();
        assert!(
            !plain.status.success() && said.contains("give --tls-cert and --tls-key, or say --insecure"),
            "{said}"
        );
    }
}
