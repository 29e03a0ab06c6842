//! Every RPC for every kind of caller, over the sockets of real services.

use std::collections::BTreeMap;

use serde_json::json;
use tonic::{Code, Status};
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::SubmitRunRequest;
use windlass_api::run::v1::run_service_client::RunServiceClient;
use windlass_tests::deployment::{Deployment, Options, Part, Secured};
use windlass_tests::pipelines::from_json;

use crate::entries;
use crate::raw::{Rpc, chain, reason, rpcs};

/// What a caller needs, written down again: the product's table is not asked.
#[derive(Clone, Copy, Debug)]
enum Needs {
    Token,
    /// This role (1 viewer, 2 submitter, 3 admin) in the request's namespace.
    Role(u8),
    Service,
}

const EXPECTED: [(&str, Needs); 35] = [
    ("GetServerInfo", Needs::Token),
    ("GetPipelineSchema", Needs::Token),
    ("ListClusters", Needs::Token),
    ("GetRun", Needs::Role(1)),
    ("ListRuns", Needs::Role(1)),
    ("ListSteps", Needs::Role(1)),
    ("WatchRun", Needs::Role(1)),
    ("GetRunPipeline", Needs::Role(1)),
    ("ExplainRun", Needs::Role(1)),
    ("TailLogs", Needs::Role(1)),
    ("SubmitRun", Needs::Role(2)),
    ("CancelRun", Needs::Role(2)),
    ("RetryRun", Needs::Role(2)),
    ("ValidatePipeline", Needs::Role(2)),
    ("RenderPipeline", Needs::Role(2)),
    ("ListSecrets", Needs::Role(2)),
    ("CheckCluster", Needs::Role(2)),
    ("DeleteRun", Needs::Role(3)),
    ("ConfirmDead", Needs::Role(3)),
    ("PutSecret", Needs::Role(3)),
    ("DeleteSecret", Needs::Role(3)),
    ("GetSchedule", Needs::Role(1)),
    ("ListSchedules", Needs::Role(1)),
    ("GetSchedulePipeline", Needs::Role(1)),
    ("ExportSchedule", Needs::Role(1)),
    ("CreateSchedule", Needs::Role(2)),
    ("UpdateSchedule", Needs::Role(2)),
    ("DeleteSchedule", Needs::Role(2)),
    ("PauseSchedule", Needs::Role(2)),
    ("ResumeSchedule", Needs::Role(2)),
    ("TriggerSchedule", Needs::Role(2)),
    ("Connect", Needs::Service),
    ("Follow", Needs::Service),
    ("Feed", Needs::Service),
    ("Read", Needs::Service),
];

/// A token with its roles in the file, its role in team-a, its highest role anywhere, and whether it is a service.
const CALLERS: [(&str, &str, u8, u8, bool); 8] = [
    ("viewer-a", "[{role: viewer, namespaces: [team-a]}]", 1, 1, false),
    ("submitter-a", "[{role: submitter, namespaces: [team-a]}]", 2, 2, false),
    ("admin-a", "[{role: admin, namespaces: [team-a]}]", 3, 3, false),
    ("viewer-b", "[{role: viewer, namespaces: [team-b]}]", 0, 1, false),
    ("admin-b", "[{role: admin, namespaces: [team-b]}]", 0, 3, false),
    (
        "viewer-a-admin-b",
        "[{role: viewer, namespaces: [team-a]}, {role: admin, namespaces: [team-b]}]",
        1,
        3,
        false,
    ),
    ("admin-everywhere", "[{role: admin, namespaces: [\"*\"]}]", 3, 3, false),
    ("service", "[{role: service}]", 0, 0, true),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Allowed,
    Denied,
    /// As if the run were not there.
    Hidden,
    Unknown,
}

fn outcome(result: &Result<(), Status>) -> Outcome {
    let Err(status) = result else {
        return Outcome::Allowed;
    };
    match (status.code(), reason(status).as_str()) {
        (Code::Unauthenticated, "NO_TOKEN" | "UNKNOWN_TOKEN") => Outcome::Unknown,
        (Code::PermissionDenied, "ROLE_MISSING") => Outcome::Denied,
        (Code::NotFound, "RUN_NOT_FOUND" | "RUN_REFUSED") => Outcome::Hidden,
        (Code::Unavailable | Code::Unimplemented | Code::Internal | Code::Unknown, _) => {
            panic!("neither allowed nor refused: {}", chain(status))
        }
        _ => Outcome::Allowed,
    }
}

fn expected(needs: Needs, names_a_run: bool, caller: &(&str, &str, u8, u8, bool)) -> Outcome {
    let (_, _, here, anywhere, service) = *caller;
    match needs {
        Needs::Token => Outcome::Allowed,
        Needs::Service if service => Outcome::Allowed,
        Needs::Service => Outcome::Denied,
        Needs::Role(role) if here >= role => Outcome::Allowed,
        Needs::Role(role) if here == 0 && anywhere >= role && names_a_run => Outcome::Hidden,
        Needs::Role(_) => Outcome::Denied,
    }
}

fn part(rpc: &Rpc) -> Part {
    let of_relays = ["/windlass.log.", "/windlass.feed.", "/windlass.relay."];
    if of_relays.iter().any(|package| rpc.path.starts_with(package)) {
        Part::Relay
    } else {
        Part::Scheduler
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_allowed_to_those_who_have_its_role_and_to_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let entries: Vec<_> = CALLERS.iter().map(|caller| (caller.0, caller.1)).collect();
    let secured = Secured {
        access_file: entries::write(folder.path(), &entries),
        service_token: Some(entries::token_file(folder.path(), "service")),
        token: "admin-everywhere".to_owned(),
        args: BTreeMap::new(),
        tls: Default::default(),
    };
    let deployment = Deployment::start(Options {
        secured: Some(secured),
        ..Options::default()
    })
    .await;
    entries::make_namespaces(&deployment, &["team-a"]).await;
    // It runs for as long as it is asked for.
    let pipeline = from_json(json!({
        "name": "stays",
        "defaults": {"image": "busybox:1.36"},
        "steps": [{"name": "s", "command": ["sleep", "3600"]}],
    }));
    let request = SubmitRunRequest {
        namespace: "team-a".to_owned(),
        name: "seen".to_owned(),
        request_id: "seen".to_owned(),
        pipeline: Some(pipeline_to_proto(&pipeline)),
        ..SubmitRunRequest::default()
    };
    let mut submitter = RunServiceClient::new(deployment.channel_with(Part::Scheduler, Some("submitter-a")));
    let run = submitter.submit_run(request).await.expect("accepted").into_inner().run;
    assert_eq!(
        run.expect("a run").submitted_by,
        "submitter-a",
        "whoever is named by the client"
    );

    let rpcs = rpcs();
    assert_eq!(rpcs.len(), EXPECTED.len(), "an RPC has come or gone: {rpcs:#?}");
    // A reason that is too long stops a cancellation that was allowed.
    let long = "x".repeat(2_000);
    let mut wrong = Vec::new();
    for rpc in &rpcs {
        let method = rpc.path.rsplit('/').next().expect("a method");
        let needs = EXPECTED.iter().find(|(name, _)| *name == method);
        let (_, needs) = needs.unwrap_or_else(|| panic!("what {} needs is not written down", rpc.path));
        assert_eq!(matches!(needs, Needs::Role(_)), rpc.has("namespace"), "{}", rpc.path);
        let request = || rpc.request(&[("namespace", "team-a"), ("run", "seen"), ("reason", &long)]);
        let mut check = async |caller: Option<&str>, expected: Outcome| {
            let result = rpc.call(deployment.channel_with(part(rpc), caller), request()).await;
            if outcome(&result) != expected {
                wrong.push(format!("{method} for {caller:?}: {result:?} is not {expected:?}"));
            }
        };
        check(None, Outcome::Unknown).await;
        check(Some("stranger"), Outcome::Unknown).await;
        for caller in &CALLERS {
            check(Some(caller.0), expected(*needs, rpc.has("run"), caller)).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
