//! Finds values in lines.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// What stands in place of a value, however long it is.
const MASK: &[u8] = b"***";
/// Shorter values, such as `true`, `5432` or `admin`, are words of any log, and no secrets worth the name.
const SHORTEST: usize = 6;
/// Longer ones cannot be an argument or a variable of a Linux process (`MAX_ARG_STRLEN`), and no line of a file of sense.
const LONGEST: usize = 128 * 1024;

/// The values that are looked for.
pub(crate) struct Masks {
    finder: AhoCorasick,
    longest: usize,
    digest: [u8; 32],
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not what it looks for.
        write!(formatter, "Masks({})", self.finder.patterns_len())
    }
}

impl Masks {
    /// Of these values, as they are and in base64; of one with several lines, each line. None when there is nothing to look for.
    pub(in crate::feed) fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Self>, BuildError> {
        let mut patterns: BTreeSet<Vec<u8>> = BTreeSet::new();
        for value in values {
            let whole = value.trim_ascii_end();
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            patterns.extend(lines.map(<[u8]>::to_vec));
            // With and without the newline that many files end with, which moves the last letters.
            if whole.len() >= SHORTEST {
                patterns.extend([whole, value].map(|bytes| STANDARD_NO_PAD.encode(bytes).into_bytes()));
            }
        }
        patterns.retain(|pattern| (SHORTEST..=LONGEST).contains(&pattern.len()));
        let Some(longest) = patterns.iter().map(Vec::len).max() else {
            return Ok(None);
        };
        let mut digest = Sha256::new();
        for pattern in &patterns {
            digest.update(pattern.len().to_le_bytes());
            digest.update(pattern);
        }
        let finder = AhoCorasick::builder().match_kind(MatchKind::Standard).build(patterns)?;
        let digest = digest.finalize().into();
        Ok(Some(Self {
            finder,
            longest,
            digest,
        }))
    }

    /// A whole text without the values.
    pub(crate) fn text(self: &Arc<Self>, text: &str) -> String {
        let (masked, _) = mask(text.as_bytes(), text.len(), 0, std::slice::from_ref(self));
        masked.map_or_else(
            || text.to_owned(),
            |masked| String::from_utf8_lossy(&masked).into_owned(),
        )
    }

    /// Bytes of the longest value.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }
}

/// Masks the first `length` bytes of a text. What lies behind them tells whether a value begins in them; the first `carried` bytes are
/// the end of one that began before them. Gives the masked bytes, nothing when nothing had to be masked, and how many of the bytes
/// behind are the end of a value.
pub(crate) fn mask(text: &[u8], length: usize, carried: usize, masks: &[Arc<Masks>]) -> (Option<Bytes>, usize) {
    let found = masks
        .iter()
        .flat_map(|masks| masks.finder.find_overlapping_iter(text))
        .map(|found| found.range());
    let mut places: Vec<Range<usize>> = found.filter(|place| place.start < length).collect();
    if carried > 0 {
        places.push(0..carried);
    }
    if places.is_empty() {
        return (None, 0);
    }
    places.sort_unstable_by_key(|place| place.start);
    let mut masked = Vec::with_capacity(length);
    let mut end = 0;
    for place in places {
        if end == 0 || place.start > end {
            masked.extend_from_slice(&text[end..place.start.min(length)]);
            masked.extend_from_slice(MASK);
        }
        end = end.max(place.end);
    }
    masked.extend_from_slice(text.get(end..length).unwrap_or_default());
    (Some(masked.into()), end.saturating_sub(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masks(values: &[&str]) -> Vec<Arc<Masks>> {
        let values = values.iter().map(|value| value.as_bytes());
        Masks::of(values)
            .expect("they are few")
            .map(Arc::new)
            .into_iter()
            .collect()
    }

    fn masked(text: &str, values: &[&str]) -> String {
        let (masked, carried) = mask(text.as_bytes(), text.len(), 0, &masks(values));
        assert_eq!(carried, 0);
        masked.map_or_else(
            || text.to_owned(),
            |masked| String::from_utf8(masked.to_vec()).expect("UTF-8"),
        )
    }

    #[test]
    fn values_are_masked_wherever_they_stand() {
        let values = ["hunter2-hunter2", "hunter2", "2-hunter2!"];
        assert_eq!(masked("hunter2", &values), "***");
        assert_eq!(masked("a hunter2-hunter2! b hunter2hunter2", &values), "a *** b ***");
        assert_eq!(masked("hunter3", &values), "hunter3");
        assert_eq!(masked("aHVudGVyMg== is hunter2", &values), "***== is ***");
        assert_eq!(
            masked("line two of a key", &["line one of a key\n  line two of a key\r\n"]),
            "***"
        );
        assert_eq!(masked("true admin", &["true", "admin", "", "\n"]), "true admin");
        assert!(masks(&["true"]).is_empty());
    }

    #[test]
    fn no_value_is_told_by_what_it_looks_for() {
        assert_eq!(format!("{:?}", masks(&["hunter2"])), "[Masks(2)]");
    }

    proptest! {
        /// Whatever the values, no byte of one is left where it stood.
        #[test]
        fn no_part_of_a_value_is_left(
            values in prop::collection::vec("[ab]{6,9}", 1..4),
            text in "[abc]{0,60}",
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let found = masked(&text, &values);
            // Every byte that a value does not cover is there, in order, and no other one.
            let covered = |at: usize| values.iter().any(|value| {
                let least = (at + 1).saturating_sub(value.len());
                (least..=at).any(|start| text[start..].starts_with(value))
            });
            let expected: String = (0..text.len()).filter(|at| !covered(*at)).map(|at| &text[at..=at]).collect();
            prop_assert_eq!(found.replace('*', ""), expected);
        }
    }
}
