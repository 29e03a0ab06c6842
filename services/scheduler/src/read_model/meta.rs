//! The part of a run that never changes.

use std::sync::Arc;

use windlass_ids::{AttemptId, RunId};

use super::render::run_resource;
use crate::definition::RunDefinition;
use crate::store::RunHeader;

/// See the module. The progress in its header is that of its acceptance, and not looked at.
#[derive(Clone, Debug)]
pub(crate) struct RunMeta {
    pub(crate) header: RunHeader,
    pub(crate) definition: Arc<RunDefinition>,
}

impl RunMeta {
    /// `namespaces/{namespace}/runs/{run}`.
    pub(crate) fn resource_name(&self) -> String {
        run_resource(self.header.namespace.as_str(), self.header.name.as_str())
    }

    /// Name of an earlier run whose attempts this one reuses; its id when the name is not known.
    pub(crate) fn source_name(&self, run: RunId) -> String {
        let lineage = self.header.fixed.lineage.as_ref();
        let name = lineage.and_then(|lineage| lineage.sources.get(&run));
        name.map_or_else(|| run.to_string(), |name| name.0.clone())
    }

    /// Name of an attempt's pod.
    pub(crate) fn pod_name(&self, attempt: AttemptId) -> String {
        let step = self.definition.step_name(attempt.step);
        windlass_manifest::pod_name(self.header.name.as_str(), &step, attempt)
    }
}
