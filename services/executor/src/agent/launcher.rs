//! Which launch is posted next: in order per namespace, in turn between namespaces, held back where the API server refuses.

use std::collections::{BTreeMap, HashMap};
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

impl Queued {
    /// Somebody with a grant of his own wants to know what becomes of it: its next refusal is reported, also one that was reported before.
    pub(crate) fn ask(&mut self, grant: u64) {
        self.grant = self.grant.max(grant);
        self.refused = None;
    }
}

/// A create in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Grant under which it is created.
    pub(crate) grant: u64,
    /// Wanted as soon as it is created: the grace in seconds.
    pub(crate) stop: Option<Option<i64>>,
    /// Somebody asked what became of it: that is said also when it was said before.
    pub(crate) asked: bool,
}

impl InFlight {
    /// Somebody with a grant of his own wants to know what becomes of it.
    pub(crate) fn ask(&mut self, grant: u64) {
        self.grant = self.grant.max(grant);
        self.asked = true;
    }
}

/// The launches of one namespace.
#[derive(Debug)]
struct Lane {
    /// By place: those that come are put behind, those that go back before all others.
    queue: BTreeMap<i64, Queued>,
    backoff: Backoff,
    /// After a refusal: nothing before that time.
    closed_until: Option<Instant>,
    /// The part of it that the API server asked for: no success shortens it.
    retry_after: Option<Instant>,
    /// After a refusal: one at a time until one succeeds.
    probing: bool,
    in_flight: usize,
}

/// The launches of this executor.
#[derive(Debug)]
pub(crate) struct Launcher {
    lanes: BTreeMap<String, Lane>,
    /// Where the launch of an attempt waits.
    places: HashMap<AttemptId, (String, i64)>,
    in_flight: HashMap<AttemptId, (String, InFlight)>,
    limit: usize,
    /// After 429: nothing before that time.
    closed_until: Option<Instant>,
    /// The lease is too short: nothing before that time, unless a session begins.
    lease_short_until: Option<Instant>,
    /// Namespace that had the last turn.
    last: String,
}

impl Launcher {
    /// With at most `limit` creates in flight.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            places: HashMap::new(),
            in_flight: HashMap::new(),
            limit,
            closed_until: None,
            lease_short_until: None,
            last: String::new(),
        }
    }

    /// Queues a launch.
    pub(crate) fn push(&mut self, namespace: &str, launch: Queued) {
        let lane = self.lanes.get(namespace);
        let last = lane.and_then(|lane| lane.queue.keys().next_back().copied());
        self.put(namespace, last.map_or(0, |place| place + 1), launch);
    }

    /// Queues a launch before all others of its namespace.
    pub(crate) fn push_front(&mut self, namespace: &str, launch: Queued) {
        let lane = self.lanes.get(namespace);
        let first = lane.and_then(|lane| lane.queue.keys().next().copied());
        self.put(namespace, first.map_or(0, |place| place - 1), launch);
    }

    fn put(&mut self, namespace: &str, place: i64, launch: Queued) {
        let attempt = launch.attempt;
        self.lane(namespace).queue.insert(place, launch);
        let before = self.places.insert(attempt, (namespace.to_owned(), place));
        if let Some((namespace, place)) = before {
            self.lane(&namespace).queue.remove(&place);
        }
    }

    fn lane(&mut self, namespace: &str) -> &mut Lane {
        self.lanes.entry(namespace.to_owned()).or_insert_with(|| Lane {
            queue: BTreeMap::new(),
            backoff: Backoff::new(BACKOFF),
            closed_until: None,
            retry_after: None,
            probing: false,
            in_flight: 0,
        })
    }

    /// The next launch to be posted; it is in flight from then on.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(String, Queued)> {
        if self.in_flight.len() >= self.limit || self.opens().is_some_and(|opens| now < opens) {
            return None;
        }
        let open = |(_, lane): &(&String, &Lane)| lane.waits() && lane.closed_until.is_none_or(|until| now >= until);
        let after = self
            .lanes
            .range(self.last.clone()..)
            .filter(|(name, _)| **name > self.last);
        let mut turn = after.chain(self.lanes.iter());
        let namespace = turn.find(open)?.0.clone();
        let lane = self.lanes.get_mut(&namespace)?;
        let (_, launch) = lane.queue.pop_first()?;
        lane.in_flight += 1;
        (lane.closed_until, lane.retry_after) = (None, None);
        self.places.remove(&launch.attempt);
        let in_flight = InFlight {
            grant: launch.grant,
            stop: None,
            asked: false,
        };
        self.in_flight.insert(launch.attempt, (namespace.clone(), in_flight));
        self.last.clone_from(&namespace);
        Some((namespace, launch))
    }

    /// When it opens for everybody; past or nothing when it is open.
    fn opens(&self) -> Option<Instant> {
        self.closed_until.max(self.lease_short_until)
    }

    /// When [`Launcher::next`] may have something, after having had nothing, by the passing of time alone. What waits for the end
    /// of a create is none of it.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.in_flight.len() >= self.limit {
            return None;
        }
        let all = self.opens();
        let waiting = self.lanes.values().filter(|lane| lane.waits());
        waiting.filter_map(|lane| lane.closed_until.max(all)).min()
    }

    /// A create succeeded, or can never: the namespace is open.
    pub(crate) fn done(&mut self, attempt: AttemptId) -> Option<InFlight> {
        let (namespace, in_flight) = self.take(attempt)?;
        let lane = self.lane(&namespace);
        lane.closed_until = lane.retry_after;
        lane.probing = false;
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
        lane.probing = true;
        lane.retry_after = lane.retry_after.max(wait.map(|wait| now + wait));
        // Those that were in flight together are refused together: that is one refusal.
        if lane.closed_until.is_none_or(|until| now >= until) {
            lane.closed_until = Some(now + lane.backoff.next_delay(random));
        }
        lane.closed_until = lane.closed_until.max(lane.retry_after);
        if all {
            self.closed_until = self.closed_until.max(self.lane(&namespace).closed_until);
        }
        self.push(&namespace, launch);
    }

    /// Nothing was posted: it is first in turn again, not before `until`.
    pub(crate) fn put_back(&mut self, mut launch: Queued, until: Option<Instant>) {
        if let Some((namespace, in_flight)) = self.take(launch.attempt) {
            launch.grant = launch.grant.max(in_flight.grant);
            if in_flight.asked {
                launch.ask(launch.grant);
            }
            self.push_front(&namespace, launch);
        }
        self.lease_short_until = self.lease_short_until.max(until);
    }

    /// A lease begins: what was held back for want of one may go.
    pub(crate) fn open(&mut self) {
        self.lease_short_until = None;
    }

    fn take(&mut self, attempt: AttemptId) -> Option<(String, InFlight)> {
        let (namespace, in_flight) = self.in_flight.remove(&attempt)?;
        self.lane(&namespace).in_flight -= 1;
        Some((namespace, in_flight))
    }

    /// Forgets namespaces of which there is nothing to remember.
    fn tidy(&mut self) {
        self.lanes
            .retain(|_, lane| !lane.queue.is_empty() || lane.in_flight > 0 || lane.retry_after.is_some());
    }

    /// The create in flight for an attempt.
    pub(crate) fn in_flight_mut(&mut self, attempt: AttemptId) -> Option<&mut InFlight> {
        self.in_flight.get_mut(&attempt).map(|(_, in_flight)| in_flight)
    }

    /// The launch that waits for an attempt.
    pub(crate) fn queued_mut(&mut self, attempt: AttemptId) -> Option<&mut Queued> {
        let (namespace, place) = self.places.get(&attempt)?;
        self.lanes.get_mut(namespace)?.queue.get_mut(place)
    }

    /// Takes out the launch that waits for an attempt, with its namespace.
    pub(crate) fn remove(&mut self, attempt: AttemptId) -> Option<(String, Queued)> {
        let (namespace, place) = self.places.remove(&attempt)?;
        let launch = self.lanes.get_mut(&namespace)?.queue.remove(&place)?;
        self.tidy();
        Some((namespace, launch))
    }

    /// Drops the launches that `keep` does not name.
    pub(crate) fn retain(&mut self, keep: impl Fn(AttemptId) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.queue.retain(|_, launch| keep(launch.attempt));
        }
        self.places.retain(|attempt, _| keep(*attempt));
        self.tidy();
    }

    /// Attempts that are queued or in flight.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.places.keys().chain(self.in_flight.keys()).copied()
    }

    /// How many are queued.
    pub(crate) fn queued(&self) -> usize {
        self.places.len()
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

impl Lane {
    /// Whether it waits for nothing but time.
    fn waits(&self) -> bool {
        let probed = self.probing && self.in_flight > 0;
        !self.queue.is_empty() && !probed
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

    #[test]
    fn i11_the_next_look_is_never_in_the_past() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut launcher, mut now) = (Launcher::new(3), Instant::now());
            let mut in_flight: Vec<Queued> = Vec::new();
            for number in 0..60 {
                now += Duration::from_millis(random.random_range(0..2000));
                let namespace = ["a", "b", "c"][random.random_range(0..3)];
                launcher.push(namespace, queued(number));
                if !in_flight.is_empty() && random.random_bool(0.8) {
                    let one = in_flight.swap_remove(random.random_range(0..in_flight.len()));
                    let wait = random.random_bool(0.5).then_some(Duration::from_secs(1));
                    match random.random_range(0..4) {
                        0 => drop(launcher.done(one.attempt)),
                        1 => launcher.put_back(one, Some(now + Duration::from_millis(500))),
                        all => launcher.refused(one, wait, all == 3, now, &mut random),
                    }
                }
                in_flight.extend(std::iter::from_fn(|| launcher.next(now)).map(|(_, launch)| launch));
                let next = launcher.poll_timeout();
                assert!(next.is_none_or(|next| next > now), "seed {seed}, launch {number}");
            }
        }
    }

    #[test]
    fn an_open_namespace_does_not_wait_for_a_closed_one() {
        let mut launcher = Launcher::new(8);
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let seconds = Duration::from_secs;
        launcher.push("a", queued(1));
        launcher.push("b", queued(2));
        launcher.next(now);
        launcher.next(now);
        launcher.refused(queued(1), Some(seconds(60)), false, now, &mut random);
        launcher.refused(queued(2), Some(seconds(5)), true, now, &mut random);
        launcher.remove(queued(2).attempt);
        launcher.push("c", queued(3));
        assert_eq!(launcher.poll_timeout(), Some(now + seconds(5)));
    }

    /// behaviours U16
    #[test]
    fn what_an_api_server_asked_for_is_never_shortened() {
        let mut launcher = Launcher::new(8);
        let (now, mut random) = (Instant::now(), StdRng::seed_from_u64(1));
        let seconds = Duration::from_secs;
        for number in 1..=3 {
            launcher.push("a", queued(number));
            launcher.next(now);
        }
        launcher.refused(queued(1), Some(seconds(30)), true, now, &mut random);
        launcher.refused(queued(2), Some(seconds(1)), true, now, &mut random);
        launcher.open();
        launcher.done(queued(3).attempt);
        assert_eq!(step(launcher.next(now + seconds(29))), None);
        assert_eq!(launcher.poll_timeout(), Some(now + seconds(30)));
        assert_eq!(step(launcher.next(now + seconds(30))), Some(1));
    }
}
