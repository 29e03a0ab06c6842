//! What is concluded from seeing, and from not seeing, a pod or its node.

use super::*;

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

fn lose_sight(fleet: &mut Fleet) -> Vec<Sight> {
    saw_node(fleet, json!({"taints": [{"key": UNREACHABLE}]}), "boot-1", "Unknown")
}

fn pending() -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]})
}

#[test]
fn i2_a_label_that_somebody_changed_does_not_hide_a_known_pod() {
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    let mut ended = live(11, main_ended(3, "Error"));
    ended["metadata"]["labels"] = json!({"team": "other"});
    let sight = saw(&mut fleet, &ended, 1).expect("a report: the uid says whose it is");
    assert_eq!(sight.end.expect("an end").class, Some(FailureClass::UserError));
    // Another pod without our labels is nobody we know.
    ended["metadata"]["uid"] = "another".into();
    assert_eq!(saw(&mut fleet, &ended, 2), None);
}

#[test]
fn i3_a_node_that_was_never_seen_is_not_a_gone_one() {
    let mut fleet = fleet();
    let generation = fleet.begin_list();
    fleet.nodes_listed(generation);
    let seen = saw(&mut fleet, &live(10, running()), 0).expect("a report");
    assert_eq!(
        seen.phase,
        Phase::Running,
        "the watch of nodes may be behind that of pods"
    );
}

#[test]
fn i2_a_reboot_proves_nothing_about_a_pod_that_had_not_started() {
    let mut fleet = fleet();
    saw_node_at(&mut fleet, 5, json!({}), "boot-1", "True");
    saw(&mut fleet, &live(10, pending()), 0).expect("a report");
    saw_node_at(&mut fleet, 11, json!({}), "boot-1", "True");
    assert_eq!(
        saw_node_at(&mut fleet, 12, json!({}), "boot-2", "True"),
        [],
        "the kubelet starts it now"
    );
    let started = saw(&mut fleet, &live(14, running()), 1).expect("a report");
    assert_eq!((started.phase, started.end), (Phase::Running, None));
    saw_node_at(&mut fleet, 16, json!({}), "boot-2", "True");
    let rebooted = saw_node_at(&mut fleet, 20, json!({}), "boot-3", "True");
    assert!(rebooted[0].end.as_ref().is_some_and(|end| end.proof_of_death));
}

#[test]
fn i2_a_reboot_that_is_heard_of_late_proves_nothing_about_what_started_after_it() {
    let mut fleet = fleet();
    saw_node_at(&mut fleet, 5, json!({}), "boot-1", "True");
    // The pod started after the reboot in version 8, of which the watch of nodes tells later than that of pods.
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    assert_eq!(saw_node_at(&mut fleet, 8, json!({}), "boot-2", "True"), []);
    saw_node_at(&mut fleet, 12, json!({}), "boot-2", "True");
    let rebooted = saw_node_at(&mut fleet, 15, json!({}), "boot-3", "True");
    assert!(rebooted[0].end.as_ref().is_some_and(|end| end.proof_of_death));
}

#[test]
fn i2_a_node_is_gone_when_a_read_says_so() {
    let mut fleet = fleet();
    saw_node(&mut fleet, json!({}), "boot-1", "True");
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    assert_eq!(fleet.nodes_in_doubt(), []);
    fleet.node_deleted("n1");
    assert_eq!(fleet.nodes_in_doubt(), ["n1".into()], "deletion is a hint");
    let gone = fleet.node_is_gone("n1");
    assert_eq!(
        (gone[0].phase, gone[0].reason.as_str()),
        (Phase::Unreachable, "NodeGone")
    );
    assert_eq!(fleet.nodes_in_doubt(), []);
    // A machine of that name comes back after a reboot: what ran on it is dead.
    let back = saw_node(&mut fleet, json!({}), "boot-2", "True");
    assert!(back[0].end.as_ref().is_some_and(|end| end.proof_of_death));
}

#[test]
fn i3_contact_regained_is_told_whatever_was_heard_meanwhile() {
    let mut fleet = fleet();
    saw_node(&mut fleet, json!({}), "boot-1", "True");
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    assert_eq!(lose_sight(&mut fleet)[0].phase, Phase::Unreachable);
    // The node controller marks the pod while its node is away.
    let marked = with(running(), json!({"conditions": [{"type": "Ready", "status": "False"}]}));
    saw(&mut fleet, &live(11, marked), 1);
    let back = saw_node(&mut fleet, json!({}), "boot-1", "True");
    assert_eq!((back[0].phase, &back[0].end), (Phase::Running, &None));
}

#[test]
fn i5_an_end_that_a_node_proves_says_what_was_seen() {
    let mut fleet = fleet();
    saw_node(&mut fleet, json!({}), "boot-1", "True");
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    let rebooted = saw_node(&mut fleet, json!({}), "boot-2", "True");
    let end = rebooted[0].end.as_ref().expect("an end");
    assert!(!end.evidence.is_empty(), "{end:?}");
}

#[test]
fn i4_a_pod_that_was_let_go_may_be_let_go_again() {
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, main_ended(0, "Completed")), 0).expect("a report");
    fleet.releasing(attempt());
    assert!(fleet.is_asked_to_go(attempt()), "one release at a time");
    fleet.released(attempt(), "u", Some(11));
    assert!(fleet.is_releasing(attempt()) && !fleet.is_asked_to_go(attempt()));
}

#[test]
fn i4_only_what_is_newer_than_its_release_may_be_held_again() {
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, main_ended(0, "Completed")), 0).expect("a report");
    fleet.releasing(attempt());
    fleet.released(attempt(), "u", Some(12));
    assert!(fleet.was_let_go("u"));
    // Written before the release, and seen after its answer.
    saw(&mut fleet, &live(11, main_ended(0, "Completed")), 1);
    saw(&mut fleet, &live(12, main_ended(0, "Completed")), 1);
    assert!(fleet.was_let_go("u"));
    saw(&mut fleet, &live(13, main_ended(0, "Completed")), 1);
    assert!(!fleet.was_let_go("u"), "someone wrote it later");
    fleet.released(attempt(), "u", None);
    saw(&mut fleet, &live(14, main_ended(0, "Completed")), 2);
    assert!(fleet.was_let_go("u"), "it was gone");
}
