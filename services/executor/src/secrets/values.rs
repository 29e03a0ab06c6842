//! Whether a text tells a part of a value: what it does not tell may be passed on.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A part of a value that long is taken for it; shorter values are looked for whole.
const PART: usize = 8;
/// Values shorter than this are found in any text.
const SHORTEST: usize = 4;

/// The values of a call.
#[derive(Clone, Copy)]
pub(super) struct Values<'a>(Option<&'a BTreeMap<String, Vec<u8>>>);

impl<'a> Values<'a> {
    pub(super) fn of(data: &'a BTreeMap<String, Vec<u8>>) -> Self {
        Self(Some(data))
    }

    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The text, unless it has a part of a value in it, as it is or in base64.
    pub(super) fn spare(&self, text: &str) -> String {
        if self.appear_in(text) {
            "its text is withheld, since it has a part of a value in it".to_owned()
        } else {
            text.to_owned()
        }
    }

    fn appear_in(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let parts: HashSet<&[u8]> = text.windows(PART).collect();
        let tells = |value: &[u8]| match value.len() {
            0..SHORTEST => false,
            SHORTEST..PART => text.windows(value.len()).any(|part| part == value),
            _ => value.windows(PART).any(|part| parts.contains(part)),
        };
        let values = self.0.iter().flat_map(|data| data.values());
        values.into_iter().any(|value| {
            let encoded = STANDARD.encode(value);
            tells(value) || (value.len() >= SHORTEST && tells(encoded.trim_end_matches('=').as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_a_text_with_a_part_of_a_value_is_withheld() {
        let data = BTreeMap::from([
            ("a".to_owned(), b"correct horse battery".to_vec()),
            ("pin".to_owned(), b"4711".to_vec()),
            ("empty".to_owned(), Vec::new()),
        ]);
        let values = Values::of(&data);
        for told in [
            "illegal data: ...|ct horse batt|...",
            "got Y29ycmVjdCBob3",
            "the PIN 4711 is too short",
            "NDcxMQ==",
        ] {
            assert!(values.spare(told).contains("withheld"), "{told}");
            assert_eq!(Values::none().spare(told), told);
        }
        for fine in ["", "exceeded quota: q, requested: secrets=1", "a horse"] {
            assert_eq!(values.spare(fine), fine);
        }
    }
}
