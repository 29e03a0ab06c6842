//! Runs expire with their logs, whoever was away or killed meanwhile.

use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;
use windlass_api::run::v1::GetRunRequest;
use windlass_tests::client::{logs, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::{until, until_within};

/// The reason why a run is not there.
async fn gone(deployment: &Deployment, run: &str) -> Result<String, String> {
    let request = GetRunRequest {
        run: run.to_owned(),
        ..GetRunRequest::default()
    };
    match deployment.runs().get_run(request).await {
        Ok(_) => Err("it is there".to_owned()),
        Err(status) if status.code() == Code::NotFound => Ok(status.get_details_error_info().expect("a reason").reason),
        Err(status) => Err(status.to_string()),
    }
}

/// behaviours E37, U13
#[tokio::test(flavor = "multi_thread")]
async fn i6_the_logs_of_an_expired_run_go_also_on_a_relay_that_was_away() {
    let mut deployment = Deployment::start(Options {
        // A pod whose log was not sealed in time would hold the run.
        scheduler_args: vec!["--run-retention=8s".to_owned(), "--seal-deadline=3s".to_owned()],
        ..Options::default()
    })
    .await;
    let pipeline = from_json(json!({
        "name": "small",
        "defaults": {"image": "busybox"},
        "steps": [{"name": "only", "script": "echo done"}],
    }));
    let run = submit(&deployment, &pipeline, "small").await;
    watch_to_end(&deployment, &run.name).await;
    assert_eq!(logs(&deployment, &run.name).await["only/1"], ["done"]);
    let archived = deployment.folder().join("relay/archive").join(&run.id);
    until("the log is sealed", async || {
        if archived.is_dir() { Ok(()) } else { Err("not yet") }
    })
    .await;
    // A killed scheduler knows when the run ended; the relay is not there when it goes.
    deployment.kill(Part::Relay);
    deployment.restart(Part::Scheduler);
    let minute = std::time::Duration::from_secs(60);
    let reason = until_within(minute, "the run expires", async || gone(&deployment, &run.name).await).await;
    assert_eq!(reason, "RUN_EXPIRED");
    assert!(archived.is_dir(), "nobody could delete it");
    deployment.restart(Part::Scheduler);
    deployment.start_part(Part::Relay);
    until("the logs are deleted", async || {
        if archived.exists() {
            Err("they are there")
        } else {
            Ok(())
        }
    })
    .await;
    assert_eq!(gone(&deployment, &run.id).await.as_deref(), Ok("RUN_EXPIRED"));
}
