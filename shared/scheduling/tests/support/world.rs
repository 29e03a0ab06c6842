//! A small world around the core: clusters with pods, executors that crash, streams that break, messages that are late, lost or repeated.
//!
//! It checks what no look at the core alone can show: never two live pods of a step, no pod created twice (I2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use windlass_ids::{AttemptId, Incarnation, PodUid, RunId, Shard, StepIndex, Timestamp};
use windlass_scheduling::*;

use super::{Lab, incarnation};

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Pods fail, are evicted, deleted, become unreachable.
    pub(crate) pods: bool,
    /// Executors crash, streams break, clusters go out of sight, the scheduler restarts.
    pub(crate) services: bool,
    /// Orders and reports are dropped without anybody noticing.
    pub(crate) losses: bool,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: PodUid,
    phase: AttemptPhase,
    /// Processes run.
    alive: bool,
    end: Option<AttemptEnd>,
    terminating: bool,
    unreachable: bool,
    /// It was let go: executors do not see it any more, and it goes when nothing of it lives.
    released: bool,
}

#[derive(Clone, Debug, Default)]
struct Executor {
    connected: bool,
    crashed: bool,
    /// Orders on their way to it.
    inbox: VecDeque<Order>,
    /// Reports on their way from it, with the time of sending.
    outbox: VecDeque<(Timestamp, Event)>,
    lease_until: Timestamp,
    shards: ShardSet,
    grants: BTreeMap<AttemptId, u32>,
    /// Creates that it has taken over and not sent yet.
    queued: Vec<AttemptId>,
    /// Highest order taken over.
    reflects: u64,
}

/// What the scheduler's stream carries.
#[derive(Clone, Debug)]
enum Order {
    Effect(Effect),
    /// An answer to a frame that the executor sent at this time: its lease counts from there.
    Lease(Timestamp),
}

/// A create that the API server may carry out until its deadline.
#[derive(Clone, Debug)]
struct Wire {
    attempt: AttemptId,
    by: Incarnation,
    deadline: Timestamp,
}

pub(crate) struct World {
    pub(crate) lab: Lab,
    faults: Faults,
    pods: BTreeMap<AttemptId, Pod>,
    /// How often a pod was created for an attempt.
    created: BTreeMap<AttemptId, u32>,
    /// Pods whose objects are gone, and those whose processes live.
    gone: BTreeMap<AttemptId, PodUid>,
    ghosts: BTreeSet<AttemptId>,
    executors: BTreeMap<Incarnation, Executor>,
    wires: Vec<Wire>,
    /// Pods to let go, and not before when.
    releases: Vec<(AttemptId, Timestamp)>,
    /// Reports that were delivered, to repeat them.
    delivered: Vec<Event>,
    next_executor: u8,
    next_pod: u8,
    checked_changes: usize,
    /// Runs that are to stop, as far as changes are checked.
    cancelled: BTreeSet<RunId>,
}

impl World {
    pub(crate) fn new(faults: Faults, executors: u8, credit: u32) -> Self {
        Self::with(Config::default(), faults, executors, credit)
    }

    pub(crate) fn with(config: Config, faults: Faults, executors: u8, credit: u32) -> Self {
        let mut world = Self {
            lab: Lab::with(config),
            faults,
            pods: BTreeMap::new(),
            created: BTreeMap::new(),
            gone: BTreeMap::new(),
            ghosts: BTreeSet::new(),
            executors: BTreeMap::new(),
            wires: Vec::new(),
            releases: Vec::new(),
            delivered: Vec::new(),
            next_executor: 0,
            next_pod: 0,
            checked_changes: 0,
            cancelled: BTreeSet::new(),
        };
        for _ in 0..executors {
            world.start_executor(credit);
        }
        world
    }

    /// One random thing happens; `choice` and `pick` decide what.
    pub(crate) fn act(&mut self, choice: u8, pick: u8) {
        let pick = usize::from(pick);
        match choice % 32 {
            0..=3 => self.take_order(pick),
            4..=6 => self.post(pick),
            7..=9 => self.land(pick),
            10..=13 => self.advance(pick),
            14..=18 => self.report(pick),
            19 => self.look(pick),
            20 => self.wait([0, 1, 5, 20, 45, 130][pick % 6]),
            21 => self.release(),
            22 => self.repeat(pick),
            23 => self.heartbeat(pick),
            24 if self.faults.pods => self.disturb(pick),
            25 if self.faults.pods => self.disturb(pick / 2),
            26 if self.faults.services => self.toggle_stream(pick),
            27 if self.faults.services => self.crash(pick),
            28 if self.faults.services => self.sight(pick),
            29 if self.faults.services && pick.is_multiple_of(4) => self.restart_scheduler(),
            30 if self.faults.losses => self.lose(pick),
            _ => self.take_order(pick),
        }
        self.check();
    }

    fn collect(&mut self) {
        let now = self.lab.now;
        for effect in std::mem::take(&mut self.lab.effects) {
            let to = match &effect {
                Effect::Launch(launch) => launch.to,
                Effect::Stop { to, .. }
                | Effect::Probe { to, .. }
                | Effect::LeaseShards { to, .. }
                | Effect::RequestInventory { to } => *to,
                Effect::AttemptFinished {
                    attempt, keep_until, ..
                } => {
                    self.releases.push((*attempt, keep_until.unwrap_or(now)));
                    continue;
                }
                Effect::PodUnexplained {
                    by,
                    attempt,
                    pod,
                    ended,
                    ..
                } => {
                    if !ended {
                        self.stop_pod(*by, *attempt, *pod);
                    }
                    continue;
                }
                Effect::SessionEnded { .. } | Effect::RunFinished { .. } => continue,
            };
            if let Some(executor) = self.executors.get_mut(&to) {
                executor.inbox.push_back(Order::Effect(effect));
            }
        }
    }

    /// The driver has an unexplained pod stopped.
    fn stop_pod(&mut self, by: Incarnation, attempt: AttemptId, pod: PodUid) {
        let stop = Effect::Stop {
            to: by,
            attempt,
            grant: 0,
            pod: Some(pod),
            grace: Duration::ZERO,
            cause: StopCause::Ended,
        };
        if let Some(executor) = self.executors.get_mut(&by) {
            executor.inbox.push_back(Order::Effect(stop));
        }
    }

    fn tell(&mut self, event: Event) {
        // A session that has ended refuses reports: the executor would connect anew.
        self.lab.try_handle(event).ok();
        self.collect();
    }

    fn start_executor(&mut self, credit: u32) {
        self.next_executor += 1;
        let id = incarnation(self.next_executor);
        self.lab.connect(self.next_executor, credit);
        self.executors.insert(
            id,
            Executor {
                connected: true,
                lease_until: self.lab.now.saturating_add(self.lab.config.lease),
                ..Executor::default()
            },
        );
        self.collect();
    }

    fn pick_executor(&self, pick: usize) -> Option<Incarnation> {
        let alive: Vec<_> = self
            .executors
            .iter()
            .filter(|(_, executor)| !executor.crashed)
            .collect();
        (!alive.is_empty()).then(|| *alive[pick % alive.len()].0)
    }

    /// An executor takes its next order.
    fn take_order(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick) else { return };
        let now = self.lab.now;
        let Some(executor) = self.executors.get_mut(&id).filter(|executor| executor.connected) else {
            return;
        };
        let effect = match executor.inbox.pop_front() {
            Some(Order::Effect(effect)) => effect,
            Some(Order::Lease(sent_at)) => {
                let lease = sent_at.saturating_add(self.lab.config.lease);
                executor.lease_until = executor.lease_until.max(lease);
                return;
            }
            None => return,
        };
        match effect {
            Effect::Launch(launch) => {
                remember(&mut executor.grants, launch.attempt, launch.grant);
                executor.reflects = launch.order;
                executor.queued.push(launch.attempt);
                let acknowledged = Event::LaunchesAcknowledged {
                    incarnation: id,
                    up_to: launch.order,
                };
                executor.outbox.push_back((now, acknowledged));
            }
            Effect::LeaseShards { shards, .. } => {
                executor.shards = shards;
                executor.queued.retain(|attempt| shards.contains(Shard::of(*attempt)));
            }
            Effect::RequestInventory { .. } => self.list(id),
            Effect::Stop {
                attempt, grant, pod, ..
            } => {
                executor.queued.retain(|queued| *queued != attempt);
                remember(&mut executor.grants, attempt, grant);
                if let Some(pod) = self
                    .pods
                    .get_mut(&attempt)
                    .filter(|known| pod.is_none_or(|uid| known.uid == uid))
                {
                    // Of a dead one the log is what is left to be kept.
                    pod.terminating |= pod.alive;
                }
                self.read(id, attempt);
            }
            Effect::Probe { attempt, grant, .. } => {
                remember(&mut executor.grants, attempt, grant);
                self.read(id, attempt);
            }
            _ => {}
        }
    }

    /// A quorum read of one pod. Its own create being on the way, an executor waits for that first.
    fn read(&mut self, id: Incarnation, attempt: AttemptId) {
        let busy = self.wires.iter().any(|wire| wire.by == id && wire.attempt == attempt);
        let Some(executor) = self.executors.get(&id) else {
            return;
        };
        if busy || executor.queued.contains(&attempt) {
            return;
        }
        let grant = executor.grants.get(&attempt).copied().unwrap_or(0);
        let seen = match self.pods.get(&attempt) {
            // What was let go is not looked at any more.
            Some(pod) if pod.released => return,
            Some(pod) => observation(attempt, grant, pod),
            // An executor that saw the pod says which one is gone; another one cannot.
            None => {
                let uid = self.gone.get(&attempt).copied();
                Observation::new(attempt, grant, uid, AttemptPhase::Absent)
            }
        };
        self.send(
            id,
            Event::AttemptObserved {
                by: id,
                observation: seen,
            },
        );
    }

    fn send(&mut self, id: Incarnation, event: Event) {
        let now = self.lab.now;
        if let Some(executor) = self.executors.get_mut(&id) {
            executor.outbox.push_back((now, event));
        }
    }

    fn list(&mut self, id: Incarnation) {
        let Some(executor) = self.executors.get(&id) else {
            return;
        };
        let mine = |attempt: &AttemptId| executor.shards.contains(Shard::of(*attempt));
        let grant = |attempt| executor.grants.get(attempt).copied().unwrap_or(0);
        let pods = self.pods.iter().filter(|(attempt, pod)| mine(attempt) && !pod.released);
        let on_the_way = self.wires.iter().filter(|wire| wire.by == id).map(|wire| wire.attempt);
        let inventory = Inventory {
            shards: executor.shards,
            reflects: executor.reflects,
            observations: pods
                .map(|(attempt, pod)| observation(*attempt, grant(attempt), pod))
                .collect(),
            in_flight: executor.queued.iter().copied().chain(on_the_way).collect(),
        };
        let inventory = Box::new(inventory);
        self.send(id, Event::InventoryReported { by: id, inventory });
    }

    /// An executor sends a create, its lease of the shard being checked right before.
    fn post(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick) else { return };
        let now = self.lab.now;
        let deadline = now.saturating_add(self.lab.config.fence());
        let Some(executor) = self.executors.get_mut(&id) else {
            return;
        };
        if executor.queued.is_empty() || now >= executor.lease_until {
            return;
        }
        let attempt = executor.queued.remove(pick % executor.queued.len());
        if !executor.shards.contains(Shard::of(attempt)) {
            return;
        }
        self.wires.push(Wire {
            attempt,
            by: id,
            deadline,
        });
    }

    /// The API server carries a create out.
    fn land(&mut self, pick: usize) {
        if self.wires.is_empty() {
            return;
        }
        let index = pick % self.wires.len();
        let wire = self.wires.remove(index);
        if !self.pods.contains_key(&wire.attempt) {
            let created = self.created.entry(wire.attempt).or_default();
            *created += 1;
            assert_eq!(*created, 1, "I2: the pod of {} was created twice", wire.attempt);
            self.next_pod = self.next_pod.wrapping_add(1);
            let mut uid = [self.next_pod; 16];
            uid[0] = 0xee;
            self.pods.insert(
                wire.attempt,
                Pod {
                    uid: PodUid::from_bytes(uid),
                    phase: AttemptPhase::Created,
                    alive: true,
                    end: None,
                    terminating: false,
                    unreachable: false,
                    released: false,
                },
            );
        }
        self.read(wire.by, wire.attempt);
    }

    fn pick_pod(&mut self, pick: usize) -> Option<AttemptId> {
        let open: Vec<AttemptId> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.alive)
            .map(|(attempt, _)| *attempt)
            .collect();
        (!open.is_empty()).then(|| open[pick % open.len()])
    }

    /// A pod gets on.
    fn advance(&mut self, pick: usize) {
        let now = self.lab.now;
        let Some(attempt) = self.pick_pod(pick) else { return };
        let Some(pod) = self.pods.get_mut(&attempt).filter(|pod| !pod.unreachable) else {
            return;
        };
        if let Some(end) = &mut pod.end {
            // A container beside the main one ends.
            end.proof_of_death = true;
            pod.alive = false;
        } else if pod.terminating {
            pod.finish(AttemptEnd::failure(FailureClass::PodDeleted, Some(143), now));
        } else if pod.phase == AttemptPhase::Running {
            pod.finish(AttemptEnd::success(now));
        } else {
            pod.phase = [AttemptPhase::Scheduled, AttemptPhase::Pulling, AttemptPhase::Running]
                .into_iter()
                .find(|phase| *phase > pod.phase)
                .unwrap_or(AttemptPhase::Running);
        }
        self.notice(attempt);
        self.bury(attempt);
    }

    /// Something happens to a pod.
    fn disturb(&mut self, pick: usize) {
        let now = self.lab.now;
        let Some(attempt) = self.pick_pod(pick / 8) else { return };
        let Some(pod) = self.pods.get_mut(&attempt) else { return };
        match pick % 8 {
            0 => pod.finish(AttemptEnd::failure(FailureClass::UserError, Some(1), now)),
            1 => pod.finish(AttemptEnd::failure(FailureClass::Evicted, None, now)),
            2 => pod.finish(AttemptEnd::failure(FailureClass::NodeLost, None, now)),
            3 => pod.finish(AttemptEnd::failure(FailureClass::Image, None, now)),
            4 => {
                pod.finish(AttemptEnd::failure(FailureClass::OomKilled, Some(137), now));
                pod.alive = true;
                if let Some(end) = &mut pod.end {
                    end.proof_of_death = false;
                }
            }
            5 if pick % 16 == 5 => return self.vanish(attempt),
            5 => pod.terminating = true,
            _ => pod.unreachable = !pod.unreachable,
        }
        self.notice(attempt);
    }

    /// Who leases the shard of a pod sees its change.
    fn notice(&mut self, attempt: AttemptId) {
        let sees = |executor: &Executor| !executor.crashed && executor.shards.contains(Shard::of(attempt));
        let watchers: Vec<Incarnation> = self
            .executors
            .iter()
            .filter(|(_, executor)| sees(executor))
            .map(|(id, _)| *id)
            .collect();
        for id in watchers {
            self.read(id, attempt);
        }
    }

    /// The next report of an executor arrives, and renews its lease.
    fn report(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick) else { return };
        let Some(executor) = self.executors.get_mut(&id).filter(|executor| executor.connected) else {
            return;
        };
        let Some((sent_at, event)) = executor.outbox.pop_front() else {
            return;
        };
        executor.inbox.push_back(Order::Lease(sent_at));
        self.delivered.push(event.clone());
        self.tell(event);
    }

    fn look(&mut self, pick: usize) {
        if let Some(id) = self.pick_executor(pick) {
            self.list(id);
        }
    }

    /// A report arrives once more, late. Lists and acknowledgements belong to a stream, which never repeats them.
    fn repeat(&mut self, pick: usize) {
        let facts: Vec<&Event> = self
            .delivered
            .iter()
            .filter(|event| matches!(event, Event::AttemptObserved { .. }))
            .collect();
        if !facts.is_empty() {
            let event = facts[pick % facts.len()].clone();
            self.tell(event);
        }
    }

    fn heartbeat(&mut self, pick: usize) {
        let now = self.lab.now;
        if let Some(id) = self.pick_executor(pick)
            && let Some(executor) = self.executors.get_mut(&id).filter(|executor| executor.connected)
        {
            executor.inbox.push_back(Order::Lease(now));
            self.tell(Event::ExecutorHeard { incarnation: id });
        }
    }

    /// Time passes. What has come due happens on the way, creates either land in time or never.
    fn wait(&mut self, seconds: u64) {
        let end = self.lab.now.saturating_add(Duration::from_secs(seconds));
        while let Some(due) = self.lab.core.poll_timeout().filter(|due| *due <= end) {
            self.lab.now = self.lab.now.max(due);
            self.lab.timeout();
            self.collect();
        }
        self.lab.now = end;
        self.wires.retain(|wire| wire.deadline > end);
    }

    /// The owner of a shard lets pods go whose end is stored. It drops its own create of such a pod, and waits for one that is on the way.
    fn release(&mut self) {
        let now = self.lab.now;
        let mut waiting = std::mem::take(&mut self.releases);
        waiting.sort();
        waiting.dedup();
        let due: Vec<AttemptId> = waiting.iter().map(|(attempt, _)| *attempt).collect();
        for attempt in due {
            let is_kept = waiting.iter().any(|(kept, until)| *kept == attempt && *until > now);
            if is_kept || !self.let_go(attempt) {
                continue;
            }
            waiting.retain(|(released, _)| *released != attempt);
        }
        self.releases.extend(waiting);
    }

    fn let_go(&mut self, attempt: AttemptId) -> bool {
        let owns = |executor: &ExecutorView| executor.shards.contains(Shard::of(attempt));
        let Some(owner) = self.lab.core.executors().find(owns).map(|owner| owner.incarnation) else {
            return false;
        };
        let Some(executor) = self
            .executors
            .get_mut(&owner)
            .filter(|executor| executor.inbox.is_empty())
        else {
            return false;
        };
        executor.queued.retain(|queued| *queued != attempt);
        if self
            .wires
            .iter()
            .any(|wire| wire.by == owner && wire.attempt == attempt)
        {
            return false;
        }
        if let Some(pod) = self.pods.get_mut(&attempt) {
            pod.terminating = true;
            pod.released = true;
        }
        self.bury(attempt);
        true
    }

    /// The object of a pod that was let go is removed once nothing of it lives.
    fn bury(&mut self, attempt: AttemptId) {
        if self.pods.get(&attempt).is_some_and(|pod| pod.released && !pod.alive) {
            self.pods.remove(&attempt);
        }
    }

    /// Somebody removes the finalizer of a pod and deletes it by force: its object is gone, its processes go on, since its node does not
    /// hear of it.
    ///
    /// Only of pods that were reported, and while nobody posts them again: the name of one that goes unseen may be taken once more, which no
    /// scheduler can know.
    fn vanish(&mut self, attempt: AttemptId) {
        let known = self
            .lab
            .core
            .step(attempt.run, attempt.step)
            .and_then(|step| step.attempt);
        let is_known = known.is_some_and(|known| known.attempt == attempt && known.pod.is_some());
        let is_queued = |executor: &Executor| executor.queued.contains(&attempt);
        let is_launch =
            |order: &Order| matches!(order, Order::Effect(Effect::Launch(launch)) if launch.attempt == attempt);
        let is_posted = self.wires.iter().any(|wire| wire.attempt == attempt)
            || self
                .executors
                .values()
                .any(|executor| is_queued(executor) || executor.inbox.iter().any(is_launch));
        if !is_known || is_posted {
            return;
        }
        let Some(pod) = self.pods.remove(&attempt) else { return };
        if pod.alive {
            self.ghosts.insert(attempt);
        }
        self.gone.insert(attempt, pod.uid);
        self.notice(attempt);
    }

    fn toggle_stream(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick) else { return };
        let Some(executor) = self.executors.get_mut(&id) else {
            return;
        };
        if executor.connected {
            executor.connected = false;
            self.tell(Event::ExecutorDisconnected { incarnation: id });
        } else {
            self.reconnect(id);
        }
    }

    /// A stream is opened anew; it resumes when the scheduler still has the session.
    fn reconnect(&mut self, id: Incarnation) {
        let known = self.lab.core.executors().any(|executor| executor.incarnation == id);
        let now = self.lab.now;
        let Some(executor) = self.executors.get_mut(&id) else {
            return;
        };
        executor.connected = true;
        if !known {
            executor.inbox.clear();
            executor.shards = ShardSet::default();
            executor.reflects = 0;
            let stale = |event: &Event| {
                matches!(
                    event,
                    Event::InventoryReported { .. } | Event::LaunchesAcknowledged { .. }
                )
            };
            executor.outbox.retain(|(_, event)| !stale(event));
        }
        executor.inbox.push_back(Order::Lease(now));
        self.tell(Event::ExecutorConnected {
            incarnation: id,
            cluster: "uid-prod".into(),
            alias: "prod".into(),
            credit: 5,
            resumed: known,
        });
    }

    fn crash(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick) else { return };
        if let Some(executor) = self.executors.get_mut(&id) {
            executor.crashed = true;
            executor.connected = false;
        }
        self.tell(Event::ExecutorDisconnected { incarnation: id });
        self.start_executor(5);
    }

    fn sight(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick) else { return };
        let visible = pick.is_multiple_of(2);
        self.tell(Event::ClusterSightChanged {
            incarnation: id,
            visible,
        });
    }

    fn restart_scheduler(&mut self) {
        self.lab.restart();
        self.collect();
        let alive: Vec<Incarnation> = self.executors.keys().copied().collect();
        for id in alive {
            if let Some(executor) = self.executors.get_mut(&id).filter(|executor| !executor.crashed) {
                executor.connected = false;
            }
        }
    }

    /// An order or a report is dropped. Reports of lists and acknowledgements, and the stream's own order, are kept by the protocol.
    fn lose(&mut self, pick: usize) {
        let Some(id) = self.pick_executor(pick / 2) else { return };
        let Some(executor) = self.executors.get_mut(&id) else {
            return;
        };
        if pick.is_multiple_of(2) {
            match executor.inbox.front() {
                None | Some(Order::Lease(_) | Order::Effect(Effect::LeaseShards { .. })) => return,
                // Its place in the stream is not lost: later lists reflect it.
                Some(Order::Effect(Effect::Launch(launch))) => executor.reflects = launch.order,
                Some(Order::Effect(_)) => {}
            }
            executor.inbox.pop_front();
        } else {
            executor.outbox.pop_front();
        }
    }

    /// I2: never two pods of one step live.
    fn check(&mut self) {
        let mut live: BTreeMap<(RunId, StepIndex), AttemptId> = BTreeMap::new();
        let pods = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.alive)
            .map(|(attempt, _)| attempt);
        for attempt in pods.chain(&self.ghosts) {
            let other = live.insert((attempt.run, attempt.step), *attempt);
            assert!(other.is_none(), "I2: {attempt} lives beside {other:?}");
        }
        self.check_replacements();
    }

    /// I2: a replacement starts only when nothing of the last attempt lives, and nothing at all in a run that is being stopped.
    fn check_replacements(&mut self) {
        for change in &self.lab.changes[self.checked_changes..] {
            if matches!(change.kind, ChangeKind::CancelRequested(_)) {
                self.cancelled.insert(change.run);
            }
            if let ChangeKind::AttemptLaunched { step, number, .. } = &change.kind {
                let is_cancelled = self.cancelled.contains(&change.run);
                assert!(!is_cancelled, "step {step} was launched in a cancelled run");
                for earlier in 1..*number {
                    let attempt = AttemptId {
                        run: change.run,
                        step: *step,
                        number: earlier,
                    };
                    let lives = self.ghosts.contains(&attempt) || self.pods.get(&attempt).is_some_and(|pod| pod.alive);
                    assert!(!lives, "I2: {attempt} was replaced alive");
                }
            }
        }
        self.checked_changes = self.lab.changes.len();
    }

    /// From now on nothing goes wrong: everybody works, and persons confirm deaths that are deaths. Everything has to end (I5).
    pub(crate) fn calm_down(&mut self) {
        self.faults = Faults {
            pods: false,
            services: false,
            losses: false,
        };
        if self.pick_executor(0).is_none() {
            self.start_executor(5);
        }
        for pod in self.pods.values_mut() {
            pod.unreachable = false;
        }
        // Their nodes hear of it and kill them.
        self.ghosts.clear();
        for round in 0..600_u32 {
            if self.all_ended() {
                return;
            }
            self.calm_round(round);
        }
        panic!("I5: something never ends: {:?}", self.stuck());
    }

    fn calm_round(&mut self, round: u32) {
        let alive: Vec<Incarnation> = self
            .executors
            .iter()
            .filter(|(_, executor)| !executor.crashed)
            .map(|(id, _)| *id)
            .collect();
        for id in alive {
            let sees = self
                .lab
                .core
                .executors()
                .any(|executor| executor.incarnation == id && executor.connected);
            if !sees {
                self.reconnect(id);
            }
            self.tell(Event::ClusterSightChanged {
                incarnation: id,
                visible: true,
            });
        }
        let busy = |executor: &Executor| !executor.crashed && executor.connected && !executor.inbox.is_empty();
        for pick in 0..12 {
            self.heartbeat(pick);
            self.report(pick);
            while self.executors.values().any(busy) {
                (0..2).for_each(|pick| self.take_order(pick));
            }
            self.post(pick);
            self.land(pick);
            self.advance(pick);
        }
        self.release();
        self.wait(if round.is_multiple_of(8) { 25 } else { 1 });
        self.check();
    }

    fn all_ended(&self) -> bool {
        let mut runs = self.lab.core.runs();
        runs.all(|run| self.lab.core.run(run).is_some_and(|run| run.state.is_terminal()))
    }

    fn stuck(&self) -> Vec<Explanation> {
        let mut stuck = Vec::new();
        for (run, spec) in &self.lab.specs {
            for step in spec.graph().indices() {
                let explanation = self.lab.core.explain(self.lab.now, *run, Some(step));
                stuck.extend(
                    explanation.filter(|explanation| explanation.step_state.is_some_and(|state| !state.is_terminal())),
                );
            }
        }
        stuck
    }
}

/// An executor keeps the highest grant that it was given.
fn remember(grants: &mut BTreeMap<AttemptId, u32>, attempt: AttemptId, grant: u32) {
    let known = grants.entry(attempt).or_default();
    *known = grant.max(*known);
}

impl Pod {
    fn finish(&mut self, end: AttemptEnd) {
        if self.end.is_none() {
            self.phase = AttemptPhase::Ended;
            self.end = Some(end);
            self.alive = false;
            self.unreachable = false;
        }
    }
}

fn observation(attempt: AttemptId, grant: u32, pod: &Pod) -> Observation {
    let phase = if pod.unreachable {
        AttemptPhase::Unreachable
    } else {
        pod.phase
    };
    let mut seen = Observation::new(attempt, grant, Some(pod.uid), phase);
    seen.terminating = pod.terminating;
    seen.end = pod.end.clone().filter(|_| phase == AttemptPhase::Ended);
    seen
}
