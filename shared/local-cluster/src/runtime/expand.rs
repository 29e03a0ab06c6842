//! `$(NAME)` in commands, arguments and environments, and paths of mounts inside texts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Expands `$(NAME)`; `$$` is a literal `$`, an unknown name stays as it is.
pub(super) fn expand(text: &str, known: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Where the mount paths of a container are on this machine.
#[derive(Debug, Clone, Default)]
pub(super) struct PathMap(Vec<(String, PathBuf)>);

impl PathMap {
    pub(super) fn new(mut pairs: Vec<(String, PathBuf)>) -> Self {
        for (mount, _) in &mut pairs {
            while mount.len() > 1 && mount.ends_with('/') {
                mount.pop();
            }
        }
        // Nested mounts first.
        pairs.sort_by_key(|(mount, _)| std::cmp::Reverse(mount.len()));
        Self(pairs)
    }

    /// Replaces every mount path in a text by its place on this machine. A mount path counts where no other path
    /// component touches it: `/data` is found in `/data/x` and `--dir=/data`, not in `/data2` or `/my/data`.
    pub(super) fn rewrite(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        'text: while let Some(c) = rest.chars().next() {
            if c == '/' && !before.is_some_and(is_path_character) {
                for (mount, place) in &self.0 {
                    if let Some(tail) = rest.strip_prefix(mount.as_str())
                        && !tail.chars().next().is_some_and(is_name_character)
                    {
                        out.push_str(&place.to_string_lossy());
                        before = mount.chars().last();
                        rest = tail;
                        continue 'text;
                    }
                }
            }
            out.push(c);
            before = Some(c);
            rest = &rest[c.len_utf8()..];
        }
        out
    }

    /// The place of one path.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        PathBuf::from(self.rewrite(&path.to_string_lossy()))
    }
}

fn is_name_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn is_path_character(c: char) -> bool {
    is_name_character(c) || c == '/'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let known = HashMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(MISSING)", "$(MISSING)"),
            ("$A $", "$A $"),
            ("$(B)", "$(A)"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn mount_paths_are_found_as_whole_paths() {
        let map = PathMap::new(vec![
            ("/data".into(), "/host/v1".into()),
            ("/data/sub/".into(), "/host/v2".into()),
            ("/windlass/files".into(), "/host/f".into()),
        ]);
        for (text, expected) in [
            ("/data", "/host/v1"),
            ("/data/x.csv", "/host/v1/x.csv"),
            ("/data/sub/x", "/host/v2/x"),
            ("--in=/data/a:/data/sub", "--in=/host/v1/a:/host/v2"),
            ("/data2 /my/data", "/data2 /my/data"),
            ("cp /windlass/files/a.py \"/data\"", "cp /host/f/a.py \"/host/v1\""),
            ("https://x/data", "https://x/data"),
        ] {
            assert_eq!(map.rewrite(text), expected, "{text}");
        }
    }
}
