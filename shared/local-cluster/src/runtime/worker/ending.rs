//! Why a pod's containers end before they want to: deletion, deadline, eviction, a reboot, memory.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::status::{PodFailure, Record, Role, State, Termination};
use super::{Ending, GONE_MESSAGE, Worker};
use crate::node::{OrderKind, set_condition};
use crate::store::Outcome;

impl Worker {
    /// After a reboot of the node nothing of the pod is left. Of a pod that never started a container everything is still to come;
    /// of any other no kubelet starts a container any more.
    pub(super) fn notice_reboot(&mut self) {
        let reboots = self.node.borrow().reboots;
        if reboots == self.reboots {
            return;
        }
        self.reboots = reboots;
        for (index, live) in self.live.drain() {
            live.signals.kill();
            self.records[index].state = State::Terminated(Termination::lost(GONE_MESSAGE));
        }
        let waits = |record: &Record| matches!(record.state, State::Waiting { .. }) && record.last.is_none();
        if !self.records.iter().all(waits) {
            for record in self.records.iter_mut().filter(|record| waits(record)) {
                record.state = State::Terminated(Termination::lost(GONE_MESSAGE));
            }
        }
    }

    pub(super) async fn take_orders(&mut self) {
        for order in self.context.node.take_orders(&self.uid) {
            match order {
                OrderKind::Evict { message } => {
                    self.mark_evicted(&message).await;
                    let failure = PodFailure {
                        reason: "Evicted".to_owned(),
                        message,
                    };
                    self.begin_ending(Some(failure), Duration::ZERO);
                }
                OrderKind::OutOfMemory { container } => self.run_out_of_memory(&container),
            }
        }
    }

    pub(super) async fn mark_evicted(&mut self, message: &str) {
        let marked = self.context.store.update(&self.key, |_, pod| {
            set_condition(pod, "DisruptionTarget", "True", "TerminationByKubelet", message);
            Ok(Outcome::Keep)
        });
        match marked.await {
            Ok(object) => self.pod = object.value(),
            Err(error) => tracing::debug!(%error, "eviction not marked"),
        }
        self.context.events.warning(&self.pod, "Evicted", message);
    }

    pub(super) fn run_out_of_memory(&mut self, container: &str) {
        let wanted = |r: &Record| r.name == container || (container.is_empty() && r.role == Role::Main);
        let Some(index) = self.records.iter().position(wanted) else {
            return;
        };
        if let Some(live) = self.live.get_mut(&index) {
            live.out_of_memory = true;
            live.signals.kill();
        }
    }

    pub(super) fn notice_endings(&mut self) {
        if self.gone {
            self.begin_ending(None, Duration::ZERO);
        }
        let meta = &self.pod["metadata"];
        if let Some(at) = meta["deletionTimestamp"]
            .as_str()
            .and_then(|t| t.parse::<Timestamp>().ok())
        {
            let left = at
                .duration_since(crate::clock::timestamp())
                .max(jiff::SignedDuration::ZERO);
            // Whole seconds are all that the API has; never less than what was asked for.
            let whole = meta["deletionGracePeriodSeconds"].as_u64().unwrap_or(0);
            let left = Duration::try_from(left).unwrap_or_default() + Duration::from_secs(u64::from(whole > 0));
            self.begin_ending(None, left.min(Duration::from_secs(whole)));
        }
        if let Some(deadline) = self.deadline()
            && crate::clock::timestamp() >= deadline
        {
            let failure = PodFailure {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
            };
            let grace = self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            self.begin_ending(Some(failure), Duration::from_secs(grace));
        }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod["spec"]["activeDeadlineSeconds"].as_i64()?;
        self.started.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }

    /// The first reason stays, the shorter grace wins.
    pub(super) fn begin_ending(&mut self, failure: Option<PodFailure>, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.ending {
            Some(ending) => ending.kill_at = ending.kill_at.min(kill_at),
            None => {
                for live in self.live.values() {
                    live.signals.terminate();
                }
                for index in self.live.keys() {
                    let text = format!("Stopping container {}", self.records[*index].name);
                    self.context.events.normal(&self.pod, "Killing", text);
                }
                self.ending = Some(Ending {
                    failure,
                    kill_at,
                    killed: false,
                });
            }
        }
    }

    pub(super) fn end_containers(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        if Instant::now() >= ending.kill_at && !ending.killed {
            ending.killed = true;
            for live in self.live.values() {
                live.signals.kill();
            }
        }
        if self.live.is_empty() {
            for record in self.records.iter_mut().filter(|r| r.role == Role::Main) {
                if matches!(record.state, State::Waiting { .. }) {
                    record.state = State::Terminated(Termination::lost(GONE_MESSAGE));
                }
            }
        }
    }
}
