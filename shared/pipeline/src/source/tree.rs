//! A YAML document with the place of every key and value.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use super::scalar;
use crate::path::{OwnedSegment, Path, segments};
use crate::strict::camel_case;
use crate::violation::{Code, Location, Violation, Violations};

/// Most values that aliases may stand for together; what is written out is bounded by the text itself.
const MAX_ALIASED: usize = 200_000;

/// Deepest nesting, after aliases are replaced by what they stand for.
const MAX_DEPTH: usize = 300;

/// A YAML document with the place of every key and value.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Node,
}

#[derive(Clone, Debug)]
struct Node {
    location: Location,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
struct Entry {
    key: String,
    key_location: Location,
    value: Node,
}

impl Tree {
    /// Reads a document. Where the syntax is wrong the tree is empty and the problem says why.
    pub(super) fn parse(text: &str) -> (Self, Vec<Violation>) {
        let mut builder = Builder {
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            violations: Violations::default(),
            aliased: 0,
            depth: 0,
        };
        let root = match builder.document() {
            Ok(root) => root,
            Err(stop) => {
                let mut violation = Violation::new("", stop.code, stop.message);
                violation.location = Some(stop.location);
                builder.violations.push(violation);
                Node::empty()
            }
        };
        (Self { root }, builder.violations.into_vec())
    }

    /// The document as JSON; the first of duplicate keys wins.
    pub(super) fn to_value(&self) -> Value {
        self.root.to_value()
    }

    /// The violations with their places in the document, in its order.
    pub fn located(&self, mut violations: Vec<Violation>) -> Vec<Violation> {
        for violation in &mut violations {
            violation.location = violation.location.or_else(|| self.locate(&violation.path));
        }
        violations.sort_by_key(|violation| violation.location);
        violations
    }

    /// Where the field with this path stands, or the nearest above it that is there.
    pub(super) fn locate(&self, path: &str) -> Option<Location> {
        let mut node = &self.root;
        let mut location = node.location;
        for segment in segments(path) {
            match (&node.kind, segment) {
                (Kind::List(items), OwnedSegment::Index(index)) if index < items.len() => {
                    node = &items[index];
                    location = node.location;
                }
                (Kind::Map(entries), OwnedSegment::Field(name)) => {
                    let exact = entries.iter().find(|entry| entry.key == name);
                    let found = exact.or_else(|| entries.iter().find(|entry| camel_case(&entry.key) == name));
                    let Some(entry) = found else {
                        break;
                    };
                    node = &entry.value;
                    location = entry.key_location;
                }
                _ => break,
            }
        }
        (location.line > 0).then_some(location)
    }
}

impl Node {
    fn empty() -> Self {
        Self {
            location: Location { line: 0, column: 0 },
            kind: Kind::Scalar(Value::Null),
        }
    }

    fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::to_value).collect(),
            Kind::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    map.entry(entry.key.clone()).or_insert_with(|| entry.value.to_value());
                }
                Value::Object(map)
            }
        }
    }

    fn depth(&self) -> usize {
        match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Kind::Map(entries) => 1 + entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
        }
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::List(items) => items.iter().map(Self::size).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
        }
    }
}

/// Why reading ended early.
struct Stop {
    code: Code,
    location: Location,
    message: String,
}

struct Builder<'input> {
    parser: Parser<'input, StrInput<'input>>,
    anchors: HashMap<usize, Node>,
    violations: Violations,
    aliased: usize,
    depth: usize,
}

impl<'input> Builder<'input> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        while let Some((event, span)) = self.event()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    let message = "a second document; a file holds one pipeline".to_owned();
                    return Err(stop(Code::Syntax, span, message));
                }
                event => root = Some(self.node(Path::root(), event, span)?),
            }
        }
        Ok(root.unwrap_or_else(Node::empty))
    }

    fn event(&mut self) -> Result<Option<(Event<'input>, Span)>, Stop> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => {
                    return Err(Stop {
                        code: Code::Syntax,
                        location: location(error.marker()),
                        message: error.info(),
                    });
                }
            }
        }
    }

    fn next(&mut self, opened: Span) -> Result<(Event<'input>, Span), Stop> {
        self.event()?
            .ok_or_else(|| stop(Code::Syntax, opened, "this is never closed".to_owned()))
    }

    fn node(&mut self, path: &Path<'_>, event: Event<'input>, span: Span) -> Result<Node, Stop> {
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag
                    .as_ref()
                    .map(|tag| tag.core_suffix().unwrap_or("unknown").to_owned());
                (
                    Kind::Scalar(self.scalar(path, &text, style, tag.as_deref(), span)),
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, _) => {
                self.depth += 1;
                (self.list(path, span)?, anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                self.depth += 1;
                (self.map(path, span)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(stop(Code::Syntax, span, "a value is missing here".to_owned())),
        };
        if !matches!(kind, Kind::Scalar(_)) {
            self.depth -= 1;
        }
        let node = Node {
            location: location(&span.start),
            kind,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// Counts aliased values, since aliases of aliases can stand for any number of them (I11).
    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.aliased += nodes;
        if self.aliased > MAX_ALIASED {
            let message = format!("aliases stand for more than {MAX_ALIASED} values");
            return Err(stop(Code::Limit, span, message));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(stop(
                Code::Syntax,
                span,
                "this alias is inside what it stands for".to_owned(),
            ));
        };
        self.count(node.size(), span)?;
        if self.depth + node.depth() > MAX_DEPTH {
            return Err(stop(Code::Limit, span, format!("more than {MAX_DEPTH} levels")));
        }
        Ok(Node {
            location: location(&span.start),
            ..node
        })
    }

    fn scalar(&mut self, path: &Path<'_>, text: &str, style: ScalarStyle, tag: Option<&str>, span: Span) -> Value {
        let plain = style == ScalarStyle::Plain;
        let resolved = match tag {
            None if plain => scalar::resolve(text),
            None | Some("str") => Ok(Value::from(text)),
            Some("int" | "float" | "bool" | "null") => scalar::resolve(text),
            Some(_) => Err("tags are not supported".to_owned()),
        };
        resolved.unwrap_or_else(|message| {
            self.problem(path, Code::BadValue, message, span);
            Value::Null
        })
    }

    fn list(&mut self, path: &Path<'_>, opened: Span) -> Result<Kind, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next(opened)?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Kind::List(items));
            }
            let index = items.len();
            items.push(self.node(&path.index(index), event, span)?);
        }
    }

    fn map(&mut self, path: &Path<'_>, opened: Span) -> Result<Kind, Stop> {
        let mut entries = Vec::new();
        let mut keys = HashSet::new();
        loop {
            let (event, span) = self.next(opened)?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Kind::Map(entries));
            }
            let Event::Scalar(key, style, ..) = event else {
                return Err(stop(Code::Syntax, span, "a key must be a plain text".to_owned()));
            };
            let key = key.into_owned();
            let place = path.field(&key);
            let merge = key == "<<" && style == ScalarStyle::Plain;
            if merge {
                let message =
                    "merge keys (<<) are not part of YAML 1.2; use defaults, or write the fields out".to_owned();
                self.problem(&place, Code::UnknownField, message, span);
            } else if !keys.insert(key.clone()) {
                let message = format!("{key} is given twice");
                self.problem(&place, Code::Duplicate, message, span);
            }
            let (event, value_span) = self.next(opened)?;
            let value = self.node(&place, event, value_span)?;
            if !merge {
                let key_location = location(&span.start);
                entries.push(Entry {
                    key,
                    key_location,
                    value,
                });
            }
        }
    }

    fn problem(&mut self, path: &Path<'_>, code: Code, message: String, span: Span) {
        let mut violation = Violation::new(path.to_string(), code, message);
        violation.location = Some(location(&span.start));
        self.violations.push(violation);
    }
}

fn stop(code: Code, span: Span, message: String) -> Stop {
    Stop {
        code,
        location: location(&span.start),
        message,
    }
}

fn location(marker: &Marker) -> Location {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Location {
        line: number(marker.line()),
        column: number(marker.col()).saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn problem(text: &str) -> String {
        let (_, violations) = Tree::parse(text);
        violations.first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn i11_aliases_cannot_explode() {
        let mut wide = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        let mut deep = "- &a0 [x]\n".to_owned();
        for level in 1..400 {
            let below = level - 1;
            writeln!(deep, "- &a{level} [*a{below}]").expect("text");
            let tenfold = vec![format!("*a{below}"); 10].join(", ");
            writeln!(wide, "- &a{level} [{tenfold}]").expect("text");
        }
        assert!(
            problem(&wide).ends_with("aliases stand for more than 200000 values"),
            "{}",
            problem(&wide)
        );
        assert!(problem(&deep).ends_with("more than 300 levels"), "{}", problem(&deep));
    }

    #[test]
    fn an_alias_is_what_it_stands_for() {
        let (tree, violations) = Tree::parse("a: &x {b: [1]}\nc: *x\n");
        assert_eq!(violations, []);
        assert_eq!(tree.to_value(), serde_json::json!({"a": {"b": [1]}, "c": {"b": [1]}}));
    }

    #[test]
    fn places_are_found_by_path() {
        let (tree, _) = Tree::parse("steps:\n  - name: a\n    working_dir: /x\n    pod: {labels: {a.b/c: d}}\n");
        let place = |path: &str| tree.locate(path).map(|at| (at.line, at.column));
        assert_eq!(place("steps[0].name"), Some((2, 5)));
        assert_eq!(place("steps[0].workingDir"), Some((3, 5)));
        assert_eq!(place("steps[0].pod.labels[\"a.b/c\"]"), Some((4, 20)));
        assert_eq!(place("steps[0].image"), Some((2, 5)));
        assert_eq!(place("steps[7]"), Some((1, 1)));
    }
}
