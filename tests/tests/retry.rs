//! A run that goes on where an earlier one failed, on the local cluster: behaviours U4.

use std::path::Path;

use serde_json::json;
use windlass_api::run::v1::{RetryRunRequest, RetryRunResponse, RunState, StepState};
use windlass_tests::client::{get, logs, steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::until;

/// `make` leaves something in the workspace, and `use` fails until there is a file `mended`.
fn pipeline(witness: &Path, mended: &Path) -> windlass_pipeline::Pipeline {
    let write = format!("echo \"$WINDLASS_STEP\" >> {}", witness.display());
    from_json(json!({
        "name": "goes-on",
        "workspace": {},
        "defaults": {"image": "busybox"},
        "steps": [
            {"name": "make", "script": format!("{write}; echo made > \"$WINDLASS_WORKSPACE/data\"; echo making")},
            {
                "name": "use",
                "upstream": ["make"],
                "script": format!("{write}; cat \"$WINDLASS_WORKSPACE/data\"; [ -e {} ]", mended.display()),
            },
        ],
    }))
}

/// Retries, again and again with the same request id while the scheduler is away.
async fn retry(deployment: &Deployment, run: &str, request_id: &str) -> RetryRunResponse {
    let request = RetryRunRequest {
        run: run.to_owned(),
        request_id: request_id.to_owned(),
        ..RetryRunRequest::default()
    };
    until("the retry is accepted", async || {
        let answered = deployment.runs().retry_run(request.clone()).await;
        answered.map_err(|status| status.to_string())
    })
    .await
    .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_retry_survives_a_killed_scheduler_and_works_in_the_workspace_of_the_first_run() {
    let workspaces = tempfile::tempdir().expect("a folder");
    let options = Options {
        executor_args: vec!["--workspace-folder".to_owned(), workspaces.path().display().to_string()],
        ..Options::default()
    };
    let mut deployment = Deployment::start(options).await;
    let witness = deployment.folder().join("witness");
    let mended = deployment.folder().join("mended");
    let old = submit(&deployment, &pipeline(&witness, &mended), "first").await;
    assert_eq!(watch_to_end(&deployment, &old.id).await.state(), RunState::Failed);
    let shown = async |deployment: &Deployment| {
        (
            get(deployment, &old.id).await,
            steps(deployment, &old.id).await,
            logs(deployment, &old.id).await,
        )
    };
    let before = shown(&deployment).await;
    std::fs::write(&mended, "").expect("a file");

    let answer = retry(&deployment, &old.id, "retry").await;
    deployment.restart(Part::Scheduler);
    let again = retry(&deployment, &old.id, "retry").await;
    let (new, known) = (answer.run.expect("a run"), again.run.expect("a run"));
    assert!(answer.created && !again.created);
    assert_eq!(new.id, known.id, "what was acknowledged is there");
    assert_eq!(
        (&again.reused_steps, &again.rerun_steps),
        (&vec!["make".to_owned()], &vec!["use".to_owned()])
    );
    let ended = watch_to_end(&deployment, &new.id).await;
    assert_eq!(ended.state(), RunState::Succeeded, "{ended:?}");
    let states: Vec<_> = steps(&deployment, &new.id)
        .await
        .iter()
        .map(|step| step.state())
        .collect();
    assert_eq!(states, [StepState::Cached, StepState::Succeeded]);
    let log = logs(&deployment, &new.id).await;
    assert_eq!(
        log.get("use/1"),
        Some(&vec!["made".to_owned()]),
        "the file of the first run"
    );
    assert_eq!(log.len(), 1, "{log:?}");

    let written = std::fs::read_to_string(&witness).expect("the steps wrote");
    assert_eq!(written, "make\nuse\nuse\n");
    let folders = std::fs::read_dir(workspaces.path()).expect("the workspaces");
    let folders: Vec<_> = folders
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    assert_eq!(folders, [old.id.as_str()], "both runs have one folder");
    assert!(shown(&deployment).await == before, "the old run has changed");
}
