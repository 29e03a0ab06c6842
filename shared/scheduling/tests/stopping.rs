//! Stops: of runs, by failure modes, and those that are not obeyed (I2, I5, I10).

mod support;

use support::{Lab, parameters, steps};
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
