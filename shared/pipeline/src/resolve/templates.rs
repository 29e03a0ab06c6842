//! Templates: defaults and step merged, checked, and interned.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::header::undeclared;
use crate::check::{check_fit, check_part};
use crate::kubernetes::quantities_as_texts;
use crate::merge::{Merge as _, unset};
use crate::model::{PodSettings, Step, StepTemplate};
use crate::path::Path;
use crate::resolved::ResolvedTemplate;
use crate::substitute::{Expansion, references};
use crate::texts::for_each_text;
use crate::violation::{Code, Violation, Violations};
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
    violations: &mut Violations,
) -> Templates {
    let builder = Builder::new(pipeline, variables, violations);
    let mut templates = Templates::default();
    let mut known: HashMap<String, u32> = HashMap::new();
    let list = Path::root().field("steps");
    for (index, step) in pipeline.steps.iter().enumerate() {
        let template = builder.template(step, &list.index(index), violations);
        // A map key needs Eq and Hash, which floats do not have; the text form is canonical.
        let key = serde_json::to_string(&template).unwrap_or_default();
        let next = u32::try_from(templates.distinct.len()).unwrap_or(u32::MAX);
        let number = *known.entry(key).or_insert(next);
        if number == next {
            templates.distinct.push(Arc::new(template));
        }
        templates.of_step.push(number);
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
}

impl<'p> Builder<'p> {
    fn new(pipeline: &'p Pipeline, variables: &'p BTreeMap<String, String>, violations: &mut Violations) -> Self {
        let mut base = inherited(pipeline);
        let axes = pipeline.steps.iter().flat_map(|step| &step.matrix);
        let axes: HashSet<&str> = axes.map(|axis| axis.name.as_str()).collect();
        let mut axes_in_base = BTreeSet::new();
        let mut defaults = pipeline.defaults.clone().unwrap_or_default();
        let path = Path::root().field("defaults");
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
        }
    }

    fn template(&self, step: &Step, path: &Path<'_>, violations: &mut Violations) -> ResolvedTemplate {
        let mut own = step.template.clone();
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
        let template = self.with_variables(merged);
        self.check_values(step, own, &template, path, violations);
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
        step: &Step,
        own: StepTemplate,
        template: &ResolvedTemplate,
        path: &Path<'_>,
        violations: &mut Violations,
    ) {
        let own = self.with_variables(own);
        let mut found: Vec<Violation> = Vec::new();
        for overlay in overlays(step, template) {
            let mut one = Violations::default();
            check_part(&own.substituted(&overlay), path, &mut one);
            check_fit(&template.substituted(&overlay), path, &mut one);
            for violation in one.into_vec() {
                if !found.contains(&violation) {
                    found.push(violation);
                }
            }
            if found.len() > crate::violation::MAX_VIOLATIONS {
                break;
            }
        }
        violations.extend(found);
    }
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
                violations.add(path.to_string(), Code::UnknownParameter, undeclared(name, known));
            }
        }
    });
}

/// More instances than any limit allows.
const MAX_COMBINATIONS: usize = 10_000_000;

/// One overlay for each combination of values that can make a difference to a check.
fn overlays(step: &Step, template: &ResolvedTemplate) -> Vec<StepOverlay> {
    let mut deciding = BTreeSet::new();
    if !step.matrix.is_empty() {
        let mut merged = template.merged.clone();
        for_each_text(&mut merged, Path::root(), &mut |_, expansion, text| {
            if expansion == Expansion::Final {
                deciding.extend(references(text).map(str::to_owned));
            }
        });
    }
    let combinations = step.matrix.iter().filter(|axis| deciding.contains(&axis.name));
    let combinations = combinations.fold(1_usize, |product, axis| product.saturating_mul(axis.values.len()));
    if combinations > MAX_COMBINATIONS {
        // So many steps are refused anyway.
        deciding.clear();
    }
    let mut overlays = vec![StepOverlay {
        step: step.name.clone(),
        matrix: Vec::new(),
    }];
    for axis in &step.matrix {
        let different: Vec<String> = if deciding.contains(&axis.name) {
            let mut seen = HashSet::new();
            let texts = axis.values.iter().map(ToString::to_string);
            texts.filter(|text| seen.insert(text.clone())).collect()
        } else {
            axis.values.first().map(ToString::to_string).into_iter().collect()
        };
        overlays = overlays
            .into_iter()
            .flat_map(|overlay| {
                let axis = &axis.name;
                different.iter().map(move |value| {
                    let mut overlay = overlay.clone();
                    overlay.matrix.push((axis.clone(), value.clone()));
                    overlay
                })
            })
            .collect();
    }
    overlays
}
