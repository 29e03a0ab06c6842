//! The thinnest path: a run of one step is submitted, committed, dispatched and ended.

use crate::executor::{Executor, Identity, Play};
use crate::support::{Scheduler, config, ended, eventually, pipeline, submission};
use windlass_api::run::v1::{RunState, StepState};

/// behaviours T9
#[tokio::test]
async fn i1_i5_a_run_of_one_step_is_committed_dispatched_and_ends() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::new(Identity::new(1), |_, _| Play::Succeed);
    let playing = tokio::spawn({
        let (executor, channel) = (executor.clone(), scheduler.channel());
        async move { executor.run(channel).await }
    });

    let mut runs = scheduler.runs();
    let submitted = runs.submit_run(submission("r1", pipeline(&[("extract", &[])]))).await;
    let submitted = submitted.expect("accepted").into_inner();
    assert!(submitted.created);
    let run = submitted.run.expect("a run");
    assert_eq!(run.submitted_by, "ana");
    assert!(run.name.starts_with("churn-"), "{}", run.name);
    assert_eq!(run.resource_name, format!("namespaces/ml/runs/{}", run.name));

    let run = ended(&mut runs, &run.name).await;
    assert_eq!(run.state(), RunState::Succeeded);
    assert_eq!(run.reason, "COMPLETED");
    assert_eq!(run.step_counts.len(), 1);
    assert_eq!(run.step_counts[0].state(), StepState::Succeeded);
    eventually("the release", || async {
        (executor.seen().releases.len() == 1).then_some(())
    })
    .await;
    let seen = executor.seen().launches.clone();
    assert_eq!(seen.len(), 1, "one launch");
    assert_eq!(seen[0].1, "extract");

    scheduler.stop().await;
    playing.await.expect("no panic").expect_err("the scheduler went away");
}
