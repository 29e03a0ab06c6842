//! Pipelines as text, and the pods that they would make.

use windlass_ids::{Namespace, StepIndex};
use windlass_pipeline::Pipeline;
use windlass_pipeline::provenance::{Provenance, provenance};

use super::check::{Checked, Checker};

/// The pod of one step, with where its settings came from.
#[derive(Debug)]
pub(crate) struct RenderedPod {
    pub(crate) step: String,
    pub(crate) pod_json: String,
    /// Path of a field and where its value came from.
    pub(crate) provenance: Vec<Provenance>,
}

/// A pipeline as a file.
pub(crate) fn canonical(pipeline: &Pipeline) -> String {
    windlass_pipeline::render::to_yaml(pipeline)
}

/// The pod of a step of a checked pipeline.
pub(crate) fn render(
    checker: &Checker,
    namespace: &Namespace,
    checked: &Checked,
    step: StepIndex,
) -> Option<RenderedPod> {
    let resolved = &checked.resolved;
    let run = checker.run(namespace, resolved).ok()?;
    let pod = checker.pod(&run, resolved, step).ok()?;
    let source = resolved.source(step.0)?;
    let position = checked
        .pipeline
        .steps
        .iter()
        .position(|written| written.name == source.name)?;
    Some(RenderedPod {
        step: resolved.step_name(step.0)?,
        pod_json: serde_json::to_string(&pod).ok()?,
        provenance: provenance(&checked.pipeline, position),
    })
}
