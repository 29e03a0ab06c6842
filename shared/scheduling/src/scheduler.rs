//! The core's value: what it holds, and the one way in.

use std::collections::BTreeMap;

use windlass_ids::{AttemptId, Incarnation, Namespace, RunId, StepIndex, Timestamp};

use crate::attempt::Attempt;
use crate::change::{Change, ChangeKind};
use crate::config::Config;
use crate::effect::{Decision, Effect};
use crate::event::Event;
use crate::executors::Executors;
use crate::lanes::Lanes;
use crate::namespaces::NamespaceLoad;
use crate::rejection::Rejection;
use crate::run::Run;
use crate::timers::Timers;

/// All active runs and what is known of executors.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) runs: Vec<Option<Box<Run>>>,
    pub(crate) free_slots: Vec<u32>,
    pub(crate) by_id: BTreeMap<RunId, u32>,
    pub(crate) namespaces: Vec<NamespaceLoad>,
    pub(crate) namespace_ids: BTreeMap<Namespace, u32>,
    /// Namespaces that may have room for what waits for their limit.
    pub(crate) roomy: Vec<u32>,
    pub(crate) executors: Executors,
    pub(crate) lanes: Lanes,
    pub(crate) timers: Timers,
    /// Runs about which something is to be decided before the turn ends.
    pub(crate) dirty: Vec<u32>,
    pub(crate) next_repair: Timestamp,
    /// The latest time seen: time never runs backwards in here.
    pub(crate) now: Timestamp,
}

/// One call: its time and what it decides.
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    pub(crate) out: &'a mut Decision,
}

impl Turn<'_> {
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.out.effects.push(effect);
    }
}

impl Scheduler {
    /// A core without runs.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            runs: Vec::new(),
            free_slots: Vec::new(),
            by_id: BTreeMap::new(),
            namespaces: Vec::new(),
            namespace_ids: BTreeMap::new(),
            roomy: Vec::new(),
            executors: Executors::default(),
            lanes: Lanes::default(),
            timers: Timers::default(),
            dirty: Vec::new(),
            next_repair: Timestamp::default(),
            now: Timestamp::default(),
        }
    }

    /// Takes an event in and appends what it decides. A refused event changes nothing durable and decides nothing.
    pub fn handle(&mut self, now: Timestamp, event: Event, decision: &mut Decision) -> Result<(), Rejection> {
        let mut turn = self.turn(now, decision);
        let turn = &mut turn;
        match event {
            Event::RunSubmitted { spec } => self.submit(turn, spec, &[], ChangeKind::RunAccepted)?,
            Event::RunRetried { spec, reused } => self.submit(turn, spec, &reused, ChangeKind::RunAccepted)?,
            Event::RunPreparing { spec, reused } => self.submit(turn, spec, &reused, ChangeKind::RunPreparing)?,
            Event::RunPrepared { run } => self.prepared(turn, run)?,
            Event::RunCancelled { run, grace, reason, by } => self.cancel(turn, run, grace, reason, by)?,
            Event::DeadConfirmed { attempt, by } => self.confirm_dead(turn, attempt, by)?,
            Event::ExecutorConnected {
                incarnation,
                cluster,
                alias,
                credit,
                resumed,
            } => {
                let identity = crate::change::ExecutorIdentity {
                    incarnation,
                    cluster,
                    alias,
                };
                self.connect(turn, identity, credit, resumed)?;
            }
            Event::ExecutorDisconnected { incarnation } => self.disconnect(turn, incarnation)?,
            Event::ExecutorHeard { incarnation } => self.hear(turn, incarnation)?,
            Event::ExecutorDraining { incarnation } => self.drain(turn, incarnation)?,
            Event::CreditChanged { incarnation, credit } => self.set_credit(turn, incarnation, credit)?,
            Event::LaunchesAcknowledged { incarnation, up_to } => self.acknowledge(turn, incarnation, up_to)?,
            Event::ClusterSightChanged { incarnation, visible } => self.set_sight(turn, incarnation, visible)?,
            Event::AttemptObserved { by, observation } => {
                self.hear(turn, by)?;
                self.observe(turn, by, observation)?;
            }
            Event::InventoryReported { by, inventory } => {
                self.hear(turn, by)?;
                self.take_inventory(turn, by, *inventory);
            }
        }
        self.finish(turn);
        Ok(())
    }

    /// Does what has come due. Early calls change nothing.
    pub fn handle_timeout(&mut self, now: Timestamp, decision: &mut Decision) {
        let mut turn = self.turn(now, decision);
        let turn = &mut turn;
        self.expire_leases(turn);
        self.pass_over_blind(turn);
        self.fire_timers(turn);
        self.repair(turn);
        self.finish(turn);
    }

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let lease = |heard_at: Timestamp| heard_at.saturating_add(self.config.lease);
        let leases = self.executors.sessions.values().map(|session| lease(session.heard_at));
        let blind = self.executors.sessions.values();
        let blind = blind.filter_map(|session| session.passed_over_at(self.config.lease));
        let repair = (!self.executors.sessions.is_empty()).then_some(self.next_repair);
        leases.chain(blind).chain(self.timers.next()).chain(repair).min()
    }

    fn turn<'a>(&mut self, now: Timestamp, out: &'a mut Decision) -> Turn<'a> {
        self.now = self.now.max(now);
        Turn { now: self.now, out }
    }

    /// Decides what follows from the changes of this turn.
    fn finish(&mut self, turn: &mut Turn<'_>) {
        while let Some(slot) = self.dirty.pop() {
            self.settle(turn, slot);
        }
        self.update_service();
        self.dispatch(turn);
    }

    /// Makes a change: numbers it, applies it and hands it out.
    pub(crate) fn emit(&mut self, turn: &mut Turn<'_>, slot: u32, kind: ChangeKind) {
        let Some(run) = self.runs[slot as usize].as_deref_mut() else {
            return;
        };
        let before = run.live();
        let change = Change {
            run: run.id(),
            sequence: run.sequence + 1,
            at: turn.now,
            kind,
        };
        let applied = run.apply(&change);
        debug_assert!(applied.is_ok(), "a change without its attempt: {change:?}");
        turn.out.changes.push(change);
        let after = run.live();
        if !run.touched.is_empty() || run.open == 0 {
            self.mark_dirty(slot);
        }
        if before != after {
            self.load_changed(slot, before, after);
        }
    }

    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        if self.dirty.last() != Some(&slot) {
            self.dirty.push(slot);
        }
    }

    pub(crate) fn run_at(&self, slot: u32) -> Option<&Run> {
        self.runs.get(slot as usize)?.as_deref()
    }

    pub(crate) fn run_at_mut(&mut self, slot: u32) -> Option<&mut Run> {
        self.runs.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(crate) fn attempt_at(&self, slot: u32, step: StepIndex) -> Option<&Attempt> {
        self.run_at(slot)?.attempt(step)
    }

    pub(crate) fn attempt_at_mut(&mut self, slot: u32, step: StepIndex) -> Option<&mut Attempt> {
        self.run_at_mut(slot)?.attempt_mut(step)
    }

    pub(crate) fn slot_of(&self, run: RunId) -> Result<u32, Rejection> {
        self.by_id.get(&run).copied().ok_or(Rejection::UnknownRun { run })
    }

    /// Who leases the shard of an attempt in the cluster where it runs.
    pub(crate) fn owner_of(&self, slot: u32, step: StepIndex) -> Option<Incarnation> {
        let run = self.run_at(slot)?;
        let cluster = self.executors.cluster(run.attempt(step)?.cluster)?;
        cluster.owner(run.attempt_id(step))
    }

    pub(crate) fn attempt_id(&self, slot: u32, step: StepIndex) -> Option<AttemptId> {
        Some(self.run_at(slot)?.attempt_id(step))
    }

    /// All attempts that live or are awaited, in a fixed order: slot of the run, step.
    pub(crate) fn attempts_where(&self, wanted: impl Fn(&Run, &Attempt) -> bool) -> Vec<(u32, StepIndex)> {
        let mut found = Vec::new();
        for (slot, run) in (0_u32..).zip(&self.runs) {
            let Some(run) = run else { continue };
            let attempts = run.attempts().iter().filter(|attempt| wanted(run, attempt));
            found.extend(attempts.map(|attempt| (slot, attempt.step)));
        }
        found
    }
}
