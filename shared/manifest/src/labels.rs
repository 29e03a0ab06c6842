//! Labels and annotations that every object carries; users cannot override them (behaviours X6, E30).

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use windlass_ids::{AttemptId, Shard, StepIndex};

use crate::names::{HASH, base32, is_base32};
use crate::{Attempt, Run};

/// Keys of labels.
#[derive(Debug)]
pub struct Label;

impl Label {
    /// Name of the run, as a label value.
    pub const RUN: &'static str = "run";
    /// Name of the pipeline, as a label value.
    pub const PIPELINE: &'static str = "pipeline";
    /// UUID of the installation.
    pub const INSTALLATION: &'static str = "windlass.dev/installation";
    /// Id of the run.
    pub const RUN_ID: &'static str = "windlass.dev/run-id";
    /// Name of the step, as a label value.
    pub const STEP: &'static str = "windlass.dev/step";
    /// Position of the step.
    pub const STEP_INDEX: &'static str = "windlass.dev/step-index";
    /// Number of the attempt.
    pub const ATTEMPT: &'static str = "windlass.dev/attempt";
    /// Shard of the attempt.
    pub const SHARD: &'static str = "windlass.dev/shard";
    /// Name of the schedule that a CronJob triggers, as a label value; of runs, CronJobs and Secrets.
    pub const SCHEDULE: &'static str = "windlass.dev/schedule";
    /// Id of the schedule that a CronJob triggers, or whose Secret it is.
    pub const SCHEDULE_ID: &'static str = "windlass.dev/schedule-id";
    /// Id of the secrets of a schedule: each set of values has its own Secret.
    pub const SECRET_ID: &'static str = "windlass.dev/secret-id";
    /// Set when the pod may be deleted: its end is stored, its log is kept.
    pub const RELEASED: &'static str = "windlass.dev/released";
}

/// Keys of annotations.
#[derive(Debug)]
pub struct Annotation;

impl Annotation {
    /// Full name of the run.
    pub const RUN: &'static str = "windlass.dev/run";
    /// Full name of the pipeline.
    pub const PIPELINE: &'static str = "windlass.dev/pipeline";
    /// Full name of the step.
    pub const STEP: &'static str = "windlass.dev/step";
    /// Full name of the schedule.
    pub const SCHEDULE: &'static str = "windlass.dev/schedule";
    /// Id of the request that created a Secret.
    pub const REQUEST_ID: &'static str = "windlass.dev/request-id";
    /// Present when exit code 0 after a deletion or eviction counts as success.
    pub const ACCEPT_EXIT_ZERO: &'static str = "windlass.dev/accept-exit-zero-when-terminated";
    /// Keeps the cluster autoscaler from removing the node below the pod.
    pub const SAFE_TO_EVICT: &'static str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
}

/// Whether users may not set this label or annotation.
pub fn is_reserved_label(key: &str) -> bool {
    key == Label::RUN || key == Label::PIPELINE || key.starts_with("windlass.dev/")
}

/// A valid label value: the text itself when it is one, else its readable part and a hash of all of it.
///
/// Injective: a text that looks like the second form is hashed, too.
pub fn label_value(text: &str) -> String {
    if is_label_value(text) && !looks_hashed(text) {
        return text.to_owned();
    }
    let valid = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let readable: String = text
        .chars()
        .map(|character| if valid(character) { character } else { '-' })
        .skip_while(|character| !character.is_ascii_alphanumeric())
        .take(MAX_VALUE - HASH - 1)
        .collect();
    let hash = base32(&Sha256::digest(text));
    match readable.trim_end_matches(|character: char| !character.is_ascii_alphanumeric()) {
        "" => hash,
        readable => format!("{readable}-{hash}"),
    }
}

const MAX_VALUE: usize = 63;

fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= MAX_VALUE && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().next_back())
}

fn looks_hashed(text: &str) -> bool {
    is_base32(text.rsplit('-').next().unwrap_or(text))
}

/// Whose pod it is, read back from its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its shard.
    pub shard: Shard,
}

impl Identity {
    /// Reads labels; nothing when they are not ours, or do not agree with each other.
    pub fn from_labels<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let attempt = AttemptId {
            run: label(Label::RUN_ID)?.parse().ok()?,
            step: StepIndex(label(Label::STEP_INDEX)?.parse().ok()?),
            number: label(Label::ATTEMPT)?.parse().ok()?,
        };
        let shard = Shard(label(Label::SHARD)?.parse().ok()?);
        (shard == Shard::of(attempt)).then_some(Self { attempt, shard })
    }
}

/// Labels of everything that belongs to a run.
pub(crate) fn run_labels(run: &Run) -> BTreeMap<String, String> {
    [
        (Label::RUN, label_value(&run.name)),
        (Label::PIPELINE, label_value(&run.pipeline)),
        (Label::INSTALLATION, run.installation.to_string()),
        (Label::RUN_ID, run.id.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Labels of an attempt's pod.
pub(crate) fn pod_labels(run: &Run, attempt: &Attempt<'_>) -> BTreeMap<String, String> {
    let mut labels = run_labels(run);
    let own = [
        (Label::STEP, label_value(attempt.step_name)),
        (Label::STEP_INDEX, attempt.id.step.to_string()),
        (Label::ATTEMPT, attempt.id.number.to_string()),
        (Label::SHARD, Shard::of(attempt.id).to_string()),
    ];
    labels.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
    labels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_valid_text_is_its_own_label() {
        assert_eq!(label_value("train.2"), "train.2");
        assert_eq!(label_value("Train_2"), "Train_2");
        // behaviours N4: these gave an empty or an invalid value.
        for text in ["", "___", "ends-", "ä", &"a".repeat(64)] {
            assert!(is_label_value(&label_value(text)), "{text:?}");
        }
    }

    proptest! {
        /// behaviours N4, K4
        #[test]
        fn label_values_are_valid_and_injective(one in "[a-z._/ -]{0,70}", other in "[a-z._/ -]{0,70}") {
            prop_assert!(is_label_value(&label_value(&one)));
            prop_assert_eq!(label_value(&one) == label_value(&other), one == other);
            // What looks like a hashed value is hashed again.
            prop_assert_ne!(label_value(&format!("{one}/")), label_value(&label_value(&format!("{one}/"))));
        }
    }
}
