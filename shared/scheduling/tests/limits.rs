//! Who starts next, and what holds a step back: priority, turns between runs, limits and pacing.

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use support::{Lab, attempt, incarnation, parameters, run_id, steps};
use windlass_ids::StepIndex;
use windlass_scheduling::*;

fn lab_with_namespace_limit(limit: u32) -> Lab {
    let mut lab = Lab::with(Config {
        namespace_limit: Some(limit),
        ..Config::default()
    });
    lab.connect(1, 1000);
    lab.effects.clear();
    lab
}

/// A run of independent steps.
fn submit(lab: &mut Lab, run: u8, count: usize, change: impl FnOnce(&mut RunParameters)) {
    let mut parameters = parameters(run);
    change(&mut parameters);
    lab.submit(parameters, vec![StepPolicy::default()], steps(&vec![&[][..]; count]));
}

/// An attempt of any run ends.
fn end(lab: &mut Lab, run: u8, step: u32, end: AttemptEnd) {
    let uid = support::pod(run * 50 + u8::try_from(step).expect("small"));
    let mut seen = Observation::new(attempt(run, step, 1), 0, Some(uid), AttemptPhase::Ended);
    seen.end = Some(end);
    lab.observe(1, seen);
}

fn succeed(lab: &mut Lab, run: u8, step: u32) {
    let success = AttemptEnd::success(lab.now);
    end(lab, run, step, success);
}

fn fail(lab: &mut Lab, run: u8, step: u32) {
    let failure = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end(lab, run, step, failure);
}

/// behaviours U21
#[test]
fn a_higher_priority_starts_first() {
    let mut lab = lab_with_namespace_limit(1);
    submit(&mut lab, 1, 2, |_| {});
    submit(&mut lab, 2, 1, |parameters| parameters.priority = -1);
    submit(&mut lab, 3, 1, |parameters| parameters.priority = 5);
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    succeed(&mut lab, 1, 0);
    assert_eq!(lab.launched(), [(3, 0, 1)]);
    succeed(&mut lab, 3, 0);
    assert_eq!(lab.launched(), [(1, 1, 1)]);
    succeed(&mut lab, 1, 1);
    assert_eq!(lab.launched(), [(2, 0, 1)]);
}

/// behaviours E24
#[test]
fn runs_of_one_priority_take_turns() {
    let mut lab = Lab::new();
    submit(&mut lab, 1, 4, |_| {});
    submit(&mut lab, 2, 2, |_| {});
    submit(&mut lab, 3, 1, |_| {});
    lab.connect(1, 1000);
    let order: Vec<(u8, u32)> = lab.launched().into_iter().map(|(run, step, _)| (run, step)).collect();
    assert_eq!(order, [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
}

#[test]
fn i6_a_slot_of_a_namespace_is_offered_until_somebody_takes_it() {
    let mut lab = lab_with_namespace_limit(1);
    submit(&mut lab, 1, 2, |parameters| {
        parameters.failure_mode = FailureMode::StopOnFailure
    });
    submit(&mut lab, 2, 1, |_| {});
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    fail(&mut lab, 1, 0);
    assert_eq!(
        lab.launched(),
        [(2, 0, 1)],
        "the first in turn had nothing left to start"
    );
}

#[test]
fn i6_a_paced_run_does_not_hold_a_slot_of_its_namespace() {
    let mut lab = lab_with_namespace_limit(1);
    submit(&mut lab, 1, 2, |parameters| {
        parameters.start_interval = Duration::from_secs(3600)
    });
    submit(&mut lab, 2, 1, |_| {});
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    succeed(&mut lab, 1, 0);
    assert_eq!(lab.launched(), [(2, 0, 1)]);
    succeed(&mut lab, 2, 0);
    lab.seconds(3600);
    assert_eq!(lab.launched(), [(1, 1, 1)]);
}

/// behaviours E40
#[test]
fn i6_a_cluster_without_executors_does_not_hold_a_slot_of_a_namespace() {
    let mut lab = lab_with_namespace_limit(1);
    lab.connect_to(2, "far", 10).expect("accepted");
    submit(&mut lab, 1, 1, |_| {});
    let elsewhere = StepPolicy {
        cluster: Some("far".into()),
        ..StepPolicy::default()
    };
    lab.submit(parameters(2), vec![elsewhere], steps(&[&[]]));
    submit(&mut lab, 3, 1, |_| {});
    lab.handle(Event::ExecutorDraining {
        incarnation: incarnation(2),
    });
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    succeed(&mut lab, 1, 0);
    assert_eq!(lab.launched(), [(3, 0, 1)]);
}

/// behaviours E24
#[test]
fn all_free_slots_of_a_namespace_are_used() {
    let mut lab = lab_with_namespace_limit(3);
    submit(&mut lab, 1, 3, |_| {});
    for run in 2..6 {
        submit(&mut lab, run, 1, |_| {});
    }
    assert_eq!(lab.launched().len(), 3);
    lab.cancel();
    for step in 0..3 {
        let mut gone = Observation::new(attempt(1, step, 1), 1, None, AttemptPhase::Absent);
        gone.terminating = true;
        lab.observe(1, gone);
    }
    assert_eq!(lab.launched(), [(2, 0, 1), (3, 0, 1), (4, 0, 1)]);
}

/// behaviours D3, D9, U5
#[test]
fn no_more_steps_of_a_run_live_than_it_allows() {
    let mut lab = Lab::with_executor();
    submit(&mut lab, 1, 3, |parameters| {
        parameters.max_parallelism = NonZeroU32::new(2)
    });
    assert_eq!(lab.launched(), [(1, 0, 1), (1, 1, 1)]);
    assert_eq!(lab.blocker(2), Blocker::Parallelism { limit: 2, running: 2 });
    lab.succeeds(0, 1);
    assert_eq!(lab.launched(), [(1, 2, 1)]);
}

#[test]
fn i2_a_failed_attempt_that_may_live_counts_for_the_limits() {
    let mut lab = lab_with_namespace_limit(1);
    let mut policy = StepPolicy::default();
    policy.user.attempts = 2;
    lab.submit(parameters(1), vec![policy], steps(&[&[]]));
    submit(&mut lab, 2, 1, |_| {});
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    let mut end = AttemptEnd::failure(FailureClass::UserError, Some(1), lab.now);
    end.proof_of_death = false;
    lab.ends(0, 1, end.clone());
    assert_eq!(lab.state(0), StepState::RetryWait);
    assert_eq!(lab.launched(), [], "its pod may live");
    assert_eq!(
        lab.core
            .explain(lab.now, run_id(2), Some(StepIndex(0)))
            .and_then(|it| it.blocker),
        Some(Blocker::NamespaceLimit { limit: 1, running: 1 })
    );
    lab.seconds(400);
    assert_eq!(lab.state(0), StepState::LostContact);
    lab.assert_replays();
    end.proof_of_death = true;
    lab.ends(0, 1, end);
    assert_eq!(lab.launched(), [(2, 0, 1)], "dead, and its retry waits for its delay");
    lab.assert_replays();
}

/// behaviours C6, D7, X4, E24
#[test]
fn starts_of_a_run_are_an_interval_apart() {
    let mut lab = Lab::with_executor();
    submit(&mut lab, 1, 3, |parameters| {
        parameters.start_interval = Duration::from_secs(10)
    });
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    let until = lab.now.saturating_add(Duration::from_secs(10));
    assert_eq!(lab.blocker(1), Blocker::Pacing { until });
    assert_eq!(
        (lab.explain(1).until, lab.explain(1).then),
        (Some(until), Some(Consequence::Starts))
    );
    lab.seconds(9);
    assert_eq!(lab.launched(), []);
    lab.seconds(1);
    assert_eq!(lab.launched(), [(1, 1, 1)]);
    lab.seconds(60);
    assert_eq!(lab.launched(), [(1, 2, 1)]);
}

#[test]
fn work_beyond_the_credit_of_executors_stays_ready() {
    let mut lab = Lab::new();
    lab.connect(1, 2);
    lab.effects.clear();
    submit(&mut lab, 1, 3, |_| {});
    assert_eq!(lab.launched(), [(1, 0, 1), (1, 1, 1)]);
    assert_eq!(
        lab.blocker(2),
        Blocker::NoCredit {
            executor: incarnation(1),
            outstanding: 2
        }
    );
    lab.handle(Event::LaunchesAcknowledged {
        incarnation: incarnation(1),
        up_to: 1,
    });
    assert_eq!(lab.launched(), [(1, 2, 1)]);
}
