//! What is known of nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::NodeHealth;
use super::wire::{SlimNode, text};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The nodes of a cluster.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<Arc<str>, Node>,
    /// Whether a complete list was seen: only then is an unknown node a gone one.
    listed: bool,
}

#[derive(Debug)]
struct Node {
    health: NodeHealth,
    boot: Option<Arc<str>>,
    generation: u32,
}

impl Nodes {
    /// Takes over a node's state; tells whether something changed that matters for its pods.
    pub fn saw(&mut self, node: &SlimNode<'_>, generation: u32) -> bool {
        let health = health(node);
        let boot = text(&node.status.node_info.boot_id);
        let name = node.metadata.name.as_str();
        if let Some(known) = self.nodes.get_mut(name) {
            known.generation = generation;
            if known.health == health && known.boot.as_deref().unwrap_or("") == boot {
                return false;
            }
        }
        let boot = (!boot.is_empty()).then(|| Arc::from(boot));
        let node = Node {
            health,
            boot,
            generation,
        };
        self.nodes.insert(Arc::from(name), node);
        true
    }

    /// Forgets a node that was deleted.
    pub fn deleted(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// After a complete list: forgets and names the nodes that it did not have.
    pub fn listed(&mut self, generation: u32) -> Vec<Arc<str>> {
        self.listed = true;
        let missing: Vec<Arc<str>> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.generation < generation)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &missing {
            self.nodes.remove(name);
        }
        missing
    }

    /// How a node is, for a pod that was first seen there under the boot id `boot`.
    pub fn health(&self, name: &str, boot: Option<&str>) -> NodeHealth {
        match self.nodes.get(name) {
            None if self.listed => NodeHealth::Gone,
            None => NodeHealth::Answers,
            Some(node) => match (node.health, boot, node.boot.as_deref()) {
                (NodeHealth::Answers, Some(then), Some(now)) if then != now => NodeHealth::Rebooted,
                (health, _, _) => health,
            },
        }
    }

    /// The boot id of a node.
    pub fn boot(&self, name: &str) -> Option<Arc<str>> {
        self.nodes.get(name)?.boot.clone()
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
