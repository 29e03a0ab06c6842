//! Paths of fields, built only when they are printed.

use std::fmt::{self, Write};

/// A path such as `steps[2].pod.nodeSelector`, linked to its parent on the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The whole.
    pub(crate) const fn root() -> &'static Path<'static> {
        &Path {
            parent: None,
            segment: Segment::Root,
        }
    }

    /// A field below.
    pub(crate) const fn field(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Field(name),
        }
    }

    /// An element of a list below.
    pub(crate) const fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            segment: Segment::Index(index),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(formatter)?;
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Index(index) => write_index(formatter, index),
            Segment::Field(name) => write_field(formatter, name, parent.parent.is_none()),
        }
    }
}

fn write_index(out: &mut impl Write, index: usize) -> fmt::Result {
    write!(out, "[{index}]")
}

fn write_field(out: &mut impl Write, name: &str, first: bool) -> fmt::Result {
    if !is_plain(name) {
        return write!(out, "[{}]", serde_json::Value::from(name));
    }
    let dot = if first { "" } else { "." };
    write!(out, "{dot}{name}")
}

/// The path that was taken apart into `place`.
pub(crate) fn print(place: &[OwnedSegment]) -> String {
    let mut path = String::new();
    for segment in place {
        let first = path.is_empty();
        let written = match segment {
            OwnedSegment::Index(index) => write_index(&mut path, *index),
            OwnedSegment::Field(name) => write_field(&mut path, name, first),
        };
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    path
}

/// Keys with dots and the like are quoted, `limits["nvidia.com/gpu"]`, so that a path can be taken apart again.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '[', ']', '"', '\\', ' '])
}

/// A segment of a path that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedSegment {
    /// A field.
    Field(String),
    /// An element of a list.
    Index(usize),
}

/// Takes a printed path apart; what cannot be understood ends it.
pub(crate) fn segments(path: &str) -> Vec<OwnedSegment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let Some((segment, tail)) = next_segment(rest) else {
            break;
        };
        segments.push(segment);
        rest = tail.strip_prefix('.').unwrap_or(tail);
    }
    segments
}

fn next_segment(rest: &str) -> Option<(OwnedSegment, &str)> {
    let Some(inner) = rest.strip_prefix('[') else {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        return (end > 0).then(|| (OwnedSegment::Field(rest[..end].to_owned()), &rest[end..]));
    };
    if !inner.starts_with('"') {
        let (number, tail) = inner.split_once(']')?;
        return Some((OwnedSegment::Index(number.parse().ok()?), tail));
    }
    let mut stream = serde_json::Deserializer::from_str(inner).into_iter::<String>();
    let name = stream.next()?.ok()?;
    let tail = inner[stream.byte_offset()..].strip_prefix(']')?;
    Some((OwnedSegment::Field(name), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_path_can_be_taken_apart() {
        let steps = Path::root().field("steps");
        let step = steps.index(2);
        let limits = step.field("limits");
        let path = limits.field("nvidia.com/gpu");
        assert_eq!(path.to_string(), r#"steps[2].limits["nvidia.com/gpu"]"#);
        let field = |name: &str| OwnedSegment::Field(name.to_owned());
        let expected = [
            field("steps"),
            OwnedSegment::Index(2),
            field("limits"),
            field("nvidia.com/gpu"),
        ];
        assert_eq!(segments(&path.to_string()), expected);
        assert_eq!(print(&expected), path.to_string());
    }
}
