//! Quorum reads of attempts' pods: one at a time for each, however many ask.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use windlass_api::dispatch::v1 as dispatch;
use windlass_ids::AttemptId;

use super::letting_go::until_done;
use super::{Agent, Purpose};
use crate::attempts::identity::identity_labels;
use crate::attempts::wire::SlimPod;

/// Where the scheduler says that a pod is, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    /// Empty when it is not known: its labels find it.
    pub(super) name: String,
    /// Empty when it is not known.
    pub(super) uid: String,
}

/// A read of an attempt's pod that is under way, for all who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) grant: u64,
    pub(super) purpose: Purpose,
    pub(super) place: Place,
    /// Somebody asked after it had begun: what it finds may be older than the question.
    again: bool,
}

impl Search {
    pub(super) fn new(grant: u64, purpose: Purpose, place: Place) -> Self {
        Self {
            grant,
            purpose,
            place,
            again: false,
        }
    }

    /// Serves another question, too. A stop says more than a probe.
    fn join(&mut self, other: Self) {
        self.again = true;
        self.grant = self.grant.max(other.grant);
        if other.purpose != Purpose::Probe {
            self.purpose = other.purpose;
        }
        if !other.place.name.is_empty() {
            self.place = other.place;
        }
    }
}

/// Reads that are under way.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// Of attempts' pods.
    of_attempts: HashMap<AttemptId, Search>,
    /// Of pods that are said to be gone, by uid; whether that was said again meanwhile.
    of_gone: HashMap<Box<str>, bool>,
}

impl Searches {
    /// Whether a read has to begin; otherwise the one under way serves this question, too.
    pub(super) fn begin(&mut self, attempt: AttemptId, search: Search) -> bool {
        match self.of_attempts.entry(attempt) {
            Entry::Occupied(mut under_way) => {
                under_way.get_mut().join(search);
                false
            }
            Entry::Vacant(none) => {
                none.insert(search);
                true
            }
        }
    }

    /// A read is done: what it was for, and whether its answer is newer than every question.
    pub(super) fn done(&mut self, attempt: AttemptId) -> Option<(Search, bool)> {
        let mut search = self.of_attempts.remove(&attempt)?;
        let fresh = !std::mem::take(&mut search.again);
        Some((search, fresh))
    }

    /// Like [`Searches::begin`], for a pod that is said to be gone.
    pub(super) fn begin_gone(&mut self, uid: &str) -> bool {
        match self.of_gone.get_mut(uid) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                self.of_gone.insert(uid.into(), false);
                true
            }
        }
    }

    /// Like [`Searches::done`]: whether the answer is newer than every question.
    pub(super) fn done_gone(&mut self, uid: &str) -> bool {
        !self.of_gone.remove(uid).unwrap_or(false)
    }
}

impl From<&dispatch::Probe> for Place {
    fn from(probe: &dispatch::Probe) -> Self {
        Self {
            namespace: probe.namespace.clone(),
            name: probe.pod_name.clone(),
            uid: probe.pod_uid.clone(),
        }
    }
}

impl From<&dispatch::Stop> for Place {
    fn from(stop: &dispatch::Stop) -> Self {
        Self {
            namespace: stop.namespace.clone(),
            name: stop.pod_name.clone(),
            uid: stop.pod_uid.clone(),
        }
    }
}

impl Agent {
    /// Puts back the labels of a pod that is known by its uid: lists and watches find it by them.
    pub(super) fn label_again(&self, attempt: AttemptId, pod: &SlimPod<'_>) {
        let (Some(fleet), Some(installation)) = (&self.fleet, self.installation) else {
            return;
        };
        if fleet.labelled(pod) == Some(attempt) || fleet.is_releasing(attempt) {
            return;
        }
        let Some(key) = fleet.key(attempt) else { return };
        tracing::warn!(attempt_id = %attempt, pod = %key.name, "labels of a pod are put back: somebody changed them");
        let labels = identity_labels(attempt, installation);
        let (api, calls) = (self.api.clone(), self.calls.clone());
        self.spawn(async move {
            until_done("label", &calls, || {
                api.label_pod(&key.namespace, &key.name, &key.uid, &labels)
            })
            .await;
        });
    }
}

#[cfg(test)]
mod tests {
    use windlass_ids::{RunId, StepIndex};

    use super::*;

    #[test]
    fn i11_questions_about_one_attempt_are_one_read_and_one_more() {
        let attempt = AttemptId {
            run: RunId::from_bytes([1; 16]),
            step: StepIndex(1),
            number: 1,
        };
        let mut searches = Searches::default();
        let probe = |grant| Search::new(grant, Purpose::Probe, Place::default());
        assert!(searches.begin(attempt, probe(1)));
        for grant in 2..1000 {
            assert!(!searches.begin(attempt, probe(grant)));
        }
        assert!(!searches.begin(attempt, Search::new(7, Purpose::Stop(Some(3)), Place::default())));
        assert!(!searches.begin(attempt, probe(5)));
        // What the read found may be older than the last question, so that absence cannot be concluded (I2).
        let (search, fresh) = searches.done(attempt).expect("under way");
        assert_eq!(
            (search.grant, search.purpose, fresh),
            (999, Purpose::Stop(Some(3)), false)
        );
        assert!(searches.begin(attempt, search.clone()));
        assert_eq!(searches.done(attempt), Some((search, true)));
        assert_eq!(searches.done(attempt), None);
    }
}
