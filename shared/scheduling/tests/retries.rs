//! Which failures are retried, and who pays.

mod support;

use std::time::Duration;

use support::{Lab, parameters, steps};
use windlass_scheduling::*;

fn submit(policy: StepPolicy) -> Lab {
    let mut lab = Lab::with_executor();
    lab.submit(parameters(1), vec![policy], steps(&[&[]]));
    lab.news();
    lab
}

/// behaviours S9, E35, U3
#[test]
fn each_budget_pays_for_its_own_failures() {
    let mut policy = StepPolicy::default();
    policy.user.attempts = 2;
    policy.infrastructure.attempts = 3;
    let mut lab = submit(policy);
    for (number, class) in [
        (1, FailureClass::Evicted),
        (2, FailureClass::OomKilled),
        (3, FailureClass::Preempted),
        (4, FailureClass::NodeLost),
    ] {
        lab.fails(0, number, class, None);
        lab.seconds(400);
    }
    let failures: Vec<String> = lab
        .news()
        .lines()
        .filter(|line| line.contains("->"))
        .map(Into::into)
        .collect();
    assert_eq!(
        failures
            .iter()
            .map(|line| line
                .split_once(' ')
                .and_then(|(_, rest)| rest.split_once(' '))
                .map_or("", |it| it.1))
            .collect::<Vec<_>>(),
        [
            "0/1 EVICTED -> RETRY INFRASTRUCTURE 1/3",
            "0/2 OOM_KILLED -> RETRY USER 1/2",
            "0/3 PREEMPTED -> RETRY INFRASTRUCTURE 2/3",
            "0/4 NODE_LOST -> FAILED",
        ]
    );
    lab.assert_replays();
}

#[test]
fn only_the_named_exit_codes_are_retried() {
    let mut policy = StepPolicy::default();
    policy.user.attempts = 5;
    policy.user.exit_codes = vec![75];
    let mut lab = submit(policy);
    lab.fails(0, 1, FailureClass::UserError, Some(75));
    assert_eq!(lab.state(0), StepState::RetryWait);
    assert_eq!((lab.step(0).charged_user, lab.step(0).charged_infrastructure), (1, 0));
    lab.seconds(400);
    lab.fails(0, 2, FailureClass::UserError, Some(1));
    assert_eq!(lab.state(0), StepState::Failed);
}

#[test]
fn failures_that_no_attempt_can_mend_are_final() {
    for class in [FailureClass::Image, FailureClass::Config, FailureClass::Rejected] {
        let mut policy = StepPolicy::default();
        policy.user.attempts = 9;
        let mut lab = submit(policy);
        lab.fails(0, 1, class, None);
        assert_eq!(lab.state(0), StepState::Failed, "{class}");
    }
}

/// behaviours S10
#[test]
fn a_retry_waits_for_its_delay() {
    let mut lab = submit(StepPolicy::default());
    lab.fails(0, 1, FailureClass::Evicted, None);
    assert_eq!(
        lab.blocker(0),
        Blocker::RetryDelay {
            failed: 1,
            class: Some(FailureClass::Evicted)
        }
    );
    let explanation = lab.explain(0);
    let until = explanation.until.expect("a time");
    assert_eq!(explanation.then, Some(Consequence::Starts));
    let delay = Duration::from_millis(u64::try_from(until.as_millis() - lab.now.as_millis()).expect("later"));
    assert!(
        (Duration::from_millis(8500)..=Duration::from_millis(11_500)).contains(&delay),
        "{delay:?}"
    );
    lab.effects.clear();
    lab.pass(delay - Duration::from_millis(1));
    assert_eq!(lab.launched(), []);
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.launched(), [(1, 0, 2)]);
}

#[test]
fn exit_code_zero_after_a_deletion_is_success_only_where_the_step_says_so() {
    let mut lab = submit(StepPolicy::default());
    lab.fails(0, 1, FailureClass::PodDeleted, Some(0));
    assert_eq!(lab.state(0), StepState::RetryWait);
    let mut lab = submit(StepPolicy {
        accept_exit_zero_when_terminated: true,
        ..StepPolicy::default()
    });
    lab.fails(0, 1, FailureClass::PodDeleted, Some(0));
    assert_eq!(lab.state(0), StepState::Succeeded);
}

#[test]
fn i2_a_lost_node_is_not_replaced_without_proof() {
    let mut lab = submit(StepPolicy::default());
    let mut end = AttemptEnd::failure(FailureClass::NodeLost, None, lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end);
    assert_eq!(lab.state(0), StepState::Failed);
}
