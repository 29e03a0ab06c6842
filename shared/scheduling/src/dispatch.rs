//! Who starts next: priority, then round-robin between runs, under the limits.

use std::cmp::Reverse;
use std::sync::Arc;

use windlass_ids::{AttemptId, Incarnation, StepIndex, Timestamp};

use crate::change::ChangeKind;
use crate::effect::{Effect, Launch};
use crate::lanes::{Entry, RunLane};
use crate::run::Run;
use crate::scheduler::{Scheduler, Turn};
use crate::state::{RunState, StepState};

/// How many ready steps of a run are tried when the executor of the first one has no room.
const LOOKAHEAD: usize = 64;

/// What became of an entry of a ring.
enum Served {
    /// A step was launched.
    Launched,
    /// No ready step is left.
    Empty,
    /// A limit of the run holds it; the run puts itself back when that changes.
    HeldByRun,
    /// The limit of its namespace is reached.
    HeldByNamespace,
    /// The executors of its steps have no room.
    HeldByCredit,
}

impl Scheduler {
    /// Puts a run into a slot and connects it to its lanes and namespace.
    pub(crate) fn insert(&mut self, run: Run) -> u32 {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.runs.push(None);
            u32::try_from(self.runs.len() - 1).unwrap_or(u32::MAX)
        });
        let mut run = Box::new(run);
        run.queues.filed = crate::attempt::NEVER;
        run.queues.namespace = self.namespace(&run);
        for policy in run.spec.policies() {
            let lane = self.lanes.of(policy.cluster.as_ref());
            let known = run.queues.lanes.iter().position(|known| known.lane == lane);
            let index = known.unwrap_or_else(|| {
                run.queues.lanes.push(RunLane {
                    lane,
                    ready: Default::default(),
                    queued: false,
                });
                run.queues.lanes.len() - 1
            });
            run.queues.by_policy.push(u32::try_from(index).unwrap_or(u32::MAX));
        }
        // A lane may be new.
        self.executors.dealt = true;
        self.namespaces[run.queues.namespace as usize].live += run.live();
        self.by_id.insert(run.id(), slot);
        self.runs[slot as usize] = Some(run);
        slot
    }

    /// Puts a ready step last in its run's queue.
    pub(crate) fn enqueue(&mut self, slot: u32, step: StepIndex) {
        let Some(run) = self.runs[slot as usize].as_deref_mut() else {
            return;
        };
        let index = run.queues.by_policy[run.spec.policy_index(step)];
        let lane = &mut run.queues.lanes[index as usize];
        lane.ready.push_back(step);
        if !lane.queued {
            lane.queued = true;
            let priority = run.spec.parameters().priority;
            self.lanes.all[lane.lane as usize].push(priority, (slot, index));
        }
        self.await_admission(slot, step);
    }

    /// Puts a run back into the rings after a limit of its own has changed.
    pub(crate) fn requeue(&mut self, slot: u32) {
        let Some(run) = self.runs[slot as usize].as_deref_mut() else {
            return;
        };
        let priority = run.spec.parameters().priority;
        for (index, lane) in (0_u32..).zip(&mut run.queues.lanes) {
            if !lane.queued && !lane.ready.is_empty() {
                lane.queued = true;
                self.lanes.all[lane.lane as usize].push(priority, (slot, index));
            }
        }
    }

    /// Puts back what waited for room of an executor.
    pub(crate) fn requeue_credit(&mut self) {
        for lane in 0..self.lanes.all.len() {
            for entry in std::mem::take(&mut self.lanes.all[lane].awaiting_credit) {
                self.put_back(lane, entry);
            }
        }
    }

    pub(crate) fn put_back(&mut self, lane: usize, entry: Entry) {
        if let Some(run) = self.run_at(entry.0) {
            let priority = run.spec.parameters().priority;
            self.lanes.all[lane].push(priority, entry);
        }
    }

    /// Launches what the limits allow.
    pub(crate) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        if self.roomy.is_empty()
            && self.lanes.all.iter().all(|lane| lane.top().is_none())
            && self
                .executors
                .sessions
                .values()
                .all(|session| session.missing.is_empty())
        {
            return;
        }
        self.relaunch_missing(turn);
        let clusters = u32::try_from(self.executors.clusters.len()).unwrap_or(u32::MAX);
        let mut rooms: Vec<u64> = (0..clusters).map(|cluster| self.executors.room(cluster)).collect();
        loop {
            self.wake_waiting();
            while let Some(lane) = self.next_lane(&rooms) {
                self.lanes.turn += 1;
                self.lanes.all[lane].served = self.lanes.turn;
                let Some(entry) = self.lanes.all[lane].pop() else { break };
                let served = self.serve(turn, entry, &mut rooms);
                self.place(lane, entry, &served);
            }
            // What was woken may not have taken the room: it is offered to the next until somebody does, or nobody waits.
            if self.roomy.is_empty() {
                return;
            }
        }
    }

    /// The lane with the highest priority among those that can launch something; the one served longest ago among equals.
    fn next_lane(&self, rooms: &[u64]) -> Option<usize> {
        let can_launch = |alias| {
            let mut clusters = self.executors.clusters_for(alias);
            clusters.any(|cluster| rooms[cluster as usize] > 0)
        };
        let lanes = self.lanes.all.iter().enumerate();
        lanes
            .filter_map(|(index, lane)| Some((lane.top()?, Reverse(lane.served), index, lane)))
            .filter(|(.., lane)| can_launch(lane.alias.as_ref()))
            .max_by_key(|(priority, served, ..)| (*priority, *served))
            .map(|(_, _, index, _)| index)
    }

    fn place(&mut self, lane: usize, entry: Entry, served: &Served) {
        let Some(run) = self.run_at_mut(entry.0) else { return };
        let priority = run.spec.parameters().priority;
        let namespace = run.queues.namespace as usize;
        let Some(queue) = run.queues.lanes.get_mut(entry.1 as usize) else {
            return;
        };
        match served {
            Served::Launched if !queue.ready.is_empty() => self.lanes.all[lane].push(priority, entry),
            Served::Launched | Served::Empty | Served::HeldByRun => queue.queued = false,
            Served::HeldByNamespace => {
                self.namespaces[namespace].hold(priority, entry);
            }
            Served::HeldByCredit => self.lanes.all[lane].awaiting_credit.push(entry),
        }
    }

    fn serve(&mut self, turn: &mut Turn<'_>, (slot, index): Entry, rooms: &mut [u64]) -> Served {
        let Some(run) = self.runs.get_mut(slot as usize).and_then(Option::as_deref_mut) else {
            return Served::Empty;
        };
        if !has_ready(run, index) {
            return Served::Empty;
        }
        let limit = run.spec.parameters().max_parallelism;
        if limit.is_some_and(|limit| run.live() >= limit.get()) {
            return Served::HeldByRun;
        }
        if !self.namespaces[run.queues.namespace as usize].has_room() {
            return Served::HeldByNamespace;
        }
        if paced_until(run).is_some_and(|until| until > turn.now) {
            self.file_run(slot);
            return Served::HeldByRun;
        }
        let Some((position, cluster, owner)) = self.find_room(slot, index, rooms) else {
            return Served::HeldByCredit;
        };
        let Some(run) = self.runs[slot as usize].as_deref_mut() else {
            return Served::Empty;
        };
        let Some(step) = run.queues.lanes[index as usize].ready.remove(position) else {
            return Served::Empty;
        };
        rooms[cluster as usize] -= 1;
        self.launch(turn, slot, step, cluster, owner);
        Served::Launched
    }

    /// The first ready step whose executor has room: position in the queue, cluster, executor.
    fn find_room(&self, slot: u32, index: u32, rooms: &[u64]) -> Option<(usize, u32, Incarnation)> {
        let run = self.run_at(slot)?;
        let queue = &run.queues.lanes[index as usize];
        let alias = self.lanes.all[queue.lane as usize].alias.as_ref();
        let clusters = self.executors.clusters_for(alias);
        let cluster = clusters.max_by_key(|cluster| (rooms[*cluster as usize], Reverse(*cluster)))?;
        let owners = self.executors.cluster(cluster)?;
        let steps = queue.ready.iter().enumerate().take(LOOKAHEAD);
        steps
            .filter(|(_, step)| run.state_of(**step) == StepState::Ready)
            .find_map(|(position, step)| {
                let owner = owners.owner(next_attempt(run, *step))?;
                let room = self.executors.sessions.get(&owner)?.room();
                (room > 0).then_some((position, cluster, owner))
            })
    }

    fn launch(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, cluster: u32, to: Incarnation) {
        let Some(run) = self.run_at(slot) else { return };
        let attempt = next_attempt(run, step);
        let template = run.spec.policy(step).template;
        if run.state == RunState::Queued {
            self.emit(turn, slot, ChangeKind::RunStarted);
        }
        let Some(session) = self.executors.sessions.get_mut(&to) else {
            return;
        };
        session.sent += 1;
        let order = session.sent;
        let executor = Arc::clone(&session.identity);
        self.emit(
            turn,
            slot,
            ChangeKind::AttemptLaunched {
                step,
                number: attempt.number,
                executor,
            },
        );
        if let Some(attempt) = self.attempt_at_mut(slot, step) {
            attempt.cluster = cluster;
            attempt.order = order;
        }
        self.arm(turn.now, slot, step);
        turn.effect(Effect::Launch(Launch {
            to,
            attempt,
            grant: 1,
            order,
            template,
        }));
    }

    /// Posts the pods again that inventories have missed, as far as credit goes.
    fn relaunch_missing(&mut self, turn: &mut Turn<'_>) {
        let incarnations: Vec<Incarnation> = self.executors.sessions.keys().copied().collect();
        for incarnation in incarnations {
            while let Some(session) = self.executors.sessions.get_mut(&incarnation) {
                if session.room() == 0 {
                    break;
                }
                let Some((slot, step)) = session.missing.pop_first() else {
                    break;
                };
                let is_missing = self.attempt_at(slot, step).is_some_and(|attempt| {
                    attempt.pod.is_none() && !attempt.has_ended() && attempt.stopping().is_none()
                });
                if is_missing && self.owner_of(slot, step) == Some(incarnation) {
                    self.relaunch(turn, slot, step, incarnation);
                }
            }
        }
    }

    fn relaunch(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, to: Incarnation) {
        self.regrant(turn, slot, step, to);
        let Some(session) = self.executors.sessions.get_mut(&to) else {
            return;
        };
        session.sent += 1;
        let order = session.sent;
        let Some(run) = self.run_at_mut(slot) else { return };
        let template = run.spec.policy(step).template;
        let id = run.attempt_id(step);
        let Some(attempt) = run.attempt_mut(step) else { return };
        attempt.order = order;
        turn.effect(Effect::Launch(Launch {
            to,
            attempt: id,
            grant: attempt.grant,
            order,
            template,
        }));
    }
}

fn next_attempt(run: &Run, step: StepIndex) -> AttemptId {
    AttemptId {
        run: run.id(),
        step,
        number: run.number(step) + 1,
    }
}

/// Drops entries of steps that are no longer ready; returns whether one is left.
fn has_ready(run: &mut Run, index: u32) -> bool {
    loop {
        let Some(lane) = run.queues.lanes.get(index as usize) else {
            return false;
        };
        let Some(step) = lane.ready.front().copied() else {
            return false;
        };
        if run.state_of(step) == StepState::Ready {
            return true;
        }
        run.queues.lanes[index as usize].ready.pop_front();
    }
}

/// Until when the start interval holds the next start back. It is counted from the start itself, so no two starts are nearer (behaviours X4).
pub(crate) fn paced_until(run: &Run) -> Option<Timestamp> {
    let interval = run.spec.parameters().start_interval;
    if interval.is_zero() {
        return None;
    }
    run.last_launch_at.map(|at| at.saturating_add(interval))
}
