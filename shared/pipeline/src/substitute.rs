//! Substitution of `$(NAME)`.

/// What happens to a text after Windlass substituted its own values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expansion {
    /// Nothing: `$$(NAME)` becomes `$(NAME)` here.
    Final,
    /// Kubernetes expands it once more (command, args, env): references that are not ours stay, and so does `$$`.
    Kubernetes,
}

/// Replaces every reference whose name `value` knows; others stay as they are.
///
/// Values are literal: they are never expanded again, neither here nor by Kubernetes.
pub(crate) fn substitute<'a>(text: &str, expansion: Expansion, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Text(text) => result.push_str(text),
            Part::Escape if expansion == Expansion::Final => result.push('$'),
            Part::Escape => result.push_str("$$"),
            Part::Reference(name) => match value(name) {
                Some(value) if expansion == Expansion::Final => result.push_str(value),
                Some(value) => result.push_str(&escape(value)),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            },
        }
    }
    result
}

/// Makes `value` literal where Kubernetes expands `$(NAME)` and `$$`.
pub(crate) fn escape(value: &str) -> String {
    value.replace('$', "$$")
}

/// Names that `text` refers to as `$(NAME)`.
pub(crate) fn references(text: &str) -> impl Iterator<Item = &str> {
    parts(text).filter_map(|part| match part {
        Part::Reference(name) => Some(name),
        Part::Text(_) | Part::Escape => None,
    })
}

enum Part<'a> {
    Text(&'a str),
    /// `$$` before `(`; the parenthesis follows as text.
    Escape,
    Reference(&'a str),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(tail) = rest.strip_prefix("$$")
            && tail.starts_with('(')
        {
            // The parenthesis itself goes with the text that follows.
            rest = tail;
            return Some(Part::Escape);
        }
        if let Some((name, tail)) = reference(rest) {
            rest = tail;
            return Some(Part::Reference(name));
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find('$').map_or(rest.len(), |at| at + first);
        let (plain, tail) = rest.split_at(end);
        rest = tail;
        Some(Part::Text(plain))
    })
}

fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, tail) = text.strip_prefix("$(")?.split_once(')')?;
    is_name(name).then_some((name, tail))
}

/// Whether `name` can stand in `$(NAME)`: letters, digits and `_`, not starting with a digit.
pub(crate) fn is_name(name: &str) -> bool {
    let first_is_good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first_is_good && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        (name == "A").then_some("x$y")
    }

    #[test]
    fn references_are_replaced_and_escapes_kept_apart() {
        let last = |text: &str| substitute(text, Expansion::Final, lookup);
        let kubernetes = |text: &str| substitute(text, Expansion::Kubernetes, lookup);
        assert_eq!(last("1$(A)2"), "1x$y2");
        assert_eq!(last("$$(A)"), "$(A)");
        assert_eq!(last("$5 $$ $(B) $(date +%s) $("), "$5 $$ $(B) $(date +%s) $(");
        assert_eq!(kubernetes("$(A) $(B) $$(A) $$"), "x$$y $(B) $$(A) $$");
        assert_eq!(references("$(A)$$(B)$(C)").collect::<Vec<_>>(), ["A", "C"]);
    }

    proptest! {
        #[test]
        fn a_text_without_known_names_is_unchanged_for_kubernetes(text in "[$()AB ü]{0,12}") {
            prop_assert_eq!(substitute(&text, Expansion::Kubernetes, |_| None), text);
        }
    }
}
