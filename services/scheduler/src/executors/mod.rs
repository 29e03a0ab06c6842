//! Executors: their sessions, and the orders of the core on their way to them.
//!
//! A session is an executor's process as the scheduler knows it; streams come and go. Everything here is volatile: after a loss the
//! core repairs the difference from the inventories (I6).

mod calls;
mod convert;
mod hello;
mod inventory;
mod leases;
mod material;
mod outbox;
mod session;
mod stream;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_api::cluster::v1::{Cluster, ConnectedExecutor};
use windlass_api::convert::duration_to_proto;
use windlass_api::dispatch::v1 as wire;
use windlass_api::server::v1::ClusterInfo;
use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, Namespace, PodUid, RunId, Shard};
use windlass_scheduling::{Effect, Launch, ShardSet};

pub(crate) use hello::negotiate;
pub(crate) use inventory::InventoryChunk;
pub(crate) use outbox::key;
pub(crate) use session::Session;
pub(crate) use stream::connect;
#[cfg(test)]
pub(crate) use {hello::Hello, stream::open_session};

use self::calls::{Call, PATIENCE};
use self::leases::Leases;
use crate::errors::CallError;
use crate::metric;
use crate::read_model::{ReadModel, stopped};

/// The sessions of all executors; see the module.
#[derive(Debug, Default)]
pub(crate) struct Executors {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sessions: BTreeMap<Incarnation, Arc<Session>>,
    leases: Leases,
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
        let older = known.sessions.insert(session.incarnation, Arc::clone(&session));
        if older.as_ref().is_some_and(|older| Arc::ptr_eq(older, &session)) {
            return;
        }
        known.inventoried.remove(&session.incarnation);
        if let Some(older) = older {
            older.retire();
        }
    }

    /// An executor's inventory was taken in.
    pub(crate) fn inventoried(&self, session: &Session) {
        self.lock().inventoried.insert(session.incarnation);
    }

    /// The clusters all of whose shards were listed since their executors connected: what is not known of them is not there.
    pub(crate) fn listed_clusters(&self) -> BTreeSet<ClusterUid> {
        let known = self.lock();
        let listed = |owner| known.inventoried.contains(&owner);
        known.leases.whole(listed).cloned().collect()
    }

    /// The core has given an executor up: its session cannot go on, and nothing is told to it any more.
    fn end(&self, incarnation: Incarnation) {
        let mut known = self.lock();
        known.leases.end(incarnation);
        known.inventoried.remove(&incarnation);
        if let Some(session) = known.sessions.remove(&incarnation) {
            session.retire();
        }
    }

    /// What an executor leases from now on. Without a session it is told when it connects.
    fn lease(&self, to: Incarnation, shards: ShardSet) {
        let mut known = self.lock();
        let Some(session) = known.sessions.get(&to).cloned() else {
            return;
        };
        known.leases.lease(&session.cluster, to, shards);
        session.tell(|outbox| outbox.lease(shards.to_bytes().to_vec()));
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
        known.leases = Leases::default();
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

    /// Has the least busy executor of a cluster carry a call out, and waits for its answer; an empty alias means the only cluster.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn ask<C: Call>(&self, alias: &str, call: C) -> Result<(Arc<Session>, C::Answer), CallError> {
        let of = |session: &Session| alias.is_empty() || session.alias.0 == alias;
        ask(self.least_busy(alias, of, C::is_known_to)?, call).await
    }

    /// As [`Self::ask`], of a cluster by its uid, whatever it is called now.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_in<C: Call>(
        &self,
        (cluster, alias): (&ClusterUid, &ClusterAlias),
        call: C,
    ) -> Result<C::Answer, CallError> {
        let of = |session: &Session| session.cluster == *cluster;
        let session = self.least_busy(&alias.0, of, C::is_known_to)?;
        ask(session, call).await.map(|(_, answer)| answer)
    }

    /// The cluster that an alias means, the only one when it is empty, if all of its executors carry out such calls.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn place_of<C: Call>(&self, alias: &str) -> Result<(ClusterUid, ClusterAlias), CallError> {
        let of = |session: &Session| alias.is_empty() || session.alias.0 == alias;
        let session = self.least_busy(alias, of, |_| true)?;
        let known = self.lock();
        let mut others = known.sessions.values().filter(|other| other.cluster == session.cluster);
        match others.all(|other| C::is_known_to(other)) {
            true => Ok((session.cluster.clone(), session.alias.clone())),
            false => Err(CallError::ExecutorTooOld {
                cluster: session.alias.0.clone(),
            }),
        }
    }

    fn least_busy(
        &self,
        named: &str,
        of: impl Fn(&Session) -> bool,
        able: impl Fn(&Session) -> bool,
    ) -> Result<Arc<Session>, CallError> {
        let known = self.lock();
        let there = known.sessions.values().filter(|session| session.is_attached());
        let of_cluster: Vec<_> = there.filter(|session| of(session)).collect();
        let clusters: BTreeMap<_, _> = of_cluster
            .iter()
            .map(|session| (&session.cluster, &session.alias.0))
            .collect();
        if clusters.len() > 1 {
            let clusters = clusters.into_values().cloned().collect();
            return Err(CallError::ClusterAmbiguous { clusters });
        }
        let able = of_cluster.iter().filter(|session| able(session));
        match able.min_by_key(|session| session.waiting_calls()) {
            Some(session) => Ok(Arc::clone(session)),
            None if of_cluster.is_empty() => Err(CallError::NoExecutor { cluster: named.into() }),
            None => Err(CallError::ExecutorTooOld { cluster: named.into() }),
        }
    }

    /// The clusters with their connected executors, by alias.
    pub(crate) fn described_clusters(&self) -> Vec<Cluster> {
        let known = self.lock();
        let mut clusters: BTreeMap<(&ClusterAlias, &ClusterUid), Cluster> = BTreeMap::new();
        for session in known.sessions.values().filter(|session| session.is_attached()) {
            let cluster = clusters.entry((&session.alias, &session.cluster));
            let cluster = cluster.or_insert_with(|| Cluster {
                alias: session.alias.0.clone(),
                uid: session.cluster.0.clone(),
                local: session.local,
                executors: Vec::new(),
            });
            cluster.executors.push(known.described(session));
        }
        for cluster in clusters.values_mut() {
            cluster.executors.sort_by(|one, other| {
                let key = |executor: &ConnectedExecutor| (executor.name.clone(), executor.incarnation.clone());
                key(one).cmp(&key(other))
            });
        }
        clusters.into_values().collect()
    }

    /// An executor for people.
    pub(crate) fn described(&self, session: &Session) -> ConnectedExecutor {
        self.lock().described(session)
    }

    /// The executor that leases the shard of an attempt in a cluster.
    pub(crate) fn holder(&self, cluster: &ClusterUid, attempt: AttemptId) -> Option<Arc<Session>> {
        let known = self.lock();
        let holder = known.leases.holder(cluster, Shard::of(attempt))?;
        known.sessions.get(&holder).cloned()
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
                ..wire::Stop::default()
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
                let (namespace, pod_name) = place(runs, *attempt);
                let stop = wire::Stop {
                    attempt: Some(key(*attempt)),
                    pod_uid: uid(*pod),
                    namespace,
                    pod_name,
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
                let (namespace, pod_name) = place(runs, *attempt);
                let probe = wire::Probe {
                    attempt: Some(key(*attempt)),
                    namespace,
                    pod_name,
                    grant: u64::from(*grant),
                    pod_uid: uid(*pod),
                };
                self.tell(*to, |outbox| outbox.probe(*attempt, probe));
            }
            Effect::LeaseShards { to, shards } => self.lease(*to, *shards),
            Effect::SessionEnded { incarnation } => self.end(*incarnation),
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

impl Known {
    fn described(&self, session: &Session) -> ConnectedExecutor {
        let leased = self.leases.count(&session.cluster, session.incarnation);
        ConnectedExecutor {
            leased_shards: u32::try_from(leased).unwrap_or(u32::MAX),
            ..session.described()
        }
    }
}

async fn ask<C: Call>(session: Arc<Session>, call: C) -> Result<(Arc<Session>, C::Answer), CallError> {
    let answer = tokio::time::timeout(PATIENCE, session.ask(call)?).await;
    match answer {
        Ok(Ok(answer)) => Ok((session, answer)),
        Ok(Err(_)) | Err(_) => Err(CallError::ExecutorLost),
    }
}

/// Namespace and name of an attempt's pod; both empty when its run is not known any more.
fn place(runs: &ReadModel, attempt: AttemptId) -> (String, String) {
    let Some(entry) = runs.get(attempt.run) else {
        return <(String, String)>::default();
    };
    let meta = entry.meta();
    (meta.header.namespace.0.clone(), meta.pod_name(attempt))
}

fn uid(pod: Option<PodUid>) -> String {
    pod.map(|pod| pod.to_string()).unwrap_or_default()
}
