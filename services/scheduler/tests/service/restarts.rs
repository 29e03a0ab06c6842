//! The scheduler ends and begins again on the same data: behaviours E2, U1, U4.

use windlass_api::run::v1::{ListStepsRequest, RunState, StepState};

use crate::executor::{Executor, Identity, Play};
use crate::support::{Scheduler, Stage, config, ended, eventually, pipeline, submission};

/// behaviours E2, M3, U1, U4
#[tokio::test]
async fn i1_i6_a_run_in_flight_goes_on_after_a_restart_and_no_attempt_is_launched_twice() {
    let stage = Stage::new(|step, _| if step == "b" { Play::Hold } else { Play::Succeed }).await;
    let run = stage
        .submit("r1", pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]))
        .await;
    stage.step_in(&run, "b", StepState::Running).await;
    let Stage {
        scheduler,
        executor,
        playing,
        data,
    } = stage;
    scheduler.stop().await;
    playing.await.expect("no panic").expect_err("the scheduler went away");
    let inventories = executor.seen().inventories;

    let scheduler = Scheduler::start(config(data.path())).await;
    let playing = executor.spawn(&scheduler);
    let mut runs = scheduler.runs();
    let again = runs
        .submit_run(submission("r1", pipeline(&[("a", &[]), ("b", &["a"]), ("c", &["b"])])))
        .await;
    assert!(!again.expect("known").into_inner().created, "the request is remembered");
    eventually("the inventory", || async {
        (executor.seen().inventories > inventories).then_some(())
    })
    .await;
    let steps = runs.list_steps(ListStepsRequest {
        namespace: "ml".to_owned(),
        run: run.id.clone(),
        ..ListStepsRequest::default()
    });
    let steps = steps.await.expect("listed").into_inner().steps;
    let graph: Vec<_> = steps
        .iter()
        .map(|step| (step.state(), step.upstream.join(" ")))
        .collect();
    assert_eq!(
        graph,
        [
            (StepState::Succeeded, String::new()),
            (StepState::Running, "a".to_owned()),
            (StepState::Waiting, "b".to_owned()),
        ]
    );
    // The pod of b ends well now.
    let key = executor.seen().launches[1].0.clone();
    executor.finish(&key).await;
    let ended = ended(&mut runs, &run.name).await;
    assert_eq!(ended.state(), RunState::Succeeded);
    let launched: Vec<String> = executor
        .seen()
        .launches
        .iter()
        .map(|(_, step, _)| step.clone())
        .collect();
    assert_eq!(launched, ["a", "b", "c"]);
    let epochs: Vec<u64> = executor.seen().welcomes.iter().map(|welcome| welcome.epoch).collect();
    assert!(epochs[1] > epochs[0], "{epochs:?}");
    playing.abort();
}

#[tokio::test]
async fn i1_pods_that_ended_before_a_restart_are_released_after_it() {
    // The relay never says that the logs are sealed, so that the pod is kept until the restart.
    let data = tempfile::tempdir().expect("a folder");
    let mut keeping = config(data.path());
    keeping.seal_deadline = std::time::Duration::from_secs(600);
    let stage = Stage::with(data, keeping, |_, _| Play::Succeed).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.ended(&run).await;
    assert!(stage.executor.seen().releases.is_empty());
    let Stage {
        scheduler,
        executor,
        playing,
        data,
    } = stage;
    scheduler.stop().await;
    playing.await.expect("no panic").expect_err("the scheduler went away");

    let scheduler = Scheduler::start(config(data.path())).await;
    let playing = executor.spawn(&scheduler);
    eventually("the release", || async {
        (executor.seen().releases.len() == 1).then_some(())
    })
    .await;
    eventually("the end of the run's objects", || async {
        (executor.seen().finished.len() == 1).then_some(())
    })
    .await;
    playing.abort();
}

#[tokio::test]
async fn i6_objects_of_a_run_that_ended_before_a_restart_are_let_go_after_it() {
    let stage = Stage::new(|_, _| Play::Succeed).await;
    let run = stage.submit("r1", pipeline(&[("a", &[])])).await;
    stage.ended(&run).await;
    let finished = |executor: &Executor| executor.seen().finished.len();
    eventually("the end of the run's objects", || async {
        (finished(&stage.executor) == 1).then_some(())
    })
    .await;
    let Stage {
        scheduler,
        executor,
        playing,
        data,
    } = stage;
    scheduler.stop().await;
    playing.await.expect("no panic").expect_err("the scheduler went away");
    // As if the executor had been killed before it carried the order out.
    let scheduler = Scheduler::start(config(data.path())).await;
    let playing = executor.spawn(&scheduler);
    eventually("the order again", || async { (finished(&executor) == 2).then_some(()) }).await;
    playing.abort();
}

#[tokio::test]
async fn i1_a_run_that_was_accepted_without_an_executor_is_run_by_the_next_scheduler() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let submitted = scheduler
        .runs()
        .submit_run(submission("r1", pipeline(&[("a", &[])])))
        .await;
    let run = submitted.expect("accepted").into_inner().run.expect("a run");
    scheduler.stop().await;
    let scheduler = Scheduler::start(config(data.path())).await;
    let executor = Executor::new(Identity::new(1), |_, _| Play::Succeed);
    let playing = executor.spawn(&scheduler);
    assert_eq!(
        ended(&mut scheduler.runs(), &run.name).await.state(),
        RunState::Succeeded
    );
    playing.abort();
}
