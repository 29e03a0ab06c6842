//! Which launch is posted next: in order per namespace, in turn between namespaces, held back where the API server refuses.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use windlass_ids::AttemptId;
use windlass_service::{Backoff, BackoffSettings};

const BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(250),
    factor: 2.0,
    max: Duration::from_secs(30),
};

/// A launch that waits to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// Grant under which it is created.
    pub(crate) grant: u64,
    /// Template of the session.
    pub(crate) template: u64,
    /// Name of the step.
    pub(crate) step_name: String,
    /// What differs from the template.
    pub(crate) overlay: Vec<u8>,
    /// Reason of the last refusal that was reported.
    pub(crate) refused: Option<&'static str>,
}

/// A create in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Grant under which it is created.
    pub(crate) grant: u64,
    /// Wanted as soon as it is created: the grace in seconds.
    pub(crate) stop: Option<Option<i64>>,
}

#[derive(Debug)]
struct Lane {
    queue: VecDeque<Queued>,
    backoff: Backoff,
    /// After a refusal: nothing before that time, and then one at a time until one succeeds.
    closed_until: Option<Instant>,
    in_flight: usize,
}

/// The launches of this executor.
#[derive(Debug)]
pub(crate) struct Launcher {
    lanes: BTreeMap<String, Lane>,
    in_flight: HashMap<AttemptId, (String, InFlight)>,
    limit: usize,
    /// After 429: nothing before that time.
    closed_until: Option<Instant>,
    /// Namespace that had the last turn.
    last: String,
}

impl Launcher {
    /// With at most `limit` creates in flight.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            in_flight: HashMap::new(),
            limit,
            closed_until: None,
            last: String::new(),
        }
    }

    /// Queues a launch.
    pub(crate) fn push(&mut self, namespace: &str, launch: Queued) {
        self.lane(namespace).queue.push_back(launch);
    }

    /// Queues a launch before all others of its namespace.
    pub(crate) fn push_front(&mut self, namespace: &str, launch: Queued) {
        self.lane(namespace).queue.push_front(launch);
    }

    fn lane(&mut self, namespace: &str) -> &mut Lane {
        self.lanes.entry(namespace.to_owned()).or_insert_with(|| Lane {
            queue: VecDeque::new(),
            backoff: Backoff::new(BACKOFF),
            closed_until: None,
            in_flight: 0,
        })
    }

    /// The next launch to be posted; it is in flight from then on.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(String, Queued)> {
        if self.in_flight.len() >= self.limit || self.closed_until.is_some_and(|until| now < until) {
            return None;
        }
        let open = |(_, lane): &(&String, &Lane)| lane.is_open(now);
        let after = self
            .lanes
            .range(self.last.clone()..)
            .filter(|(name, _)| **name > self.last);
        let mut turn = after.chain(self.lanes.iter());
        let namespace = turn.find(open)?.0.clone();
        let lane = self.lanes.get_mut(&namespace)?;
        let launch = lane.queue.pop_front()?;
        lane.in_flight += 1;
        let in_flight = InFlight {
            grant: launch.grant,
            stop: None,
        };
        self.in_flight.insert(launch.attempt, (namespace.clone(), in_flight));
        self.last.clone_from(&namespace);
        Some((namespace, launch))
    }

    /// When [`Launcher::next`] may have something after having had nothing.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let lanes = self.lanes.values().filter(|lane| !lane.queue.is_empty());
        let lane = lanes.filter_map(|lane| lane.closed_until).min();
        let queued = self.lanes.values().any(|lane| !lane.queue.is_empty());
        match (self.closed_until.filter(|_| queued), lane) {
            (Some(all), Some(one)) => Some(all.max(one)),
            (all, one) => all.or(one),
        }
    }

    /// A create succeeded, or can never: the namespace is open.
    pub(crate) fn done(&mut self, attempt: AttemptId) -> Option<InFlight> {
        let (namespace, in_flight) = self.take(attempt)?;
        let lane = self.lane(&namespace);
        lane.closed_until = None;
        lane.backoff.reset();
        self.tidy();
        Some(in_flight)
    }

    /// A create was refused for the time being: it goes to the end of its namespace's queue, which is closed for a while.
    pub(crate) fn refused(
        &mut self,
        launch: Queued,
        wait: Option<Duration>,
        all: bool,
        now: Instant,
        random: &mut impl Rng,
    ) {
        let Some((namespace, _)) = self.take(launch.attempt) else {
            return;
        };
        let lane = self.lane(&namespace);
        let delay = lane.backoff.next_delay(random);
        let until = now + wait.map_or(delay, |wait| wait.max(delay));
        lane.closed_until = Some(until);
        lane.queue.push_back(launch);
        if all {
            self.closed_until = Some(until);
        }
    }

    /// Nothing was posted: it is first in turn again, not before `until`.
    pub(crate) fn put_back(&mut self, mut launch: Queued, until: Option<Instant>) {
        if let Some((namespace, in_flight)) = self.take(launch.attempt) {
            launch.grant = launch.grant.max(in_flight.grant);
            self.push_front(&namespace, launch);
        }
        self.closed_until = until.or(self.closed_until);
    }

    /// Opens what was closed for everybody.
    pub(crate) fn open(&mut self) {
        self.closed_until = None;
    }

    fn take(&mut self, attempt: AttemptId) -> Option<(String, InFlight)> {
        let (namespace, in_flight) = self.in_flight.remove(&attempt)?;
        self.lane(&namespace).in_flight -= 1;
        Some((namespace, in_flight))
    }

    fn tidy(&mut self) {
        self.lanes
            .retain(|_, lane| !lane.queue.is_empty() || lane.in_flight > 0 || lane.closed_until.is_some());
    }

    /// The create in flight for an attempt.
    pub(crate) fn in_flight_mut(&mut self, attempt: AttemptId) -> Option<&mut InFlight> {
        self.in_flight.get_mut(&attempt).map(|(_, in_flight)| in_flight)
    }

    /// The launch that waits for an attempt.
    pub(crate) fn queued_mut(&mut self, attempt: AttemptId) -> Option<&mut Queued> {
        let mut all = self.lanes.values_mut().flat_map(|lane| lane.queue.iter_mut());
        all.find(|launch| launch.attempt == attempt)
    }

    /// Takes out the launch that waits for an attempt, with its namespace.
    pub(crate) fn remove(&mut self, attempt: AttemptId) -> Option<(String, Queued)> {
        let mut found = None;
        for (namespace, lane) in &mut self.lanes {
            if let Some(position) = lane.queue.iter().position(|launch| launch.attempt == attempt) {
                found = lane.queue.remove(position).map(|launch| (namespace.clone(), launch));
                break;
            }
        }
        self.tidy();
        found
    }

    /// Drops the launches that `keep` does not name.
    pub(crate) fn retain(&mut self, keep: impl Fn(AttemptId) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.queue.retain(|launch| keep(launch.attempt));
        }
        self.tidy();
    }

    /// Attempts that are queued or in flight.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = AttemptId> + '_ {
        let queued = self
            .lanes
            .values()
            .flat_map(|lane| lane.queue.iter().map(|launch| launch.attempt));
        queued.chain(self.in_flight.keys().copied())
    }

    /// How many are queued.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.values().map(|lane| lane.queue.len()).sum()
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

impl Lane {
    fn is_open(&self, now: Instant) -> bool {
        let probing = self.closed_until.is_some() && self.in_flight > 0;
        !self.queue.is_empty() && !probing && self.closed_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use windlass_ids::{RunId, StepIndex};

    use super::*;

    fn queued(step: u32) -> Queued {
        Queued {
            attempt: AttemptId {
                run: RunId::from_bytes([1; 16]),
                step: StepIndex(step),
                number: 1,
            },
            grant: 1,
            template: 0,
            step_name: String::new(),
            overlay: Vec::new(),
            refused: None,
        }
    }

    fn step(next: Option<(String, Queued)>) -> Option<u32> {
        next.map(|(_, launch)| launch.attempt.step.0)
    }

    #[test]
    fn namespaces_take_turns_and_creates_in_flight_are_bounded() {
        let mut launcher = Launcher::new(3);
        let now = Instant::now();
        for (namespace, number) in [("a", 1), ("a", 2), ("a", 3), ("b", 11)] {
            launcher.push(namespace, queued(number));
        }
        let order: Vec<_> = (0..4).map(|_| step(launcher.next(now))).collect();
        assert_eq!(order, [Some(1), Some(11), Some(2), None]);
        launcher.done(queued(1).attempt);
        assert_eq!(step(launcher.next(now)), Some(3));
    }

    #[test]
    fn a_refused_namespace_is_probed_one_at_a_time_and_others_go_on() {
        let mut launcher = Launcher::new(8);
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        launcher.push("a", queued(1));
        launcher.push("a", queued(2));
        launcher.next(now);
        launcher.refused(queued(1), None, false, now, &mut random);
        assert_eq!(step(launcher.next(now)), None);
        launcher.push("b", queued(11));
        assert_eq!(step(launcher.next(now)), Some(11));
        let later = launcher.poll_timeout().expect("a time");
        assert_eq!(step(launcher.next(later)), Some(2));
        assert_eq!(step(launcher.next(later)), None, "one probe");
        launcher.done(queued(2).attempt);
        assert_eq!(step(launcher.next(later)), Some(1));
    }

    #[test]
    fn too_many_requests_closes_all_namespaces() {
        let mut launcher = Launcher::new(8);
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        launcher.push("a", queued(1));
        launcher.next(now);
        launcher.refused(queued(1), Some(Duration::from_secs(7)), true, now, &mut random);
        launcher.push("b", queued(2));
        assert_eq!(step(launcher.next(now + Duration::from_secs(6))), None);
        assert_eq!(launcher.poll_timeout(), Some(now + Duration::from_secs(7)));
        assert_eq!(step(launcher.next(now + Duration::from_secs(7))), Some(2).or(Some(1)));
    }
}
