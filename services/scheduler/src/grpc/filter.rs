//! Filters of lists: terms joined by blanks, all of which must hold.

use std::collections::BTreeSet;

use windlass_api::run::v1::StepState;
use windlass_ids::Timestamp;
use windlass_scheduling::RunState;

use crate::admission::SCHEDULE_LABEL;
use crate::store::{NamePattern, RunFilter};

/// Why a filter was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A term has no `=`.
    #[error("{term:?} is not `key=value`; known keys: {known}")]
    NotATerm {
        /// The term.
        term: String,
        /// What is allowed.
        known: &'static str,
    },
    /// A key that this list does not know.
    #[error("unknown key {key:?}; known keys: {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What is allowed.
        known: &'static str,
    },
    /// A key that is given twice.
    #[error("{key:?} is given twice; give it once, several states as state=A,B")]
    RepeatedKey {
        /// The key.
        key: String,
    },
    /// A state that does not exist.
    #[error("unknown state {state:?}; known states: {known}")]
    UnknownState {
        /// The state.
        state: String,
        /// What is allowed.
        known: String,
    },
    /// A text that is no time.
    #[error("{text:?} is not a time such as 2026-12-01T08:00:00Z")]
    BadTime {
        /// The text.
        text: String,
    },
    /// A pattern that runs cannot be looked up by.
    #[error("{pattern:?} has a `*` before its end; names of runs are looked up by their beginning, such as `churn-*`")]
    BadPattern {
        /// The pattern.
        pattern: String,
    },
}

const RUN_KEYS: &str = "state, pipeline, name, submittedBy, schedule, endedBefore, label.KEY";
const STEP_KEYS: &str = "state, name";

/// Reads a filter of ListRuns; the namespace is not part of it.
///
/// # Errors
/// When a term, key or state is unknown, or a term cannot be looked up.
pub(crate) fn run_filter(text: &str) -> Result<RunFilter, FilterError> {
    let mut filter = RunFilter::default();
    for (key, value) in terms(text, RUN_KEYS)? {
        match key {
            "state" => filter.states = run_states(value)?,
            "pipeline" => filter.pipeline = Some(value.to_owned()),
            "name" => filter.name = Some(name_pattern(value)?),
            "submittedBy" => filter.submitted_by = Some(value.to_owned()),
            "schedule" => filter.labels.push((SCHEDULE_LABEL.to_owned(), value.to_owned())),
            "endedBefore" => filter.ended_before = Some(time(value)?),
            _ => match key.strip_prefix("label.") {
                Some(label) => filter.labels.push((label.to_owned(), value.to_owned())),
                None => return Err(unknown_key(key, RUN_KEYS)),
            },
        }
    }
    Ok(filter)
}

fn time(text: &str) -> Result<Timestamp, FilterError> {
    let time = text.parse::<jiff::Timestamp>();
    let time = time.map_err(|_| FilterError::BadTime { text: text.to_owned() })?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

fn name_pattern(value: &str) -> Result<NamePattern, FilterError> {
    match value.strip_suffix('*') {
        Some(prefix) if !prefix.contains('*') => Ok(NamePattern::Prefix(prefix.to_owned())),
        None if !value.contains('*') => Ok(NamePattern::Exact(value.to_owned())),
        _ => Err(FilterError::BadPattern {
            pattern: value.to_owned(),
        }),
    }
}

/// Which steps are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepFilter {
    states: Option<Vec<StepState>>,
    name: Option<Pattern>,
}

impl StepFilter {
    /// Reads a filter of ListSteps.
    ///
    /// # Errors
    /// When a term, key or state is unknown.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for (key, value) in terms(text, STEP_KEYS)? {
            match key {
                "state" => filter.states = Some(step_states(value)?),
                "name" => filter.name = Some(Pattern::new(value)),
                _ => return Err(unknown_key(key, STEP_KEYS)),
            }
        }
        Ok(filter)
    }

    /// Whether a step passes.
    pub(crate) fn matches(&self, state: StepState, name: impl FnOnce() -> String) -> bool {
        self.states.as_ref().is_none_or(|states| states.contains(&state))
            && self.name.as_ref().is_none_or(|pattern| pattern.matches(&name()))
    }
}

fn terms<'a>(text: &'a str, known: &'static str) -> Result<Vec<(&'a str, &'a str)>, FilterError> {
    let mut keys = BTreeSet::new();
    let term = |term: &'a str| {
        let (key, value) = term.split_once('=').ok_or_else(|| FilterError::NotATerm {
            term: term.to_owned(),
            known,
        })?;
        // All terms must hold, and no value is equal to two.
        if keys.insert(key) {
            Ok((key, value))
        } else {
            Err(FilterError::RepeatedKey { key: key.to_owned() })
        }
    };
    text.split_whitespace().map(term).collect()
}

fn unknown_key(key: &str, known: &'static str) -> FilterError {
    FilterError::UnknownKey {
        key: key.to_owned(),
        known,
    }
}

fn run_states(value: &str) -> Result<Vec<RunState>, FilterError> {
    let of = |word: &str| RunState::ALL.iter().copied().find(|state| state.as_str() == word);
    states(value, of, RunState::ALL.iter().map(|state| state.as_str()))
}

fn step_states(value: &str) -> Result<Vec<StepState>, FilterError> {
    let of = |word: &str| StepState::from_str_name(&format!("STEP_STATE_{word}"));
    let all = (1..)
        .map_while(|number| StepState::try_from(number).ok())
        .map(|state| state.as_str_name());
    states(value, of, all.map(|name| name.trim_start_matches("STEP_STATE_")))
}

fn states<S>(
    value: &str,
    of: impl Fn(&str) -> Option<S>,
    all: impl Iterator<Item = &'static str>,
) -> Result<Vec<S>, FilterError> {
    let known = all.collect::<Vec<_>>().join(", ");
    value
        .split(',')
        .map(|word| {
            of(&word.to_ascii_uppercase()).ok_or_else(|| FilterError::UnknownState {
                state: word.to_owned(),
                known: known.clone(),
            })
        })
        .collect()
}

/// A text in which `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Each part between stars is taken at its first place, which is enough for a pattern without other wild cards.
    fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let Some(mut left) = text.strip_prefix(first) else {
            return false;
        };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return left.ends_with(part);
            }
            let Some(at) = left.find(part) else {
                return false;
            };
            left = &left[at + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_of_a_run_filter_are_looked_up_by_the_store() {
        let filter = run_filter(
            "state=failed,RUNNING pipeline=churn label.team=ml submittedBy=ana name=churn-* endedBefore=1970-01-01T00:00:02Z",
        );
        let expected = RunFilter {
            namespace: None,
            among: None,
            states: vec![RunState::Failed, RunState::Running],
            pipeline: Some("churn".to_owned()),
            submitted_by: Some("ana".to_owned()),
            labels: vec![("team".to_owned(), "ml".to_owned())],
            name: Some(NamePattern::Prefix("churn-".to_owned())),
            ended_before: Some(Timestamp::from_millis(2_000)),
        };
        assert_eq!(filter, Ok(expected));
        assert!(matches!(run_filter("name=*-x"), Err(FilterError::BadPattern { .. })));
        assert!(matches!(run_filter("endedBefore=7d"), Err(FilterError::BadTime { .. })));
        let steps = StepFilter::parse("state=failed name=train.*").expect("a filter");
        assert!(steps.matches(StepState::Failed, || "train.3".to_owned()));
        assert!(!steps.matches(StepState::Failed, || "report".to_owned()));
        assert!(!steps.matches(StepState::Running, || "train.3".to_owned()));
    }

    #[test]
    fn i9_what_a_filter_does_not_know_is_refused() {
        let text = |error: FilterError| error.to_string();
        assert_eq!(
            run_filter("color=red").map_err(text),
            Err(
                "unknown key \"color\"; known keys: state, pipeline, name, submittedBy, schedule, endedBefore, label.KEY".to_owned()
            )
        );
        assert_eq!(
            StepFilter::parse("state").map_err(text),
            Err("\"state\" is not `key=value`; known keys: state, name".to_owned())
        );
        assert_eq!(
            run_filter("state=FAILED name=a state=RUNNING").map_err(text),
            Err("\"state\" is given twice; give it once, several states as state=A,B".to_owned())
        );
        assert!(run_filter("label.a=1 label.b=1").is_ok());
        assert!(run_filter("label.a=1 label.a=2").is_err());
        let error = StepFilter::parse("state=DONE").map_err(text).expect_err("refused");
        assert!(error.contains("WAITING, READY, STARTING"), "{error}");
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_a_naive_matcher_does(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            Some((letter, rest)) => text
                .split_first()
                .is_some_and(|(first, left)| first == letter && naive(rest, left)),
        }
    }
}
