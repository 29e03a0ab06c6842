//! What the cluster says of its nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::letting_go::until_done;
use super::watching::{Items, WatchEvent};
use super::{Agent, Event};
use crate::attempts::Sight;
use crate::attempts::wire::SlimNode;
use crate::kubernetes::reflector::{Delivery, Target, reflect};

/// The watch of nodes, and the reads beside it.
#[derive(Debug, Default)]
pub(super) struct WatchedNodes {
    watch: Option<CancellationToken>,
    /// Nodes that are being read.
    reading: BTreeSet<Arc<str>>,
}

impl Agent {
    pub(super) fn watch_nodes(&mut self) {
        if self.nodes.watch.is_some() {
            return;
        }
        let stop = self.stop.child_token();
        self.nodes.watch = Some(stop.clone());
        let target = Target {
            path: "/api/v1/nodes",
            selector: String::new(),
        };
        let watch = reflect(self.api.clone(), target, self.events.clone(), Event::Nodes, stop);
        self.tasks.spawn(watch);
    }

    pub(super) fn stop_watching_nodes(&mut self) {
        if let Some(watch) = self.nodes.watch.take() {
            watch.cancel();
        }
    }

    pub(super) fn heard_of_nodes(&mut self, delivery: Delivery) {
        let Some(fleet) = &mut self.fleet else { return };
        let mut sights = Vec::new();
        match delivery {
            Delivery::ListBegins(reply) => {
                // Nobody there: the watch was given up.
                reply.send(fleet.begin_list()).ok();
            }
            Delivery::Page(page) => {
                let items: Items<'_> = serde_json::from_slice(&page).unwrap_or(Items { items: Vec::new() });
                for item in items.items {
                    sights.extend(self.saw_node(item.get()));
                }
            }
            Delivery::Listed { generation, .. } => {
                fleet.nodes_listed(generation);
                self.read_nodes_in_doubt();
            }
            Delivery::Event(line) => {
                let Ok(event) = serde_json::from_slice::<WatchEvent<'_>>(&line) else {
                    return;
                };
                if event.kind.as_str() == "DELETED" {
                    self.said_to_be_deleted(event.object.get());
                } else {
                    sights = self.saw_node(event.object.get());
                }
            }
            Delivery::Sees => {}
            // Without nodes, lost contact shows later; steps run all the same.
            Delivery::Blind(error) => tracing::warn!(%error, "nodes cannot be seen"),
        }
        self.report(sights);
    }

    fn saw_node(&mut self, json: &str) -> Vec<Sight> {
        match (serde_json::from_str::<SlimNode<'_>>(json), &mut self.fleet) {
            (Ok(node), Some(fleet)) => fleet.saw_node(&node),
            _ => Vec::new(),
        }
    }

    fn said_to_be_deleted(&mut self, json: &str) {
        if let (Ok(node), Some(fleet)) = (serde_json::from_str::<SlimNode<'_>>(json), &mut self.fleet) {
            fleet.node_deleted(node.metadata.name.as_str());
            self.read_nodes_in_doubt();
        }
    }

    /// Pods and nodes are watched apart from each other, so that only a read tells an unknown node from one that is gone (I3).
    pub(super) fn read_nodes_in_doubt(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        for name in fleet.nodes_in_doubt() {
            if self.nodes.reading.insert(name.clone()) {
                self.read_node(name);
            }
        }
    }

    fn read_node(&self, name: Arc<str>) {
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let found = until_done("read node", &calls, || api.get_node(&name)).await;
            drop(events.send(Event::NodeRead { name, found }).await);
        });
    }

    pub(super) fn node_read(&mut self, name: &Arc<str>, found: Option<&Bytes>) {
        self.nodes.reading.remove(name);
        let Some(fleet) = &mut self.fleet else { return };
        let node = found.and_then(|found| serde_json::from_slice::<SlimNode<'_>>(found).ok());
        let sights = match (found, node) {
            // What came of the watch meanwhile is newer.
            _ if !fleet.is_in_doubt(name) => Vec::new(),
            (None, _) => fleet.node_is_gone(name),
            (Some(_), Some(node)) => fleet.saw_node(&node),
            (Some(_), None) => Vec::new(),
        };
        self.report(sights);
    }
}
