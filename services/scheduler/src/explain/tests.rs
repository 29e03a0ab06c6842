//! Golden texts: the blocker, since when, until when, what follows, what to do.

use windlass_ids::{ClusterAlias, Incarnation, StepIndex};
use windlass_scheduling::{Blocker, Consequence, Explanation, FailureClass, LostCause, RunState, StepState, StopCause};

use super::explain;
use crate::testing::{at, attempt, meta};

const FILE: &str = "
name: churn
defaults: {image: 'churn:v3', command: ['true']}
steps:
  - {name: extract}
  - {name: load}
  - {name: clean}
  - {name: join}
  - {name: train, upstream: [extract, load, clean, join]}
";

/// The explanation of step 4, 30 s after it began to wait, as a person reads it.
fn text(state: StepState, blocker: Blocker, until: Option<(i64, Consequence)>) -> String {
    let explanation = Explanation {
        step: Some(StepIndex(4)),
        step_state: Some(state),
        run_state: RunState::Running,
        blocker: Some(blocker),
        since: at(0),
        until: until.map(|(seconds, _)| at(seconds)),
        then: until.map(|(_, then)| then),
    };
    let text = explain(&meta(FILE), &explanation, &|_| "exec-1".to_owned());
    let until = text.until.map(|until| {
        format!(
            "for {} s at most, then: {}",
            until.since(text.since).as_secs(),
            text.then
        )
    });
    [
        format!("{} {} {}", text.step, text.state, text.blocker),
        text.message,
        until.unwrap_or_else(|| "without a bound".to_owned()),
        text.suggestion,
    ]
    .join("\n")
}

fn executor() -> Incarnation {
    Incarnation::from_bytes([1; 16])
}

#[test]
fn i10_upstream() {
    let steps = (0..4).map(StepIndex).collect();
    insta::assert_snapshot!(text(StepState::Waiting, Blocker::Upstream { steps, count: 4 }, None), @r"
    train WAITING UPSTREAM
    waits for extract, load, clean and 1 more
    without a bound
    windlass explain churn-7k2m extract
    ");
}

#[test]
fn i10_parallelism() {
    let blocker = Blocker::Parallelism { limit: 8, running: 8 };
    insta::assert_snapshot!(text(StepState::Ready, blocker, Some((7200, Consequence::RunFails))), @r"
    train READY PARALLELISM
    8 steps of this run are live, and maxParallelism allows 8
    for 7200 s at most, then: the run is stopped and fails (its timeout)
    raise maxParallelism in the pipeline, or wait for a step to end
    ");
}

#[test]
fn i10_pacing() {
    let blocker = Blocker::Pacing { until: at(60) };
    insta::assert_snapshot!(text(StepState::Ready, blocker, Some((60, Consequence::Starts))), @r"
    train READY PACING
    startInterval of this run has not passed since its last start
    for 60 s at most, then: it may start
    lower startInterval in the pipeline to start steps faster
    ");
}

#[test]
fn i10_no_executor() {
    let of = |alias: Option<&str>| Blocker::NoExecutor {
        alias: alias.map(ClusterAlias::from),
    };
    insta::assert_snapshot!(text(StepState::Ready, of(Some("prod")), Some((86_400, Consequence::NotAdmitted))), @r"
    train READY NO_EXECUTOR
    no executor of cluster prod is connected
    for 86400 s at most, then: the step fails with NOT_ADMITTED
    start an executor for cluster prod, or check the pipeline's `cluster`
    ");
    insta::assert_snapshot!(text(StepState::Ready, of(None), None), @r"
    train READY NO_EXECUTOR
    no executor is connected
    without a bound
    start an executor (windlass-executor), or check its log for why it cannot connect
    ");
}

#[test]
fn i10_no_credit() {
    let blocker = Blocker::NoCredit {
        executor: executor(),
        outstanding: 512,
    };
    insta::assert_snapshot!(text(StepState::Ready, blocker, None), @r"
    train READY NO_CREDIT
    executor exec-1 takes no more: 512 launches are not acknowledged
    without a bound
    it goes on by itself; start more executors when this lasts
    ");
}

#[test]
fn i10_unschedulable() {
    let blocker = Blocker::Unschedulable {
        reason: "Unschedulable".into(),
        message: "0/9 nodes have a free GPU".into(),
    };
    let then = Consequence::AttemptFails(FailureClass::StartupTimeout);
    insta::assert_snapshot!(text(StepState::Starting, blocker, Some((600, then))), @r"
    train STARTING UNSCHEDULABLE
    its pod has no node (Unschedulable): 0/9 nodes have a free GPU
    for 600 s at most, then: the attempt is stopped and fails with STARTUP_TIMEOUT
    compare the step's resources, nodeSelector and tolerations with the nodes that are there
    ");
}

#[test]
fn i10_image() {
    let blocker = Blocker::Image {
        reason: "ImagePullBackOff".into(),
        message: "churn:v3: not found".into(),
    };
    let then = Consequence::AttemptFails(FailureClass::Image);
    insta::assert_snapshot!(text(StepState::Starting, blocker, Some((569, then))), @r"
    train STARTING IMAGE
    its image is being pulled (ImagePullBackOff): churn:v3: not found
    for 569 s at most, then: the attempt is stopped and fails with IMAGE
    check the image's name and the pull secrets when this lasts
    ");
}

#[test]
fn i10_retry_delay() {
    let blocker = Blocker::RetryDelay {
        failed: 1,
        class: Some(FailureClass::UserError),
    };
    insta::assert_snapshot!(text(StepState::RetryWait, blocker, Some((10, Consequence::Starts))), @r"
    train RETRY_WAIT RETRY_DELAY
    attempt 1 failed (USER_ERROR); the next one waits for its delay
    for 10 s at most, then: it may start
    see why it failed: windlass logs churn-7k2m train
    ");
}

#[test]
fn i10_lost_contact() {
    let blocker = |cause, clock_runs| Blocker::LostContact {
        attempt: attempt(4, 2),
        cause,
        node: Some("gpu-4".into()),
        clock_runs,
    };
    let unreachable = blocker(LostCause::Unreachable, true);
    insta::assert_snapshot!(text(StepState::LostContact, unreachable, Some((900, Consequence::StepFails))), @r"
    train LOST_CONTACT LOST_CONTACT
    nobody can say whether the pod of attempt 2 on node gpu-4 lives
    for 900 s at most, then: the step fails with NODE_LOST
    if you know that it is dead: windlass confirm-dead churn-7k2m train
    ");
    let stopped = blocker(LostCause::StopNotObeyed, true);
    insta::assert_snapshot!(text(StepState::LostContact, stopped, Some((900, Consequence::StepFails))), @r"
    train LOST_CONTACT LOST_CONTACT
    the pod of attempt 2 on node gpu-4 was told to stop and was not seen to end
    for 900 s at most, then: the step fails with NODE_LOST
    if you know that it is dead: windlass confirm-dead churn-7k2m train
    ");
    let vanished = blocker(LostCause::Vanished, false);
    insta::assert_snapshot!(text(StepState::LostContact, vanished, None), @r"
    train LOST_CONTACT LOST_CONTACT
    the pod of attempt 2 on node gpu-4 is gone from the API server, and its processes may live; the clock of its deadline stands still, because no executor sees the cluster
    without a bound
    if you know that it is dead: windlass confirm-dead churn-7k2m train
    ");
}

#[test]
fn i10_terminating_and_refused() {
    let stopping = Blocker::Terminating {
        cause: StopCause::RunCancelled,
    };
    insta::assert_snapshot!(text(StepState::Running, stopping, Some((330, Consequence::ContactLost))), @r"
    train RUNNING TERMINATING
    is being stopped: the run was cancelled
    for 330 s at most, then: the attempt counts as out of contact
    ");
    let refused = Blocker::Refused {
        reason: "Forbidden".into(),
        message: "exceeded quota: team".into(),
    };
    insta::assert_snapshot!(text(StepState::Starting, refused, None), @r"
    train STARTING REFUSED
    the API server refuses its pod for now (Forbidden): exceeded quota: team
    without a bound
    fix the quota, webhook or rights that the message names; it is tried again by itself
    ");
}

#[test]
fn i10_a_run_waits_for_its_steps() {
    let mut counts = [0; StepState::SLOTS];
    counts[usize::from(StepState::Ready.code())] = 2;
    counts[usize::from(StepState::Running.code())] = 1;
    counts[usize::from(StepState::Succeeded.code())] = 9;
    let blocker = Blocker::Steps {
        counts,
        longest: Some(StepIndex(0)),
    };
    insta::assert_snapshot!(text(StepState::Running, blocker, None), @r"
    train RUNNING STEPS
    waits for its steps: 2 ready, 1 running; extract has waited longest
    without a bound
    windlass explain churn-7k2m extract
    ");
}
