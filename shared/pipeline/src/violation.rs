//! What is wrong with a pipeline.

use std::fmt;

use serde::Serialize;

/// One problem of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Path of the field, such as `steps[2].pod.nodeSelectr`; empty for the whole pipeline.
    pub path: String,
    /// Kind of the problem, for programs.
    pub code: Code,
    /// What is wrong and what would be right.
    pub message: String,
    /// Where it stands in the file, when there is a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

impl Violation {
    /// A problem without a place in a file.
    pub fn new(path: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            code,
            message: message.into(),
            location: None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location {
            write!(formatter, "{location}: ")?;
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)
    }
}

/// Place in a file; both numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}", self.line, self.column)
    }
}

/// Kind of a problem, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The text is neither YAML nor JSON.
    Syntax,
    /// A field that does not exist.
    UnknownField,
    /// A value of the wrong type.
    WrongType,
    /// Something required is not there.
    Missing,
    /// A value that is not allowed here.
    BadValue,
    /// Something that must be unique is there twice.
    Duplicate,
    /// An upstream step that does not exist.
    UnknownStep,
    /// Steps that wait for each other.
    Cycle,
    /// A parameter that is not declared.
    UnknownParameter,
    /// A name that the system keeps for itself.
    Reserved,
    /// Fields that exclude each other.
    Conflict,
    /// More than is allowed.
    Limit,
}

impl Code {
    /// The code as it stands in API messages, such as `UNKNOWN_FIELD`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "SYNTAX",
            Self::UnknownField => "UNKNOWN_FIELD",
            Self::WrongType => "WRONG_TYPE",
            Self::Missing => "MISSING",
            Self::BadValue => "BAD_VALUE",
            Self::Duplicate => "DUPLICATE",
            Self::UnknownStep => "UNKNOWN_STEP",
            Self::Cycle => "CYCLE",
            Self::UnknownParameter => "UNKNOWN_PARAMETER",
            Self::Reserved => "RESERVED",
            Self::Conflict => "CONFLICT",
            Self::Limit => "LIMIT",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Most problems that are listed; more are counted.
pub const MAX_VIOLATIONS: usize = 100;

/// Every problem of a pipeline, in the order in which they were found; at most [`MAX_VIOLATIONS`] are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    kept: Vec<Violation>,
    dropped: usize,
}

impl Violations {
    /// Adds a problem.
    pub fn add(&mut self, path: impl Into<String>, code: Code, message: impl Into<String>) {
        self.push(Violation::new(path, code, message));
    }

    /// Adds a problem.
    pub fn push(&mut self, violation: Violation) {
        if self.kept.len() < MAX_VIOLATIONS {
            self.kept.push(violation);
        } else {
            self.dropped += 1;
        }
    }

    /// Adds all of `more`.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Violation>) {
        for violation in more {
            self.push(violation);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether further problems are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() >= MAX_VIOLATIONS
    }

    /// `, did you mean x?` when something near is known. Comparing is slow, and a hint that nobody sees is not worth it.
    pub(crate) fn hint<'a>(&self, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        if self.is_full() {
            String::new()
        } else {
            did_you_mean(name, known)
        }
    }

    /// The problems; when some were dropped, the last one says how many.
    pub fn into_vec(mut self) -> Vec<Violation> {
        if self.dropped > 0 {
            let message = format!("and {} more problems", self.dropped);
            self.kept.push(Violation::new("", Code::Limit, message));
        }
        self.kept
    }

    /// The problems so far.
    pub fn as_slice(&self) -> &[Violation] {
        &self.kept
    }

    /// `value` when nothing is wrong.
    ///
    /// # Errors
    /// All problems.
    pub fn into_result<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self.into_vec())
        }
    }
}

/// The name among `known` that is nearest to `name`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_HINTED {
        return None;
    }
    let folded = fold(name);
    let length = folded.chars().count();
    let scored = known.into_iter().filter_map(|candidate| {
        if candidate.len() > 2 * MAX_HINTED {
            return None;
        }
        let other = fold(candidate);
        let longest = name.len().max(candidate.len());
        let is_near = |distance: usize| distance * 3 <= longest.max(3) && distance < longest;
        // The difference in length is a lower bound, and costs far less.
        if !is_near(length.abs_diff(other.chars().count())) {
            return None;
        }
        let distance = strsim::damerau_levenshtein(&folded, &other);
        is_near(distance).then_some((distance, candidate))
    });
    scored
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Nobody misspells longer names, and comparing costs the product of both lengths.
const MAX_HINTED: usize = 128;

fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// `, did you mean x?` when something near is known.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!(", did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_only_when_it_is_near() {
        let known = ["nodeSelector", "tolerations", "affinity"];
        assert_eq!(nearest("nodeSelectr", known), Some("nodeSelector"));
        assert_eq!(nearest("node_selector", known), Some("nodeSelector"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn i11_long_names_are_compared_with_nothing() {
        let long = "a".repeat(1_000_000);
        let start = std::time::Instant::now();
        let known = vec![long.as_str(); 100];
        assert_eq!(nearest(&long, known.iter().copied()), None);
        assert_eq!(nearest("aaaa", known), None);
        assert_eq!(nearest(&long, ["b"]), None);
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn i11_the_list_of_problems_is_bounded_and_says_what_it_dropped() {
        let mut violations = Violations::default();
        for _ in 0..MAX_VIOLATIONS + 7 {
            violations.add("a", Code::BadValue, "b");
        }
        let all = violations.into_vec();
        assert_eq!(all.len(), MAX_VIOLATIONS + 1);
        assert_eq!(all[MAX_VIOLATIONS].message, "and 7 more problems");
    }
}
