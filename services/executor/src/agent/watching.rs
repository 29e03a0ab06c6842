//! What the cluster says, and the inventories that come of it.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::connect_request::Message as Request;
use windlass_ids::{AttemptId, Timestamp};
use windlass_manifest::Label;

use super::letting_go::until_done;
use super::{Agent, Event, Shards};
use crate::attempts::Fleet;
use crate::attempts::fleet::{Change, PodKey};
use crate::attempts::wire::{SlimPod, Text};
use crate::connect::convert;
use crate::kubernetes::ApiError;
use crate::kubernetes::reflector::{Delivery, Target, list_once, reflect};
use crate::metrics;

/// The watches and lists of this agent.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// Numbers watches and lists.
    last_source: u64,
    /// The watch of pods.
    pods: Option<(u64, CancellationToken)>,
    /// A list beside the watch, for an inventory.
    list: Option<u64>,
    inventory: Option<Inventory>,
    /// Numbers inventories.
    last_inventory: u64,
    inventory_wanted: bool,
    next_inventory: Option<Instant>,
    visible: Option<Sight>,
}

#[derive(Clone, Debug)]
struct Sight {
    visible: bool,
    since: Timestamp,
    message: String,
}

/// An inventory that is being taken.
#[derive(Debug)]
struct Inventory {
    source: u64,
    number: u64,
    /// Chunks that were sent.
    chunks: u32,
    shards: Shards,
    /// The last command that was taken over before the list began.
    reflects: u64,
    in_flight: Vec<AttemptId>,
}

#[derive(Deserialize)]
pub(super) struct Items<'a> {
    #[serde(borrow, default)]
    pub(super) items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct WatchEvent<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

impl Agent {
    /// The shards that this executor leases from now on.
    pub(super) fn leased(&mut self, shards: Shards) {
        let changed = self.shards != shards;
        self.shards = shards;
        tracing::info!(
            all = shards.selector("").is_empty(),
            none = shards.is_empty(),
            "shards leased"
        );
        if changed {
            if let Some(fleet) = &mut self.fleet {
                fleet.retain(|attempt| shards.holds(attempt));
            }
            self.launcher.retain(|attempt| shards.holds(attempt));
            self.drop_parked(|attempt| !shards.holds(attempt));
            self.stop_watching();
        }
        if shards.is_empty() {
            return;
        }
        if self.watching.pods.is_none() {
            self.want_inventory();
            self.watch_pods();
        } else if self.watching.inventory_wanted {
            self.take_inventory(Instant::now());
        }
        self.watch_nodes();
    }

    pub(super) fn stop_watching(&mut self) {
        if let Some((_, watch)) = self.watching.pods.take() {
            watch.cancel();
        }
        self.stop_watching_nodes();
        self.watching.list = None;
        self.watching.inventory = None;
    }

    /// Without any session there are no leases: what has to be let go is looked for in all shards.
    pub(super) fn watch_without_session(&mut self) {
        let Some(installation) = self.settings.installation else {
            return;
        };
        if self.installation.is_some() {
            return;
        }
        tracing::warn!(%installation, "no scheduler was ever heard; deleted pods of the installation are let go");
        self.installation = Some(installation);
        self.fleet = Some(Fleet::new(installation, self.settings.policy));
        self.shards = Shards::from_bytes(&[u8::MAX; 32]);
        self.watch_pods();
    }

    fn target(&self) -> Option<Target> {
        let installation = self.installation?;
        let shards = self.shards.selector(Label::SHARD);
        Some(Target {
            path: "/api/v1/pods",
            selector: format!("{}={installation},{shards},!{}", Label::INSTALLATION, Label::RELEASED),
        })
    }

    fn new_source(&mut self) -> u64 {
        self.watching.last_source += 1;
        self.watching.last_source
    }

    fn watch_pods(&mut self) {
        let Some(target) = self.target() else { return };
        let source = self.new_source();
        let stop = self.stop.child_token();
        self.watching.pods = Some((source, stop.clone()));
        let wrap = move |delivery| Event::Pods { source, delivery };
        self.tasks
            .spawn(reflect(self.api.clone(), target, self.events.clone(), wrap, stop));
    }

    /// The next list becomes an inventory.
    pub(super) fn want_inventory(&mut self) {
        self.watching.inventory_wanted = true;
    }

    /// Starts a list for an inventory when one is wanted or due.
    pub(super) fn take_inventory(&mut self, now: Instant) {
        let watching = &mut self.watching;
        if watching.next_inventory.is_some_and(|next| now >= next) && self.connected {
            watching.inventory_wanted = true;
        }
        let busy = watching.inventory.is_some() || watching.list.is_some();
        if !watching.inventory_wanted || busy || watching.pods.is_none() || !self.connected {
            return;
        }
        let Some(target) = self.target() else { return };
        let source = self.new_source();
        self.watching.list = Some(source);
        let wrap = move |delivery| Event::Pods { source, delivery };
        let list = list_once(self.api.clone(), target, self.events.clone(), wrap);
        self.spawn(list);
    }

    pub(super) fn pods(&mut self, source: u64, delivery: Delivery) {
        let is_watch = self.watching.pods.as_ref().is_some_and(|(watch, _)| *watch == source);
        if !is_watch && self.watching.list != Some(source) {
            // Of a watch that was given up.
            return;
        }
        match delivery {
            Delivery::ListBegins(reply) => {
                let Some(fleet) = &mut self.fleet else { return };
                let generation = fleet.begin_list();
                self.begin_inventory(source);
                // Nobody there: the watch was given up.
                reply.send(generation).ok();
            }
            Delivery::Page(page) => self.page(source, &page),
            Delivery::Listed {
                generation,
                resource_version,
            } => self.listed(source, generation, &resource_version),
            Delivery::Event(line) => self.watch_event(&line),
            Delivery::Sees => self.sees(),
            Delivery::Blind(error) => {
                self.blind(&error);
                if self.watching.list == Some(source) {
                    self.watching.list = None;
                }
                let lost = self.watching.inventory.take_if(|inventory| inventory.source == source);
                self.watching.inventory_wanted |= lost.is_some();
            }
        }
    }

    fn begin_inventory(&mut self, source: u64) {
        if self.watching.inventory_wanted && self.watching.inventory.is_none() {
            let parked = self
                .runs
                .values()
                .flat_map(|entry| entry.parked.iter().map(|launch| launch.attempt));
            self.watching.last_inventory += 1;
            self.watching.inventory = Some(Inventory {
                source,
                number: self.watching.last_inventory,
                chunks: 0,
                shards: self.shards,
                reflects: self.processed,
                in_flight: self.launcher.attempts().chain(parked).collect(),
            });
            self.watching.inventory_wanted = false;
        }
    }

    fn page(&mut self, source: u64, page: &Bytes) {
        let items: Items<'_> = match serde_json::from_slice(page) {
            Ok(items) => items,
            Err(error) => return tracing::error!(%error, "list of pods does not parse"),
        };
        let inventory = self
            .watching
            .inventory
            .as_ref()
            .filter(|inventory| inventory.source == source);
        let taking = inventory.is_some();
        let mut observations = Vec::new();
        for item in items.items {
            if let Some(sight) = self.saw(item.get(), taking) {
                observations.push(convert::observation(sight));
            }
        }
        if taking {
            self.send_inventory(observations, None);
        }
    }

    /// Takes over a pod; with `inspect` its sight is returned instead of being reported.
    fn saw(&mut self, json: &str, inspect: bool) -> Option<crate::attempts::Sight> {
        let pod: SlimPod<'_> = match serde_json::from_str(json) {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(%error, "pod does not parse");
                return None;
            }
        };
        let now = self.clock.now();
        let fleet = self.fleet.as_mut()?;
        let sight = if inspect {
            fleet.inspect(&pod, now)
        } else {
            match fleet.saw(&pod, now) {
                Change::Report(sight) => Some(*sight),
                Change::None => None,
            }
        };
        self.tell_followers(pod.metadata.uid.as_str(), &pod);
        let sight = sight?;
        if sight.terminating && !self.stopping.contains_key(&sight.attempt) {
            self.doubt_owner(sight.attempt.run);
        }
        if inspect {
            return Some(self.without_last_words(sight));
        }
        self.observe(sight);
        None
    }

    fn send_inventory(&mut self, observations: Vec<dispatch::Observation>, complete: Option<&str>) {
        let Some(inventory) = &mut self.watching.inventory else {
            return;
        };
        let chunk = inventory.chunks;
        inventory.chunks += 1;
        self.outbox.push(Request::Inventory(dispatch::Inventory {
            shards: inventory.shards.to_bytes(),
            resource_version: complete.unwrap_or_default().to_owned(),
            reflects_sequence: inventory.reflects,
            observations,
            in_flight: complete
                .map(|_| Self::attempt_keys(inventory.in_flight.iter().copied()))
                .unwrap_or_default(),
            last: complete.is_some(),
            list: inventory.number,
            chunk,
        }));
    }

    /// Gives up the inventory that is being taken: it speaks of commands of another session.
    pub(super) fn drop_inventory(&mut self) {
        self.watching.inventory = None;
        self.watching.list = None;
    }

    fn listed(&mut self, source: u64, generation: u32, resource_version: &str) {
        if self
            .watching
            .inventory
            .as_ref()
            .is_some_and(|inventory| inventory.source == source)
        {
            self.send_inventory(Vec::new(), Some(resource_version));
            self.watching.inventory = None;
            self.watching.next_inventory = Some(Instant::now() + self.settings.inventory_interval);
        }
        if self.watching.list == Some(source) {
            self.watching.list = None;
        }
        self.look_for_leftovers(Instant::now());
        let shards = self.shards;
        let Some(fleet) = &mut self.fleet else { return };
        fleet.forget_released(generation);
        let missing = fleet.missing_since(generation, |attempt| shards.holds(attempt));
        tracing::debug!(
            live = fleet.len(),
            missing = missing.len(),
            resource_version,
            "pods listed"
        );
        for key in missing {
            self.confirm(key);
        }
        self.read_nodes_in_doubt();
    }

    fn watch_event(&mut self, line: &Bytes) {
        let event: WatchEvent<'_> = match serde_json::from_slice(line) {
            Ok(event) => event,
            Err(error) => return tracing::error!(%error, "watch event does not parse"),
        };
        if event.kind.as_str() == "DELETED" {
            self.said_to_be_gone(event.object.get());
        } else {
            self.saw(event.object.get(), false);
        }
    }

    /// DELETED is a hint: a label change looks the same. A quorum read decides (I3).
    fn said_to_be_gone(&mut self, json: &str) {
        let (Ok(pod), Some(fleet)) = (serde_json::from_str::<SlimPod<'_>>(json), &self.fleet) else {
            return;
        };
        let uid = pod.metadata.uid.as_str();
        let Some(attempt) = fleet.attempt_of(&pod).filter(|attempt| fleet.knows(*attempt, uid)) else {
            return;
        };
        // It is the last that can be known of it.
        self.saw(json, false);
        let Some(fleet) = &mut self.fleet else { return };
        if let Some(key) = fleet.said_to_be_gone(attempt, uid) {
            self.confirm(key);
        }
    }

    fn confirm(&mut self, key: PodKey) {
        if !self.searches.begin_gone(&key.uid) {
            return;
        }
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let found = until_done("confirm", &calls, || api.get_pod(&key.namespace, &key.name)).await;
            drop(events.send(Event::Confirmed { key, found }).await);
        });
    }

    pub(super) fn confirmed(&mut self, key: PodKey, found: Option<Bytes>) {
        if !self.searches.done_gone(&key.uid) {
            return self.confirm(key);
        }
        let pod = found
            .as_deref()
            .and_then(|found| serde_json::from_slice::<SlimPod<'_>>(found).ok());
        let Some(fleet) = &mut self.fleet else { return };
        match pod {
            Some(pod) if pod.metadata.uid.as_str() == &*key.uid => {
                if let Change::Report(sight) = fleet.saw_of(key.attempt, &pod, self.clock.now()) {
                    self.observe(*sight);
                }
                self.label_again(key.attempt, &pod);
            }
            Some(_) | None => {
                let absent = fleet.confirmed_absent(key.attempt, &key.uid);
                self.report(absent);
                self.tell_gone(&key.uid);
            }
        }
    }

    fn sees(&mut self) {
        if self.watching.visible.as_ref().is_none_or(|sight| !sight.visible) {
            self.see(true, String::new());
        }
    }

    fn blind(&mut self, error: &ApiError) {
        if self.watching.visible.as_ref().is_none_or(|sight| sight.visible) {
            tracing::warn!(%error, "the cluster cannot be seen");
            self.see(false, error.to_string());
        }
    }

    fn see(&mut self, visible: bool, message: String) {
        metrics::set_flag(metrics::CLUSTER_VISIBLE, visible);
        let since = self.clock.now();
        self.watching.visible = Some(Sight {
            visible,
            since,
            message,
        });
        self.tell_sight();
    }

    /// Tells the scheduler how the cluster is seen, once something is known.
    pub(super) fn tell_sight(&self) {
        if let Some(sight) = &self.watching.visible {
            self.outbox.push(Request::Sight(dispatch::ClusterSight {
                visible: sight.visible,
                since: Some(convert::timestamp(sight.since)),
                message: sight.message.clone(),
            }));
        }
    }
}
