//! ExplainRun over the wire; the texts themselves are golden in the library.

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
