//! What log readers must know of containers: whether they run, have ended, or are gone.

use std::collections::BTreeMap;

use tokio::sync::{oneshot, watch};

use super::Agent;
use crate::attempts::Phase;
use crate::attempts::assess::MAIN;
use crate::attempts::wire::SlimPod;

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerPhase {
    /// Not started.
    Waiting,
    /// Running.
    Running,
    /// Ended.
    Ended,
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
}

/// Somebody wants to know about a pod's containers.
#[derive(Debug)]
pub(crate) struct FollowRequest {
    /// Uid of the pod.
    pub(crate) uid: String,
    /// Where the news come, and whether the pod is known.
    pub(crate) reply: oneshot::Sender<(bool, watch::Receiver<Containers>)>,
}

/// The containers of a pod that was read; nothing when it has another uid.
pub(crate) fn containers_of(pod: &[u8], uid: &str) -> Option<Containers> {
    let pod: SlimPod<'_> = serde_json::from_slice(pod).ok()?;
    (pod.metadata.uid.as_str() == uid).then(|| containers(&pod))
}

fn containers(pod: &SlimPod<'_>) -> Containers {
    let status = &pod.status;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let phases = all.map(|container| {
        let state = &container.state;
        let phase = if state.terminated.is_some() {
            ContainerPhase::Ended
        } else if state.running.is_some() {
            ContainerPhase::Running
        } else {
            ContainerPhase::Waiting
        };
        (container.name.as_str().to_owned(), phase)
    });
    let ended = matches!(status.phase.as_str(), "Failed" | "Succeeded");
    let without_node = pod.metadata.deletion_timestamp.is_some() && pod.spec.node_name.is_none();
    Containers {
        phases: phases.collect(),
        gone: false,
        unborn: status.container_statuses.is_empty() && (ended || without_node),
    }
}

impl Agent {
    pub(super) fn follow(&mut self, request: FollowRequest) {
        let main = self.fleet.as_ref().and_then(|fleet| fleet.main_of(&request.uid));
        let uid: Box<str> = request.uid.into();
        let sender = self.followed.entry(uid).or_default();
        if let Some((phase, ended)) = main {
            sender.send_if_modified(|known| {
                let phase = match phase {
                    _ if ended => ContainerPhase::Ended,
                    Phase::Running => ContainerPhase::Running,
                    _ => return false,
                };
                known.phases.entry(MAIN.to_owned()).or_insert(phase);
                true
            });
        }
        // Nobody there any more: it is forgotten at the next tick.
        drop(request.reply.send((main.is_some(), sender.subscribe())));
    }

    pub(super) fn tell_followers(&self, uid: &str, pod: &SlimPod<'_>) {
        let Some(sender) = self.followed.get(uid) else { return };
        let news = containers(pod);
        sender.send_if_modified(|known| {
            let changed = *known != news && !known.gone;
            if changed {
                *known = news;
            }
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
