//! Stops: of runs, by failure modes, and those that are not obeyed (I2, I5, I10).

mod support;

use std::time::Duration;

use support::{Lab, parameters, steps};
use windlass_scheduling::AttemptPhase::{Ended, Running, Unreachable};
use windlass_scheduling::*;

/// Two independent steps whose user budget allows retries.
fn submit_retrying(lab: &mut Lab, failure_mode: FailureMode) {
    let mut policy = StepPolicy::default();
    policy.user.attempts = 3;
    let mut last = StepPolicy::default();
    last.user.attempts = 1;
    let mut steps = steps(&[&[], &[]]);
    steps[1].policy = 1;
    let mut parameters = parameters(1);
    parameters.failure_mode = failure_mode;
    lab.submit(parameters, vec![policy, last], steps);
    lab.effects.clear();
}

/// Attempt 1 of step 0 fails while something of its pod lives, and that is not seen to end.
fn fail_without_proof(lab: &mut Lab) {
    let mut end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end);
    assert_eq!(lab.state(0), StepState::RetryWait);
}

fn prove(lab: &mut Lab) {
    let end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    lab.ends(0, 1, end);
}

#[test]
fn i2_a_cancelled_run_launches_no_replacement_when_death_is_proven_late() {
    let mut lab = Lab::with_executor();
    submit_retrying(&mut lab, FailureMode::ContinueOnFailure);
    fail_without_proof(&mut lab);
    lab.seconds(400);
    assert_eq!(lab.state(0), StepState::LostContact);
    lab.effects.clear();
    lab.cancel();
    assert_eq!(lab.state(0), StepState::Cancelled);
    prove(&mut lab);
    lab.seconds(600);
    assert_eq!(lab.launched(), []);
    lab.fails(1, 1, FailureClass::PodDeleted, Some(143));
    assert_eq!(lab.run().state, RunState::Cancelled);
    lab.assert_replays();
}

#[test]
fn i2_fail_fast_launches_no_replacement_when_death_is_proven_late() {
    let mut lab = Lab::with_executor();
    submit_retrying(&mut lab, FailureMode::FailFast);
    fail_without_proof(&mut lab);
    lab.seconds(400);
    lab.fails(1, 1, FailureClass::UserError, Some(1));
    assert_eq!(lab.states(), "CANCELLED FAILED");
    lab.effects.clear();
    prove(&mut lab);
    lab.seconds(600);
    assert_eq!(lab.launched(), []);
    assert_eq!(lab.run().state, RunState::Failed);
    lab.assert_replays();
}

fn submit_with_timeout(lab: &mut Lab) {
    let policy = StepPolicy {
        timeout: Some(Duration::from_secs(60)),
        ..StepPolicy::default()
    };
    lab.submit(parameters(1), vec![policy], steps(&[&[]]));
    lab.sees(0, 1, Running);
    lab.news();
}

#[test]
fn i10_a_stop_that_is_not_obeyed_ends_although_its_pod_is_seen_running() {
    let mut lab = Lab::with_executor();
    submit_with_timeout(&mut lab);
    // Inventories come more often than the deadline of lost contact.
    for _ in 0..30 {
        lab.seconds(60);
        lab.sees(0, 1, Running);
    }
    insta::assert_snapshot!(lab.news(), @r"
    7 +60000 0/1 stop requested: TIMEOUT 30000 ms
    8 +390000 0/1 contact lost: STOP_NOT_OBEYED
    9 +1290000 0/1 NODE_LOST -> FAILED
    10 +1290000 run ended: FAILED STEP_FAILED
    ");
    lab.assert_replays();
}

#[test]
fn i10_a_node_that_comes_and_goes_does_not_put_off_the_end_of_a_stop() {
    let mut lab = Lab::with_executor();
    submit_with_timeout(&mut lab);
    for _ in 0..30 {
        lab.seconds(60);
        lab.sees(0, 1, Unreachable);
        lab.seconds(30);
        lab.sees(0, 1, Running);
    }
    assert_eq!(lab.run().state, RunState::Failed);
    lab.assert_replays();
}

#[test]
fn a_stop_that_is_obeyed_late_still_tells_how_the_attempt_ended() {
    let mut lab = Lab::with_executor();
    submit_with_timeout(&mut lab);
    lab.seconds(420);
    assert_eq!(lab.state(0), StepState::LostContact);
    let mut seen = lab.seen(0, 1, Ended);
    seen.end = Some(AttemptEnd::failure(FailureClass::UserError, Some(143), lab.now));
    seen.terminating = true;
    lab.observe(1, seen);
    assert!(lab.news().contains("0/1 DEADLINE -> FAILED"));
}
