//! ExplainRun over the wire; the texts themselves are golden in the library.

use std::time::{Duration, SystemTime};

use windlass_api::pipeline::v1 as wire;
use windlass_api::run::v1 as run;

use crate::executor::Play;
use crate::support::{Scheduler, Stage, config, pipeline, submission};

pub(crate) async fn explain(scheduler: &Scheduler, run: &str, step: &str) -> Vec<run::Explanation> {
    let request = run::ExplainRunRequest {
        namespace: "ml".to_owned(),
        run: run.to_owned(),
        step: step.to_owned(),
    };
    let explained = scheduler.runs().explain_run(request).await;
    explained.expect("explained").into_inner().explanations
}

/// behaviours T11, E5, U8
#[tokio::test]
async fn i10_a_run_without_an_executor_says_so() {
    let data = tempfile::tempdir().expect("a folder");
    let scheduler = Scheduler::start(config(data.path())).await;
    let submitted = scheduler
        .runs()
        .submit_run(submission("r1", pipeline(&[("a", &[]), ("b", &["a"])])))
        .await;
    let run = submitted.expect("accepted").into_inner().run.expect("a run");
    let all = explain(&scheduler, &run.name, "").await;
    let shown: Vec<_> = all
        .iter()
        .map(|line| (line.step.as_str(), line.blocker.as_str()))
        .collect();
    assert_eq!(shown, [("", "STEPS"), ("a", "NO_EXECUTOR"), ("b", "UPSTREAM")]);
    assert!(all.iter().all(|line| line.since.is_some() && line.waited.is_some()));
    let one = explain(&scheduler, &run.name, "b").await;
    assert_eq!((one.len(), one[0].message.as_str()), (1, "waits for a"));
}

#[tokio::test]
async fn i10_a_pod_without_a_node_says_why_until_when_and_what_follows() {
    let stage = Stage::new(|_, _| Play::Unschedulable).await;
    let run = stage.submit("r1", pipeline(&[("train", &[])])).await;
    let line = crate::support::eventually("the reason", || async {
        let mut all = explain(&stage.scheduler, &run.name, "train").await;
        let line = all.remove(0);
        (line.blocker == "UNSCHEDULABLE").then_some(line)
    })
    .await;
    assert_eq!(
        line.message,
        "its pod has no node (Unschedulable): 0/9 nodes have a free GPU"
    );
    assert_eq!(line.then, "the attempt is stopped and fails with STARTUP_TIMEOUT");
    assert!(line.until.is_some() && !line.suggestion.is_empty());
}

fn between(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> Duration {
    let time = |at: Option<prost_types::Timestamp>| SystemTime::try_from(at.expect("a time")).expect("a time");
    time(to).duration_since(time(from)).expect("later")
}

/// behaviours S8, M7, M8: a wait is as long as its deadline says, and is told before and after.
#[tokio::test]
async fn i10_a_pod_that_gets_no_node_in_time_fails_its_step() {
    let stage = Stage::new(|_, _| Play::Unschedulable).await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let mut bounded = pipeline(&[("train", &[])]);
    bounded.steps[0].deadlines = Some(wire::Deadlines {
        created: seconds(900),
        scheduled: seconds(1),
        pulling: seconds(900),
        initialising: seconds(900),
        ..wire::Deadlines::default()
    });
    bounded.steps[0].retries = Some(wire::Retries {
        infrastructure: Some(wire::RetryBudget {
            attempts: Some(1),
            ..wire::RetryBudget::default()
        }),
        ..wire::Retries::default()
    });
    let run = stage.submit("r1", bounded).await;
    let line = crate::support::eventually("the reason", || async {
        let mut all = explain(&stage.scheduler, &run.name, "train").await;
        let line = all.remove(0);
        (line.blocker == "UNSCHEDULABLE").then_some(line)
    })
    .await;
    assert_eq!(between(line.since, line.until), Duration::from_secs(1), "{line:?}");
    let ended = stage.ended(&run).await;
    assert_eq!(ended.state(), run::RunState::Failed);
    let steps = stage.steps(&run).await;
    let attempt = steps[0].attempts.last().expect("an attempt");
    assert_eq!(attempt.failure_class(), run::FailureClass::StartupTimeout);
    assert!(
        attempt
            .message
            .starts_with("its pod got no node within 1s (deadlines.scheduled)"),
        "{attempt:?}"
    );
    assert!(!stage.executor.seen().stops.is_empty(), "its pod was stopped");
}

/// behaviours C6, D7, X4
#[tokio::test]
async fn starts_of_a_run_are_as_far_apart_as_its_pipeline_says() {
    let stage = Stage::new(|_, _| Play::Hold).await;
    let mut paced = pipeline(&[("a", &[]), ("b", &[])]);
    let hour = Duration::from_secs(3600);
    paced.start_interval = Some(hour.try_into().expect("a duration"));
    let run = stage.submit("r1", paced).await;
    let first = stage.step_in(&run, "a", run::StepState::Running).await;
    let line = explain(&stage.scheduler, &run.name, "b").await.remove(0);
    assert_eq!((line.state.as_str(), line.blocker.as_str()), ("READY", "PACING"));
    assert_eq!(between(first.attempts[0].launch_time, line.until), hour);
    assert_eq!(stage.executor.seen().launches.len(), 1);

    let short = Duration::from_millis(200);
    let mut paced = pipeline(&[("a", &[]), ("b", &[]), ("c", &[])]);
    paced.start_interval = Some(short.try_into().expect("a duration"));
    let run = stage.submit("r2", paced).await;
    let mut starts = Vec::new();
    for step in ["a", "b", "c"] {
        let step = stage.step_in(&run, step, run::StepState::Running).await;
        starts.push(step.attempts[0].launch_time);
    }
    for pair in starts.windows(2) {
        let pause = between(pair[0], pair[1]);
        assert!(pause >= short, "{pause:?}");
    }
}

#[tokio::test]
async fn an_ended_step_says_how_it_ended() {
    let stage = Stage::new(|_, _| Play::Fail(3)).await;
    let run = stage.submit("r1", pipeline(&[("train", &[])])).await;
    stage.ended(&run).await;
    let all = explain(&stage.scheduler, &run.name, "train").await;
    assert_eq!(
        (all[0].state.as_str(), all[0].message.as_str()),
        ("FAILED", "USER_ERROR: exit code 3")
    );
    assert_eq!(
        all[0].suggestion,
        format!("see its output: windlass logs {} train", run.name)
    );
}
