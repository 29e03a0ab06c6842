//! Names, matrix expansion and dependencies.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Limits;
use super::header::undeclared;
use super::parameters::{check_name, check_value};
use crate::check::is_step_name;
use crate::model::{MatrixAxis, Step};
use crate::path::Path;
use crate::resolved::{ResolvedAxis, SourceStep};
use crate::substitute::{Expansion, references, substitute};
use crate::violation::{Code, Violations};
use crate::{Pipeline, Scalar};

/// The steps of a pipeline, expanded.
pub(super) struct Expanded {
    /// Their instances are counted and their dependencies are indices; templates are not yet known.
    pub(super) sources: Vec<SourceStep>,
    /// Whether there are so few instances that each can be looked at.
    pub(super) is_within_limits: bool,
}

/// Counts the instances of the steps and connects them.
pub(super) fn expand(
    pipeline: &Pipeline,
    variables: &BTreeMap<String, String>,
    limits: &Limits,
    violations: &mut Violations,
) -> Expanded {
    if pipeline.steps.is_empty() {
        violations.add("steps", Code::Missing, "a pipeline needs at least one step");
    }
    let list = Path::root().field("steps");
    let mut first = 0_u64;
    let mut sources = Vec::with_capacity(pipeline.steps.len());
    for (index, step) in pipeline.steps.iter().enumerate() {
        let path = list.index(index);
        check_step_name(&step.name, &path.field("name"), violations);
        let path = path.field("matrix");
        let count = check_matrix(pipeline, step, &path, violations);
        let axes = step.matrix.iter().enumerate();
        let matrix = axes.map(|(index, written)| axis(written, variables, &path.index(index), violations));
        sources.push(SourceStep {
            name: step.name.clone(),
            first: u32::try_from(first).unwrap_or(u32::MAX),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            template: 0,
            matrix: matrix.collect(),
            upstream: Vec::new(),
        });
        first = first.saturating_add(count);
    }
    let is_within_limits = first <= u64::from(limits.steps);
    if !is_within_limits {
        let message = format!("{first} steps after expansion are more than {}", limits.steps);
        violations.add("steps", Code::Limit, message);
        // Instances cannot be numbered; names and cycles can still be checked with one for each step.
        for (index, source) in sources.iter_mut().enumerate() {
            source.first = u32::try_from(index).unwrap_or(u32::MAX);
            source.count = 1;
        }
    }
    let parents = connect(pipeline, &mut sources, limits, violations);
    find_cycles(&sources, &parents, violations);
    Expanded {
        sources,
        is_within_limits,
    }
}

fn check_step_name(name: &str, path: &Path<'_>, violations: &mut Violations) {
    if name.is_empty() {
        violations.add(path.to_string(), Code::Missing, "a step needs a name");
    } else if !is_step_name(name) {
        let message = format!(
            "`{name}` is no name of a step: at most 128 letters, digits, `_`, `-` and `.`, starting and ending with a letter or digit"
        );
        violations.add(path.to_string(), Code::BadValue, message);
    }
}

/// Number of instances.
fn check_matrix(pipeline: &Pipeline, step: &Step, path: &Path<'_>, violations: &mut Violations) -> u64 {
    let mut names = HashSet::new();
    let mut count = 1_u64;
    if step.matrix.len() > Limits::AXES {
        let message = format!("{} axes are more than {}", step.matrix.len(), Limits::AXES);
        violations.add(path.to_string(), Code::Limit, message);
    }
    for (index, axis) in step.matrix.iter().enumerate() {
        let path = path.index(index);
        let name = path.field("name");
        check_name(&axis.name, "an axis", &name, violations);
        if pipeline
            .parameters
            .iter()
            .any(|parameter| parameter.name == axis.name && !axis.name.is_empty())
        {
            let message = format!("{} is already the name of a parameter", axis.name);
            violations.add(name.to_string(), Code::Duplicate, message);
        } else if !names.insert(axis.name.as_str()) && !axis.name.is_empty() {
            violations.add(
                name.to_string(),
                Code::Duplicate,
                format!("{} is given twice", axis.name),
            );
        }
        if axis.values.is_empty() {
            violations.add(path.field("values").to_string(), Code::Missing, "an axis needs values");
        }
        count = count.saturating_mul(axis.values.len().max(1) as u64);
    }
    count
}

/// The axis with parameters in place in its values.
fn axis(
    axis: &MatrixAxis,
    variables: &BTreeMap<String, String>,
    path: &Path<'_>,
    violations: &mut Violations,
) -> ResolvedAxis {
    let list = path.field("values");
    let values = axis.values.iter().enumerate();
    let values = values.map(|(index, value)| axis_value(value, variables, &list.index(index), violations));
    ResolvedAxis {
        name: axis.name.clone(),
        values: values.collect(),
    }
}

fn axis_value(
    value: &Scalar,
    variables: &BTreeMap<String, String>,
    path: &Path<'_>,
    violations: &mut Violations,
) -> String {
    if !check_value(value, || path.to_string(), violations) {
        return String::new();
    }
    let Scalar::String(text) = value else {
        return value.to_string();
    };
    let mut size = text.len();
    for name in references(text) {
        match variables.get(name) {
            Some(value) => size += value.len(),
            None => {
                let message = undeclared(name, variables.keys(), violations);
                violations.add(path.to_string(), Code::UnknownParameter, message);
            }
        }
    }
    if size > Limits::VALUE_BYTES {
        let message = format!(
            "with its parameters the value may have {} bytes at most",
            Limits::VALUE_BYTES
        );
        violations.add(path.to_string(), Code::Limit, message);
        return String::new();
    }
    substitute(text, Expansion::Final, |name| variables.get(name).map(String::as_str))
}

/// Resolves upstream names; returns for each step the steps that it needs, as positions in the file.
fn connect(
    pipeline: &Pipeline,
    sources: &mut [SourceStep],
    limits: &Limits,
    violations: &mut Violations,
) -> Vec<Vec<usize>> {
    let names = Names::new(pipeline, sources, violations);
    let list = Path::root().field("steps");
    let mut parents = vec![Vec::new(); sources.len()];
    let mut upstreams = Vec::with_capacity(sources.len());
    let mut edges = 0_u64;
    for (index, step) in pipeline.steps.iter().enumerate() {
        let path = list.index(index);
        let mut upstream = Vec::new();
        let mut seen = HashSet::new();
        for (position, name) in step.upstream.iter().enumerate() {
            let path = path.field("upstream");
            let path = path.index(position);
            if !seen.insert(name.as_str()) {
                violations.add(path.to_string(), Code::Duplicate, format!("{name} is given twice"));
                continue;
            }
            match names.find(name, sources) {
                None => {
                    let hint = violations.hint(name, names.nearby());
                    let message = format!("there is no step {name}{hint}");
                    violations.add(path.to_string(), Code::UnknownStep, message);
                }
                Some((parent, _)) if parent == index => {
                    violations.add(path.to_string(), Code::Cycle, format!("{name} needs itself"));
                }
                Some((parent, instances)) => {
                    parents[index].push(parent);
                    let added = u64::from(instances.end - instances.start) * u64::from(sources[index].count);
                    edges = edges.saturating_add(added);
                    if edges <= limits.edges {
                        upstream.extend(instances);
                    }
                }
            }
        }
        upstream.sort_unstable();
        upstream.dedup();
        upstreams.push(upstream);
    }
    if edges > limits.edges {
        let message = format!(
            "{edges} dependencies after expansion are more than {}; a step between the two sides needs far fewer",
            limits.edges
        );
        violations.add("steps", Code::Limit, message);
    }
    for (source, upstream) in sources.iter_mut().zip(upstreams) {
        source.upstream = upstream;
    }
    parents
}

/// Names before and after expansion.
struct Names<'p> {
    written: HashMap<&'p str, usize>,
    order: Vec<&'p str>,
}

impl<'p> Names<'p> {
    fn new(pipeline: &'p Pipeline, sources: &[SourceStep], violations: &mut Violations) -> Self {
        let mut names = Self {
            written: HashMap::new(),
            order: Vec::new(),
        };
        let list = Path::root().field("steps");
        for (index, step) in pipeline
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| !step.name.is_empty())
        {
            if names.written.contains_key(step.name.as_str()) {
                let path = list.index(index).field("name").to_string();
                violations.add(path, Code::Duplicate, format!("there are two steps {}", step.name));
            } else {
                names.written.insert(&step.name, index);
                names.order.push(&step.name);
            }
        }
        for (index, step) in pipeline.steps.iter().enumerate() {
            if let Some((matrix, _)) = names.instance(&step.name, sources) {
                let message = format!(
                    "{} is also an instance of the matrix step {}",
                    step.name, sources[matrix].name
                );
                let path = list.index(index).field("name").to_string();
                violations.add(path, Code::Duplicate, message);
            }
        }
        names
    }

    /// The written step and the instances that `name` means.
    fn find(&self, name: &str, sources: &[SourceStep]) -> Option<(usize, std::ops::Range<u32>)> {
        if let Some(index) = self.written.get(name) {
            let source = &sources[*index];
            return Some((*index, source.first..source.first + source.count));
        }
        let (index, instance) = self.instance(name, sources)?;
        let at = sources[index].first + instance;
        Some((index, at..at + 1))
    }

    /// The matrix step and the instance that `name` means, such as `train.0`.
    fn instance(&self, name: &str, sources: &[SourceStep]) -> Option<(usize, u32)> {
        let (step, number) = name.rsplit_once('.')?;
        let index = *self.written.get(step)?;
        let instance: u32 = number.parse().ok()?;
        let source = &sources[index];
        let exists = !source.matrix.is_empty() && instance < source.count && instance.to_string() == number;
        exists.then_some((index, instance))
    }

    /// Names to be suggested; bounded, since each is compared.
    fn nearby(&self) -> impl Iterator<Item = &'p str> {
        self.order.iter().copied().take(2000)
    }
}

/// Finds cycles: all instances of a step share its dependencies, so that written steps decide.
fn find_cycles(sources: &[SourceStep], parents: &[Vec<usize>], violations: &mut Violations) {
    let sorted = leave_out_sorted(parents);
    // Position in the current walk, or NONE; a step is walked over at most once.
    const NONE: usize = usize::MAX;
    let mut position = vec![NONE; sources.len()];
    let mut done = sorted.clone();
    for start in 0..sources.len() {
        // Whatever is not sorted needs something that is not sorted either: going up must come to a cycle.
        let mut walk = Vec::new();
        let mut at = start;
        while !done[at] {
            done[at] = true;
            position[at] = walk.len();
            walk.push(at);
            let mut unsorted = parents[at].iter().copied().filter(|parent| !sorted[*parent]);
            let next = unsorted
                .clone()
                .find(|parent| position[*parent] != NONE)
                .or_else(|| unsorted.next());
            let Some(next) = next else { break };
            if position[next] != NONE {
                report(sources, &walk[position[next]..], violations);
            }
            at = next;
        }
        for step in walk {
            position[step] = NONE;
        }
    }
}

/// Marks all steps that can be sorted topologically.
fn leave_out_sorted(parents: &[Vec<usize>]) -> Vec<bool> {
    let mut children = vec![Vec::new(); parents.len()];
    let mut waiting: Vec<usize> = parents.iter().map(Vec::len).collect();
    for (child, parents) in parents.iter().enumerate() {
        for parent in parents {
            children[*parent].push(child);
        }
    }
    let mut ready: Vec<usize> = (0..parents.len()).filter(|step| waiting[*step] == 0).collect();
    let mut sorted = vec![false; parents.len()];
    while let Some(step) = ready.pop() {
        sorted[step] = true;
        for child in &children[step] {
            waiting[*child] -= 1;
            if waiting[*child] == 0 {
                ready.push(*child);
            }
        }
    }
    sorted
}

fn report(sources: &[SourceStep], cycle: &[usize], violations: &mut Violations) {
    const SHOWN: usize = 20;
    let mut names: Vec<&str> = cycle
        .iter()
        .take(SHOWN)
        .map(|step| sources[*step].name.as_str())
        .collect();
    if cycle.len() > SHOWN {
        names.push("…");
    }
    names.push(&sources[cycle[0]].name);
    let message = format!("these steps wait for each other: {}", names.join(" after "));
    violations.add(format!("steps[{}].upstream", cycle[0]), Code::Cycle, message);
}
