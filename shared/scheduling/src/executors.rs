//! Executors' sessions, their credit and leases, and the clusters that they speak for. Volatile: all of it is learnt anew after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, Shard, StepIndex, Timestamp};

use crate::change::ExecutorIdentity;
use crate::event::ShardSet;
use crate::rejection::Rejection;
use crate::sight::Sight;
use crate::view::ExecutorView;

/// One executor's session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) identity: Arc<ExecutorIdentity>,
    pub(crate) cluster: u32,
    pub(crate) connected: bool,
    pub(crate) draining: bool,
    /// Since when it does not see its cluster.
    pub(crate) blind_since: Option<Timestamp>,
    /// It has been blind for a whole lease, so those that see get its shards.
    pub(crate) passed_over: bool,
    pub(crate) credit: u32,
    /// Launches sent, and of these acknowledged, in this session.
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) heard_at: Timestamp,
    pub(crate) inventory_asked_at: Timestamp,
    pub(crate) shards: ShardSet,
    /// Attempts of its shards whose pods are missing and have to be posted again: slot of the run, step.
    pub(crate) missing: BTreeSet<(u32, StepIndex)>,
}

impl Session {
    pub(crate) fn outstanding(&self) -> u64 {
        self.sent - self.acknowledged
    }

    /// Launches that it takes now.
    pub(crate) fn room(&self) -> u64 {
        if self.connected && !self.draining && self.blind_since.is_none() {
            u64::from(self.credit).saturating_sub(self.outstanding())
        } else {
            0
        }
    }

    /// When others get its shards because it is blind, unless that has happened.
    pub(crate) fn passed_over_at(&self, lease: std::time::Duration) -> Option<Timestamp> {
        let since = self.blind_since.filter(|_| !self.passed_over)?;
        Some(since.saturating_add(lease))
    }

    pub(crate) fn view(&self, lease: std::time::Duration) -> ExecutorView {
        ExecutorView {
            incarnation: self.identity.incarnation,
            cluster: self.identity.cluster.clone(),
            alias: self.identity.alias.clone(),
            connected: self.connected,
            draining: self.draining,
            visible: self.blind_since.is_none(),
            credit: self.credit,
            outstanding: self.outstanding(),
            shards: self.shards,
            lease_ends: self.heard_at.saturating_add(lease),
        }
    }
}

/// One cluster.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) uid: ClusterUid,
    pub(crate) alias: ClusterAlias,
    /// Who leases each shard.
    pub(crate) owners: Vec<Option<Incarnation>>,
    /// Until then an executor that has lost a shard may still create a pod in it.
    pub(crate) fence_until: Timestamp,
    /// Whether the owner of each shard sees the cluster.
    sights: Vec<Sight>,
}

impl Cluster {
    fn new(uid: ClusterUid, alias: ClusterAlias, now: Timestamp) -> Self {
        Self {
            uid,
            alias,
            owners: vec![None; Shard::COUNT],
            fence_until: Timestamp::default(),
            sights: vec![Sight::none(now); Shard::COUNT],
        }
    }

    /// Sight of the shard of an attempt.
    pub(crate) fn sight(&self, attempt: AttemptId) -> &Sight {
        &self.sights[usize::from(Shard::of(attempt).0)]
    }

    pub(crate) fn owner(&self, attempt: AttemptId) -> Option<Incarnation> {
        self.owners[usize::from(Shard::of(attempt).0)]
    }
}

/// All executors and clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Executors {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) sessions: BTreeMap<Incarnation, Session>,
    /// Whether shards were dealt since lanes last looked at who serves them.
    pub(crate) dealt: bool,
    /// Before this, executors of the time before a restart may still create pods.
    pub(crate) first_fence: Timestamp,
}

impl Executors {
    pub(crate) fn cluster(&self, index: u32) -> Option<&Cluster> {
        self.clusters.get(index as usize)
    }

    /// Index of a cluster, known from an attempt or made known by an executor.
    pub(crate) fn intern(&mut self, uid: &ClusterUid, alias: &ClusterAlias, now: Timestamp) -> u32 {
        let found = self.clusters.iter().position(|cluster| cluster.uid == *uid);
        let index = found.unwrap_or_else(|| {
            let mut cluster = Cluster::new(uid.clone(), alias.clone(), now);
            cluster.fence_until = self.first_fence;
            self.clusters.push(cluster);
            self.clusters.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    pub(crate) fn has_sessions(&self, cluster: u32) -> bool {
        self.sessions.values().any(|session| session.cluster == cluster)
    }

    /// Checks that an alias and a cluster belong together; `in_use` says of a cluster whether attempts live there.
    pub(crate) fn check_alias(
        &self,
        uid: &ClusterUid,
        alias: &ClusterAlias,
        in_use: impl Fn(u32) -> bool,
    ) -> Result<(), Rejection> {
        for (index, cluster) in (0_u32..).zip(&self.clusters) {
            let active = || self.has_sessions(index) || in_use(index);
            if cluster.alias == *alias && cluster.uid != *uid && active() {
                return Err(Rejection::AliasTaken {
                    alias: alias.clone(),
                    owner: cluster.uid.clone(),
                });
            }
            if cluster.uid == *uid && cluster.alias != *alias && active() {
                return Err(Rejection::AliasDiffers {
                    cluster: uid.clone(),
                    alias: cluster.alias.clone(),
                });
            }
        }
        Ok(())
    }

    /// Clusters that steps with this alias (none: any) may run in.
    pub(crate) fn clusters_for<'a>(&'a self, alias: Option<&'a ClusterAlias>) -> impl Iterator<Item = u32> + 'a {
        (0_u32..)
            .zip(&self.clusters)
            .filter(move |(_, cluster)| alias.is_none_or(|alias| cluster.alias == *alias))
            .map(|(index, _)| index)
    }

    /// Whether somebody leases shards of a cluster that steps with this alias may run in.
    pub(crate) fn serve(&self, alias: Option<&ClusterAlias>) -> bool {
        let is_served = |cluster| {
            let mut sessions = self.sessions.values();
            sessions.any(|session| session.cluster == cluster && !session.shards.is_empty())
        };
        self.clusters_for(alias).any(is_served)
    }

    /// Launches that a cluster's executors take now.
    pub(crate) fn room(&self, cluster: u32) -> u64 {
        let sessions = self.sessions.values();
        sessions
            .filter(|session| session.cluster == cluster)
            .map(Session::room)
            .sum()
    }

    /// Brings the sight of a cluster's shards up to date; returns whether that of any was regained.
    pub(crate) fn update_sight(&mut self, cluster: u32, now: Timestamp) -> bool {
        let Some(cluster) = self.clusters.get_mut(cluster as usize) else {
            return false;
        };
        let sees = |owner: &Incarnation| {
            let session = self.sessions.get(owner);
            session.is_some_and(|session| session.connected && session.blind_since.is_none())
        };
        let mut regained = false;
        for (sight, owner) in cluster.sights.iter_mut().zip(&cluster.owners) {
            regained |= sight.set_visible(owner.as_ref().is_some_and(sees), now);
        }
        regained
    }

    /// Deals a cluster's shards out evenly, moving as few as possible. Returns whose sets changed, and whether they gained any.
    ///
    /// An executor whose stream is broken keeps its shards until its lease ends; one that drains gives all up, and so does one that has long been
    /// blind, unless all are.
    pub(crate) fn rebalance(&mut self, cluster: u32) -> Vec<(Incarnation, bool)> {
        self.dealt = true;
        let here = |session: &&Session| session.cluster == cluster && !session.draining;
        let mut active = self.sessions.values().filter(here);
        let somebody_sees = active.any(|session| session.connected && !session.passed_over);
        let serves = |session: &Session| !(session.draining || session.passed_over && somebody_sees);
        let Some(owners) = self
            .clusters
            .get_mut(cluster as usize)
            .map(|cluster| &mut cluster.owners)
        else {
            return Vec::new();
        };
        let mut takers: Vec<(Incarnation, usize)> = Vec::new();
        let mut before: BTreeMap<Incarnation, ShardSet> = BTreeMap::new();
        for (incarnation, session) in self.sessions.iter().filter(|(_, session)| session.cluster == cluster) {
            before.insert(*incarnation, session.shards);
            if session.connected && serves(session) {
                takers.push((*incarnation, session.shards.len()));
            }
        }
        let keeps = |owner: &Incarnation| {
            let session = self.sessions.get(owner);
            session.is_some_and(|session| session.cluster == cluster && serves(session))
        };
        for owner in owners.iter_mut() {
            *owner = owner.filter(keeps);
        }
        deal(owners, &mut takers);
        let mut after: BTreeMap<Incarnation, ShardSet> = before.keys().map(|key| (*key, ShardSet::default())).collect();
        for (shard, owner) in (0..=u8::MAX).map(Shard).zip(owners.iter()) {
            if let Some(set) = owner.and_then(|owner| after.get_mut(&owner)) {
                set.insert(shard);
            }
        }
        let mut changed = Vec::new();
        for (incarnation, set) in after {
            let old = before.get(&incarnation).copied().unwrap_or_default();
            if let Some(session) = self.sessions.get_mut(&incarnation)
                && old != set
            {
                session.shards = set;
                changed.push((incarnation, set.iter().any(|shard| !old.contains(shard))));
            }
        }
        changed
    }
}

/// Fills the gaps and evens out: those that have most keep the odd shard.
fn deal(owners: &mut [Option<Incarnation>], takers: &mut [(Incarnation, usize)]) {
    if takers.is_empty() {
        return;
    }
    let is_taker = |owner: &Incarnation| takers.iter().any(|(taker, _)| taker == owner);
    let dealt = owners
        .iter()
        .filter(|owner| owner.is_none_or(|owner| is_taker(&owner)))
        .count();
    let (share, odd) = (dealt / takers.len(), dealt % takers.len());
    takers.sort_by_key(|(taker, has)| (usize::MAX - has, *taker));
    let mut quotas: BTreeMap<Incarnation, usize> = takers
        .iter()
        .enumerate()
        .map(|(index, (taker, _))| (*taker, share + usize::from(index < odd)))
        .collect();
    for owner in owners.iter_mut() {
        let Some(quota) = owner.and_then(|owner| quotas.get_mut(&owner)) else {
            continue;
        };
        match quota.checked_sub(1) {
            Some(left) => *quota = left,
            None => *owner = None,
        }
    }
    let mut open = quotas
        .into_iter()
        .flat_map(|(taker, quota)| std::iter::repeat_n(taker, quota));
    for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
        *owner = open.next();
    }
}
