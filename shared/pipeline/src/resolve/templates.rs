//! Templates: defaults and step merged, checked, and interned.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::graph::Expanded;
use super::header::{undeclared, workspace};
use super::{DefaultRequests, Environment, Limits};
use crate::check::{Provided, check_fit, check_part};
use crate::kubernetes::quantities_as_texts;
use crate::merge::{Merge as _, unset};
use crate::model::{PodSettings, RunIf, Step, StepTemplate};
use crate::path::Path;
use crate::quantity;
use crate::resolved::{ResolvedAxis, ResolvedTemplate, SourceStep};
use crate::secret_reference;
use crate::substitute::{Expansion, references};
use crate::texts::for_each_text;
use crate::violation::{Code, MAX_VIOLATIONS, Violation, Violations};
use crate::{Pipeline, StepOverlay};

/// Distinct templates, and which of them each step has.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pub(super) distinct: Vec<Arc<ResolvedTemplate>>,
    pub(super) of_step: Vec<u32>,
}

/// Builds and checks the templates of all steps.
pub(super) fn build(
    pipeline: &Pipeline,
    variables: &BTreeMap<String, String>,
    expanded: &Expanded,
    environment: &Environment,
    violations: &mut Violations,
) -> Templates {
    let builder = Builder::new(pipeline, variables, expanded, environment, violations);
    let mut templates = Templates::default();
    let mut known: HashMap<[u8; 32], u32> = HashMap::new();
    let mut bytes = 0;
    let list = Path::root().field("steps");
    for (index, (step, source)) in pipeline.steps.iter().zip(&expanded.sources).enumerate() {
        let template = builder.template(step, source, &list.index(index), violations);
        // A map key needs Eq and Hash, which floats do not have; the text form is canonical.
        let text = serde_json::to_vec(&template).unwrap_or_default();
        let next = u32::try_from(templates.distinct.len()).unwrap_or(u32::MAX);
        let number = *known.entry(Sha256::digest(&text).into()).or_insert(next);
        templates.of_step.push(number);
        if number != next {
            continue;
        }
        templates.distinct.push(Arc::new(template));
        bytes += text.len();
        if !builder.check_size(text.len(), bytes, &list.index(index), violations) {
            // What follows would only take more memory.
            break;
        }
    }
    templates
}

struct Builder<'p> {
    pipeline: &'p Pipeline,
    variables: &'p BTreeMap<String, String>,
    /// What every step inherits: the pipeline's labels, annotations and cluster, and the defaults over them.
    base: StepTemplate,
    /// Axes that the defaults refer to where Kubernetes does not expand: steps without them cannot use it.
    axes_in_base: BTreeSet<String>,
    limits: &'p Limits,
    default_requests: &'p DefaultRequests,
    /// Where the workspace is mounted.
    workspace: Option<String>,
    /// Whether every instance can be looked at.
    look_at_all: bool,
}

impl<'p> Builder<'p> {
    fn new(
        pipeline: &'p Pipeline,
        variables: &'p BTreeMap<String, String>,
        expanded: &Expanded,
        environment: &'p Environment,
        violations: &mut Violations,
    ) -> Self {
        let mut base = inherited(pipeline);
        let axes = pipeline.steps.iter().flat_map(|step| &step.matrix);
        let axes: HashSet<&str> = axes.map(|axis| axis.name.as_str()).collect();
        let mut axes_in_base = BTreeSet::new();
        let mut defaults = pipeline.defaults.clone().unwrap_or_default();
        let path = Path::root().field("defaults");
        secret_reference::check(&defaults, &path, violations);
        secret_reference::expand(&mut defaults);
        check_references(pipeline, &mut defaults, &path, violations, |name| {
            let axis = axes.contains(name);
            if axis {
                axes_in_base.insert(name.to_owned());
            }
            axis || variables.contains_key(name)
        });
        if let Some(pod) = &mut base.pod {
            quantities_as_texts(pod);
        }
        Self {
            pipeline,
            variables,
            base,
            axes_in_base,
            limits: &environment.limits,
            default_requests: &environment.default_requests,
            workspace: workspace(pipeline, variables, environment).map(|workspace| workspace.mount_path),
            look_at_all: expanded.is_within_limits,
        }
    }

    /// Checks the size of a template, and of all of them so far.
    fn check_size(&self, bytes: usize, all: usize, path: &Path<'_>, violations: &mut Violations) -> bool {
        if bytes > self.limits.step_bytes {
            let message = format!(
                "the step has {bytes} bytes with the defaults, more than {}; hand large values over in files",
                self.limits.step_bytes
            );
            violations.add(path.to_string(), Code::Limit, message);
        }
        let fits = all <= self.limits.template_bytes;
        if !fits {
            let message = format!(
                "the steps up to {path} have {all} bytes with what they inherit and the parameters of their scripts, more than {}; \
                 steps that differ in a matrix value only take next to nothing",
                self.limits.template_bytes
            );
            violations.add("steps", Code::Limit, message);
        }
        fits
    }

    fn template(
        &self,
        step: &Step,
        source: &SourceStep,
        path: &Path<'_>,
        violations: &mut Violations,
    ) -> ResolvedTemplate {
        let mut own = step.template.clone();
        secret_reference::check(&own, path, violations);
        secret_reference::expand(&mut own);
        if let Some(pod) = &mut own.pod {
            quantities_as_texts(pod);
        }
        check_references(self.pipeline, &mut own, path, violations, |name| {
            self.variables.contains_key(name) || step.matrix.iter().any(|axis| axis.name == name)
        });
        for axis in &self.axes_in_base {
            if step.matrix.iter().all(|known| known.name != *axis) {
                let message =
                    format!("defaults refer to $({axis}), which this step has neither as axis nor as parameter");
                violations.add(path.to_string(), Code::UnknownParameter, message);
            }
        }
        let mut merged = self.inherited(step, path, violations);
        merged.merge(&own);
        add_requests(&mut merged, self.default_requests);
        if merged.run_if == Some(RunIf::Failed) && step.upstream.is_empty() {
            let message = "a step without upstream steps would never run: nothing can fail before it";
            violations.add(path.field("runIf").to_string(), Code::BadValue, message);
        }
        let template = self.with_variables(merged);
        let size = expanded_size(&template, source);
        if size > self.limits.step_bytes {
            let message = format!(
                "the texts of the step have {size} bytes with their values in place, more than {}",
                self.limits.step_bytes
            );
            violations.add(path.to_string(), Code::Limit, message);
        } else {
            self.check_values(source, own, &template, path, violations);
        }
        template
    }

    fn inherited(&self, step: &Step, path: &Path<'_>, violations: &mut Violations) -> StepTemplate {
        let mut base = self.base.clone();
        for (index, dropped) in step.unset.iter().enumerate() {
            match unset(&base, dropped) {
                Ok(left) => base = left,
                Err(_) => {
                    let path = path.field("unset").index(index).to_string();
                    let message = format!("{dropped} is not inherited, so that nothing can be dropped");
                    violations.add(path, Code::BadValue, message);
                }
            }
        }
        base
    }

    /// Adds the values of the parameters that the template needs.
    fn with_variables(&self, mut merged: StepTemplate) -> ResolvedTemplate {
        if self.variables.is_empty() {
            return ResolvedTemplate {
                merged,
                variables: BTreeMap::new(),
            };
        }
        if merged.script.is_some() {
            return ResolvedTemplate {
                merged,
                variables: self.variables.clone(),
            };
        }
        let mut variables = BTreeMap::new();
        for_each_text(&mut merged, Path::root(), &mut |_, _, text| {
            for name in references(text) {
                if let Some(value) = self.variables.get(name) {
                    variables.insert(name.to_owned(), value.clone());
                }
            }
        });
        ResolvedTemplate { merged, variables }
    }

    /// Checks the step with its values in place: once for each combination of those axes that decide anything but commands and
    /// environment.
    fn check_values(
        &self,
        source: &SourceStep,
        own: StepTemplate,
        template: &ResolvedTemplate,
        path: &Path<'_>,
        violations: &mut Violations,
    ) {
        let own = self.with_variables(own);
        let provided = Provided {
            workspace: self.workspace.as_deref(),
            files: !self.pipeline.files.is_empty() || template.merged.script.is_some(),
        };
        let deciding = self.deciding(source, template);
        let count: usize = deciding.matrix.iter().map(|axis| axis.values.len()).product();
        let mut found: Vec<Violation> = Vec::new();
        for instance in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            let overlay = StepOverlay {
                step: source.name.clone(),
                matrix: deciding.matrix_values(instance),
            };
            let mut one = Violations::default();
            let merged = template.substituted(&overlay);
            check_part(&own.substituted(&overlay), path, &mut one);
            if one.is_empty() && !self.axes_in_base.is_empty() {
                // What the defaults say was checked with parameters in place only.
                check_part(&merged, path, &mut one);
            }
            check_fit(&merged, &own.merged, &provided, path, &mut one);
            for violation in one.into_vec() {
                if !found.contains(&violation) {
                    found.push(violation);
                }
            }
            if found.len() > MAX_VIOLATIONS {
                break;
            }
        }
        violations.extend(found);
    }

    /// The step with those values of its axes whose combinations can make a difference to a check.
    fn deciding(&self, source: &SourceStep, template: &ResolvedTemplate) -> SourceStep {
        let mut deciding = BTreeSet::new();
        if self.look_at_all && !source.matrix.is_empty() {
            let mut merged = template.merged.clone();
            for_each_text(&mut merged, Path::root(), &mut |_, expansion, text| {
                if expansion == Expansion::Final {
                    deciding.extend(references(text).map(str::to_owned));
                }
            });
        }
        let axes = source.matrix.iter().map(|axis| {
            let most = if deciding.contains(&axis.name) { usize::MAX } else { 1 };
            let mut seen = HashSet::new();
            let mut values = Vec::new();
            for value in axis.values.iter().take(most) {
                if seen.insert(value) {
                    values.push(value.clone());
                }
            }
            ResolvedAxis {
                name: axis.name.clone(),
                values,
            }
        });
        SourceStep {
            matrix: axes.collect(),
            upstream: Vec::new(),
            name: source.name.clone(),
            ..*source
        }
    }
}

/// Adds what the operator wants to be requested (behaviours O7), at most what the step's limit allows (behaviours E16). Where a limit is
/// known only with its matrix values in place nothing is added: Kubernetes then requests the limit.
fn add_requests(merged: &mut StepTemplate, wanted: &DefaultRequests) {
    for (name, amount) in wanted {
        let resources = merged.pod.get_or_insert_default().resources.get_or_insert_default();
        if resources.requests.contains_key(name) {
            continue;
        }
        let request = match resources.limits.get(name) {
            None => amount,
            Some(limit) => match (quantity::parse(&limit.0), quantity::parse(&amount.0)) {
                (Some(bound), Some(wanted)) if wanted > bound => limit,
                (Some(_), Some(_)) => amount,
                (None, _) | (_, None) => continue,
            },
        };
        resources.requests.insert(name.clone(), request.clone());
    }
}

/// Bytes of the texts of a step with the longest values in place.
fn expanded_size(template: &ResolvedTemplate, source: &SourceStep) -> usize {
    let axes = source.matrix.iter().map(|axis| {
        let longest = axis.values.iter().map(String::len).max();
        (axis.name.as_str(), longest.unwrap_or(0))
    });
    let axes: HashMap<&str, usize> = axes.collect();
    let length = |name: &str| {
        let parameter = || template.variables.get(name).map(String::len);
        axes.get(name).copied().or_else(parameter).unwrap_or(0)
    };
    let mut size = 0;
    for_each_text(&mut template.merged.clone(), Path::root(), &mut |_, _, text| {
        size += text.len() + references(text).map(length).sum::<usize>();
    });
    size
}

/// What `step` inherits, without what it drops.
pub(crate) fn inherited_by(pipeline: &Pipeline, step: &Step) -> StepTemplate {
    let base = inherited(pipeline);
    let drop_one = |base: StepTemplate, path: &String| unset(&base, path).unwrap_or(base);
    step.unset.iter().fold(base, drop_one)
}

/// What every step inherits.
fn inherited(pipeline: &Pipeline) -> StepTemplate {
    let mut base = StepTemplate {
        cluster: pipeline.cluster.clone(),
        ..StepTemplate::default()
    };
    if !pipeline.labels.is_empty() || !pipeline.annotations.is_empty() {
        base.pod = Some(PodSettings {
            labels: pipeline.labels.clone(),
            annotations: pipeline.annotations.clone(),
            ..PodSettings::default()
        });
    }
    if let Some(defaults) = &pipeline.defaults {
        base.merge(defaults);
    }
    secret_reference::expand(&mut base);
    base
}

/// Checks that every reference is known, except where Kubernetes may know it.
fn check_references(
    pipeline: &Pipeline,
    template: &mut StepTemplate,
    path: &Path<'_>,
    violations: &mut Violations,
    mut is_known: impl FnMut(&str) -> bool,
) {
    for_each_text(template, path, &mut |path, expansion, text| {
        for name in references(text) {
            if name == "WINDLASS_WORKSPACE" && pipeline.workspace.is_none() {
                let message = "the pipeline has no workspace; write workspace: {} to have one";
                violations.add(path.to_string(), Code::BadValue, message);
            } else if expansion == Expansion::Final && !is_known(name) {
                let known = pipeline.parameters.iter().map(|parameter| &parameter.name);
                let message = undeclared(name, known, violations);
                violations.add(path.to_string(), Code::UnknownParameter, message);
            }
        }
    });
}
