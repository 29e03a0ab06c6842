//! Failure classes with their evidence.
//!
//! Exit codes lie: a disruption or deletion seen before the main container ended outranks its exit code, also exit 0, since SIGTERM
//! may be trapped. Proof of death is exactly what I2 lists.

use windlass_ids::Timestamp;

use super::assess::MAIN;
use super::model::{End, FailureClass};
use super::wire::{ContainerStatus, SlimPod, Terminated, Text, text};

/// Longest evidence text and termination message, in bytes.
const MAX_TEXT: usize = 4096;

/// A deletion or disruption of a pod.
pub(super) struct Disturbance<'p> {
    class: FailureClass,
    reason: &'p str,
    message: &'p str,
    since: Option<Timestamp>,
}

/// What disturbs a pod, the most telling first.
pub(super) fn disturbance<'p>(pod: &'p SlimPod<'_>) -> Option<Disturbance<'p>> {
    if let Some(condition) = pod.status.is_true("DisruptionTarget") {
        let reason = text(&condition.reason);
        return Some(Disturbance {
            class: disruption_class(reason),
            reason,
            message: text(&condition.message),
            since: condition.last_transition_time.as_ref().and_then(Text::time),
        });
    }
    let status_reason = text(&pod.status.reason);
    let class = match status_reason {
        "Evicted" | "NodeShutdown" | "Terminated" | "Shutdown" => Some(FailureClass::Evicted),
        "Preempting" | "Preempted" => Some(FailureClass::Preempted),
        "DeadlineExceeded" => Some(FailureClass::Deadline),
        _ => None,
    };
    if let Some(class) = class {
        let message = text(&pod.status.message);
        return Some(Disturbance {
            class,
            reason: status_reason,
            message,
            since: None,
        });
    }
    let deletion = pod.metadata.deletion_timestamp.as_ref()?;
    // The timestamp is when the grace ends, not when somebody deleted. Once the containers have ended, the kubelet deletes the pod
    // again, with a grace of 0, and our finalizer keeps it: then its own grace tells how long ago the first deletion may be.
    let grace = match pod.metadata.deletion_grace_period_seconds {
        None | Some(0) => pod.spec.termination_grace_period_seconds.unwrap_or(0),
        Some(grace) => grace,
    };
    let since = deletion
        .time()
        .map(|end| Timestamp::from_millis(end.as_millis().saturating_sub(grace.saturating_mul(1000))));
    Some(Disturbance {
        class: FailureClass::PodDeleted,
        reason: "PodDeleted",
        message: "somebody deleted the pod",
        since,
    })
}

fn disruption_class(reason: &str) -> FailureClass {
    match reason {
        "PreemptionByScheduler" | "PreemptionByKubeScheduler" => FailureClass::Preempted,
        "DeletionByTaintManager" | "DeletionByPodGC" => FailureClass::NodeLost,
        // EvictionByEvictionAPI, TerminationByKubelet, and what later versions add.
        _ => FailureClass::Evicted,
    }
}

/// The end of a pod whose main container has ended; sidecars do not matter (behaviours E11).
pub(super) fn main_ended(pod: &SlimPod<'_>, main: &Terminated<'_>, disturbed_before: bool) -> End {
    let ended_at = main.finished_at.as_ref().and_then(Text::time);
    // What is written of a container that the kubelet or its runtime does not find, exit code and all, is made up.
    let is_made_up = is_made_up(main);
    let never_ran = is_made_up && pod.status.container(MAIN).is_none_or(|main| !main.has_started());
    let disturbance = disturbance(pod).filter(|disturbance| {
        // Times have whole seconds, and deletions are told roughly: in doubt the disturbance came first. One without a time was
        // written by the kubelet with the end.
        disturbed_before
            || disturbance
                .since
                .is_none_or(|since| ended_at.is_none_or(|ended| since <= ended))
    });
    let accepted = main.exit_code == 0 && pod.metadata.annotations.accept_exit_zero.is_some();
    let (class, reason, message) = match &disturbance {
        Some(disturbance) if !accepted => {
            let what = disturbance.message.trim_end_matches(['.', ' ']);
            let message = match (never_ran, what) {
                (true, what) => format!("{what} before its main container ran").trim_start().to_owned(),
                (false, "") => format!("{} came after that", exit_text(main)),
                (false, what) => format!("{what}; {} came after that", exit_text(main)),
            };
            (Some(disturbance.class), disturbance.reason.to_owned(), message)
        }
        _ => own_end(main, memory_limit(pod, MAIN)),
    };
    // Of a container that never started this is the runtime's complaint, and the message has it.
    let spoke = class != Some(FailureClass::Config) && !is_made_up;
    End {
        class,
        exit_code: (!is_made_up).then_some(main.exit_code),
        reason,
        message,
        evidence: evidence(pod),
        termination_message: bounded(if spoke { text(&main.message) } else { "" }),
        end_time: ended_at,
        proof_of_death: all_terminated(pod),
    }
}

/// Whether nobody knows how a container ended: the kubelet did not find it (137), or its runtime lost it, as one does that starts
/// after a power cut (containerd: 255, `Unknown`).
fn is_made_up(ended: &Terminated<'_>) -> bool {
    match text(&ended.reason) {
        "ContainerStatusUnknown" => true,
        "Unknown" => ended.exit_code == 255,
        _ => false,
    }
}

/// Whether the end of a container that nobody saw end is not yet told in full: all containers are over, and the pod's phase, which
/// proves death, follows. Without the proof the loss would be final.
pub(super) fn is_half_told(pod: &SlimPod<'_>, main: &Terminated<'_>) -> bool {
    let mut all = pod.status.container_statuses.iter();
    is_made_up(main) && !all_terminated(pod) && all.all(|status| status.state.terminated.is_some())
}

/// Class, reason and message of an end that nobody disturbed.
fn own_end(main: &Terminated<'_>, memory_limit: &str) -> (Option<FailureClass>, String, String) {
    let reason = text(&main.reason);
    let class = match reason {
        "OOMKilled" => Some(FailureClass::OomKilled),
        _ if is_made_up(main) => Some(FailureClass::NodeLost),
        "DeadlineExceeded" => Some(FailureClass::Deadline),
        // The entrypoint could not be started: the image or the command is wrong.
        "ContainerCannotRun" | "StartError" => Some(FailureClass::Config),
        _ if main.exit_code == 0 => None,
        _ => Some(FailureClass::UserError),
    };
    let message = match class {
        None => String::new(),
        Some(FailureClass::Config) => bounded(text(&main.message)),
        Some(FailureClass::OomKilled) if memory_limit.is_empty() => {
            format!("it used more memory than it may; {}", exit_text(main))
        }
        Some(FailureClass::OomKilled) => {
            format!(
                "it used more memory than its limit of {memory_limit}; {}",
                exit_text(main)
            )
        }
        Some(FailureClass::NodeLost) => "the node lost the container, and nobody knows how it ended".to_owned(),
        Some(_) => exit_text(main),
    };
    let reason = if reason.is_empty() { "Completed" } else { reason };
    (class, reason.to_owned(), message)
}

/// `exit code 139 (SIGSEGV)`: runtimes give 128 and the signal's number, and seldom the number itself. 126 and 127 are the words of
/// shells.
fn exit_text(ended: &Terminated<'_>) -> String {
    match ended.exit_code {
        126 => return "exit code 126 (not executable)".to_owned(),
        127 => return "exit code 127 (command not found)".to_owned(),
        _ => {}
    }
    let number = ended.signal.filter(|signal| *signal != 0);
    let signal = number.or_else(|| (129..=192).contains(&ended.exit_code).then(|| ended.exit_code - 128));
    let name = signal.and_then(|signal| {
        let named = SIGNALS.iter().find(|(number, _)| *number == signal);
        named.map(|(_, name)| *name)
    });
    match (name, number) {
        (Some(name), _) => format!("exit code {} ({name})", ended.exit_code),
        (None, Some(number)) => format!("exit code {} (signal {number})", ended.exit_code),
        (None, None) => format!("exit code {}", ended.exit_code),
    }
}

/// Signals that end a process unless it catches them.
const SIGNALS: &[(i32, &str)] = &[
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (31, "SIGSYS"),
];

/// The memory limit that a container runs under, as its status says; empty when it does not.
fn memory_limit<'p>(pod: &'p SlimPod<'_>, name: &str) -> &'p str {
    let status = &pod.status;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let resources = all
        .find(|status| status.name.as_str() == name)
        .and_then(|status| status.resources.as_ref());
    resources.map_or("", |resources| text(&resources.limits.memory))
}

/// The end of a pod whose main container was never seen to end, when there is one.
pub(super) fn ended_without_main(pod: &SlimPod<'_>) -> Option<End> {
    let status = &pod.status;
    let failed = status.phase.as_str() == "Failed";
    let reason = text(&status.reason);
    let no_statuses = status.container_statuses.is_empty() && status.init_container_statuses.is_empty();
    if failed && no_statuses && !reason.is_empty() && reason != "NodeLost" {
        return Some(rejected_by_kubelet(pod));
    }
    if let Some(init) = failed.then(|| failed_init(pod)).flatten() {
        return Some(init);
    }
    // Deleted before it had a node: nothing ever started.
    if pod.metadata.deletion_timestamp.is_some() && text(&pod.spec.node_name).is_empty() {
        let disturbance = disturbance(pod)?;
        let end_time = disturbance.since;
        let (class, reason) = (disturbance.class, disturbance.reason);
        let message = format!("{} before it had a node", disturbance.message);
        return Some(without_exit(pod, class, reason, message, end_time, true));
    }
    None
}

fn rejected_by_kubelet(pod: &SlimPod<'_>) -> End {
    let class = disturbance(pod)
        .map(|disturbance| disturbance.class)
        .filter(|class| *class != FailureClass::PodDeleted)
        .unwrap_or(FailureClass::Evicted);
    let reason = text(&pod.status.reason);
    let message = bounded(text(&pod.status.message));
    without_exit(pod, class, reason, message, None, true)
}

/// An init container that failed: the main one never started.
fn failed_init(pod: &SlimPod<'_>) -> Option<End> {
    let main_started = pod
        .status
        .container(MAIN)
        .is_some_and(|main| main.state.waiting.is_none());
    if main_started {
        return None;
    }
    let mut inits = pod
        .status
        .init_container_statuses
        .iter()
        .filter(|status| !pod.spec.is_sidecar(status.name.as_str()));
    let (name, ended) = inits.find_map(|status| {
        let ended = status.state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
        Some((status.name.as_str(), ended))
    })?;
    let disturbance = disturbance(pod);
    let (class, reason, message) = match &disturbance {
        Some(disturbance) => (disturbance.class, disturbance.reason, disturbance.message.to_owned()),
        None => {
            let (class, _, message) = own_end(ended, memory_limit(pod, name));
            let class = class.unwrap_or(FailureClass::UserError);
            (
                class,
                "InitContainerFailed",
                format!("init container {name}: {message}"),
            )
        }
    };
    let running = pod
        .status
        .init_container_statuses
        .iter()
        .any(|status| status.state.running.is_some());
    let end_time = ended.finished_at.as_ref().and_then(Text::time);
    let mut end = without_exit(pod, class, reason, message, end_time, !running);
    if class != FailureClass::Config {
        end.termination_message = bounded(text(&ended.message));
    }
    Some(end)
}

/// The end of a pod whose node is known to be off.
pub(super) fn node_lost(pod: &SlimPod<'_>, reason: &str, message: &str) -> End {
    let mut end = without_exit(pod, FailureClass::NodeLost, reason, message.to_owned(), None, true);
    let node = format!("node {}", text(&pod.spec.node_name));
    end.evidence.push(joined(&node, reason, message));
    end
}

/// The end of a pod whose waiting state lasted too long.
pub(super) fn waited_too_long(class: FailureClass, reason: &str, message: &str) -> End {
    End {
        class: Some(class),
        exit_code: None,
        reason: reason.to_owned(),
        message: bounded(message),
        evidence: vec![format!("container waiting: {reason}: {}", bounded(message))],
        termination_message: String::new(),
        end_time: None,
        proof_of_death: false,
    }
}

fn without_exit(
    pod: &SlimPod<'_>,
    class: FailureClass,
    reason: &str,
    message: String,
    end_time: Option<Timestamp>,
    proof_of_death: bool,
) -> End {
    End {
        class: Some(class),
        exit_code: None,
        reason: reason.to_owned(),
        message,
        evidence: evidence(pod),
        termination_message: String::new(),
        end_time,
        proof_of_death,
    }
}

/// Whether the phase is terminal and every container that is reported has ended.
pub(super) fn all_terminated(pod: &SlimPod<'_>) -> bool {
    let status = &pod.status;
    let mut all = status.init_container_statuses.iter().chain(&status.container_statuses);
    matches!(status.phase.as_str(), "Succeeded" | "Failed") && all.all(|status| status.state.terminated.is_some())
}

/// The class of a waiting state that does not get better by itself (behaviours X11): a pull that certainly fails, a configuration
/// that cannot work. Only the text tells that from a registry that does not answer, or a runtime under load; those are waited for
/// until the deadline of the state.
pub(super) fn fatal_wait(reason: &str, message: &str) -> Option<FailureClass> {
    let message = message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" => Some(FailureClass::Image),
        "ErrImagePull" | "ImagePullBackOff" if says(NO_IMAGE) => Some(FailureClass::Image),
        "CreateContainerConfigError" if says(NO_CONFIG) => Some(FailureClass::Config),
        "CreateContainerError" | "RunContainerError" if says(NO_START) => Some(FailureClass::Config),
        _ => None,
    }
}

/// There is no such image, or it is not for us.
const NO_IMAGE: &[&str] = &[
    "not found",
    "notfound",
    "manifest unknown",
    "name unknown",
    "does not exist",
    "access denied",
    "unauthorized",
    "no matching manifest",
];

/// What a container refers to is not there, or contradicts its image.
const NO_CONFIG: &[&str] = &[
    "not found",
    "couldn't find key",
    "non-existent config key",
    "runasnonroot",
    "non-numeric user",
    "is invalid",
    "invalid environment variable",
    "must be",
];

/// The image, command or mounts cannot be started like that.
const NO_START: &[&str] = &[
    "no command specified",
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "not a directory",
    "is a directory",
    "exec format error",
    "unable to find user",
    "unable to find group",
    "no users found",
    "no matching entries in passwd file",
];

/// What was seen: container states, status and conditions.
fn evidence(pod: &SlimPod<'_>) -> Vec<String> {
    let status = &pod.status;
    let mut evidence = Vec::new();
    if !status.phase.as_str().is_empty() {
        let (reason, message) = (text(&status.reason), text(&status.message));
        evidence.push(joined(&format!("pod {}", status.phase.as_str()), reason, message));
    }
    for container in status.init_container_statuses.iter().chain(&status.container_statuses) {
        evidence.push(container_evidence(container));
    }
    for condition in status
        .conditions
        .iter()
        .filter(|condition| condition.kind.as_str() == "DisruptionTarget")
    {
        let (reason, message) = (text(&condition.reason), text(&condition.message));
        evidence.push(joined("condition DisruptionTarget", reason, message));
    }
    if let Some(deletion) = &pod.metadata.deletion_timestamp {
        evidence.push(format!("deletionTimestamp {}", deletion.as_str()));
    }
    evidence
}

fn container_evidence(container: &ContainerStatus<'_>) -> String {
    let name = container.name.as_str();
    let state = &container.state;
    if let Some(ended) = &state.terminated {
        let head = format!("container {name} terminated with exit code {}", ended.exit_code);
        return joined(&head, text(&ended.reason), "");
    }
    if let Some(waiting) = &state.waiting {
        return joined(
            &format!("container {name} waiting"),
            text(&waiting.reason),
            text(&waiting.message),
        );
    }
    format!("container {name} running")
}

fn joined(head: &str, reason: &str, message: &str) -> String {
    let parts = [head, reason, message];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    bounded(&parts.join(": "))
}

pub(super) fn bounded(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}
