//! Pods that appear late, are gone, or whose end was not seen: what counts as proof of death (I2).

mod support;

use support::{Lab, attempt, incarnation, parameters, pod, steps};
use windlass_scheduling::AttemptPhase::{Absent, Created, Ended, Running, Scheduled, Unreachable};
use windlass_scheduling::*;

/// A step whose user budget allows a retry, launched.
fn retrying() -> Lab {
    let mut lab = Lab::with_executor();
    let mut policy = StepPolicy::default();
    policy.user.attempts = 2;
    lab.submit(parameters(1), vec![policy], steps(&[&[]]));
    lab.effects.clear();
    lab
}

/// The stops and releases since last time.
fn orders(lab: &mut Lab) -> Vec<String> {
    let effects = std::mem::take(&mut lab.effects);
    let order = |effect| match effect {
        Effect::Stop {
            attempt, pod, cause, ..
        } => Some(format!(
            "stop {}/{} {} {cause}",
            attempt.step,
            attempt.number,
            pod.is_some()
        )),
        Effect::AttemptFinished { attempt, pod, .. } => {
            Some(format!("let go {}/{} {}", attempt.step, attempt.number, pod.is_some()))
        }
        _ => None,
    };
    effects.into_iter().filter_map(order).collect()
}

#[test]
fn i2_a_pod_that_appears_after_its_attempt_is_stopped_before_it_may_go() {
    let mut lab = retrying();
    lab.seconds(1800);
    let mut gone = lab.seen(0, 1, Absent);
    (gone.pod, gone.grant, gone.terminating) = (None, 1, true);
    lab.observe(1, gone);
    lab.seconds(20);
    assert_eq!(lab.step(0).number, 2);
    lab.effects.clear();
    lab.sees(0, 1, Created);
    assert_eq!(orders(&mut lab), ["stop 0/1 true ENDED"]);
    lab.sees(0, 1, Running);
    assert_eq!(orders(&mut lab), ["stop 0/1 true ENDED"]);
    lab.fails(0, 1, FailureClass::PodDeleted, Some(143));
    assert_eq!(orders(&mut lab), ["let go 0/1 true"]);
    assert_eq!(lab.step(0).number, 2);
}

#[test]
fn a_pod_of_an_ended_step_that_nobody_can_reach_is_stopped_and_let_go() {
    let mut lab = retrying();
    lab.succeeds(0, 1);
    lab.effects.clear();
    lab.sees(0, 1, Unreachable);
    assert_eq!(orders(&mut lab), ["stop 0/1 true ENDED", "let go 0/1 true"]);
}

#[test]
fn i2_a_pod_is_kept_until_what_is_left_of_it_is_dead() {
    let mut lab = retrying();
    let mut end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end.clone());
    assert_eq!(orders(&mut lab), ["stop 0/1 true ENDED"]);
    end.proof_of_death = true;
    lab.ends(0, 1, end);
    assert_eq!(orders(&mut lab), ["let go 0/1 true"]);
}

#[test]
fn i2_what_failed_before_it_ran_is_stopped_so_that_it_does_not_run_after_all() {
    let mut lab = retrying();
    let mut end = AttemptEnd::failure(FailureClass::Image, None, lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end);
    assert_eq!(lab.step(0).state, StepState::Failed);
    assert_eq!(orders(&mut lab), ["stop 0/1 true ENDED", "let go 0/1 true"]);
}

#[test]
fn what_is_left_of_a_pod_whose_main_container_failed_for_good_goes_with_its_release() {
    let mut lab = retrying();
    lab.fails(0, 1, FailureClass::UserError, Some(1));
    lab.seconds(60);
    lab.effects.clear();
    let mut end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end.proof_of_death = false;
    lab.ends(0, 2, end);
    assert_eq!(lab.step(0).state, StepState::Failed);
    assert_eq!(orders(&mut lab), ["let go 0/2 true"]);
}

#[test]
fn a_pod_that_is_kept_for_its_proof_may_go_when_its_step_is_cancelled() {
    let mut lab = retrying();
    let mut end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end);
    lab.effects.clear();
    lab.cancel();
    assert_eq!(orders(&mut lab), ["let go 0/1 true"]);
    assert_eq!(lab.run().state, RunState::Cancelled);
}

#[test]
fn i2_the_absence_of_a_pod_that_existed_is_no_proof_of_death() {
    let mut lab = retrying();
    lab.sees(0, 1, Running);
    lab.news();
    lab.sees(0, 1, Absent);
    assert_eq!(
        lab.blocker(0),
        Blocker::LostContact {
            attempt: attempt(1, 0, 1),
            cause: LostCause::Vanished,
            node: None,
            clock_runs: true
        }
    );
    lab.seconds(15 * 60);
    insta::assert_snapshot!(lab.news(), @r"
    7 +0 0/1 contact lost: POD_VANISHED
    8 +900000 0/1 NODE_LOST -> FAILED
    9 +900000 run ended: FAILED STEP_FAILED
    ");
    lab.assert_replays();
}

#[test]
fn i2_a_pod_that_vanished_without_proof_is_not_replaced() {
    let mut lab = retrying();
    let mut end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end);
    lab.effects.clear();
    lab.sees(0, 1, Absent);
    assert_eq!(lab.state(0), StepState::LostContact);
    lab.seconds(60);
    assert_eq!(lab.launched(), []);
    lab.handle(Event::DeadConfirmed {
        attempt: attempt(1, 0, 1),
        by: "ana".into(),
    });
    lab.seconds(20);
    assert_eq!(lab.launched(), [(1, 0, 2)]);
    lab.assert_replays();
}

#[test]
fn i3_a_pod_that_was_not_found_and_is_there_regains_contact() {
    let mut lab = retrying();
    lab.sees(0, 1, Running);
    lab.sees(0, 1, Absent);
    assert_eq!(lab.state(0), StepState::LostContact);
    lab.sees(0, 1, Running);
    assert_eq!(lab.state(0), StepState::Running);
}

#[test]
fn an_absence_that_comes_with_proof_of_death_is_an_end() {
    let mut lab = retrying();
    lab.sees(0, 1, Scheduled);
    lab.news();
    let mut gone = lab.seen(0, 1, Absent);
    gone.end = Some(AttemptEnd::failure(FailureClass::NodeLost, None, lab.now));
    lab.observe(1, gone);
    assert_eq!(lab.news(), "7 +0 0/1 NODE_LOST -> RETRY INFRASTRUCTURE 1/5\n");
}

#[test]
fn i2_a_pod_that_was_created_and_went_unreported_is_not_started_again() {
    let mut lab = retrying();
    lab.news();
    let mut gone = lab.seen(0, 1, Absent);
    gone.grant = 1;
    lab.observe(1, gone);
    assert_eq!(lab.launched(), [], "its first pod may have run");
    insta::assert_snapshot!(lab.news(), @r"
    5 +0 0/1 created
    6 +0 0/1 contact lost: POD_VANISHED
    ");
    lab.assert_replays();
}

#[test]
fn i2_a_pod_that_another_executor_may_have_created_is_remembered_before_the_fence_ends() {
    let mut lab = retrying();
    lab.connect(2, 1000);
    lab.handle(Event::ExecutorDraining {
        incarnation: incarnation(1),
    });
    lab.inventory(2, 0, vec![], vec![]);
    let launch = lab.launches().pop().expect("posted again");
    assert_eq!((launch.to, launch.grant), (incarnation(2), 2));
    let mut gone = lab.seen(0, 1, Absent);
    gone.grant = 2;
    lab.observe(2, gone.clone());
    gone.pod = None;
    lab.seconds(200);
    lab.observe(2, gone);
    assert_eq!(lab.launched(), []);
    assert_eq!(lab.state(0), StepState::LostContact);
}

#[test]
fn i2_absence_without_the_current_grant_says_nothing() {
    let mut lab = retrying();
    let mut gone = Observation::new(attempt(1, 0, 1), 0, None, Absent);
    lab.observe(1, gone.clone());
    assert_eq!(lab.launched(), []);
    gone.grant = 1;
    lab.observe(1, gone);
    assert_eq!(
        lab.launched(),
        [(1, 0, 1)],
        "it was never created, so it is posted again"
    );
}

#[test]
fn another_pod_under_the_name_of_an_attempt_is_not_taken_for_it() {
    let mut lab = retrying();
    lab.sees(0, 1, Running);
    lab.effects.clear();
    let mut other = lab.seen(0, 1, Ended);
    other.pod = Some(pod(99));
    other.end = Some(AttemptEnd::success(lab.now));
    lab.observe(1, other);
    assert_eq!(lab.state(0), StepState::Running);
    assert!(matches!(
        lab.effects[..],
        [Effect::PodUnexplained { ended: true, .. }, Effect::Probe { .. }]
    ));
}

#[test]
fn an_end_tells_when_its_container_started() {
    let mut lab = retrying();
    lab.sees(0, 1, Created);
    let mut seen = lab.seen(0, 1, Ended);
    (seen.started_at, seen.end) = (Some(lab.now), Some(AttemptEnd::success(lab.now)));
    let started = lab.now;
    lab.observe(1, seen);
    let told = lab
        .changes
        .iter()
        .any(|change| matches!(change.kind, ChangeKind::AttemptRunning { started_at, .. } if started_at == started));
    assert!(told, "{:?}", lab.changes);
    assert_eq!(lab.step(0).state, StepState::Succeeded);
}
