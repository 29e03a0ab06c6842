//! Pipelines as text, and the pods that they would make.

use windlass_ids::{Namespace, StepIndex};
use windlass_manifest::Run;
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

/// Makes the pods of one checked pipeline.
#[derive(Debug)]
pub(crate) struct Renderer {
    checker: Checker,
    checked: Checked,
    /// What the pods share.
    run: Run,
}

impl Renderer {
    /// Of a checked pipeline; none when it has no pods after all.
    pub(crate) fn new(checker: Checker, namespace: &Namespace, checked: Checked) -> Option<Self> {
        let run = checker.run(namespace, &checked.resolved).ok()?;
        Some(Self { checker, checked, run })
    }

    /// The pod of a step.
    pub(crate) fn render(&self, step: StepIndex) -> Option<RenderedPod> {
        let resolved = &self.checked.resolved;
        let pod = self.checker.pod(&self.run, resolved, step).ok()?;
        // Written steps and resolved ones have the same order.
        let position = resolved.sources.partition_point(|source| source.first <= step.0);
        Some(RenderedPod {
            step: resolved.step_name(step.0)?,
            pod_json: serde_json::to_string(&pod).ok()?,
            provenance: provenance(
                &self.checked.pipeline,
                position.checked_sub(1)?,
                &self.checker.environment.default_requests,
            ),
        })
    }
}
