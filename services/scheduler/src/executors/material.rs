//! What launches of a run need, from its definition.

use windlass_api::dispatch::v1::RunContext;
use windlass_ids::StepIndex;
use windlass_pipeline::{KeySelector, ResolvedTemplate};

use super::outbox::LaunchMaterial;
use crate::read_model::RunEntry;
use crate::store::SharedSecret;

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
        let Some(template) = templates.get(template as usize) else {
            return Vec::new();
        };
        match &self.meta().header.fixed.secret {
            Some(secret) if template.run_secrets().next().is_some() => json(&with_secret(template, secret)),
            _ => json(template.as_ref()),
        }
    }

    fn step_name(&self, step: StepIndex) -> String {
        self.meta().definition.step_name(step)
    }

    fn overlay_json(&self, step: StepIndex) -> Vec<u8> {
        json(&self.meta().definition.resolved().overlay(step.0).unwrap_or_default())
    }
}

/// A template whose variables come from the secrets of a schedule in place of the run's own.
fn with_secret(template: &ResolvedTemplate, secret: &SharedSecret) -> ResolvedTemplate {
    let mut template = template.clone();
    let name = windlass_manifest::schedule_secret_name(&secret.schedule_name, secret.id);
    let sources = template.merged.env.iter_mut();
    for source in sources.filter_map(|variable| variable.value_from.as_mut()) {
        if let Some(selector) = source.run_secret_key_ref.take() {
            source.secret_key_ref = Some(KeySelector {
                name: name.clone(),
                key: selector.key,
                optional: None,
            });
        }
    }
    template
}

/// These types serialise without a fault: their maps have texts as keys.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
