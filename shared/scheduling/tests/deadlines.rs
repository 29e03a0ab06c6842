//! Every waiting state has a deadline, a reason and a consequence (I10).

mod support;

use std::time::Duration;

use support::{Lab, attempt, incarnation, parameters, steps};
use windlass_ids::Timestamp;
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
    lab.observe(1, seen.clone());
    // News of the same wait do not make it longer.
    lab.seconds(100);
    seen.message = "still".into();
    lab.observe(1, seen);
    let explanation = lab.explain(0);
    assert_eq!(explanation.then, Some(Consequence::AttemptFails(class)), "{phase}");
    lab.pass(Duration::from_secs(60 * minutes - 100) - Duration::from_millis(1));
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

/// behaviours S8, M7, M8
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

/// Reason and message of the last failed attempt.
fn last_failure(lab: &Lab) -> String {
    let failures = lab.changes.iter().rev();
    let detail = failures.filter_map(|change| match &change.kind {
        ChangeKind::AttemptFailed { failure, .. } => failure.end.detail.clone(),
        _ => None,
    });
    detail
        .map(|detail| format!("{}: {}", detail.reason, detail.message))
        .next()
        .unwrap_or_default()
}

/// What carried the stop out was a deletion, and that would help nobody.
fn deleted(lab: &Lab, exit_code: Option<i32>) -> AttemptEnd {
    let mut end = AttemptEnd::failure(FailureClass::PodDeleted, exit_code, lab.now);
    end.detail = Some(Box::new(EndDetail {
        reason: "PodDeleted".into(),
        message: "the pod was deleted".into(),
        evidence: vec!["deletionTimestamp".into()],
        ..EndDetail::default()
    }));
    end
}

#[test]
fn i10_an_end_by_a_deadline_says_what_it_had_waited_for() {
    let mut lab = submit(StepPolicy::default());
    let mut seen = lab.seen(0, 1, Created);
    (seen.reason, seen.message) = ("Unschedulable".into(), "0/3 nodes are available".into());
    lab.observe(1, seen);
    lab.pass(Duration::from_secs(3600));
    // The deletion shows first, with nothing to say.
    lab.sees(0, 1, Created);
    lab.ends(0, 1, deleted(&lab, None));
    assert_eq!(
        last_failure(&lab),
        "NOT_SCHEDULED: its pod got no node within 1h (deadlines.scheduled): Unschedulable: 0/3 nodes are available"
    );
    lab.assert_replays();
}

#[test]
fn i10_an_end_by_the_timeout_names_it() {
    let mut lab = submit(StepPolicy {
        timeout: Some(Duration::from_secs(100)),
        ..StepPolicy::default()
    });
    lab.sees(0, 1, Running);
    lab.seconds(100);
    lab.ends(0, 1, deleted(&lab, Some(0)));
    assert_eq!(
        last_failure(&lab),
        "TIMEOUT: it ran longer than its timeout of 1m40s; told to stop, it ended with exit code 0"
    );
}

#[test]
fn i10_a_deletion_by_others_stays_one() {
    let mut lab = submit(StepPolicy::default());
    lab.sees(0, 1, Running);
    lab.ends(0, 1, deleted(&lab, Some(143)));
    assert_eq!(last_failure(&lab), "PodDeleted: the pod was deleted");
}

#[test]
fn an_end_without_a_time_came_when_it_was_heard_of() {
    let mut lab = submit(StepPolicy::default());
    lab.sees(0, 1, Running);
    lab.seconds(7);
    lab.ends(
        0,
        1,
        AttemptEnd::failure(FailureClass::NodeLost, None, Timestamp::default()),
    );
    let ended = lab.changes.iter().find_map(|change| match &change.kind {
        ChangeKind::AttemptFailed { failure, .. } => Some(failure.end.ended_at),
        _ => None,
    });
    assert_eq!(ended, Some(lab.now));
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

/// behaviours E33
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
