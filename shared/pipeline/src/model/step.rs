//! Steps and what they start from.

use serde::{Deserialize, Serialize};

use super::{LogFollow, LostContactAction, PodSettings, RunIf, list, null_is_default};
use crate::{Millis, Scalar};

/// A struct with fields of its own and those that a step shares with the defaults.
macro_rules! with_template_fields {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        $visibility struct $name {
            $($own)*
            /// Container image.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub image: Option<String>,
            /// Entrypoint; the image's own when empty.
            #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
            pub command: Vec<String>,
            /// Arguments.
            #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
            pub args: Vec<String>,
            /// A shell script instead of a command.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub script: Option<String>,
            /// Environment variables, merged by name.
            #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
            pub env: Vec<EnvVar>,
            /// Working directory.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub working_dir: Option<String>,
            /// When the step runs.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub run_if: Option<RunIf>,
            /// Bound on each attempt.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub timeout: Option<Millis>,
            /// Retry budgets.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub retries: Option<Retries>,
            /// What happens when contact to the pod is lost.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub lost_contact: Option<LostContact>,
            /// Bounds on waiting, by cause.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub deadlines: Option<Deadlines>,
            /// Time between SIGTERM and SIGKILL.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub termination_grace: Option<Millis>,
            /// Alias of the cluster that runs the step.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub cluster: Option<String>,
            /// How logs are followed.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub logs: Option<Logs>,
            /// Whether exit code 0 after a deletion or eviction counts as success.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub accept_exit_zero_when_terminated: Option<bool>,
            /// Settings of the pod.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub pod: Option<PodSettings>,
        }
    };
}

with_template_fields! {
    /// What a step and the defaults have in common.
    #[derive(Serialize)]
    pub struct StepTemplate {}
}

with_template_fields! {
    /// A step as it is written: flat.
    struct FlatStep {
        #[serde(deserialize_with = "null_is_default")]
        name: String,
        #[serde(deserialize_with = "list")]
        upstream: Vec<String>,
        #[serde(deserialize_with = "list")]
        matrix: Vec<MatrixAxis>,
        #[serde(deserialize_with = "list")]
        unset: Vec<String>,
    }
}

/// One step: a container that runs to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "FlatStep")]
pub struct Step {
    /// Name, unique in the pipeline.
    pub name: String,
    /// Names of the steps that must end first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<String>,
    /// Axes over which the step is expanded at submission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matrix: Vec<MatrixAxis>,
    /// Paths of inherited fields that are dropped, such as `pod.tolerations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// What it says itself of what the defaults may say.
    #[serde(flatten)]
    pub template: StepTemplate,
}

impl From<FlatStep> for Step {
    fn from(flat: FlatStep) -> Self {
        Self {
            name: flat.name,
            upstream: flat.upstream,
            matrix: flat.matrix,
            unset: flat.unset,
            template: StepTemplate {
                image: flat.image,
                command: flat.command,
                args: flat.args,
                script: flat.script,
                env: flat.env,
                working_dir: flat.working_dir,
                run_if: flat.run_if,
                timeout: flat.timeout,
                retries: flat.retries,
                lost_contact: flat.lost_contact,
                deadlines: flat.deadlines,
                termination_grace: flat.termination_grace,
                cluster: flat.cluster,
                logs: flat.logs,
                accept_exit_zero_when_terminated: flat.accept_exit_zero_when_terminated,
                pod: flat.pod,
            },
        }
    }
}

/// One axis of a matrix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatrixAxis {
    /// Name as it stands in `$(NAME)` and in the environment.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Values; the step is expanded once for each.
    #[serde(deserialize_with = "list")]
    pub values: Vec<Scalar>,
}

/// One environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Literal value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A value from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where a value comes from; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVarSource {
    /// A key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
    /// A key of a ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
    /// A field of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldSelector>,
    /// A resource of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_field_ref: Option<ResourceFieldSelector>,
    /// A key of the run's secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_secret_key_ref: Option<RunSecretKeySelector>,
}

/// A key of the run's secrets, which are submitted with the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunSecretKeySelector {
    /// Key; no parameter is substituted in it.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeySelector {
    /// Name of the object.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Key in it.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
    /// Whether it may be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldSelector {
    /// Path, such as `metadata.name`.
    #[serde(deserialize_with = "null_is_default")]
    pub field_path: String,
}

/// A resource of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFieldSelector {
    /// Resource, such as `limits.memory`.
    #[serde(deserialize_with = "null_is_default")]
    pub resource: String,
    /// Unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divisor: Option<String>,
}

/// The two retry budgets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retries {
    /// Spent by USER_ERROR, OOM_KILLED and DEADLINE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<RetryBudget>,
    /// Spent by EVICTED, PREEMPTED, NODE_LOST, POD_DELETED and STARTUP_TIMEOUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<RetryBudget>,
}

/// How often and how fast failures are retried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// The nth charged failure is final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// First delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Millis>,
    /// Factor of each further delay, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<f64>,
    /// Bound on the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Millis>,
    /// Exit codes that are retried; all when empty. For `user` only.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub exit_codes: Vec<i32>,
}

/// What happens when contact to a pod is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LostContact {
    /// How long to wait while an executor sees the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
    /// What follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<LostContactAction>,
}

/// Bounds on waiting states, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deadlines {
    /// How long a step may wait while no executor serves its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Millis>,
    /// Until the API server has admitted the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Millis>,
    /// Until the pod has a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Millis>,
    /// Until its images are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulling: Option<Millis>,
    /// Until its init containers are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialising: Option<Millis>,
    /// From a stop until its end is seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<Millis>,
}

/// How the logs of a step are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logs {
    /// When containers are followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<LogFollow>,
}
