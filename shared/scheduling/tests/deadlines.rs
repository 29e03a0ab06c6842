//! Every waiting state has a deadline, a reason and a consequence (I10).

mod support;

use std::time::Duration;

use support::{Lab, attempt, incarnation, parameters, steps};
use windlass_scheduling::AttemptPhase::{
    Absent, Created, Ended, Initialising, Pulling, Refused, Running, Scheduled, Unreachable,
};
use windlass_scheduling::*;

fn submit(policy: StepPolicy) -> Lab {
    let mut lab = Lab::with_executor();
    lab.submit(parameters(1), vec![policy], steps(&[&[]]));
    lab
}

/// The attempt is stopped when its phase lasts too long, and fails with the class given.
fn too_long(phase: AttemptPhase, reason: &str, minutes: u64, cause: StopCause, class: FailureClass) {
    let mut lab = submit(StepPolicy::default());
    let mut seen = lab.seen(0, 1, phase);
    seen.reason = reason.into();
    if phase == Refused {
        (seen.pod, seen.grant) = (None, 1);
    }
    lab.observe(1, seen);
    let explanation = lab.explain(0);
    assert_eq!(explanation.then, Some(Consequence::AttemptFails(class)), "{phase}");
    lab.pass(Duration::from_secs(60 * minutes) - Duration::from_millis(1));
    assert!(!matches!(lab.blocker(0), Blocker::Terminating { .. }), "{phase}");
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.blocker(0), Blocker::Terminating { cause }, "{phase}");
    lab.news();
    let mut gone = lab.seen(0, 1, if phase == Refused { Absent } else { Ended });
    if phase == Refused {
        (gone.pod, gone.grant) = (None, 1);
    } else {
        gone.end = Some(AttemptEnd::failure(FailureClass::PodDeleted, None, lab.now));
    }
    lab.observe(1, gone);
    assert!(lab.news().contains(&format!("0/1 {class} ->")), "{phase}");
    lab.assert_replays();
}

#[test]
fn i10_each_phase_before_running_has_its_deadline() {
    let late = FailureClass::StartupTimeout;
    too_long(Refused, "QuotaExceeded", 30, StopCause::NotCreated, late);
    too_long(Created, "Unschedulable", 60, StopCause::NotScheduled, late);
    too_long(Scheduled, "", 10, StopCause::NotPulled, late);
    too_long(Pulling, "", 10, StopCause::NotPulled, late);
    too_long(
        Pulling,
        "ImagePullBackOff",
        10,
        StopCause::ImagePull,
        FailureClass::Image,
    );
    too_long(Initialising, "", 10, StopCause::NotInitialised, late);
}

#[test]
fn i10_what_a_phase_waits_for_is_said() {
    let mut lab = submit(StepPolicy::default());
    assert_eq!(
        lab.blocker(0),
        Blocker::NotCreated {
            executor: incarnation(1)
        }
    );
    let mut seen = lab.seen(0, 1, Pulling);
    (seen.reason, seen.message, seen.node) = ("ErrImagePull".into(), "no such image".into(), Some("n1".into()));
    lab.observe(1, seen);
    assert_eq!(
        lab.blocker(0),
        Blocker::Image {
            reason: "ErrImagePull".into(),
            message: "no such image".into()
        }
    );
    lab.sees(0, 1, Running);
    assert_eq!(
        lab.blocker(0),
        Blocker::Running {
            node: Some("n1".into())
        }
    );
    assert_eq!(lab.explain(0).until, None, "a step without timeout may run for ever");
}

#[test]
fn a_step_that_runs_too_long_is_stopped_and_fails_with_deadline() {
    let mut lab = submit(StepPolicy {
        timeout: Some(Duration::from_secs(100)),
        ..StepPolicy::default()
    });
    lab.seconds(50);
    lab.sees(0, 1, Running);
    assert_eq!(
        lab.explain(0).then,
        Some(Consequence::AttemptFails(FailureClass::Deadline))
    );
    lab.seconds(99);
    assert_eq!(lab.state(0), StepState::Running);
    lab.seconds(1);
    assert_eq!(
        lab.blocker(0),
        Blocker::Terminating {
            cause: StopCause::Timeout
        }
    );
    lab.fails(0, 1, FailureClass::PodDeleted, Some(143));
    assert!(lab.news().contains("0/1 DEADLINE -> FAILED"));
}

#[test]
fn i10_lost_contact_fails_the_step_at_its_deadline() {
    let mut lab = submit(StepPolicy::default());
    lab.sees(0, 1, Running);
    lab.sees(0, 1, Unreachable);
    assert_eq!(lab.explain(0).then, Some(Consequence::StepFails));
    lab.seconds(15 * 60 - 1);
    assert_eq!(lab.state(0), StepState::LostContact);
    lab.seconds(1);
    assert_eq!(lab.run().state, RunState::Failed);
}

#[test]
fn lost_contact_waits_for_a_person_where_the_step_says_so() {
    let mut policy = StepPolicy::default();
    policy.lost_contact.then = LostContactAction::Wait;
    let mut lab = submit(policy);
    lab.sees(0, 1, Running);
    let refused = lab.try_handle(Event::DeadConfirmed {
        attempt: attempt(1, 0, 1),
        by: "ana".into(),
    });
    assert_eq!(
        refused,
        Err(Rejection::NotLost {
            attempt: attempt(1, 0, 1)
        })
    );
    lab.sees(0, 1, Unreachable);
    assert_eq!(lab.explain(0).then, Some(Consequence::WaitsForConfirmation));
    lab.seconds(86_400);
    assert_eq!(lab.state(0), StepState::LostContact);
    lab.handle(Event::DeadConfirmed {
        attempt: attempt(1, 0, 1),
        by: "ana".into(),
    });
    lab.effects.clear();
    lab.seconds(20);
    assert_eq!(lab.launched(), [(1, 0, 2)]);
    lab.assert_replays();
}

#[test]
fn i3_clocks_stand_still_while_nobody_sees_the_cluster() {
    let mut lab = submit(StepPolicy::default());
    lab.sees(0, 1, Created);
    lab.seconds(30 * 60);
    lab.handle(Event::ClusterSightChanged {
        incarnation: incarnation(1),
        visible: false,
    });
    assert_eq!(lab.blocker(0), Blocker::OutOfSight { alias: "prod".into() });
    lab.seconds(5 * 3600);
    assert_eq!(lab.state(0), StepState::Starting);
    lab.handle(Event::ClusterSightChanged {
        incarnation: incarnation(1),
        visible: true,
    });
    lab.seconds(30 * 60 - 1);
    assert!(matches!(lab.blocker(0), Blocker::Unschedulable { .. }));
    lab.seconds(1);
    assert_eq!(
        lab.blocker(0),
        Blocker::Terminating {
            cause: StopCause::NotScheduled
        }
    );
}

#[test]
fn i10_a_ready_step_waits_for_an_executor_of_its_cluster_until_its_deadline() {
    let day = Duration::from_secs(86_400);
    let mut lab = Lab::new();
    lab.submit(parameters(1), vec![StepPolicy::default()], steps(&[&[], &[0], &[]]));
    lab.seconds(3600);
    lab.connect(1, 0);
    lab.handle(Event::ExecutorDraining {
        incarnation: incarnation(1),
    });
    let until = lab.now.saturating_add(day);
    let explanation = lab.explain(0);
    assert_eq!(explanation.blocker, Some(Blocker::NoExecutor { alias: None }));
    assert_eq!(
        (explanation.until, explanation.then),
        (Some(until), Some(Consequence::NotAdmitted))
    );
    lab.pass(day - Duration::from_millis(1));
    assert_eq!(lab.states(), "READY WAITING READY");
    lab.pass(Duration::from_millis(1));
    assert_eq!(lab.states(), "FAILED SKIPPED FAILED");
    insta::assert_snapshot!(lab.news(), @r"
    1 +0 run accepted
    2 +0 0 ready
    3 +0 2 ready
    4 +90000000 0/0 step failed: NOT_ADMITTED
    5 +90000000 2/0 step failed: NOT_ADMITTED
    6 +90000000 1 skipped: UPSTREAM_NOT_SUCCEEDED
    7 +90000000 run ended: FAILED STEP_FAILED
    ");
    lab.assert_replays();
}

#[test]
fn i3_a_step_does_not_fail_for_want_of_an_executor_while_one_is_only_disconnected() {
    let mut lab = Lab::new();
    lab.connect(1, 0);
    lab.submit_plain(&[&[]]);
    let busy = Duration::from_secs(3 * 86_400);
    lab.pass(busy);
    assert_eq!(lab.state(0), StepState::Ready);
    lab.disconnect(1);
    assert!(matches!(lab.blocker(0), Blocker::ExecutorDisconnected { .. }));
    lab.seconds(86_400);
    assert_eq!(
        lab.state(0),
        StepState::Ready,
        "the clock began with the end of the lease"
    );
    lab.seconds(30);
    assert_eq!(lab.state(0), StepState::Failed);
}

#[test]
fn a_step_that_no_executor_serves_halts_a_run_that_has_not_begun() {
    let mut lab = Lab::new();
    let mut far = StepPolicy {
        cluster: Some("far".into()),
        ..StepPolicy::default()
    };
    far.deadlines.admitted = Duration::from_secs(60);
    let mut steps = steps(&[&[], &[]]);
    steps[1].policy = 1;
    let mut parameters = parameters(1);
    parameters.failure_mode = FailureMode::StopOnFailure;
    lab.submit(parameters, vec![StepPolicy::default(), far], steps);
    lab.seconds(60);
    assert_eq!(lab.states(), "SKIPPED FAILED");
    assert_eq!(lab.run().state, RunState::Failed);
}
