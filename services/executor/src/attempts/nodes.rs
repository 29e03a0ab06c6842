//! What is known of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::NodeHealth;
use super::wire::{SlimNode, text};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The nodes of a cluster.
///
/// Pods and nodes are watched apart from each other: a node that is not known may be new, or the watch behind. It is gone only when
/// a read of its own says so.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<Arc<str>, Node>,
    /// Newest version that was seen of any node: up to there, what is known is complete.
    seen_to: u64,
}

#[derive(Debug)]
struct Node {
    presence: Presence,
    health: NodeHealth,
    boot: Option<Arc<str>>,
    /// Up to this version the node had another boot id than now; 0 when no reboot was seen. Versions are those of the whole store,
    /// so that they order writes of nodes and pods.
    rebooted_after: u64,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    There,
    /// Deleted, or missing in a list: a read has to tell.
    InDoubt,
    Gone,
}

impl Nodes {
    /// Takes over a node's state; tells whether something changed that matters for its pods.
    pub fn saw(&mut self, node: &SlimNode<'_>, generation: u32) -> bool {
        let boot = text(&node.status.node_info.boot_id);
        let name = node.metadata.name.as_str();
        let seen_to = self.seen_to;
        self.seen_to = seen_to.max(node.metadata.version());
        let mut new = Node {
            presence: Presence::There,
            health: health(node),
            boot: (!boot.is_empty()).then(|| Arc::from(boot)),
            rebooted_after: 0,
            generation,
        };
        let Some(known) = self.nodes.get_mut(name) else {
            self.nodes.insert(Arc::from(name), new);
            return true;
        };
        let rebooted = known.boot.is_some() && new.boot.is_some() && known.boot != new.boot;
        new.rebooted_after = if rebooted { seen_to } else { known.rebooted_after };
        let changed = rebooted || known.presence != new.presence || known.health != new.health;
        *known = new;
        changed
    }

    /// A node is said to be deleted; a read must decide what that means.
    pub fn deleted(&mut self, name: &str) {
        self.set_presence(name, Presence::InDoubt);
    }

    /// After a complete list: the nodes that it did not have are in doubt.
    pub fn listed(&mut self, generation: u32) {
        let there = self.nodes.values_mut().filter(|node| node.presence == Presence::There);
        for node in there.filter(|node| node.generation < generation) {
            node.presence = Presence::InDoubt;
        }
    }

    /// A read found no such node.
    pub fn is_gone(&mut self, name: &str) {
        if !self.nodes.contains_key(name) {
            let unknown = Node {
                presence: Presence::Gone,
                health: NodeHealth::Answers,
                boot: None,
                rebooted_after: 0,
                generation: 0,
            };
            self.nodes.insert(Arc::from(name), unknown);
        }
        self.set_presence(name, Presence::Gone);
    }

    fn set_presence(&mut self, name: &str, presence: Presence) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.presence = presence;
        }
    }

    /// Whether it is not known if there is such a node, so that it is to be read.
    pub fn is_in_doubt(&self, name: &str) -> bool {
        let node = self.nodes.get(name);
        node.is_none_or(|node| node.presence == Presence::InDoubt)
    }

    /// Forgets nodes that are not there, unless they are still named.
    pub fn tidy(&mut self, named: &BTreeSet<Arc<str>>) {
        self.nodes
            .retain(|name, node| node.presence == Presence::There || named.contains(name));
    }

    /// How a node is, for a pod of which a container was first seen started in the version `started`, 0 when none was.
    ///
    /// A reboot ends only what had started: the rest is started after it.
    pub fn health(&self, name: &str, started: u64) -> NodeHealth {
        match self.nodes.get(name) {
            None => NodeHealth::Answers,
            Some(node) if node.presence == Presence::Gone => NodeHealth::Gone,
            Some(node) => match node.health {
                NodeHealth::Answers if started != 0 && started <= node.rebooted_after => NodeHealth::Rebooted,
                health => health,
            },
        }
    }

    /// The node's name, shared.
    pub fn shared_name(&self, name: &str) -> Arc<str> {
        let known = self.nodes.get_key_value(name).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| Arc::from(name))
    }
}

fn health(node: &SlimNode<'_>) -> NodeHealth {
    let tainted = |key: &str| node.spec.taints.iter().any(|taint| taint.key.as_str() == key);
    let unknown = node
        .status
        .conditions
        .iter()
        .any(|condition| condition.kind.as_str() == "Ready" && condition.status.as_str() == "Unknown");
    if tainted(OUT_OF_SERVICE) {
        NodeHealth::OutOfService
    } else if unknown || tainted(UNREACHABLE) {
        NodeHealth::Unreachable
    } else {
        NodeHealth::Answers
    }
}
