//! A run that goes on where an earlier one failed, on the local cluster: behaviours U4.

use std::path::{Path, PathBuf};

use serde_json::json;
use windlass_api::run::v1::{ListRunsRequest, RetryRunRequest, RetryRunResponse, Run, RunState, StepState};
use windlass_tests::client::{get, logs, steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::{is_alive, until};

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

/// A deployment whose workspaces are in a folder, with a run that failed and would succeed now.
struct Scene {
    deployment: Deployment,
    old: Run,
    witness: PathBuf,
    mended: PathBuf,
    workspaces: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let workspaces = tempfile::tempdir().expect("a folder");
        let folder = workspaces.path().display().to_string();
        let options = Options {
            executor_args: vec!["--workspace-folder".to_owned(), folder],
            ..Options::default()
        };
        let deployment = Deployment::start(options).await;
        let witness = deployment.folder().join("witness");
        let mended = deployment.folder().join("mended");
        let old = submit(&deployment, &pipeline(&witness, &mended), "first").await;
        assert_eq!(watch_to_end(&deployment, &old.id).await.state(), RunState::Failed);
        Self {
            deployment,
            old,
            witness,
            mended,
            workspaces,
        }
    }

    fn mend(&self) {
        std::fs::write(&self.mended, "").expect("a file");
    }

    /// What the steps have written, a line each.
    fn written(&self) -> String {
        std::fs::read_to_string(&self.witness).expect("the steps wrote")
    }
}

/// behaviours U4
#[tokio::test(flavor = "multi_thread")]
async fn i1_a_retry_survives_a_killed_scheduler_and_works_in_the_workspace_of_the_first_run() {
    let mut scene = Scene::new().await;
    let old = scene.old.clone();
    let shown = async |deployment: &Deployment| {
        (
            get(deployment, &old.id).await,
            steps(deployment, &old.id).await,
            logs(deployment, &old.id).await,
        )
    };
    let before = shown(&scene.deployment).await;
    scene.mend();

    let answer = retry(&scene.deployment, &old.id, "retry").await;
    scene.deployment.restart(Part::Scheduler);
    let deployment = &scene.deployment;
    let again = retry(deployment, &old.id, "retry").await;
    let (new, known) = (answer.run.expect("a run"), again.run.expect("a run"));
    assert!(answer.created && !again.created);
    assert_eq!(new.id, known.id, "what was acknowledged is there");
    assert_eq!(
        (&again.reused_steps, &again.rerun_steps),
        (&vec!["make".to_owned()], &vec!["use".to_owned()])
    );
    let ended = watch_to_end(deployment, &new.id).await;
    assert_eq!(ended.state(), RunState::Succeeded, "{ended:?}");
    let states: Vec<_> = steps(deployment, &new.id)
        .await
        .iter()
        .map(|step| step.state())
        .collect();
    assert_eq!(states, [StepState::Cached, StepState::Succeeded]);
    let log = logs(deployment, &new.id).await;
    assert_eq!(
        log.get("use/1"),
        Some(&vec!["made".to_owned()]),
        "the file of the first run"
    );
    assert_eq!(log.len(), 1, "{log:?}");

    assert_eq!(scene.written(), "make\nuse\nuse\n");
    let folders = std::fs::read_dir(scene.workspaces.path()).expect("the workspaces");
    let folders: Vec<_> = folders
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    assert_eq!(folders, [old.id.as_str()], "both runs have one folder");
    assert!(shown(deployment).await == before, "the old run has changed");
}

/// More commits than a retried run can take; the sweep ends by itself when a scheduler outlives its run.
const MOST_COMMITS: usize = 100;

/// Retries a run with a scheduler that dies at every one of its commits in turn: each time there is one new run, and it reuses what it should.
async fn sweep(side: &str) {
    let mut scene = Scene::new().await;
    scene.mend();
    let old = scene.old.id.clone();
    for number in 1..=MOST_COMMITS {
        let moment = format!("{side}:{number}");
        scene.deployment.become_crashing(&moment);
        scene.deployment.restart(Part::Scheduler);
        let died = {
            let outcome = async {
                let run = retry(&scene.deployment, &old, &moment).await.run.expect("a run");
                watch_to_end(&scene.deployment, &run.id).await;
            };
            let pid = scene.deployment.pid(Part::Scheduler);
            let death = until("the scheduler dies or the run ends", async || {
                if is_alive(pid) { Err("alive") } else { Ok(()) }
            });
            tokio::select! {
                () = outcome => false,
                () = death => true,
            }
        };
        if died {
            scene.deployment.become_ordinary();
            scene.deployment.restart(Part::Scheduler);
        }
        let deployment = &scene.deployment;
        let answer = retry(deployment, &old, &moment).await;
        assert_eq!(answer.reused_steps, ["make"], "{moment}");
        let ended = watch_to_end(deployment, &answer.run.expect("a run").id).await;
        assert_eq!(ended.state(), RunState::Succeeded, "{moment}: {ended:?}");
        let runs = deployment.runs().list_runs(ListRunsRequest::default()).await;
        let runs = runs.expect("listed").into_inner().runs;
        assert_eq!(runs.len(), 1 + number, "{moment}: one run for each request");
        assert_eq!(
            scene.written(),
            format!("make\n{}", "use\n".repeat(1 + number)),
            "{moment}"
        );
        if !died {
            // Its acceptance, and its end; what comes between may share a commit with them.
            assert!(number > 2, "the run took only {} commits", number - 1);
            return;
        }
    }
    panic!("the run takes more than {MOST_COMMITS} commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_the_scheduler_dies_before_every_commit_of_a_retry() {
    sweep("before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_the_scheduler_dies_after_every_commit_of_a_retry() {
    sweep("after").await;
}
