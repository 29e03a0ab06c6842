//! Waiting states that are fatal when they last, such as an image that cannot be pulled.

use std::collections::BTreeMap;

use windlass_ids::{AttemptId, Timestamp};

use super::assess::Assessment;
use super::classify;
use super::model::{End, FailureClass, Policy};

/// The attempts that are in such a state.
#[derive(Debug, Default)]
pub(super) struct Waits(BTreeMap<AttemptId, Wait>);

#[derive(Debug)]
struct Wait {
    class: FailureClass,
    reason: String,
    message: String,
    since: Timestamp,
}

impl Waits {
    /// Takes over what was found of an attempt's pod.
    pub(super) fn note(&mut self, attempt: AttemptId, assessment: &Assessment, now: Timestamp) {
        let Some(class) = assessment.fatal_wait else {
            // Between two tries the kubelet says ErrImagePull and ImagePullBackOff in turn, with changing messages.
            if assessment.end.is_some() || !assessment.reason.contains("ImagePull") {
                self.remove(attempt);
            }
            return;
        };
        let wait = self.0.entry(attempt).or_insert_with(|| Wait {
            class,
            reason: String::new(),
            message: String::new(),
            since: now,
        });
        wait.class = class;
        wait.reason.clone_from(&assessment.reason);
        wait.message.clone_from(&assessment.message);
    }

    /// The end of an attempt that has waited for too long.
    pub(super) fn end(&self, attempt: AttemptId, policy: &Policy, now: Timestamp) -> Option<End> {
        let wait = self.0.get(&attempt).filter(|wait| wait.deadline(policy) <= now)?;
        let mut end = classify::waited_too_long(wait.class, &wait.reason, &wait.message);
        end.end_time = Some(now);
        Some(end)
    }

    /// The attempts that have waited for too long.
    pub(super) fn due(&self, policy: &Policy, now: Timestamp) -> Vec<AttemptId> {
        let due = self.0.iter().filter(|(_, wait)| wait.deadline(policy) <= now);
        due.map(|(attempt, _)| *attempt).collect()
    }

    /// When the next one has.
    pub(super) fn next(&self, policy: &Policy) -> Option<Timestamp> {
        self.0.values().map(|wait| wait.deadline(policy)).min()
    }

    /// Forgets an attempt.
    pub(super) fn remove(&mut self, attempt: AttemptId) {
        self.0.remove(&attempt);
    }

    /// Forgets the others.
    pub(super) fn retain(&mut self, keep: impl Fn(AttemptId) -> bool) {
        self.0.retain(|attempt, _| keep(*attempt));
    }
}

impl Wait {
    fn deadline(&self, policy: &Policy) -> Timestamp {
        let tolerance = match self.class {
            FailureClass::Image => policy.image_tolerance,
            _ => policy.config_tolerance,
        };
        self.since.saturating_add(tolerance)
    }
}
