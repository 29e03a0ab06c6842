//! When released pods are deleted, and the owner objects of finished runs: rarely, since one deletecollection takes hundreds
//! (performance P4).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use windlass_ids::RunId;

/// Released pods of a namespace that are deleted together.
const BATCH: usize = 500;
/// How long released pods stay at most.
const MAX_AGE: Duration = Duration::from_secs(600);

/// What is to be swept.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    namespaces: BTreeMap<String, Namespace>,
    /// Releases that are under way, by run.
    releasing: HashMap<RunId, usize>,
}

#[derive(Debug, Default)]
struct Namespace {
    released: usize,
    since: Option<Instant>,
    finished: BTreeSet<RunId>,
    sweeping: bool,
}

/// One sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// The namespace.
    pub(crate) namespace: String,
    /// Whether there are released pods.
    pub(crate) pods: usize,
    /// Runs whose owner objects go, after the pods.
    pub(crate) runs: Vec<RunId>,
}

impl Sweeps {
    /// A release began.
    pub(crate) fn releasing(&mut self, run: RunId) {
        *self.releasing.entry(run).or_default() += 1;
    }

    /// A release is done.
    pub(crate) fn released(&mut self, run: RunId, namespace: &str, now: Instant) {
        if let Some(count) = self.releasing.get_mut(&run) {
            *count -= 1;
            if *count == 0 {
                self.releasing.remove(&run);
            }
        }
        let entry = self.namespaces.entry(namespace.to_owned()).or_default();
        entry.released += 1;
        entry.since.get_or_insert(now);
    }

    /// Released pods that nobody has deleted: they are swept at once.
    pub(crate) fn found(&mut self, found: BTreeMap<String, usize>, now: Instant) {
        for (namespace, pods) in found {
            let entry = self.namespaces.entry(namespace).or_default();
            entry.released = entry.released.max(pods);
            entry.since = Some(now.checked_sub(MAX_AGE).unwrap_or(now));
        }
    }

    /// A run's last pod was released: its owner object goes, too.
    pub(crate) fn finished(&mut self, run: RunId, namespace: &str) {
        let entry = self.namespaces.entry(namespace.to_owned()).or_default();
        entry.finished.insert(run);
    }

    /// A sweep that is due; at most one at a time in a namespace.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Sweep> {
        let releasing = &self.releasing;
        let due = |entry: &Namespace| {
            let old = entry.since.is_some_and(|since| now >= since + MAX_AGE);
            let ended = entry.finished.iter().any(|run| !releasing.contains_key(run));
            !entry.sweeping && (entry.released >= BATCH || old || ended)
        };
        let (namespace, entry) = self.namespaces.iter_mut().find(|(_, entry)| due(entry))?;
        let ready: Vec<RunId> = entry
            .finished
            .iter()
            .filter(|run| !releasing.contains_key(run))
            .copied()
            .collect();
        // A selector of many runs becomes a long address.
        let runs: Vec<RunId> = ready.into_iter().take(50).collect();
        for run in &runs {
            entry.finished.remove(run);
        }
        entry.sweeping = true;
        entry.since = None;
        Some(Sweep {
            namespace: namespace.clone(),
            pods: std::mem::take(&mut entry.released),
            runs,
        })
    }

    /// A sweep is over.
    pub(crate) fn swept(&mut self, sweep: Sweep, succeeded: bool, now: Instant) {
        let entry = self.namespaces.entry(sweep.namespace.clone()).or_default();
        entry.sweeping = false;
        if !succeeded {
            entry.released += sweep.pods;
            entry.finished.extend(sweep.runs);
            entry.since.get_or_insert(now);
        }
        if entry.released == 0 && entry.finished.is_empty() {
            self.namespaces.remove(&sweep.namespace);
        }
    }

    /// When [`Sweeps::next`] may have something by the passing of time.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.namespaces.values().filter(|entry| !entry.sweeping);
        waiting
            .filter_map(|entry| entry.since.map(|since| since + MAX_AGE))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u8) -> RunId {
        RunId::from_bytes([number; 16])
    }

    #[test]
    fn p4_pods_are_swept_by_the_hundred_or_with_their_run() {
        let mut sweeps = Sweeps::default();
        let now = Instant::now();
        for _ in 0..BATCH - 1 {
            sweeps.releasing(run(1));
            sweeps.released(run(1), "a", now);
        }
        assert_eq!(sweeps.next(now), None);
        sweeps.releasing(run(1));
        sweeps.finished(run(1), "a");
        assert_eq!(sweeps.next(now), None, "the last release is under way");
        sweeps.released(run(1), "a", now);
        let sweep = sweeps.next(now).expect("a sweep");
        assert_eq!((sweep.pods, sweep.runs.as_slice()), (BATCH, &[run(1)][..]));
        assert_eq!(sweeps.next(now), None, "one at a time");
        sweeps.swept(sweep.clone(), false, now);
        assert_eq!(sweeps.next(now), Some(sweep.clone()), "what failed is done again");
        sweeps.swept(sweep, true, now);
        assert_eq!((sweeps.next(now), sweeps.poll_timeout()), (None, None));
    }

    #[test]
    fn i10_released_pods_do_not_stay_for_ever() {
        let mut sweeps = Sweeps::default();
        let now = Instant::now();
        sweeps.releasing(run(1));
        sweeps.released(run(1), "a", now);
        assert_eq!(sweeps.poll_timeout(), Some(now + MAX_AGE));
        assert_eq!(sweeps.next(now + MAX_AGE).map(|sweep| sweep.pods), Some(1));
    }
}
