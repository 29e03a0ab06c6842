//! The failure classes, as a table of pods.

use serde_json::{Value, json};
use windlass_ids::{AttemptId, InstallationId, RunId, Shard, StepIndex, Timestamp};

use super::assess::{Assessment, assess};
use super::fleet::Change;
use super::model::{FailureClass, NodeHealth, Phase, Policy};
use super::wire::{SlimNode, SlimPod};
use super::{Fleet, Sight};

fn pod(spec: Value, status: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ml", "uid": "u"}, "spec": spec, "status": status})
}

fn judged(pod: &Value, node: NodeHealth, disturbed: bool) -> Assessment {
    let text = pod.to_string();
    let pod: SlimPod<'_> = serde_json::from_str(&text).expect("a pod");
    assess(&pod, node, disturbed, &Policy::default())
}

fn on_node(status: Value) -> Value {
    pod(json!({"nodeName": "n1"}), status)
}

fn main_ended(code: i32, reason: &str) -> Value {
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [{"name": "main", "state": {"terminated":
        {"exitCode": code, "reason": reason, "startedAt": "2026-11-23T10:00:00Z", "finishedAt": "2026-11-23T10:05:00Z"}}}]})
}

fn with(mut status: Value, extra: Value) -> Value {
    let Value::Object(extra) = extra else {
        panic!("an object")
    };
    status.as_object_mut().expect("an object").extend(extra);
    status
}

fn disrupted(status: Value, reason: &str, at: &str) -> Value {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": at});
    with(status, json!({"conditions": [condition]}))
}

fn deleted(mut pod: Value, at: &str, grace: i64) -> Value {
    pod["metadata"]["deletionTimestamp"] = at.into();
    pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    pod
}

type Outcome = Option<FailureClass>;

fn class_of(pod: &Value) -> (Outcome, String, bool) {
    let end = judged(pod, NodeHealth::Answers, false)
        .end
        .unwrap_or_else(|| panic!("no end: {pod}"));
    assert!(!end.evidence.is_empty(), "an end has evidence: {pod}");
    (end.class, end.reason, end.proof_of_death)
}

/// behaviours K5
#[test]
fn ends_of_main_containers_by_their_cause() {
    let before = "2026-11-23T10:04:00Z";
    let after = "2026-11-23T10:06:00Z";
    let table: Vec<(&str, Value, Outcome, &str)> = vec![
        ("success", on_node(main_ended(0, "Completed")), None, "Completed"),
        (
            "exit code",
            on_node(main_ended(75, "Error")),
            Some(FailureClass::UserError),
            "Error",
        ),
        (
            "memory",
            on_node(main_ended(137, "OOMKilled")),
            Some(FailureClass::OomKilled),
            "OOMKilled",
        ),
        (
            "no such program",
            on_node(main_ended(128, "StartError")),
            Some(FailureClass::Config),
            "StartError",
        ),
        (
            "kubelet lost it",
            on_node(main_ended(137, "ContainerStatusUnknown")),
            Some(FailureClass::NodeLost),
            "ContainerStatusUnknown",
        ),
        (
            "its runtime lost it in a power cut",
            on_node(main_ended(255, "Unknown")),
            Some(FailureClass::NodeLost),
            "Unknown",
        ),
        (
            "it exits with 255 itself",
            on_node(main_ended(255, "Error")),
            Some(FailureClass::UserError),
            "Error",
        ),
        (
            "evicted by the kubelet",
            on_node(with(
                main_ended(137, "Error"),
                json!({"reason": "Evicted", "message": "low on disk"}),
            )),
            Some(FailureClass::Evicted),
            "Evicted",
        ),
        (
            "active deadline",
            on_node(with(main_ended(137, "Error"), json!({"reason": "DeadlineExceeded"}))),
            Some(FailureClass::Deadline),
            "DeadlineExceeded",
        ),
        (
            "preempted",
            on_node(disrupted(main_ended(143, "Error"), "PreemptionByScheduler", before)),
            Some(FailureClass::Preempted),
            "PreemptionByScheduler",
        ),
        (
            "evicted by the API",
            on_node(disrupted(main_ended(143, "Error"), "EvictionByEvictionAPI", before)),
            Some(FailureClass::Evicted),
            "EvictionByEvictionAPI",
        ),
        (
            "node shutdown",
            on_node(disrupted(main_ended(137, "Error"), "TerminationByKubelet", before)),
            Some(FailureClass::Evicted),
            "TerminationByKubelet",
        ),
        (
            "taint",
            on_node(disrupted(main_ended(143, "Error"), "DeletionByTaintManager", before)),
            Some(FailureClass::NodeLost),
            "DeletionByTaintManager",
        ),
        (
            "SIGTERM trapped (X14)",
            on_node(disrupted(main_ended(0, "Completed"), "EvictionByEvictionAPI", before)),
            Some(FailureClass::Evicted),
            "EvictionByEvictionAPI",
        ),
        (
            "disrupted after its end",
            on_node(disrupted(main_ended(0, "Completed"), "EvictionByEvictionAPI", after)),
            None,
            "Completed",
        ),
        (
            "memory, then disrupted",
            on_node(disrupted(main_ended(137, "OOMKilled"), "EvictionByEvictionAPI", after)),
            Some(FailureClass::OomKilled),
            "OOMKilled",
        ),
        (
            "deleted",
            deleted(on_node(main_ended(0, "Completed")), "2026-11-23T10:04:30Z", 30),
            Some(FailureClass::PodDeleted),
            "PodDeleted",
        ),
        (
            "deleted after its end",
            deleted(on_node(main_ended(0, "Completed")), "2026-11-23T10:06:30Z", 30),
            None,
            "Completed",
        ),
    ];
    for (name, pod, class, reason) in table {
        assert_eq!(class_of(&pod), (class, reason.to_owned(), true), "{name}");
    }
}

#[test]
fn a_step_may_accept_exit_zero_after_a_disruption() {
    let mut pod = on_node(disrupted(
        main_ended(0, "Completed"),
        "EvictionByEvictionAPI",
        "2026-11-23T10:04:00Z",
    ));
    pod["metadata"]["annotations"] = json!({"windlass.dev/accept-exit-zero-when-terminated": "true"});
    assert_eq!(class_of(&pod).0, None);
}

#[test]
fn what_was_seen_before_the_end_counts_more_than_clocks() {
    let pod = deleted(on_node(main_ended(0, "Completed")), "2026-11-23T11:00:00Z", 0);
    assert_eq!(
        judged(&pod, NodeHealth::Answers, false).end.expect("an end").class,
        None
    );
    assert_eq!(
        judged(&pod, NodeHealth::Answers, true).end.expect("an end").class,
        Some(FailureClass::PodDeleted)
    );
}

#[test]
fn e11_a_sidecar_that_runs_on_does_not_keep_a_step_from_ending() {
    let mut status = main_ended(0, "Completed");
    status["phase"] = "Running".into();
    status["containerStatuses"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "proxy", "state": {"running": {}}}));
    let end = judged(&on_node(status), NodeHealth::Answers, false)
        .end
        .expect("an end");
    assert_eq!((end.class, end.proof_of_death), (None, false));
}

#[test]
fn i2_ends_without_the_main_container_need_proof() {
    // A kubelet's rejection: a reason, no statuses.
    let rejected = on_node(json!({"phase": "Failed", "reason": "OutOfcpu", "message": "node is full"}));
    assert_eq!(
        class_of(&rejected),
        (Some(FailureClass::Evicted), "OutOfcpu".to_owned(), true)
    );
    // Deleted before it had a node.
    let unscheduled = deleted(pod(json!({}), json!({"phase": "Pending"})), "2026-11-23T10:00:00Z", 0);
    assert_eq!(
        class_of(&unscheduled),
        (Some(FailureClass::PodDeleted), "PodDeleted".to_owned(), true)
    );
    // Failed alone is written by the pod garbage collector while the process lives.
    let collected = disrupted(
        json!({"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}),
        "DeletionByPodGC",
        "2026-11-23T10:00:00Z",
    );
    let collected = judged(&on_node(collected), NodeHealth::Answers, false);
    assert_eq!((collected.phase, collected.end), (Phase::Unreachable, None));
    let never_reported = judged(
        &on_node(disrupted(
            json!({"phase": "Failed"}),
            "DeletionByPodGC",
            "2026-11-23T10:00:00Z",
        )),
        NodeHealth::Answers,
        false,
    );
    assert_eq!(never_reported.end, None);
}

#[test]
fn i2_nodes_prove_death_only_where_they_can() {
    let running = on_node(
        json!({"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": "2026-11-23T10:00:00Z"}}}]}),
    );
    let at = |node| judged(&running, node, false);
    assert_eq!(
        (at(NodeHealth::Answers).phase, at(NodeHealth::Answers).end),
        (Phase::Running, None)
    );
    for (node, reason) in [
        (NodeHealth::Unreachable, "NodeUnreachable"),
        (NodeHealth::Gone, "NodeGone"),
    ] {
        let seen = at(node);
        assert_eq!(
            (seen.phase, seen.reason.as_str(), seen.end),
            (Phase::Unreachable, reason, None)
        );
    }
    for node in [NodeHealth::OutOfService, NodeHealth::Rebooted] {
        let end = at(node).end.expect("an end");
        assert_eq!((end.class, end.proof_of_death), (Some(FailureClass::NodeLost), true));
    }
    let text = running.to_string();
    let pod: SlimPod<'_> = serde_json::from_str(&text).expect("a pod");
    let policy = Policy {
        gone_node_is_dead: true,
        ..Policy::default()
    };
    assert!(assess(&pod, NodeHealth::Gone, false, &policy).end.is_some());
}

#[test]
fn a_failed_init_container_ends_its_step() {
    let status = json!({"phase": "Failed",
        "initContainerStatuses": [{"name": "fetch", "state": {"terminated": {"exitCode": 4, "reason": "Error"}}}],
        "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}]});
    let end = judged(&on_node(status), NodeHealth::Answers, false)
        .end
        .expect("an end");
    assert_eq!(
        (end.class, end.exit_code, end.proof_of_death),
        (Some(FailureClass::UserError), None, true)
    );
    assert_eq!(
        (end.reason.as_str(), end.message.as_str()),
        ("InitContainerFailed", "init container fetch: exit code 4")
    );
}

/// behaviours K1
#[test]
fn phases_with_the_reason_of_their_waiting() {
    let main = |state: Value| json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]});
    let waiting = |reason: &str| main(json!({"waiting": {"reason": reason, "message": "m"}}));
    let ready = json!({"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]});
    let unschedulable = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/9 nodes"}]});
    let initialising = json!({"phase": "Pending", "initContainerStatuses": [{"name": "a", "state": {"running": {}}}],
        "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}]});
    let bad_init = json!({"phase": "Pending", "initContainerStatuses": [{"name": "a", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
        "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}]});
    let table = [
        (pod(json!({}), json!({"phase": "Pending"})), Phase::Created, ""),
        (pod(json!({}), unschedulable), Phase::Created, "Unschedulable"),
        (on_node(json!({"phase": "Pending"})), Phase::Scheduled, ""),
        (on_node(waiting("ContainerCreating")), Phase::Scheduled, ""),
        (on_node(with(waiting("ContainerCreating"), ready)), Phase::Pulling, ""),
        (on_node(waiting("ErrImagePull")), Phase::Pulling, "ErrImagePull"),
        (on_node(bad_init), Phase::Pulling, "ImagePullBackOff"),
        (on_node(initialising), Phase::Initialising, ""),
        (
            on_node(waiting("CreateContainerConfigError")),
            Phase::Scheduled,
            "CreateContainerConfigError",
        ),
        (
            on_node(main(json!({"running": {"startedAt": "2026-11-23T10:00:00Z"}}))),
            Phase::Running,
            "",
        ),
    ];
    for (pod, phase, reason) in table {
        let seen = judged(&pod, NodeHealth::Answers, false);
        assert_eq!(
            (seen.phase, seen.reason.as_str(), seen.end),
            (phase, reason, None),
            "{pod}"
        );
    }
}

#[test]
fn x11_a_failed_pull_is_not_fatal_at_first_sight() {
    let waiting = |reason: &str, message: &str| {
        let status = json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}]});
        judged(&on_node(status), NodeHealth::Answers, false)
    };
    let table = [
        ("ErrImagePull", "dial tcp: i/o timeout", None),
        ("ImagePullBackOff", "Back-off pulling image", None),
        ("ErrImagePull", "manifest unknown", Some(FailureClass::Image)),
        (
            "ImagePullBackOff",
            "Back-off pulling image: ErrImagePull: repository does not exist",
            Some(FailureClass::Image),
        ),
        ("ErrImageNeverPull", "", Some(FailureClass::Image)),
        ("InvalidImageName", "", Some(FailureClass::Image)),
        (
            "CreateContainerConfigError",
            "secret \"s\" not found",
            Some(FailureClass::Config),
        ),
        (
            "CreateContainerConfigError",
            "failed to sync configmap cache: timed out waiting for the condition",
            None,
        ),
        ("CreateContainerError", "context deadline exceeded", None),
        (
            "CreateContainerError",
            "failed to reserve container name \"main_p_ml_u_0\": name is reserved for \"ab\"",
            None,
        ),
        (
            "CreateContainerError",
            "failed to generate container spec: no command specified",
            Some(FailureClass::Config),
        ),
        (
            "RunContainerError",
            "failed to create containerd task: OCI runtime create failed: exec: \"trian\": executable file not found in $PATH",
            Some(FailureClass::Config),
        ),
        (
            "RunContainerError",
            "rpc error: code = Unavailable desc = connection error",
            None,
        ),
    ];
    for (reason, message, fatal) in table {
        let seen = waiting(reason, message);
        assert_eq!((seen.end, seen.fatal_wait), (None, fatal), "{reason}: {message}");
    }
}

mod sight;

const INSTALLATION: InstallationId = InstallationId::from_bytes([1; 16]);

fn attempt() -> AttemptId {
    AttemptId {
        run: RunId::from_bytes([7; 16]),
        step: StepIndex(3),
        number: 1,
    }
}

fn fleet() -> Fleet {
    Fleet::new(INSTALLATION, Policy::default())
}

fn live(version: u32, status: Value) -> Value {
    let mut pod = on_node(status);
    pod["metadata"]["resourceVersion"] = version.to_string().into();
    pod["metadata"]["labels"] = json!({
        "windlass.dev/installation": INSTALLATION.to_string(), "windlass.dev/run-id": attempt().run.to_string(),
        "windlass.dev/step-index": "3", "windlass.dev/attempt": "1", "windlass.dev/shard": Shard::of(attempt()).to_string(),
    });
    pod
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn saw(fleet: &mut Fleet, pod: &Value, seconds: i64) -> Option<Sight> {
    let text = pod.to_string();
    match fleet.saw(&serde_json::from_str(&text).expect("a pod"), at(seconds)) {
        Change::Report(sight) => Some(*sight),
        Change::None => None,
    }
}

/// Versions of nodes are beyond those of pods, in the order of their writing.
fn saw_node(fleet: &mut Fleet, spec: Value, boot: &str, ready: &str) -> Vec<Sight> {
    let version = 1000 + fleet.begin_list();
    saw_node_at(fleet, version, spec, boot, ready)
}

fn saw_node_at(fleet: &mut Fleet, version: u32, spec: Value, boot: &str, ready: &str) -> Vec<Sight> {
    let node = json!({"metadata": {"name": "n1", "resourceVersion": version.to_string()}, "spec": spec, "status": {"nodeInfo": {"bootID": boot}, "conditions": [{"type": "Ready", "status": ready}]}});
    let text = node.to_string();
    let node: SlimNode<'_> = serde_json::from_str(&text).expect("a node");
    fleet.saw_node(&node)
}

fn running() -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": "2026-11-23T10:00:00Z"}}}]})
}

#[test]
fn a_pod_is_reported_once_for_each_change_and_never_backwards() {
    let mut fleet = fleet();
    fleet.expect(attempt(), 9);
    let first = saw(&mut fleet, &live(10, running()), 0).expect("a report");
    assert_eq!(
        (first.phase, first.grant, first.containers),
        (Phase::Running, 9, vec!["main".to_owned()])
    );
    assert_eq!(saw(&mut fleet, &live(10, running()), 1), None);
    assert_eq!(
        saw(&mut fleet, &live(11, running()), 1),
        None,
        "nothing that matters changed"
    );
    assert_eq!(
        saw(&mut fleet, &live(9, json!({"phase": "Pending"})), 1),
        None,
        "older than what is known"
    );
    let mut foreign = live(20, main_ended(1, "Error"));
    foreign["metadata"]["uid"] = "v".into();
    foreign["metadata"]["labels"]["windlass.dev/installation"] = "22222222-2222-4222-8222-222222222222".into();
    assert_eq!(saw(&mut fleet, &foreign, 2), None, "another installation's");
}

#[test]
fn i5_an_end_is_kept_as_it_was_first_seen() {
    let mut fleet = fleet();
    let mut status = main_ended(0, "Completed");
    status["phase"] = "Running".into();
    let ended = saw(&mut fleet, &live(10, status), 0)
        .expect("a report")
        .end
        .expect("an end");
    assert_eq!((ended.class, ended.proof_of_death), (None, false));
    // Deleted in the same second, and only then reported as over: its success stays, the proof comes.
    let late = deleted(live(11, main_ended(0, "Completed")), "2026-11-23T10:00:00Z", 0);
    let ended = saw(&mut fleet, &late, 1).expect("a report").end.expect("an end");
    assert_eq!((ended.class, ended.proof_of_death), (None, true));
}

#[test]
fn a_deletion_seen_while_it_ran_outranks_exit_zero() {
    let mut fleet = fleet();
    let dying = deleted(live(10, running()), "2026-11-23T12:00:00Z", 0);
    assert!(saw(&mut fleet, &dying, 0).expect("a report").terminating);
    let ended = deleted(live(11, main_ended(0, "Completed")), "2026-11-23T12:00:00Z", 0);
    let end = saw(&mut fleet, &ended, 1).expect("a report").end.expect("an end");
    assert_eq!(end.class, Some(FailureClass::PodDeleted));
}

#[test]
fn a_deletion_that_the_kubelet_has_finished_still_came_before_the_end() {
    // Nobody looked meanwhile: deleted at 10:04:59, ended at 10:05:00 on SIGTERM, deleted anew by the kubelet without a grace.
    for (code, at, grace, class) in [
        (7, "2026-11-23T10:05:01Z", 2, Some(FailureClass::PodDeleted)),
        (0, "2026-11-23T10:05:29Z", 30, Some(FailureClass::PodDeleted)),
        // It had ended long before.
        (7, "2026-11-23T10:06:00Z", 30, Some(FailureClass::UserError)),
        (0, "2026-11-23T10:06:00Z", 30, None),
    ] {
        let mut pod = on_node(main_ended(code, "Error"));
        pod["spec"]["terminationGracePeriodSeconds"] = grace.into();
        assert_eq!(
            class_of(&deleted(pod, at, 0)).0,
            class,
            "exit code {code}, deletion {at}"
        );
    }
}

#[test]
fn i2_a_container_that_its_node_lost_ends_with_proof_of_death() {
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    let mut status = main_ended(255, "Unknown");
    status["phase"] = "Running".into();
    let told = saw(&mut fleet, &live(11, status), 1);
    assert!(told.is_none_or(|report| report.end.is_none()), "the phase is to follow");
    let ended = saw(&mut fleet, &live(12, main_ended(255, "Unknown")), 2).expect("a report");
    let end = ended.end.expect("an end");
    assert_eq!(
        (end.class, end.exit_code, end.proof_of_death),
        (Some(FailureClass::NodeLost), None, true)
    );
}

#[test]
fn a_waiting_state_that_lasts_ends_the_attempt() {
    let mut fleet = fleet();
    let pull = |reason: &str, message: &str| json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}]});
    saw(&mut fleet, &live(10, pull("ErrImagePull", "manifest unknown")), 100).expect("a report");
    saw(
        &mut fleet,
        &live(11, pull("ImagePullBackOff", "Back-off pulling image")),
        115,
    )
    .expect("a report");
    assert_eq!(
        fleet.poll_timeout(),
        Some(at(130)),
        "the kubelet's two words are one state"
    );
    assert_eq!(fleet.handle_timeout(at(129)), []);
    let ended = fleet.handle_timeout(at(130));
    let end = ended[0].end.as_ref().expect("an end");
    assert_eq!((end.class, end.proof_of_death), (Some(FailureClass::Image), false));
    assert_eq!(fleet.poll_timeout(), None);
}

#[test]
fn a_waiting_state_that_passes_is_forgotten() {
    let mut fleet = fleet();
    let config = json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"s\" not found"}}}]});
    saw(&mut fleet, &live(10, config), 0).expect("a report");
    saw(&mut fleet, &live(11, running()), 5).expect("a report");
    assert_eq!((fleet.poll_timeout(), fleet.handle_timeout(at(1000))), (None, vec![]));
}

/// behaviours K1
#[test]
fn i3_losing_sight_of_a_node_is_not_failure() {
    let mut fleet = fleet();
    saw_node(&mut fleet, json!({}), "boot-1", "True");
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    let lost = saw_node(
        &mut fleet,
        json!({"taints": [{"key": "node.kubernetes.io/unreachable"}]}),
        "boot-1",
        "Unknown",
    );
    assert_eq!((lost[0].phase, &lost[0].end), (Phase::Unreachable, &None));
    let back = saw_node(&mut fleet, json!({}), "boot-1", "True");
    assert_eq!((back[0].phase, &back[0].end), (Phase::Running, &None));
    let rebooted = saw_node(&mut fleet, json!({}), "boot-2", "True");
    let end = rebooted[0].end.as_ref().expect("an end");
    assert_eq!((end.class, end.proof_of_death), (Some(FailureClass::NodeLost), true));
}

/// behaviours K13, M10
#[test]
fn i3_a_missing_pod_is_only_a_question() {
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, running()), 0).expect("a report");
    let generation = fleet.begin_list();
    let missing = fleet.missing_since(generation, |_| true);
    assert_eq!(missing.len(), 1);
    assert!(
        fleet.key(attempt()).is_some(),
        "it is still there until a read says otherwise"
    );
    let absent = fleet.confirmed_absent(attempt(), "u").expect("a report");
    assert_eq!((absent.phase, absent.pod_uid.as_str()), (Phase::Absent, "u"));
    assert!(fleet.is_empty());
}

#[test]
fn what_comes_late_of_a_released_pod_is_not_a_new_one() {
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, main_ended(0, "Completed")), 0).expect("a report");
    fleet.releasing(attempt());
    fleet.released(attempt(), "u", Some(11));
    assert_eq!(saw(&mut fleet, &live(12, main_ended(0, "Completed")), 1), None);
    assert_eq!(fleet.said_to_be_gone(attempt(), "u"), None, "no read is needed");
    assert!(fleet.is_empty());
    // A list that began before it went.
    assert_eq!(saw(&mut fleet, &live(11, running()), 2), None);
    assert!(fleet.is_empty());
}

#[test]
fn p11_a_live_pod_costs_at_most_400_bytes() {
    // The record with its name, uid and the entries of both maps, filled to seven eighths at worst by half.
    let texts = 63 + 36;
    let entries = Fleet::RECORD_BYTES * 8 / 7 + (8 + std::mem::size_of::<AttemptId>()) * 8 / 7;
    assert!(entries + texts <= 400, "{} bytes", entries + texts);
}

fn end_of(pod: &Value) -> super::End {
    judged(pod, NodeHealth::Answers, false).end.expect("an end")
}

/// behaviours E34, U8
#[test]
fn messages_say_what_the_numbers_mean() {
    let mut oom = main_ended(137, "OOMKilled");
    oom["containerStatuses"][0]["resources"] = json!({"limits": {"memory": "32Mi", "cpu": "1"}});
    let table = [
        (on_node(main_ended(3, "Error")), "exit code 3"),
        (on_node(main_ended(139, "Error")), "exit code 139 (SIGSEGV)"),
        (on_node(main_ended(255, "Error")), "exit code 255"),
        (on_node(main_ended(127, "Error")), "exit code 127 (command not found)"),
        (
            on_node(oom),
            "it used more memory than its limit of 32Mi; exit code 137 (SIGKILL)",
        ),
        (
            on_node(main_ended(137, "OOMKilled")),
            "it used more memory than it may; exit code 137 (SIGKILL)",
        ),
        (
            deleted(on_node(main_ended(0, "Completed")), "2026-11-23T10:05:20Z", 30),
            "somebody deleted the pod; exit code 0 came after that",
        ),
    ];
    for (pod, message) in table {
        assert_eq!(end_of(&pod).message, message, "{pod}");
    }
}

/// What a kubelet writes when a pod is deleted before its container was there.
fn not_located() -> Value {
    json!({"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 137,
        "reason": "ContainerStatusUnknown", "message": "The container could not be located when the pod was terminated",
        "startedAt": null, "finishedAt": null}}}]})
}

#[test]
fn an_exit_code_that_the_kubelet_made_up_is_none() {
    let end = end_of(&deleted(on_node(not_located()), "2026-11-23T10:05:20Z", 30));
    assert_eq!((end.class, end.exit_code), (Some(FailureClass::PodDeleted), None));
    assert_eq!(
        (end.message.as_str(), end.termination_message.as_str()),
        ("somebody deleted the pod before its main container ran", "")
    );
    let lost = end_of(&on_node(not_located()));
    assert_eq!((lost.class, lost.exit_code), (Some(FailureClass::NodeLost), None));
}

#[test]
fn a_container_whose_command_does_not_exist_never_started() {
    let status = json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 128,
        "reason": "StartError", "message": "exec: no such file", "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": "2026-11-23T10:05:00Z", "containerID": "containerd://1"}}}]});
    let assessment = judged(&on_node(status), NodeHealth::Answers, false);
    let end = assessment.end.expect("an end");
    assert_eq!((assessment.start_time, end.class), (None, Some(FailureClass::Config)));
    assert_eq!(
        (end.message.as_str(), end.termination_message.as_str()),
        ("exec: no such file", "")
    );
}

#[test]
fn i10_an_init_container_that_runs_is_named() {
    let spec =
        json!({"nodeName": "n1", "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "fetch"}]});
    let running = json!({"running": {"startedAt": "2026-11-23T10:00:00Z"}});
    let status = json!({"phase": "Pending", "initContainerStatuses": [{"name": "proxy", "state": running},
        {"name": "fetch", "state": running}], "containerStatuses": [{"name": "main", "state": {"waiting":
        {"reason": "PodInitializing"}}}]});
    let assessment = judged(&pod(spec, status), NodeHealth::Answers, false);
    assert_eq!(assessment.phase, Phase::Initialising);
    assert_eq!(assessment.message, "init container fetch runs");
}

#[test]
fn i10_an_event_explains_only_what_does_not_explain_itself() {
    let waiting = |reason: &str| json!({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": reason}}}]});
    let event = |fleet: &mut Fleet| fleet.explained(attempt(), "u", "FailedMount".to_owned(), "no such volume");
    let mut fleet = fleet();
    saw(&mut fleet, &live(10, waiting("ContainerCreating")), 0).expect("a report");
    assert_eq!(fleet.starting().count(), 1, "its events are worth reading");
    assert_eq!(event(&mut fleet).expect("a report").reason, "FailedMount");
    saw(&mut fleet, &live(11, waiting("CreateContainerError")), 1).expect("a report");
    assert_eq!(fleet.starting().count(), 0);
    assert_eq!(event(&mut fleet), None);
}
