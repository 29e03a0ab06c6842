//! Executors: their sessions, and the orders of the core on their way to them.
//!
//! A session is an executor's process as the scheduler knows it; streams come and go. Everything here is volatile: after a loss the
//! core repairs the difference from the inventories (I6).

mod convert;
mod hello;
mod material;
mod outbox;
mod session;
mod stream;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windlass_api::convert::duration_to_proto;
use windlass_api::dispatch::v1 as wire;
use windlass_api::server::v1::ClusterInfo;
use windlass_ids::{AttemptId, ClusterUid, Incarnation, Namespace, PodUid, RunId, Shard, Timestamp};
use windlass_scheduling::{Effect, Launch, ShardSet};

pub(crate) use hello::negotiate;
pub(crate) use outbox::key;
pub(crate) use session::Session;
pub(crate) use stream::connect;

use crate::metric;
use crate::read_model::{ReadModel, stopped};

/// Leases after which a silent executor's session is forgotten.
const LEASES_KEPT: u32 = 4;

/// The sessions of all executors; see the module.
#[derive(Debug, Default)]
pub(crate) struct Executors {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sessions: BTreeMap<Incarnation, Arc<Session>>,
    shards: BTreeMap<Incarnation, ShardSet>,
    relays: Vec<wire::Relay>,
    /// Executors whose inventory was taken in since they connected.
    inventoried: BTreeSet<Incarnation>,
}

impl Executors {
    /// The session of an executor.
    pub(crate) fn get(&self, incarnation: Incarnation) -> Option<Arc<Session>> {
        self.lock().sessions.get(&incarnation).cloned()
    }

    /// Puts a new session in the place of an older one of the same process.
    pub(crate) fn install(&self, session: Arc<Session>) {
        let mut known = self.lock();
        session.tell(|outbox| outbox.relays(known.relays.clone()));
        if !known
            .sessions
            .get(&session.incarnation)
            .is_some_and(|known| Arc::ptr_eq(known, &session))
        {
            known.inventoried.remove(&session.incarnation);
        }
        if let Some(older) = known.sessions.insert(session.incarnation, session) {
            older.detach();
        }
    }

    /// An executor's inventory was taken in.
    pub(crate) fn inventoried(&self, session: &Session) {
        self.lock().inventoried.insert(session.incarnation);
    }

    /// The clusters all of whose shards were listed since their executors connected: what is not known of them is not there.
    pub(crate) fn listed_clusters(&self) -> BTreeSet<ClusterUid> {
        let known = self.lock();
        let clusters: BTreeSet<&ClusterUid> = known.sessions.values().map(|session| &session.cluster).collect();
        let listed = |cluster: &ClusterUid| {
            let sessions = known.sessions.values().filter(|session| session.cluster == *cluster);
            let listed = sessions.filter(|session| known.inventoried.contains(&session.incarnation));
            let shards = listed.filter_map(|session| known.shards.get(&session.incarnation));
            let all: ShardSet = shards.flat_map(ShardSet::iter).collect();
            all == ShardSet::ALL
        };
        clusters
            .into_iter()
            .filter(|cluster| listed(cluster))
            .cloned()
            .collect()
    }

    /// Forgets the sessions of processes that were not heard for several leases: the core has given them up before.
    pub(crate) fn sweep(&self, now: Timestamp, lease: Duration) {
        let mut known = self.lock();
        let lost = |session: &Session| !session.is_attached() && now.since(session.last_heard()) > lease * LEASES_KEPT;
        let sessions = known.sessions.values().filter(|session| lost(session));
        let gone: Vec<Incarnation> = sessions.map(|session| session.incarnation).collect();
        for incarnation in gone {
            known.sessions.remove(&incarnation);
            known.shards.remove(&incarnation);
        }
    }

    /// Sets the gauges.
    pub(crate) fn measure(&self) {
        let known = self.lock();
        let attached = known.sessions.values().filter(|session| session.is_attached()).count();
        metrics::gauge!(metric::EXECUTORS).set(attached as f64);
    }

    /// Forgets everything and sends all streams away: the state is read back from the store, under a new epoch.
    pub(crate) fn reset(&self) {
        let mut known = self.lock();
        known.shards.clear();
        known.inventoried.clear();
        for session in std::mem::take(&mut known.sessions).into_values() {
            session.detach();
        }
    }

    /// Tells all executors which relays to feed.
    pub(crate) fn set_relays(&self, relays: Vec<wire::Relay>) {
        let mut known = self.lock();
        for session in known.sessions.values() {
            session.tell(|outbox| outbox.relays(relays.clone()));
        }
        known.relays = relays;
    }

    /// Name of an executor for people.
    pub(crate) fn name(&self, incarnation: Incarnation) -> String {
        let session = self.get(incarnation).filter(|session| !session.name.is_empty());
        session.map_or_else(|| incarnation.to_string(), |session| session.name.clone())
    }

    /// Whether a local cluster may run steps: one is connected, or none is known yet.
    pub(crate) fn may_be_local(&self) -> bool {
        let known = self.lock();
        known.sessions.is_empty() || known.sessions.values().any(|session| session.local)
    }

    /// The clusters with a connected executor.
    pub(crate) fn clusters(&self) -> Vec<ClusterInfo> {
        let mut clusters: BTreeMap<ClusterUid, ClusterInfo> = BTreeMap::new();
        for session in self.lock().sessions.values().filter(|session| session.is_attached()) {
            let cluster = clusters.entry(session.cluster.clone()).or_insert_with(|| ClusterInfo {
                alias: session.alias.0.clone(),
                uid: session.cluster.0.clone(),
                executors: 0,
            });
            cluster.executors += 1;
        }
        clusters.into_values().collect()
    }

    /// The executor that leases the shard of an attempt in a cluster.
    pub(crate) fn holder(&self, cluster: &ClusterUid, attempt: AttemptId) -> Option<Arc<Session>> {
        let known = self.lock();
        let shard: Shard = Shard::of(attempt);
        let holds = |session: &&Arc<Session>| {
            session.cluster == *cluster
                && known
                    .shards
                    .get(&session.incarnation)
                    .is_some_and(|shards| shards.contains(shard))
        };
        known.sessions.values().find(holds).cloned()
    }

    /// Tells the executor that leases an attempt's shard to let its pod go; false when there is none.
    pub(crate) fn release(&self, cluster: &ClusterUid, attempt: AttemptId, release: wire::Release) -> bool {
        let holder = self.holder(cluster, attempt);
        if let Some(holder) = &holder {
            holder.tell(|outbox| outbox.release(attempt, release));
        }
        holder.is_some()
    }

    /// Tells every executor of a cluster that the last pod of a run is released.
    pub(crate) fn finish(&self, cluster: &ClusterUid, run: RunId, namespace: &Namespace) {
        for session in self
            .lock()
            .sessions
            .values()
            .filter(|session| session.cluster == *cluster)
        {
            session.tell(|outbox| outbox.finish(run, namespace.clone()));
        }
    }

    /// Tells an executor to stop a pod that nothing explains.
    pub(crate) fn stop_unexplained(&self, executor: Incarnation, attempt: AttemptId, pod: PodUid) {
        if let Some(session) = self.get(executor) {
            let stop = wire::Stop {
                attempt: Some(key(attempt)),
                pod_uid: pod.to_string(),
                grace: None,
                reason: "nothing is known of this pod".to_owned(),
                grant: 0,
            };
            session.tell(|outbox| outbox.stop(attempt, stop));
        }
    }

    /// Carries out an order of the core, when it is one for an executor.
    pub(crate) fn carry_out(&self, effect: &Effect, runs: &ReadModel) {
        match effect {
            Effect::Launch(launch) => self.launch(launch, runs),
            Effect::Stop {
                to,
                attempt,
                grant,
                pod,
                grace,
                cause,
            } => {
                let stop = wire::Stop {
                    attempt: Some(key(*attempt)),
                    pod_uid: uid(*pod),
                    grace: Some(duration_to_proto(*grace)),
                    reason: stopped(*cause).to_owned(),
                    grant: u64::from(*grant),
                };
                self.tell(*to, |outbox| outbox.stop(*attempt, stop));
            }
            Effect::Probe {
                to,
                attempt,
                grant,
                pod,
            } => {
                let probe = wire::Probe {
                    attempt: Some(key(*attempt)),
                    grant: u64::from(*grant),
                    pod_uid: uid(*pod),
                };
                self.tell(*to, |outbox| outbox.probe(*attempt, probe));
            }
            Effect::LeaseShards { to, shards } => {
                self.lock().shards.insert(*to, *shards);
                self.tell(*to, |outbox| outbox.lease(shards.to_bytes().to_vec()));
            }
            Effect::RequestInventory { to } => self.tell(*to, outbox::Outbox::request_inventory),
            Effect::AttemptFinished { .. } | Effect::PodUnexplained { .. } | Effect::RunFinished { .. } => {}
        }
    }

    fn launch(&self, launch: &Launch, runs: &ReadModel) {
        let Some(entry) = runs.get(launch.attempt.run) else {
            return;
        };
        let order = outbox::LaunchOrder {
            attempt: launch.attempt,
            grant: launch.grant,
            order: launch.order,
            material: entry,
        };
        self.tell(launch.to, |outbox| outbox.launch(order));
    }

    /// An executor without a session is told nothing: it gets everything anew when it connects.
    fn tell(&self, to: Incarnation, change: impl FnOnce(&mut outbox::Outbox)) {
        if let Some(session) = self.get(to) {
            session.tell(change);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(pod: Option<PodUid>) -> String {
    pod.map(|pod| pod.to_string()).unwrap_or_default()
}
