//! What launches of a run need, from its definition.

use windlass_api::dispatch::v1::RunContext;
use windlass_ids::StepIndex;

use super::outbox::LaunchMaterial;
use crate::read_model::RunEntry;

impl LaunchMaterial for RunEntry {
    fn context(&self) -> RunContext {
        // Rendered without a fault at admission, so that nothing can be missing here.
        let mut context = windlass_manifest::context(self.meta().definition.resolved()).unwrap_or_default();
        if let (Some(workspace), Some(lineage)) = (&mut context.workspace, &self.meta().header.fixed.lineage) {
            workspace.folder_of = Some(lineage.workspace);
        }
        RunContext {
            run_id: self.meta().header.id.to_string(),
            run_name: self.meta().header.name.0.clone(),
            namespace: self.meta().header.namespace.0.clone(),
            pipeline: self.meta().header.pipeline.clone(),
            context_json: json(&context),
        }
    }

    fn template_of(&self, step: StepIndex) -> u32 {
        self.meta()
            .definition
            .resolved()
            .source(step.0)
            .map_or(0, |source| source.template)
    }

    fn template_json(&self, template: u32) -> Vec<u8> {
        let templates = &self.meta().definition.resolved().templates;
        templates
            .get(template as usize)
            .map(|template| json(template.as_ref()))
            .unwrap_or_default()
    }

    fn step_name(&self, step: StepIndex) -> String {
        self.meta().definition.step_name(step)
    }

    fn overlay_json(&self, step: StepIndex) -> Vec<u8> {
        json(&self.meta().definition.resolved().overlay(step.0).unwrap_or_default())
    }
}

/// These types serialise without a fault: their maps have texts as keys.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
