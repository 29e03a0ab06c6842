//! Why a pod does not start: its events, read rarely, since they have no watch cache.

use std::time::Duration;

use tokio::time::Instant;
use windlass_ids::AttemptId;

use super::{Agent, Event};
use crate::attempts::Phase;
use crate::attempts::fleet::PodKey;

const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// Pods whose events are read in one tick.
const PER_TICK: usize = 20;

/// A pod that is starting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    phase: Phase,
    next: Instant,
    interval: Duration,
}

impl Agent {
    pub(super) fn read_events_of_stuck_pods(&mut self, now: Instant) {
        let Some(fleet) = &self.fleet else { return };
        let first = self.settings.stuck_after;
        let mut starting: std::collections::HashMap<AttemptId, Stuck> = std::collections::HashMap::new();
        let mut due = Vec::new();
        for (attempt, phase) in fleet.starting() {
            let known = self.stuck.get(&attempt).copied().filter(|stuck| stuck.phase == phase);
            let mut stuck = known.unwrap_or(Stuck {
                phase,
                next: now + first,
                interval: first,
            });
            if now >= stuck.next && due.len() < PER_TICK {
                stuck.interval = (stuck.interval * 3).min(MAX_INTERVAL);
                stuck.next = now + stuck.interval;
                // A pod without a node says why in its own condition.
                if phase != Phase::Created {
                    due.extend(fleet.key(attempt));
                }
            }
            starting.insert(attempt, stuck);
        }
        self.stuck = starting;
        for key in due {
            self.read_events(key);
        }
    }

    fn read_events(&self, key: PodKey) {
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let Ok(permit) = calls.acquire().await else { return };
            let warning = api.newest_warning(&key.namespace, &key.uid).await;
            drop(permit);
            match warning {
                Ok(warning) => drop(events.send(Event::Warned { key, warning }).await),
                Err(error) => tracing::debug!(%error, pod = %key.name, "events cannot be read"),
            }
        });
    }

    pub(super) fn warned(&mut self, key: &PodKey, warning: Option<(String, String)>) {
        let (Some(fleet), Some((reason, message))) = (&mut self.fleet, warning) else {
            return;
        };
        let sight = fleet.explained(key.attempt, &key.uid, reason, &message);
        self.report(sight);
    }
}
