//! The scheduler dies before and after every commit of a small run, is started again, and the run ends as if nothing had happened.

use std::collections::BTreeMap;

use serde_json::json;
use windlass_api::run::v1::{RunState, StepState};
use windlass_tests::binaries::binary;
use windlass_tests::client::{get, logs, steps, submit, watch_to_end};
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::wait::{is_alive, until};

/// More commits than the run can take; the sweep ends by itself when a scheduler outlives its run.
const MOST_COMMITS: u64 = 200;

/// Two steps in a row, the first of which succeeds at its second attempt.
fn pipeline(witness: &std::path::Path) -> windlass_pipeline::Pipeline {
    let write = format!("echo \"$WINDLASS_STEP $WINDLASS_ATTEMPT\" >> {}", witness.display());
    from_json(json!({
        "name": "small",
        "defaults": {"image": "busybox"},
        "steps": [
            {
                "name": "first",
                "script": format!("{write}; [ \"$WINDLASS_ATTEMPT\" = 2 ]"),
                "retries": {"user": {"attempts": 2, "delay": "10ms"}},
            },
            {"name": "second", "upstream": ["first"], "script": format!("{write}; echo done")},
        ],
    }))
}

/// Runs it with a scheduler that dies at one commit; whether it died before the run was over.
async fn survive(moment: &str) -> bool {
    let options = Options {
        scheduler: Some(binary("crashing-scheduler")),
        scheduler_env: BTreeMap::from([("WINDLASS_CRASH".to_owned(), moment.to_owned())]),
        ..Options::default()
    };
    let mut deployment = Deployment::start(options).await;
    let witness = deployment.folder().join("witness");
    let pipeline = pipeline(&witness);
    let (run, died) = {
        let outcome = async {
            let run = submit(&deployment, &pipeline, "small").await.name;
            watch_to_end(&deployment, &run).await;
            run
        };
        let pid = deployment.pid(Part::Scheduler);
        let death = until("the scheduler dies or the run ends", async || {
            if is_alive(pid) { Err("alive") } else { Ok(()) }
        });
        tokio::select! {
            run = outcome => (Some(run), false),
            () = death => (None, true),
        }
    };
    if died {
        deployment.become_ordinary();
        deployment.restart(Part::Scheduler);
    }
    let run = match run {
        Some(run) => run,
        None => submit(&deployment, &pipeline, "small").await.name,
    };
    let ended = watch_to_end(&deployment, &run).await;
    assert_eq!(ended.state(), RunState::Succeeded, "{moment}: {ended:?}");
    let steps = steps(&deployment, &run).await;
    assert!(
        steps.iter().all(|step| step.state() == StepState::Succeeded),
        "{moment}: {steps:?}"
    );
    let written = std::fs::read_to_string(&witness).expect("the steps wrote");
    assert_eq!(
        written, "first 1\nfirst 2\nsecond 1\n",
        "{moment}: every attempt started once"
    );
    assert_eq!(
        logs(&deployment, &run).await.get("second/1"),
        Some(&vec!["done".to_owned()]),
        "{moment}"
    );
    assert_eq!(get(&deployment, &run).await.state(), RunState::Succeeded);
    died
}

async fn sweep(side: &str) {
    for number in 1..=MOST_COMMITS {
        if !survive(&format!("{side}:{number}")).await {
            println!("{side}: {} commits", number - 1);
            assert!(number > 5, "the run took only {number} commits");
            return;
        }
    }
    panic!("the run takes more than {MOST_COMMITS} commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_the_scheduler_dies_before_every_commit() {
    sweep("before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_the_scheduler_dies_after_every_commit() {
    sweep("after").await;
}
