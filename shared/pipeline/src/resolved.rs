//! What a run executes: defaults merged, steps expanded, everything checked.
//!
//! It is small: a step that a matrix expands to 100,000 instances is one [`SourceStep`] and one interned [`ResolvedTemplate`]; the
//! instances are numbers, and [`ResolvedPipeline::step_spec`] makes one of them concrete when it is launched.

mod policy;
mod spec;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use policy::{Policy, RetryPolicy};
pub use spec::{ResolvedTemplate, StepOverlay, StepSpec};

use crate::model::File;
use crate::{FailureMode, Fragment, Millis, Scalar};

/// A checked pipeline with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPipeline {
    /// Name of the pipeline.
    pub name: String,
    /// Value of every declared parameter.
    pub parameters: BTreeMap<String, Scalar>,
    /// Alias of the cluster that runs steps which name none.
    pub cluster: Option<String>,
    /// The folder that steps share.
    pub workspace: Option<ResolvedWorkspace>,
    /// Files, each with its content.
    pub files: Vec<File>,
    /// What a failed step does to the rest of the run.
    pub failure_mode: FailureMode,
    /// The most steps that may be starting or running at a time.
    pub max_parallelism: Option<u32>,
    /// The least time between two starts.
    pub start_interval: Option<Millis>,
    /// Bound on the whole run.
    pub timeout: Option<Millis>,
    /// Runs of a higher priority are dispatched first.
    pub priority: i32,
    /// Distinct templates; steps refer to them by position.
    #[serde(with = "shared")]
    pub templates: Vec<Arc<ResolvedTemplate>>,
    /// Steps as they are written, in the file's order; their instances are numbered consecutively.
    pub sources: Vec<SourceStep>,
}

/// The folder that steps share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedWorkspace {
    /// A Kubernetes volume source; none for the run's folder on the local cluster.
    pub volume: Option<Fragment>,
    /// Where it is mounted.
    pub mount_path: String,
}

impl ResolvedWorkspace {
    /// Where a workspace is mounted when the pipeline does not say.
    pub const DEFAULT_MOUNT_PATH: &'static str = "/windlass/workspace";
}

/// A step as it is written, which stands for one or more instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStep {
    /// Name in the file.
    pub name: String,
    /// Index of its first instance.
    pub first: u32,
    /// Number of instances; 1 without a matrix.
    pub count: u32,
    /// Its template.
    pub template: u32,
    /// Axes of the matrix; the last one changes fastest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrix: Vec<ResolvedAxis>,
    /// Indices of the steps that must end before each of the instances; ascending, without duplicates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<u32>,
}

/// One axis of a matrix, its values as texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAxis {
    /// Name as it stands in `$(NAME)`.
    pub name: String,
    /// Values.
    pub values: Vec<String>,
}

impl SourceStep {
    /// Values of the axes for the given instance, counted from 0.
    pub fn matrix_values(&self, instance: u32) -> Vec<(String, String)> {
        let mut rest = instance as usize;
        let mut values: Vec<_> = self
            .matrix
            .iter()
            .rev()
            .map(|axis| {
                let value = axis.values[rest % axis.values.len()].clone();
                rest /= axis.values.len();
                (axis.name.clone(), value)
            })
            .collect();
        values.reverse();
        values
    }

    /// Name of the given instance, counted from 0: `train.3`, or the step's own name without a matrix.
    pub fn instance_name(&self, instance: u32) -> String {
        if self.matrix.is_empty() {
            self.name.clone()
        } else {
            format!("{}.{instance}", self.name)
        }
    }
}

impl ResolvedPipeline {
    /// Number of steps after expansion.
    pub fn step_count(&self) -> u32 {
        self.sources.last().map_or(0, |last| last.first + last.count)
    }

    /// Number of dependencies after expansion.
    pub fn edge_count(&self) -> u64 {
        let edges = |source: &SourceStep| u64::from(source.count) * source.upstream.len() as u64;
        self.sources.iter().map(edges).sum()
    }

    /// The written step that the step at `index` comes from. None when there is no such step.
    pub fn source(&self, index: u32) -> Option<&SourceStep> {
        let after = self.sources.partition_point(|source| source.first <= index);
        let source = self.sources.get(after.checked_sub(1)?)?;
        (index - source.first < source.count).then_some(source)
    }

    /// Name of the step at `index` after expansion.
    pub fn step_name(&self, index: u32) -> Option<String> {
        let source = self.source(index)?;
        Some(source.instance_name(index - source.first))
    }

    /// Names of all steps, in order.
    pub fn step_names(&self) -> impl Iterator<Item = String> + '_ {
        let names = |source: &'_ SourceStep| (0..source.count).map(|i| source.instance_name(i)).collect::<Vec<_>>();
        self.sources.iter().flat_map(names)
    }

    /// Index of the step that has this name after expansion.
    pub fn find_step(&self, name: &str) -> Option<u32> {
        self.sources.iter().find_map(|source| {
            if source.matrix.is_empty() {
                return (source.name == name).then_some(source.first);
            }
            let number = name.strip_prefix(&source.name)?.strip_prefix('.')?;
            let instance: u32 = number.parse().ok()?;
            (instance < source.count && number == instance.to_string()).then(|| source.first + instance)
        })
    }

    /// Indices of the steps that must end before the step at `index`.
    pub fn upstream(&self, index: u32) -> &[u32] {
        self.source(index).map_or(&[], |source| &source.upstream)
    }

    /// Template of the step at `index`.
    pub fn template(&self, index: u32) -> Option<&Arc<ResolvedTemplate>> {
        self.templates.get(self.source(index)?.template as usize)
    }

    /// Keys of the run's secrets that a step uses.
    pub fn run_secrets(&self, index: u32) -> impl Iterator<Item = &str> {
        let template = self.template(index);
        template.into_iter().flat_map(|template| template.run_secrets())
    }

    /// What distinguishes the step at `index` from others with the same template.
    pub fn overlay(&self, index: u32) -> Option<StepOverlay> {
        let source = self.source(index)?;
        Some(StepOverlay {
            step: source.name.clone(),
            matrix: source.matrix_values(index - source.first),
        })
    }

    /// The step at `index`, concrete: merged, substituted, defaults applied.
    pub fn step_spec(&self, index: u32) -> Option<StepSpec> {
        let name = self.step_name(index)?;
        Some(self.template(index)?.spec(&name, &self.overlay(index)?))
    }
}

/// Version of the stored form; it grows when older forms can no longer be read as they are.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct StoredRef<'a> {
    version: u32,
    pipeline: &'a ResolvedPipeline,
}

#[derive(Deserialize)]
struct Stored {
    pipeline: ResolvedPipeline,
}

#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

/// Stored bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer version wrote them.
    #[error("the stored pipeline has version {found}, this program reads up to {VERSION}")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// They are not what was written.
    #[error("the stored pipeline cannot be read")]
    Malformed(#[from] serde_json::Error),
}

impl ResolvedPipeline {
    /// The form in which it is stored: versioned JSON.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredRef {
            version: VERSION,
            pipeline: self,
        };
        let encoded = serde_json::to_vec(&stored);
        debug_assert!(encoded.is_ok(), "keys are texts and numbers finite: {encoded:?}");
        encoded.unwrap_or_default()
    }

    /// Reads what [`ResolvedPipeline::encode`] wrote.
    ///
    /// # Errors
    /// A newer version wrote it, or it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let StoredVersion { version } = serde_json::from_slice(bytes)?;
        if version > VERSION {
            return Err(DecodeError::Version { found: version });
        }
        let Stored { pipeline } = serde_json::from_slice(bytes)?;
        Ok(pipeline)
    }
}

/// Reads and writes shared templates as plain ones.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::ResolvedTemplate;

    pub(super) fn serialize<S: Serializer>(
        templates: &[Arc<ResolvedTemplate>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(templates.iter().map(AsRef::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Arc<ResolvedTemplate>>, D::Error> {
        let templates = Vec::<ResolvedTemplate>::deserialize(deserializer)?;
        Ok(templates.into_iter().map(Arc::new).collect())
    }
}
