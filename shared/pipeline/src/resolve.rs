//! From what a user wrote to what a run executes: every problem is found in one go.

mod graph;
mod header;
mod parameters;
mod templates;

use std::collections::BTreeMap;

pub use parameters::parse_parameters;
pub(crate) use templates::inherited_by;

use crate::check::check_quantities;
use crate::path::Path;
use crate::resolved::SourceStep;
use crate::secret_reference;
use crate::violation::{Violation, Violations};
use crate::{Fragment, Pipeline, Quantity, ResolvedPipeline, Scalar};

/// Values of parameters, by name.
pub type ParameterValues = BTreeMap<String, Scalar>;

/// What the server allows and provides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    /// Limits of one submission.
    pub limits: Limits,
    /// What `workspace: {}` means here.
    pub workspace: WorkspaceDefault,
    /// What the operator wants to be requested, by resource, for steps that request nothing of it; never more than the step's limit.
    pub default_requests: DefaultRequests,
}

/// Requests that an operator set, by resource.
pub type DefaultRequests = BTreeMap<String, Quantity>;

/// Reads what an operator set: each `RESOURCE=QUANTITY`, such as `memory=400Mi`.
///
/// # Errors
/// The text that is none, with why.
pub fn parse_default_requests<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<DefaultRequests, String> {
    let mut requests = DefaultRequests::new();
    for text in texts {
        let (name, quantity) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not RESOURCE=QUANTITY, such as memory=400Mi"))?;
        requests.insert(name.to_owned(), Quantity::from(quantity));
    }
    let mut violations = Violations::default();
    check_quantities(&requests, Path::root(), &mut violations);
    match violations.into_vec().into_iter().next() {
        Some(violation) => Err(violation.to_string()),
        None => Ok(requests),
    }
}

/// Limits of one submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most steps after expansion.
    pub steps: u32,
    /// Most dependencies after expansion.
    pub edges: u64,
    /// Most bytes of all files and scripts together.
    pub file_bytes: usize,
    /// Most files.
    pub files: usize,
    /// Most bytes of one step with the defaults: it is one message, and with its values in place one Kubernetes object.
    pub step_bytes: usize,
    /// Most bytes of all distinct steps with the defaults: they are stored, and read back in one piece.
    pub template_bytes: usize,
}

impl Limits {
    /// Most bytes of all files and scripts of a run: what one ConfigMap holds.
    pub const FILE_BYTES: usize = 1 << 20;
    /// Most parameters.
    pub const PARAMETERS: usize = 256;
    /// Most bytes of one value of a parameter or of a matrix axis.
    pub const VALUE_BYTES: usize = 32 << 10;
    /// Most bytes of the names and values of all parameters, which are part of every message about the run.
    pub const PARAMETER_BYTES: usize = 128 << 10;
    /// Most axes of a matrix.
    pub const AXES: usize = 16;
    /// Most bytes of the name of a parameter or of an axis.
    pub const NAME_BYTES: usize = 128;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 1_000_000,
            edges: 10_000_000,
            file_bytes: Self::FILE_BYTES,
            files: 1000,
            step_bytes: 3 << 20,
            template_bytes: 128 << 20,
        }
    }
}

/// What a workspace without a volume means.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WorkspaceDefault {
    /// Nothing: the pipeline must name a volume.
    #[default]
    Refused,
    /// The run's folder on the local cluster.
    RunFolder,
    /// A Kubernetes volume source that the operator set.
    Volume(Fragment),
}

/// Checks `pipeline` and makes it concrete: parameters get their values, defaults are merged, matrix steps expanded.
///
/// Merging is by presence: scalars replace, maps merge, lists with a merge key merge by it, other lists replace. `$(NAME)` is
/// substituted when a step is made concrete; that every reference resolves is checked here.
///
/// # Errors
/// Every problem that was found, with its path; at most [`MAX_VIOLATIONS`](crate::violation::MAX_VIOLATIONS) and their number.
pub fn resolve(
    pipeline: &Pipeline,
    parameters: &ParameterValues,
    environment: &Environment,
) -> Result<ResolvedPipeline, Vec<Violation>> {
    let mut violations = Violations::default();
    let parameters = parameters::resolve(pipeline, parameters, &mut violations);
    let variables: BTreeMap<String, String> = parameters
        .iter()
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect();
    header::check(pipeline, &variables, environment, &mut violations);
    secret_reference::check_header(pipeline, &mut violations);
    let expanded = graph::expand(pipeline, &variables, &environment.limits, &mut violations);
    let templates = templates::build(pipeline, &variables, &expanded, environment, &mut violations);
    header::check_size(pipeline, &templates.distinct, &environment.limits, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into_vec());
    }
    let sources = expanded.sources.into_iter().zip(&templates.of_step);
    let sources = sources.map(|(source, template)| SourceStep {
        template: *template,
        ..source
    });
    Ok(ResolvedPipeline {
        name: pipeline.name.clone(),
        cluster: header::cluster(pipeline, &variables),
        workspace: header::workspace(pipeline, &variables, environment),
        parameters,
        files: pipeline.files.clone(),
        failure_mode: pipeline.failure_mode.unwrap_or_default(),
        max_parallelism: pipeline.max_parallelism,
        start_interval: pipeline.start_interval.filter(|interval| interval.0 > 0),
        timeout: pipeline.timeout,
        priority: pipeline.priority.unwrap_or_default(),
        sources: sources.collect(),
        templates: templates.distinct,
    })
}

#[cfg(test)]
mod tests;
