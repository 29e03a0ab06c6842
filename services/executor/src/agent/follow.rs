//! What log readers must know of containers: whether they run, have ended, or are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::Agent;
use crate::attempts::assess::MAIN;
use crate::attempts::wire::{ContainerStatus, SlimPod};
use crate::attempts::{Phase, SecretUse, secret_uses};

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerPhase {
    /// Not started.
    Waiting,
    /// Running.
    Running,
    /// Ended.
    Ended,
    /// It is over and never started: there never was a log.
    NeverStarted,
}

/// The containers of a pod, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Containers {
    /// By name; only those that something was heard of since somebody asked.
    pub(crate) phases: BTreeMap<String, ContainerPhase>,
    /// Whether the pod is gone, or was let go.
    pub(crate) gone: bool,
    /// Whether none of them will ever start: deleted before it had a node, or refused by the kubelet.
    pub(crate) unborn: bool,
    /// Secrets that the pod gets values from; they are known once a container is.
    pub(crate) secrets: Option<Arc<[SecretUse]>>,
    /// Resource version of the pod that told so: older news change nothing.
    version: u64,
}

/// Somebody wants to know about a pod's containers.
#[derive(Debug)]
pub(crate) struct FollowRequest {
    /// Uid of the pod.
    pub(crate) uid: String,
    /// Where the news come.
    pub(crate) reply: oneshot::Sender<watch::Receiver<Containers>>,
}

/// The containers of a pod that was read; nothing when it has another uid.
pub(crate) fn containers_of(pod: &[u8], uid: &str) -> Option<Containers> {
    let pod: SlimPod<'_> = serde_json::from_slice(pod).ok()?;
    (pod.metadata.uid.as_str() == uid).then(|| Containers {
        secrets: secret_uses(&pod.spec),
        ..containers(&pod)
    })
}

/// What a pod's status says.
fn containers(pod: &SlimPod<'_>) -> Containers {
    let status = &pod.status;
    let over = matches!(status.phase.as_str(), "Failed" | "Succeeded");
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let phases = all.map(|container| (container.name.as_str().to_owned(), phase(container, over)));
    let without_node = pod.metadata.deletion_timestamp.is_some() && pod.spec.node_name.is_none();
    let silent = status.container_statuses.is_empty();
    let unborn = silent && (over || without_node);
    let mut phases: BTreeMap<_, _> = phases.collect();
    if silent && !unborn {
        // No kubelet has said anything yet.
        phases.insert(MAIN.to_owned(), ContainerPhase::Waiting);
    }
    Containers {
        phases,
        gone: false,
        unborn,
        secrets: None,
        version: pod.metadata.version(),
    }
}

/// How far a container is whose pod is over, or not.
fn phase(container: &ContainerStatus<'_>, over: bool) -> ContainerPhase {
    let state = &container.state;
    if state.running.is_some() {
        ContainerPhase::Running
    } else if container.has_started() {
        ContainerPhase::Ended
    } else if over || state.terminated.is_some() {
        ContainerPhase::NeverStarted
    } else {
        ContainerPhase::Waiting
    }
}

impl Agent {
    pub(super) fn follow(&mut self, request: FollowRequest) {
        let main = self.fleet.as_ref().and_then(|fleet| fleet.main_of(&request.uid));
        let uid: Box<str> = request.uid.into();
        let sender = self.followed.entry(uid).or_default();
        let told = main.and_then(|main| {
            let phase = match main.phase {
                _ if main.ended => ContainerPhase::Ended,
                Phase::Running => ContainerPhase::Running,
                // Over without its main container, or out of reach: the pod itself has to tell.
                Phase::Ended | Phase::Unreachable => return None,
                _ => ContainerPhase::Waiting,
            };
            Some((phase, main.version, main.secrets))
        });
        if let Some((phase, version, secrets)) = told {
            sender.send_if_modified(|known| {
                let news = !known.phases.contains_key(MAIN);
                known.phases.entry(MAIN.to_owned()).or_insert(phase);
                known.version = known.version.max(version);
                known.secrets = secrets;
                news
            });
        }
        // Nobody there any more: it is forgotten at the next tick.
        drop(request.reply.send(sender.subscribe()));
    }

    pub(super) fn tell_followers(&self, uid: &str, pod: &SlimPod<'_>) {
        let Some(sender) = self.followed.get(uid) else { return };
        let news = containers(pod);
        sender.send_if_modified(|known| {
            if known.gone || news.version < known.version {
                return false;
            }
            // They are the same for as long as a pod lives.
            let secrets = match known.phases.is_empty() {
                true => secret_uses(&pod.spec),
                false => known.secrets.take(),
            };
            let changed = (&known.phases, known.unborn) != (&news.phases, news.unborn);
            *known = Containers { secrets, ..news };
            changed
        });
    }

    pub(super) fn tell_gone(&mut self, uid: &str) {
        if let Some(sender) = self.followed.remove(uid) {
            sender.send_modify(|known| known.gone = true);
        }
    }

    pub(super) fn forget_followers(&mut self) {
        self.followed.retain(|_, sender| !sender.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(version: &str, status: serde_json::Value) -> Containers {
        let pod = json!({"metadata": {"uid": "u", "resourceVersion": version}, "status": status});
        containers_of(pod.to_string().as_bytes(), "u").expect("a pod")
    }

    #[test]
    fn a_pod_of_which_no_kubelet_has_said_anything_waits() {
        let pending = of("7", json!({"phase": "Pending"}));
        assert_eq!(pending.phases.get(MAIN), Some(&ContainerPhase::Waiting));
        assert_eq!((pending.unborn, pending.version), (false, 7));
        let refused = of("8", json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"}));
        assert!(refused.unborn && refused.phases.is_empty());
    }
}
