//! From a pod's status to phase, end and failure class (design, part 3).

use windlass_ids::Timestamp;

use super::classify;
use super::model::{End, FailureClass, NodeHealth, Phase, Policy};
use super::wire::{ContainerStatus, SlimPod, text};

/// Name of the container that is the step.
pub const MAIN: &str = "main";

/// What a pod says by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// How far it is.
    pub phase: Phase,
    /// How far it is by its own status, whatever its node is.
    pub own_phase: Phase,
    /// Why it waits.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When the main container started.
    pub start_time: Option<Timestamp>,
    /// How it ended.
    pub end: Option<End>,
    /// A waiting state that is fatal when it lasts.
    pub fatal_wait: Option<FailureClass>,
    /// Whether the main container has ended.
    pub main_ended: bool,
    /// Whether a deletion or a disruption is under way.
    pub disturbed: bool,
}

/// Judges a pod. `disturbed_before` tells that a deletion or disruption was seen while its main container had not ended.
pub fn assess(pod: &SlimPod<'_>, node: NodeHealth, disturbed_before: bool, policy: &Policy) -> Assessment {
    let main = pod.status.container(MAIN);
    let terminated = main.and_then(|main| main.state.terminated.as_ref());
    let disturbed = classify::disturbance(pod).is_some();
    let (own_phase, ..) = phase(pod, main, NodeHealth::Answers);
    let (phase, reason, message) = phase(pod, main, node);
    let ended = match terminated {
        Some(main) if classify::is_half_told(pod, main) => None,
        Some(main) => Some(classify::main_ended(pod, main, disturbed_before)),
        None => classify::ended_without_main(pod),
    };
    let mut assessment = Assessment {
        phase,
        own_phase,
        reason,
        message,
        start_time: start_time(main),
        end: ended.or_else(|| end_by_node(pod, node, policy)),
        fatal_wait: None,
        main_ended: terminated.is_some(),
        disturbed,
    };
    if assessment.end.is_some() {
        assessment.phase = Phase::Ended;
        assessment.reason.clear();
        assessment.message.clear();
    } else if matches!(phase, Phase::Scheduled | Phase::Pulling | Phase::Initialising) {
        assessment.fatal_wait = waiting(pod).and_then(|(reason, message)| classify::fatal_wait(reason, message));
    }
    assessment
}

fn start_time(main: Option<&ContainerStatus<'_>>) -> Option<Timestamp> {
    let state = &main?.state;
    let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
    let ended = state.terminated.as_ref().and_then(|ended| ended.started_at.as_ref());
    running.or(ended)?.time()
}

/// The end of a pod whose node proves that nothing of it lives.
fn end_by_node(pod: &SlimPod<'_>, node: NodeHealth, policy: &Policy) -> Option<End> {
    let (reason, message) = match node {
        NodeHealth::OutOfService => (
            "NodeOutOfService",
            "the node is tainted out-of-service: it is powered off",
        ),
        NodeHealth::Rebooted => ("NodeRebooted", "the node came back with another boot id"),
        NodeHealth::Gone if policy.gone_node_is_dead => ("NodeGone", "the node is gone, which means powered off here"),
        NodeHealth::Gone | NodeHealth::Answers | NodeHealth::Unreachable => return None,
    };
    Some(classify::node_lost(pod, reason, message))
}

/// How far a pod is that has not ended, with the reason of its waiting.
fn phase(pod: &SlimPod<'_>, main: Option<&ContainerStatus<'_>>, node: NodeHealth) -> (Phase, String, String) {
    let node_name = text(&pod.spec.node_name);
    let plain = |phase| (phase, String::new(), String::new());
    if node_name.is_empty() {
        return unscheduled(pod);
    }
    match node {
        NodeHealth::Unreachable => {
            let message = format!("node {node_name} does not answer");
            return (Phase::Unreachable, "NodeUnreachable".to_owned(), message);
        }
        NodeHealth::Gone => {
            let message = format!("node {node_name} is gone; whether its processes live is unknown");
            return (Phase::Unreachable, "NodeGone".to_owned(), message);
        }
        NodeHealth::Answers | NodeHealth::OutOfService | NodeHealth::Rebooted => {}
    }
    if matches!(pod.status.phase.as_str(), "Failed" | "Succeeded" | "Unknown") {
        // The pod garbage collector writes Failed while the process may live.
        let message = format!(
            "the pod is {} but no container was seen to end",
            pod.status.phase.as_str()
        );
        return (Phase::Unreachable, "NoProofOfDeath".to_owned(), message);
    }
    if main.is_some_and(|main| main.state.running.is_some()) {
        return plain(Phase::Running);
    }
    starting(pod)
}

fn unscheduled(pod: &SlimPod<'_>) -> (Phase, String, String) {
    let scheduled = pod.status.condition("PodScheduled");
    match scheduled.filter(|condition| condition.status.as_str() == "False") {
        Some(condition) => (
            Phase::Created,
            text(&condition.reason).to_owned(),
            text(&condition.message).to_owned(),
        ),
        None => (Phase::Created, String::new(), String::new()),
    }
}

fn starting(pod: &SlimPod<'_>) -> (Phase, String, String) {
    let (reason, message) = waiting(pod).unwrap_or_default();
    let status = &pod.status;
    let inits = &status.init_container_statuses;
    let initialising = status.is_true("Initialized").is_none()
        && inits
            .iter()
            .any(|init| init.state.running.is_some() || init.state.terminated.is_some());
    let phase = match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Phase::Pulling,
        _ if initialising => Phase::Initialising,
        // The sandbox stands, so that only the image is missing.
        "ContainerCreating" | "PodInitializing" if status.is_true("PodReadyToStartContainers").is_some() => {
            Phase::Pulling
        }
        _ => Phase::Scheduled,
    };
    let quiet = matches!(reason, "ContainerCreating" | "PodInitializing");
    let reason = if quiet { "" } else { reason };
    let message = match (phase, message) {
        (Phase::Initialising, "") => running_init(pod),
        (_, message) => message.to_owned(),
    };
    (phase, reason.to_owned(), message)
}

/// The init container that the others wait for.
fn running_init(pod: &SlimPod<'_>) -> String {
    let is_awaited =
        |status: &&ContainerStatus<'_>| status.state.running.is_some() && !pod.spec.is_sidecar(status.name.as_str());
    let running = pod.status.init_container_statuses.iter().find(is_awaited);
    running.map_or_else(String::new, |status| {
        format!("init container {} runs", status.name.as_str())
    })
}

/// The first container that waits for a reason worth telling; init containers count (behaviours X11).
fn waiting<'p>(pod: &'p SlimPod<'_>) -> Option<(&'p str, &'p str)> {
    let all = pod
        .status
        .init_container_statuses
        .iter()
        .chain(&pod.status.container_statuses);
    let mut waiting = all.filter_map(|status| {
        let waiting = status.state.waiting.as_ref()?;
        Some((text(&waiting.reason), text(&waiting.message)))
    });
    let first = waiting.next()?;
    let telling = |(reason, _): &(&str, &str)| !matches!(*reason, "ContainerCreating" | "PodInitializing" | "");
    Some(std::iter::once(first).chain(waiting).find(telling).unwrap_or(first))
}
