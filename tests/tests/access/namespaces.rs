//! Tokens with roles see their namespaces and no others; what they are is read again when the file changes.

use std::collections::BTreeMap;

use serde_json::json;
use tonic::{Code, Status};
use windlass_api::convert::pipeline_to_proto;
use windlass_api::log::v1::TailLogsRequest;
use windlass_api::log::v1::log_service_client::LogServiceClient;
use windlass_api::log::v1::tail_logs_response::Message as LogMessage;
use windlass_api::run::v1::run_service_client::RunServiceClient;
use windlass_api::run::v1::{GetRunRequest, ListRunsRequest, Run, SubmitRunRequest, WatchRunRequest};
use windlass_service::AuthenticatedChannel;
use windlass_tests::deployment::{Deployment, Options, Part, Secured};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

use crate::entries;
use crate::raw::reason;

const ENTRIES: [(&str, &str); 4] = [
    ("ana", "[{role: submitter, namespaces: [team-a]}]"),
    ("bob", "[{role: submitter, namespaces: [team-b]}]"),
    ("operator", "[{role: admin, namespaces: [\"*\"]}]"),
    ("service", "[{role: service}]"),
];

fn runs(deployment: &Deployment, token: &str) -> RunServiceClient<AuthenticatedChannel> {
    RunServiceClient::new(deployment.channel_with(Part::Scheduler, Some(token)))
}

async fn submit(deployment: &Deployment, token: &str, namespace: &str) -> Run {
    let pipeline = from_json(json!({
        "name": "says",
        "defaults": {"image": "busybox:1.36"},
        "steps": [{"name": "s", "command": ["echo", format!("this is {namespace}")]}],
    }));
    let request = SubmitRunRequest {
        namespace: namespace.to_owned(),
        request_id: "one".to_owned(),
        pipeline: Some(pipeline_to_proto(&pipeline)),
        ..SubmitRunRequest::default()
    };
    let response = runs(deployment, token).submit_run(request).await.expect("accepted");
    response.into_inner().run.expect("a run")
}

async fn names(deployment: &Deployment, token: &str, namespace: &str) -> Result<Vec<String>, Status> {
    let request = ListRunsRequest {
        namespace: namespace.to_owned(),
        ..ListRunsRequest::default()
    };
    let response = runs(deployment, token).list_runs(request).await?.into_inner();
    Ok(response.runs.into_iter().map(|run| run.name).collect())
}

async fn get(deployment: &Deployment, token: &str, namespace: &str, run: &str) -> Result<Run, Status> {
    let request = GetRunRequest {
        namespace: namespace.to_owned(),
        run: run.to_owned(),
    };
    let response = runs(deployment, token).get_run(request).await?;
    Ok(response.into_inner().run.expect("a run"))
}

async fn watch(deployment: &Deployment, token: &str, namespace: &str, run: &str) -> Result<(), Status> {
    let request = WatchRunRequest {
        namespace: namespace.to_owned(),
        run: run.to_owned(),
        ..WatchRunRequest::default()
    };
    let mut stream = runs(deployment, token).watch_run(request).await?.into_inner();
    stream.message().await.map(drop)
}

/// All lines of a run, to its end.
async fn lines(deployment: &Deployment, token: &str, namespace: &str, run: &str) -> Result<String, Status> {
    let request = TailLogsRequest {
        namespace: namespace.to_owned(),
        run: run.to_owned(),
        follow: true,
        ..TailLogsRequest::default()
    };
    let channel = deployment.channel_with(Part::Relay, Some(token));
    let mut stream = LogServiceClient::new(channel).tail_logs(request).await?.into_inner();
    let mut text = String::new();
    while let Some(response) = stream.message().await? {
        if let Some(LogMessage::Lines(batch)) = response.message {
            batch
                .lines
                .iter()
                .for_each(|line| text.push_str(&String::from_utf8_lossy(&line.content)));
        }
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_sees_its_namespaces_and_the_others_are_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let access_file = entries::write(folder.path(), &ENTRIES);
    let deployment = Deployment::start(Options {
        secured: Some(Secured {
            access_file: access_file.clone(),
            service_token: Some(entries::token_file(folder.path(), "service")),
            token: "operator".to_owned(),
            args: BTreeMap::new(),
            tls: Default::default(),
        }),
        ..Options::default()
    })
    .await;
    entries::make_namespaces(&deployment, &["team-a", "team-b"]).await;
    let a = submit(&deployment, "ana", "team-a").await;
    let b = submit(&deployment, "bob", "team-b").await;

    assert_eq!(names(&deployment, "ana", "*").await.expect("a list"), [a.name.as_str()]);
    assert_eq!(names(&deployment, "bob", "*").await.expect("a list"), [b.name.as_str()]);
    assert_eq!(names(&deployment, "operator", "*").await.expect("a list").len(), 2);
    let refused = names(&deployment, "ana", "team-b").await.expect_err("refused");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "ROLE_MISSING")
    );
    assert!(
        refused.message().contains("viewer") && refused.message().contains("team-b"),
        "{refused}"
    );

    // By name and id, in its namespace and through one's own: the answers are those for a run that is not there.
    for run in [b.name.as_str(), b.id.as_str(), "@latest"] {
        let hidden = get(&deployment, "ana", "team-b", run).await.expect_err("hidden");
        let absent = get(&deployment, "operator", "team-c", run).await.expect_err("absent");
        assert_eq!(hidden.code(), Code::NotFound);
        assert_eq!(hidden.message().replace("team-b", "team-c"), absent.message());
        assert_eq!(reason(&hidden), reason(&absent));
        let watched = watch(&deployment, "ana", "team-b", run).await.expect_err("hidden");
        assert_eq!(watched.message(), hidden.message());
        let read = lines(&deployment, "ana", "team-b", run).await.expect_err("hidden");
        assert_eq!((read.code(), read.message()), (Code::NotFound, hidden.message()));
    }
    for run in [b.name.as_str(), b.id.as_str()] {
        let through = get(&deployment, "ana", "team-a", run).await;
        assert!(run == a.name || through.is_err(), "a run of team-b is found in team-a");
        let through = lines(&deployment, "ana", "team-a", &b.id).await.expect_err("not there");
        assert_eq!(through.code(), Code::NotFound);
    }
    watch(&deployment, "ana", "team-a", &a.id).await.expect("its own");
    assert_eq!(
        lines(&deployment, "ana", "team-a", &a.id)
            .await
            .expect("its own")
            .trim(),
        "this is team-a"
    );
    assert_eq!(
        lines(&deployment, "operator", "team-b", &b.id)
            .await
            .expect("all")
            .trim(),
        "this is team-b"
    );

    // A version that cannot be used is refused loudly, and the old one stays.
    std::fs::write(&access_file, "- name: ana\n").expect("written");
    until("the bad file is refused", async || {
        let log = deployment.log(Part::Scheduler);
        let told = log.contains("changed files are refused");
        told.then_some(()).ok_or(log)
    })
    .await;
    get(&deployment, "ana", "team-a", &a.id).await.expect("still known");
    // A good one counts from then on, without a restart, at both services.
    entries::write(folder.path(), &ENTRIES[1..]);
    until("ana is forgotten", async || {
        let got = get(&deployment, "ana", "team-a", &a.id).await;
        let read = lines(&deployment, "ana", "team-a", &a.id).await;
        let codes = [got.map(drop), read.map(drop)].map(|result| result.err().map(|status| status.code()));
        let forgotten = codes == [Some(Code::Unauthenticated); 2];
        forgotten.then_some(()).ok_or(format!("{codes:?}"))
    })
    .await;
    get(&deployment, "bob", "team-b", &b.id).await.expect("still known");
}
