//! Reads a pipeline file: YAML, and so JSON, with the place of every problem.

mod scalar;
mod tree;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use tree::Tree;

use crate::path::Path;
use crate::strict::Reader;
use crate::violation::{Code, Location, Violation};
use crate::{Environment, ParameterValues, Pipeline, ResolvedPipeline, resolve};

/// A file that was read. What could not be read is left out of `pipeline` and stands in `violations`, so that the rest can be checked,
/// too, and all problems be shown at once.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// What is wrong with the text itself: syntax, unknown fields, wrong types. Semantic checks come with [`Parsed::resolve`].
    pub violations: Vec<Violation>,
    tree: Tree,
}

/// Reads a pipeline file.
pub fn parse(text: &str) -> Parsed {
    let (tree, mut violations) = Tree::parse(text);
    let value = tree.to_value();
    let mut pipeline = Pipeline::default();
    if value.is_object() {
        let reader = Reader::with_proto_names();
        pipeline = reader.read(&value, Path::root()).unwrap_or_default();
        violations.extend(reader.into_violations().into_vec());
    } else if violations.is_empty() {
        violations.push(Violation::new(
            "",
            Code::WrongType,
            "a pipeline file is a map with name and steps",
        ));
    }
    let mut parsed = Parsed {
        pipeline,
        violations,
        tree,
    };
    let violations = std::mem::take(&mut parsed.violations);
    parsed.violations = parsed.located(violations);
    parsed
}

/// Reads a pipeline from its JSON form, for example what `serde_json` made of a request's body.
///
/// # Errors
/// Every unknown field, wrong type and impossible value.
pub fn from_value(value: &Value) -> Result<Pipeline, Vec<Violation>> {
    let reader = Reader::with_proto_names();
    let pipeline = reader.read(value, Path::root()).unwrap_or_default();
    reader.into_violations().into_result(pipeline)
}

/// Reads another YAML file, such as settings of an operator, as strictly as a pipeline. The tree knows where its fields stand.
///
/// # Errors
/// Every problem, each with its place.
pub fn read<T: DeserializeOwned + Default>(text: &str) -> Result<(T, Tree), Vec<Violation>> {
    let (tree, mut violations) = Tree::parse(text);
    let reader = Reader::default();
    let value = reader.read(&tree.to_value(), Path::root());
    violations.extend(reader.into_violations().into_vec());
    if violations.is_empty() {
        return Ok((value.unwrap_or_default(), tree));
    }
    Err(tree.located(violations))
}

impl Parsed {
    /// Where the field with this path stands, or the nearest field above it that is in the file.
    pub fn locate(&self, path: &str) -> Option<Location> {
        self.tree.locate(path)
    }

    /// The document as JSON, whatever it means; the first of duplicate keys wins.
    pub fn value(&self) -> Value {
        self.tree.to_value()
    }

    /// The violations with their places in this file, in the file's order.
    pub fn located(&self, violations: Vec<Violation>) -> Vec<Violation> {
        self.tree.located(violations)
    }

    /// Resolves the pipeline and adds what is wrong with the text; see [`resolve`](crate::resolve()).
    ///
    /// # Errors
    /// Every problem, each with its place, in the file's order. What only follows from a problem of the text is left out.
    pub fn resolve(
        &self,
        parameters: &ParameterValues,
        environment: &Environment,
    ) -> Result<ResolvedPipeline, Vec<Violation>> {
        match resolve(&self.pipeline, parameters, environment) {
            Ok(resolved) if self.violations.is_empty() => Ok(resolved),
            Ok(_) => Err(self.located(self.violations.clone())),
            Err(found) => Err(self.located(joined(self.violations.clone(), found))),
        }
    }

    /// The pipeline, when the text itself has no problem.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn into_pipeline(self) -> Result<Pipeline, Vec<Violation>> {
        if self.violations.is_empty() {
            Ok(self.pipeline)
        } else {
            Err(self.violations)
        }
    }
}

/// Whether `text` means itself when it stands in a file without quotes.
pub(crate) fn is_text(text: &str) -> bool {
    scalar::resolve(text).is_ok_and(|value| value.is_string())
}

/// What is wrong with a text or a message, and what is wrong with its meaning; the latter without what only follows from the former.
pub fn joined(mut read: Vec<Violation>, meant: Vec<Violation>) -> Vec<Violation> {
    let known = read.len();
    for violation in meant {
        if !read[..known].iter().any(|problem| follows_from(&violation, problem)) {
            read.push(violation);
        }
    }
    read
}

/// Whether `violation` only says again that the value with the problem `known` could not be read.
fn follows_from(violation: &Violation, known: &Violation) -> bool {
    let below = is_within(&violation.path, &known.path);
    below || violation.code == Code::Missing && is_within(&known.path, &violation.path)
}

fn is_within(path: &str, outer: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}
