//! Readable names of runs, such as `churn-7k2m`.

use rand::Rng;

/// Letters and digits that are not taken for one another.
const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstvwxyz";
/// A run's name is a DNS label.
pub(crate) const MAX_NAME: usize = 63;

/// A name for a run of `pipeline`: its name, shortened if need be, and `suffix` random characters.
///
/// The pipeline's name is a DNS label, so the result is one, too.
pub(crate) fn readable_name(pipeline: &str, suffix: usize, random: &mut impl Rng) -> String {
    let room = MAX_NAME.saturating_sub(suffix + 1);
    let prefix: String = pipeline.chars().take(room).collect();
    let mut name = prefix.trim_end_matches('-').to_owned();
    if !name.is_empty() {
        name.push('-');
    }
    for _ in 0..suffix {
        name.push(char::from(ALPHABET[random.random_range(0..ALPHABET.len())]));
    }
    name
}

/// Says what is wrong with a name that a client chose, when something is.
pub(crate) fn name_fault(name: &str) -> Option<&'static str> {
    let is_edge = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    if name.len() > MAX_NAME {
        return Some("must have at most 63 characters");
    }
    let inner = name.chars().all(|character| is_edge(character) || character == '-');
    let edges = name.starts_with(is_edge) && name.ends_with(is_edge);
    (!inner || !edges).then_some("must be a DNS label: lower-case letters, digits and dashes, such as `churn-nightly`")
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    /// behaviours N1, T2, X16, U18
    #[test]
    fn names_are_readable_labels() {
        let mut random = StdRng::seed_from_u64(1);
        let name = readable_name("churn", 4, &mut random);
        assert_eq!(name.len(), "churn-7k2m".len());
        assert!(name.starts_with("churn-"));
        for pipeline in ["churn".to_owned(), "a".repeat(63), format!("{}-b", "a".repeat(57))] {
            let name = readable_name(&pipeline, 4, &mut random);
            assert_eq!(name_fault(&name), None, "{name}");
            assert!(!name.contains("--"), "{name}");
        }
    }

    #[test]
    fn a_chosen_name_must_be_a_label() {
        assert_eq!(name_fault("churn-nightly"), None);
        for name in ["", "-a", "a-", "A", "a.b", "a b", &"a".repeat(64)] {
            assert!(name_fault(name).is_some(), "{name:?}");
        }
    }
}
