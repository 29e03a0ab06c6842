//! What a user wrote: every optional field knows whether it was given.
//!
//! Names are those of the proto messages. An empty list or map is the same as an absent one, as in proto3.

mod file;
mod kinds;
mod pod;
mod step;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use file::{Base64, File};
pub use kinds::{FailureMode, LogFollow, LostContactAction, ParameterType, RunIf};
pub use pod::{PodSettings, Quantity, Resources};
pub use step::{
    Deadlines, EnvVar, EnvVarSource, FieldSelector, KeySelector, Logs, LostContact, MatrixAxis, ResourceFieldSelector,
    Retries, RetryBudget, RunSecretKeySelector, Step, StepTemplate,
};

use crate::{Fragment, Millis, Scalar};

/// A DAG of container steps as a user writes it, before defaults are merged and parameters substituted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pipeline {
    /// Name of the pipeline, a DNS label of at most 63 characters.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Values that a submission may set, substituted as `$(NAME)`.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Alias of the cluster that runs the steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// A folder that the steps of a run share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Files that travel with the submission.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// What a failed step does to the rest of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
    /// The most steps that may be starting or running at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallelism: Option<u32>,
    /// The least time between two starts of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Millis>,
    /// Bound on the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// Runs of a higher priority are dispatched first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Labels of every pod.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of every pod.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What every step starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<StepTemplate>,
    /// The steps.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// A value that a submission may set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameter {
    /// Name as it stands in `$(NAME)`.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Type of the value; STRING when not given.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub parameter_type: Option<ParameterType>,
    /// Value used when the submission gives none; without it the parameter is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Scalar>,
    /// What the parameter is for.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A folder that the steps of a run share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workspace {
    /// A Kubernetes volume source; when absent the operator's volume, or the run's folder on the local cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<Fragment>,
    /// Where the workspace is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
}

/// Reads null as the default, as canonical proto JSON does.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a list, null as an empty one. An element that cannot be read becomes the default, so that the others keep their places;
/// the strict reader records why.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let elements = Option::<Vec<Option<T>>>::deserialize(deserializer)?;
    Ok(elements
        .unwrap_or_default()
        .into_iter()
        .map(Option::unwrap_or_default)
        .collect())
}

/// Reads a map as [`list`] reads a list.
pub(crate) fn map<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let entries = Option::<BTreeMap<String, Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(entries
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}
