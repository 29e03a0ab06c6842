//! What executors say about themselves: sessions, leases, credit and sight.

use std::sync::Arc;

use windlass_ids::{Incarnation, Timestamp};

use crate::change::ExecutorIdentity;
use crate::effect::Effect;
use crate::event::ShardSet;
use crate::executors::Session;
use crate::rejection::Rejection;
use crate::scheduler::{Scheduler, Turn};

impl Scheduler {
    /// An executor opened a session or resumed one. It is taken to see its cluster until it says otherwise, since it has read the cluster's uid.
    pub(crate) fn connect(
        &mut self,
        turn: &mut Turn<'_>,
        identity: ExecutorIdentity,
        credit: u32,
        resumed: bool,
    ) -> Result<(), Rejection> {
        let incarnation = identity.incarnation;
        if resumed && !self.resumes(&identity) {
            return Err(Rejection::UnknownExecutor { incarnation });
        }
        let in_use = |cluster| {
            let mut runs = self.runs.iter().flatten();
            runs.any(|run| run.attempts().iter().any(|attempt| attempt.cluster == cluster))
        };
        self.executors.check_alias(&identity.cluster, &identity.alias, in_use)?;
        let cluster = self.executors.intern(&identity.cluster, &identity.alias, turn.now);
        self.executors.clusters[cluster as usize].alias = identity.alias.clone();
        if resumed {
            self.resume(turn, incarnation, credit);
        } else {
            self.open(turn, identity, cluster, credit);
        }
        self.sight_changed(turn.now, cluster);
        let told = self.deal_shards(turn, cluster);
        if !told.contains(&incarnation) {
            self.tell_shards(turn, incarnation);
            if !resumed {
                self.ask_inventory(turn, incarnation);
            }
        }
        if self.next_repair <= turn.now {
            self.next_repair = turn.now.saturating_add(self.config.repair_interval);
        }
        self.requeue_credit();
        Ok(())
    }

    fn resumes(&self, identity: &ExecutorIdentity) -> bool {
        let session = self.executors.sessions.get(&identity.incarnation);
        session.is_some_and(|session| session.identity.cluster == identity.cluster)
    }

    fn resume(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation, credit: u32) {
        let Some(session) = self.executors.sessions.get_mut(&incarnation) else {
            return;
        };
        session.connected = true;
        session.blind_since = None;
        session.passed_over = false;
        session.credit = credit;
        session.heard_at = turn.now;
    }

    /// A session from its beginning: launches of an earlier one of the same process count as sent long ago, so its inventory decides about them.
    fn open(&mut self, turn: &mut Turn<'_>, identity: ExecutorIdentity, cluster: u32, credit: u32) {
        let incarnation = identity.incarnation;
        let earlier = self.executors.sessions.remove(&incarnation);
        for run in self.runs.iter_mut().flatten() {
            for attempt in run.attempts_mut() {
                if attempt.executor.incarnation == incarnation {
                    attempt.order = 0;
                }
            }
        }
        let session = Session {
            identity: Arc::new(identity),
            cluster,
            connected: true,
            draining: false,
            blind_since: None,
            passed_over: false,
            credit,
            sent: 0,
            acknowledged: 0,
            heard_at: turn.now,
            inventory_asked_at: turn.now,
            shards: earlier
                .filter(|earlier| earlier.cluster == cluster)
                .map_or_else(ShardSet::default, |earlier| earlier.shards),
            missing: Default::default(),
        };
        self.executors.sessions.insert(incarnation, session);
    }

    /// A broken stream is no loss: the lease goes on, shards stay where they are.
    pub(crate) fn disconnect(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) -> Result<(), Rejection> {
        let session = self.session(incarnation)?;
        session.connected = false;
        let cluster = session.cluster;
        self.sight_changed(turn.now, cluster);
        Ok(())
    }

    /// A late or repeated report says nothing about the stream, so this does not undo [`Self::disconnect`]: only a new connection does.
    pub(crate) fn hear(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) -> Result<(), Rejection> {
        self.session(incarnation)?.heard_at = turn.now;
        Ok(())
    }

    pub(crate) fn drain(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) -> Result<(), Rejection> {
        self.hear(turn, incarnation)?;
        let session = self.session(incarnation)?;
        session.draining = true;
        let cluster = session.cluster;
        if !self.deal_shards(turn, cluster).contains(&incarnation) {
            self.tell_shards(turn, incarnation);
        }
        self.requeue_credit();
        Ok(())
    }

    pub(crate) fn set_credit(
        &mut self,
        turn: &mut Turn<'_>,
        incarnation: Incarnation,
        credit: u32,
    ) -> Result<(), Rejection> {
        self.hear(turn, incarnation)?;
        self.session(incarnation)?.credit = credit;
        self.requeue_credit();
        Ok(())
    }

    pub(crate) fn acknowledge(
        &mut self,
        turn: &mut Turn<'_>,
        incarnation: Incarnation,
        up_to: u64,
    ) -> Result<(), Rejection> {
        self.hear(turn, incarnation)?;
        let session = self.session(incarnation)?;
        session.acknowledged = session.acknowledged.max(up_to.min(session.sent));
        self.requeue_credit();
        Ok(())
    }

    pub(crate) fn set_sight(
        &mut self,
        turn: &mut Turn<'_>,
        incarnation: Incarnation,
        visible: bool,
    ) -> Result<(), Rejection> {
        self.hear(turn, incarnation)?;
        let session = self.session(incarnation)?;
        session.blind_since = (!visible).then(|| session.blind_since.unwrap_or(turn.now));
        let returns = visible && std::mem::take(&mut session.passed_over);
        let cluster = session.cluster;
        self.sight_changed(turn.now, cluster);
        if returns {
            self.deal_shards(turn, cluster);
        }
        self.requeue_credit();
        Ok(())
    }

    /// Takes the shards of executors whose lease has ended. No step fails: the next owner's inventory says what is missing.
    pub(crate) fn expire_leases(&mut self, turn: &mut Turn<'_>) {
        let lease = self.config.lease;
        let ended: Vec<(Incarnation, u32, Timestamp)> = self
            .executors
            .sessions
            .iter()
            .map(|(incarnation, session)| (*incarnation, session.cluster, session.heard_at.saturating_add(lease)))
            .filter(|(_, _, end)| *end <= turn.now)
            .collect();
        for (incarnation, cluster, end) in ended {
            self.executors.sessions.remove(&incarnation);
            turn.effect(Effect::SessionEnded { incarnation });
            // Its own count of the lease began no later than ours; a stall of ours is no reason to be less careful.
            self.raise_fence(cluster, end.max(turn.now));
            self.sight_changed(turn.now, cluster);
            self.deal_shards(turn, cluster);
            self.requeue_credit();
        }
    }

    /// Gives the shards of executors that have been blind for a whole lease to those of their cluster that see.
    pub(crate) fn pass_over_blind(&mut self, turn: &mut Turn<'_>) {
        let lease = self.config.lease;
        let sessions = self.executors.sessions.values_mut();
        let blind = sessions.filter(|session| session.passed_over_at(lease).is_some_and(|at| at <= turn.now));
        let mut clusters: Vec<u32> = Vec::new();
        for session in blind {
            session.passed_over = true;
            clusters.push(session.cluster);
        }
        for cluster in clusters {
            self.deal_shards(turn, cluster);
            self.requeue_credit();
        }
    }

    /// An executor may create pods in shards that it no longer has until its lease ends, plus the time of one call.
    fn raise_fence(&mut self, cluster: u32, lease_end: Timestamp) {
        let until = lease_end.saturating_add(self.config.fence());
        if let Some(cluster) = self.executors.clusters.get_mut(cluster as usize) {
            cluster.fence_until = cluster.fence_until.max(until);
        }
    }

    /// Deals shards out again and tells everybody concerned; returns whom.
    fn deal_shards(&mut self, turn: &mut Turn<'_>, cluster: u32) -> Vec<Incarnation> {
        let before: Vec<(Incarnation, ShardSet)> = self
            .executors
            .sessions
            .iter()
            .map(|(incarnation, session)| (*incarnation, session.shards))
            .collect();
        let changed = self.executors.rebalance(cluster);
        self.sight_changed(turn.now, cluster);
        for (incarnation, gained) in &changed {
            let now = self.executors.sessions.get(incarnation).map(|session| session.shards);
            let old = before
                .iter()
                .find(|(known, _)| known == incarnation)
                .map(|(_, old)| *old);
            let lost = old.is_some_and(|old| old.iter().any(|shard| !now.is_some_and(|now| now.contains(shard))));
            if lost {
                self.raise_fence(cluster, turn.now.saturating_add(self.config.lease));
            }
            self.tell_shards(turn, *incarnation);
            if *gained {
                self.ask_inventory(turn, *incarnation);
            }
        }
        changed.into_iter().map(|(incarnation, _)| incarnation).collect()
    }

    pub(crate) fn tell_shards(&self, turn: &mut Turn<'_>, to: Incarnation) {
        if let Some(session) = self.executors.sessions.get(&to) {
            turn.effect(Effect::LeaseShards {
                to,
                shards: session.shards,
            });
        }
    }

    pub(crate) fn ask_inventory(&mut self, turn: &mut Turn<'_>, to: Incarnation) {
        if let Some(session) = self.executors.sessions.get_mut(&to) {
            session.inventory_asked_at = turn.now;
            turn.effect(Effect::RequestInventory { to });
        }
    }

    /// Clocks of deadlines stand still while the owner of a shard does not see its cluster; when it does again, they are filed again.
    fn sight_changed(&mut self, now: Timestamp, cluster: u32) {
        if !self.executors.update_sight(cluster, now) {
            return;
        }
        for (slot, step) in self.attempts_where(|_, attempt| attempt.cluster == cluster) {
            self.file(now, slot, step);
        }
    }

    fn session(&mut self, incarnation: Incarnation) -> Result<&mut Session, Rejection> {
        let session = self.executors.sessions.get_mut(&incarnation);
        session.ok_or(Rejection::UnknownExecutor { incarnation })
    }
}
