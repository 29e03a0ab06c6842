//! What happens once a batch is durable: readers, watchers, answers, acknowledgements, orders. In this order.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_ids::RunId;
use windlass_scheduling::{Change, Effect};

use super::Driver;
use super::batch::Live;
use super::held::Held;
use crate::metric;
use crate::read_model::{Applied, RunEntry};
use crate::schedules::RETRY;
use crate::store::Deletion;

impl Driver {
    /// Carries a durable batch out.
    pub(crate) fn carry_out(&self, live: &mut Live, batch: Held) {
        let shared = &self.shared;
        for session in batch.installed {
            shared.executors.install(session);
        }
        for entry in batch.accepted {
            shared.runs.insert(entry);
        }
        shared.run_secrets.add(batch.secrets, shared.clock.now());
        for gone in &batch.gone_secrets {
            shared.run_secrets.remove(gone);
        }
        // Not before: if the commit had failed, the schedules had them still.
        let left = batch.left_secrets.into_iter();
        let left = left.filter_map(|left| live.secrets.let_go(left));
        for owner in left.chain(batch.abandoned_secrets) {
            shared.run_secrets.unneeded(owner, shared.clock.now());
        }
        for (key, schedule) in batch.schedules {
            shared.schedules.set(key, schedule);
        }
        let ended = self.show(batch.changes);
        for Deletion { run, cause } in batch.deleted {
            metrics::counter!(metric::DELETED_RUNS, "cause" => cause.as_str()).increment(1);
            tracing::info!(run_id = %run, cause = cause.as_str(), "run deleted");
            shared.history.forget(run);
            shared.relays.forget(run, shared);
        }
        drop(batch.reservations);
        for answer in batch.answers {
            answer.send();
        }
        for acknowledgement in batch.acknowledgements {
            let sequence = acknowledgement.sequence;
            acknowledgement.session.tell(|outbox| outbox.committed(sequence));
            if acknowledgement.inventory {
                shared.executors.inventoried(&acknowledgement.session);
            }
            shared.relays.containers(acknowledgement.containers, shared);
        }
        for effect in batch.effects {
            self.effect(live, &effect);
        }
        // Only now: the orders for their last pods refer to them, and what is remembered of ended runs is bounded.
        for entry in ended {
            shared.history.remember(&entry);
            shared.runs.remove(entry.meta().header.id);
        }
        if batch.told {
            shared.webhooks.wake();
        }
        shared.relays.explain_pods(shared);
        for job in batch.jobs {
            let id = job.schedule.id;
            if self.jobs.try_send(job).is_err() {
                live.schedules.postpone(id, shared.clock.now().saturating_add(RETRY));
            }
        }
    }

    /// Lets readers and watchers see durable changes; returns the runs that have ended.
    fn show(&self, changes: Vec<Change>) -> Vec<Arc<RunEntry>> {
        let shared = &self.shared;
        let mut by_run: BTreeMap<RunId, Vec<Change>> = BTreeMap::new();
        for change in changes {
            by_run.entry(change.run).or_default().push(change);
        }
        let mut ended = Vec::new();
        for (run, changes) in by_run {
            let Some(entry) = shared.runs.get(run) else {
                continue;
            };
            let applied = entry.apply(&changes);
            shared.relays.changed(&entry, &changes, shared);
            if applied == Applied::Ended {
                ended.push(entry);
            }
        }
        ended
    }

    fn effect(&self, live: &mut Live, effect: &Effect) {
        let shared = &self.shared;
        match effect {
            Effect::Launch(_) | Effect::Stop { .. } | Effect::Probe { .. } | Effect::RequestInventory { .. } => {
                shared.executors.carry_out(effect, &shared.runs)
            }
            Effect::LeaseShards { .. } | Effect::SessionEnded { .. } => {
                shared.executors.carry_out(effect, &shared.runs);
                shared.relays.leases_changed(shared);
            }
            Effect::AttemptFinished {
                attempt,
                pod,
                cluster,
                keep_until,
            } => shared.relays.finished(*attempt, *pod, cluster, *keep_until, shared),
            Effect::PodUnexplained {
                by,
                attempt,
                pod,
                ended,
            } => shared.relays.unexplained(*by, *attempt, *pod, *ended),
            Effect::RunFinished { run } => {
                live.core.forget(*run);
                live.runs.remove(run);
                live.schedules.run_finished(*run);
                shared.relays.run_ended(*run, shared);
                shared.run_secrets.run_ended(*run, shared.clock.now());
                if let Some(owner) = live.secrets.run_finished(*run) {
                    shared.run_secrets.unneeded(owner, shared.clock.now());
                }
            }
        }
    }

    /// Looks over what time changes outside the core.
    pub(crate) fn sweep(&self, live: &mut Live) {
        let now = self.shared.clock.now();
        for owner in live.secrets.expire(now) {
            self.shared.run_secrets.unneeded(owner, now);
        }
        let (submissions, reports) = self.outlet.waiting();
        metrics::gauge!(metric::WAITING_COMMANDS, "lane" => "submissions").set(submissions as f64);
        metrics::gauge!(metric::WAITING_COMMANDS, "lane" => "reports").set(reports as f64);
        self.shared.relays.sweep(&self.shared);
        self.shared.executors.measure();
    }
}
