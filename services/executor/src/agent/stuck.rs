//! Why pods do not start: the warnings of their namespace, read rarely, since events have no watch cache, and once for all of its pods, so
//! that what is read does not grow with how many wait (performance P4).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use windlass_ids::AttemptId;

use super::{Agent, Event};
use crate::attempts::Phase;
use crate::attempts::fleet::PodKey;

const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// Namespaces whose events are read in one tick.
const PER_TICK: usize = 20;

/// What is starting, and when its events are read.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    pods: HashMap<AttemptId, Starting>,
    /// When the events of a namespace may be read again.
    namespaces: HashMap<Box<str>, Instant>,
}

/// A pod that is starting.
#[derive(Clone, Copy, Debug)]
struct Starting {
    phase: Phase,
    next: Instant,
    interval: Duration,
}

impl Stuck {
    /// An attempt starts no more.
    pub(super) fn remove(&mut self, attempt: AttemptId) {
        self.pods.remove(&attempt);
    }

    /// The pods whose events are to be read now, by namespace. `first` is how long a pod may be starting before they are read, and the
    /// least time between two reads of a namespace.
    fn due(
        &mut self,
        starting: impl Iterator<Item = (AttemptId, Phase)>,
        key: impl Fn(AttemptId) -> Option<PodKey>,
        first: Duration,
        now: Instant,
    ) -> BTreeMap<Box<str>, Vec<PodKey>> {
        self.namespaces.retain(|_, next| now < *next);
        let mut pods = HashMap::new();
        let mut due: BTreeMap<Box<str>, Vec<PodKey>> = BTreeMap::new();
        for (attempt, phase) in starting {
            let known = self.pods.get(&attempt).copied().filter(|pod| pod.phase == phase);
            let mut pod = known.unwrap_or(Starting {
                phase,
                next: now + first,
                interval: first,
            });
            // A pod without a node says why in its own condition.
            if now >= pod.next
                && phase != Phase::Created
                && let Some(key) = key(attempt)
            {
                let namespace: Box<str> = key.namespace.to_string().into();
                let is_open = !self.namespaces.contains_key(&namespace);
                if is_open && (due.contains_key(&namespace) || due.len() < PER_TICK) {
                    pod.interval = (pod.interval * 3).min(MAX_INTERVAL);
                    pod.next = now + pod.interval;
                    due.entry(namespace).or_default().push(key);
                }
            }
            pods.insert(attempt, pod);
        }
        self.pods = pods;
        let read = due.keys().map(|namespace| (namespace.clone(), now + first));
        self.namespaces.extend(read);
        due
    }
}

impl Agent {
    pub(super) fn read_events_of_stuck_pods(&mut self, now: Instant) {
        let Some(fleet) = &self.fleet else { return };
        let due = self.stuck.due(
            fleet.starting(),
            |attempt| fleet.key(attempt),
            self.settings.stuck_after,
            now,
        );
        for (namespace, pods) in due {
            self.read_events(namespace, pods);
        }
    }

    fn read_events(&self, namespace: Box<str>, pods: Vec<PodKey>) {
        let (api, events, calls) = (self.api.clone(), self.events.clone(), self.calls.clone());
        self.spawn(async move {
            let Ok(permit) = calls.acquire().await else { return };
            let warnings = api.newest_warnings(&namespace).await;
            drop(permit);
            let mut warnings = match warnings {
                Ok(warnings) => warnings,
                Err(error) => return tracing::debug!(%error, namespace, "events cannot be read"),
            };
            for key in pods {
                if let Some(warning) = warnings.remove(&*key.uid) {
                    drop(events.send(Event::Warned { key, warning }).await);
                }
            }
        });
    }

    pub(super) fn warned(&mut self, key: &PodKey, (reason, message): (String, String)) {
        let Some(fleet) = &mut self.fleet else { return };
        let sight = fleet.explained(key.attempt, &key.uid, reason, &message);
        self.report(sight);
    }
}

#[cfg(test)]
mod tests {
    use windlass_ids::{RunId, StepIndex};

    use super::*;

    const FIRST: Duration = Duration::from_secs(20);

    fn attempt(step: u32) -> AttemptId {
        AttemptId {
            run: RunId::from_bytes([1; 16]),
            step: StepIndex(step),
            number: 1,
        }
    }

    fn key(attempt: AttemptId) -> Option<PodKey> {
        Some(PodKey {
            attempt,
            namespace: "team".into(),
            name: "pod".into(),
            uid: attempt.step.to_string().into(),
        })
    }

    /// behaviours E23
    #[test]
    fn p4_however_many_pods_wait_their_namespace_is_read_once_in_an_interval() {
        let mut stuck = Stuck::default();
        let begun = Instant::now();
        let mut reads = 0;
        let mut told = std::collections::HashSet::new();
        for second in 0..120 {
            let now = begun + Duration::from_secs(second);
            // Ten more every second.
            let starting = (0..u32::try_from(second * 10).expect("few")).map(|step| (attempt(step), Phase::Scheduled));
            let due = stuck.due(starting, key, FIRST, now);
            reads += due.len();
            told.extend(due.into_values().flatten().map(|key| key.attempt));
        }
        assert!((4..=6).contains(&reads), "{reads} reads in two minutes");
        assert!(told.len() >= 600, "{}", told.len());
    }

    #[test]
    fn a_pod_without_a_node_is_not_asked_for_and_one_that_waits_long_is_asked_for_more_and_more_rarely() {
        let mut stuck = Stuck::default();
        let begun = Instant::now();
        let mut asked = Vec::new();
        for second in 0..1000 {
            let now = begun + Duration::from_secs(second);
            let starting = [(attempt(1), Phase::Created), (attempt(2), Phase::Scheduled)];
            for key in stuck.due(starting.into_iter(), key, FIRST, now).into_values().flatten() {
                asked.push((key.attempt.step.0, second));
            }
        }
        assert_eq!(asked, [(2, 20), (2, 80), (2, 260), (2, 800)]);
    }
}
