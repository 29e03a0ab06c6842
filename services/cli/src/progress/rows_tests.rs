use windlass_api::run::v1::{Attempt, FailureClass, Run};

use super::*;
use crate::client::WatchItem;

fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn step(index: u32, name: &str, source: &str, state: StepState, since: i64) -> Step {
    Step {
        name: name.to_owned(),
        index,
        source_step: source.to_owned(),
        state: state.into(),
        state_time: time(since),
        ..Step::default()
    }
}

fn attempt(number: u32, start: i64, end: Option<i64>) -> Attempt {
    Attempt {
        number,
        launch_time: time(start),
        start_time: time(start),
        end_time: end.and_then(time),
        ..Attempt::default()
    }
}

fn churn() -> Model {
    let mut extract = step(0, "extract", "extract", StepState::Succeeded, 41);
    extract.attempts = vec![attempt(1, 0, Some(41))];
    let mut steps = vec![extract];
    for fold in 0..2 {
        let mut train = step(1 + fold, &format!("train.{fold}"), "train", StepState::Succeeded, 200);
        train.attempts = vec![attempt(1, 41, Some(200))];
        steps.push(train);
    }
    let mut second = step(3, "train.2", "train", StepState::Running, 211);
    second.max_attempts = 2;
    let mut first = attempt(1, 41, Some(200));
    first.exit_code = Some(75);
    second.attempts = vec![first, attempt(2, 211, None)];
    let mut third = step(4, "train.3", "train", StepState::Starting, 169);
    third.message = "unschedulable: 0/9 nodes have a free GPU".to_owned();
    let mut fourth = step(5, "train.4", "train", StepState::Starting, 202);
    fourth.message = "pulling churn:v3".to_owned();
    fourth.deadline = time(802);
    let mut report = step(6, "report", "report", StepState::Waiting, 0);
    report.upstream = vec!["train".to_owned()];
    steps.extend([second, third, fourth, report]);
    let mut model = Model::default();
    model.apply(&WatchItem::Snapshot {
        run: Some(Box::new(Run {
            name: "churn-7k2m".to_owned(),
            namespace: "ml".to_owned(),
            cluster: "prod".to_owned(),
            submitted_by: "ana".to_owned(),
            state: RunState::Running.into(),
            create_time: time(0),
            ..Run::default()
        })),
        steps,
    });
    model.apply(&WatchItem::Synced);
    model
}

fn shown(model: &Model, now: i64, max_rows: usize) -> String {
    let now = Timestamp::from_millis(now * 1000);
    let view = View {
        max_rows,
        width: 100,
        fold: true,
    };
    let mut lines = vec![head(model)];
    lines.extend(tree(model, now, view));
    lines.push(foot(model, now));
    console::strip_ansi_codes(&lines.join("\n")).into_owned()
}

#[test]
fn a_running_pipeline_reads_as_the_interface_promises() {
    insta::assert_snapshot!(shown(&churn(), 233, 20), @r"
    run churn-7k2m on prod/ml by ana
    ✓ extract    succeeded     41s
    ● train      2/5 done    3m12s
      ● train.2  running       22s   attempt 2/2 (was exit 75)
      ◌ train.3  starting    1m04s   unschedulable: 0/9 nodes have a free GPU
      ◌ train.4  starting      31s   pulling churn:v3, fails in 9m29s
    ◌ report     waiting             after train
    3m53s · 3 done · 1 running · 2 starting · 1 waiting
    ");
}

#[test]
fn a_low_terminal_shows_what_matters_most() {
    insta::assert_snapshot!(shown(&churn(), 233, 3), @r"
    run churn-7k2m on prod/ml by ana
    ● train      2/5 done    3m12s
      ● train.2  running       22s   attempt 2/2 (was exit 75)
      ◌ train.3  starting    1m04s   unschedulable: 0/9 nodes have a free GPU
      … 3 more rows
    3m53s · 3 done · 1 running · 2 starting · 1 waiting
    ");
}

#[test]
fn a_failed_step_shows_class_exit_code_attempt_and_node() {
    let mut model = churn();
    let mut failed = step(3, "train.2", "train", StepState::Failed, 300);
    failed.max_attempts = 2;
    let mut last = attempt(2, 211, Some(300));
    last.exit_code = Some(137);
    last.node = "gpu-4".to_owned();
    last.failure_class = FailureClass::OomKilled.into();
    last.message = "limit 2Gi".to_owned();
    failed.attempts = vec![last];
    model.apply(&WatchItem::Event(Box::new(windlass_api::run::v1::RunEvent {
        sequence: 9,
        time: time(300),
        step: Some(failed),
        run: Some(Run {
            name: "churn-7k2m".to_owned(),
            state: RunState::Failed.into(),
            create_time: time(0),
            end_time: time(362),
            reason: "STEP_FAILED".to_owned(),
            message: "step train.2 failed".to_owned(),
            ..Run::default()
        }),
        ..Default::default()
    })));
    let now = Timestamp::from_millis(400_000);
    let text = console::strip_ansi_codes(&verdict(&model, now)).into_owned();
    assert_eq!(text, "run churn-7k2m FAILED after 6m02s: 3 succeeded, 1 failed");
    assert!(
        shown(&model, 400, 20).contains("✗ train.2  FAILED OOM_KILLED  exit 137 · attempt 2/2 · gpu-4 · limit 2Gi"),
        "{}",
        shown(&model, 400, 20)
    );
}

#[test]
fn an_event_that_changes_nothing_is_not_told() {
    let mut model = churn();
    let mut event = windlass_api::run::v1::RunEvent {
        sequence: 8,
        time: time(240),
        step: Some(step(4, "train.3", "train", StepState::Running, 240)),
        ..Default::default()
    };
    let change = model.apply(&WatchItem::Event(Box::new(event.clone())));
    assert_eq!(change.map(|change| change.index), Some(4));
    event.sequence = 9;
    assert_eq!(model.apply(&WatchItem::Event(Box::new(event))), None);
}

#[test]
fn a_retried_run_shows_which_steps_it_reuses() {
    let mut model = Model::default();
    let mut reused = step(0, "extract", "extract", StepState::Cached, 0);
    reused.message = "reused from churn-5d3x".to_owned();
    let mut steps = vec![reused.clone()];
    for fold in 0..2 {
        let index = 1 + fold;
        steps.push(Step {
            name: format!("train.{fold}"),
            source_step: "train".to_owned(),
            index,
            ..reused.clone()
        });
    }
    steps[2].state = StepState::Running.into();
    steps[2].attempts = vec![attempt(1, 2, None)];
    model.apply(&WatchItem::Snapshot {
        run: Some(Box::new(Run {
            name: "churn-7k2m".to_owned(),
            namespace: "ml".to_owned(),
            create_time: time(0),
            retry_of: Some(windlass_api::run::v1::RunReference {
                name: "churn-5d3x".to_owned(),
                ..Default::default()
            }),
            ..Run::default()
        })),
        steps,
    });
    model.apply(&WatchItem::Synced);
    insta::assert_snapshot!(shown(&model, 5, 20), @r"
    run churn-7k2m on ml, retries churn-5d3x
    ✓ extract    cached              reused from churn-5d3x
    ● train      1/2 done       3s
      ● train.1  running        3s
    5s · 2 done · 1 running
    ");
}
