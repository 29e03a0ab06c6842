//! What the pods of a run share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Volume;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_ids::{InstallationId, RunId};

use crate::names::base32;

/// The run-wide part of a resolved pipeline that manifests need. Its JSON travels in `RunContext.context_json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunContext {
    /// Labels of every pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of every pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The folder that the steps share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Files of the submission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Scripts by the key that [`script_key`] makes; each stands here once, however many steps use it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, String>,
}

/// The folder that the steps of a run share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workspace {
    /// Volume of the pipeline; the operator's when absent. Its name is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// Where it is mounted; [`crate::WORKSPACE_PATH`] when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// The run whose folder it is; the run's own when absent. A retried run goes on in the folder of the run that it retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder_of: Option<RunId>,
}

/// A file of the submission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// Relative path below [`crate::FILES_PATH`].
    pub path: String,
    /// Content.
    #[serde(with = "content")]
    pub content: Vec<u8>,
    /// Whether it is executable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

mod content {
    //! Content as base64.

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::Deserialize as _;

    pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

/// Key under which a script travels, a function of its text.
pub fn script_key(script: &str) -> String {
    format!("script-{}", base32(&Sha256::digest(script)))
}

/// A run with its identity.
#[derive(Clone, Debug)]
pub struct Run {
    /// Id.
    pub id: RunId,
    /// Readable name.
    pub name: String,
    /// Namespace of its pods.
    pub namespace: String,
    /// Name of its pipeline.
    pub pipeline: String,
    /// The installation that it belongs to.
    pub installation: InstallationId,
    /// The rest.
    pub context: RunContext,
}

/// What the operator of the cluster decides.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Workspace of pipelines that name no volume.
    pub workspace: WorkspaceDefault,
    /// Image of steps that name none; only the local cluster, which uses no images, has one.
    pub default_image: Option<String>,
}

/// Workspace of pipelines that name no volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WorkspaceDefault {
    /// There is none: such pipelines are refused.
    #[default]
    None,
    /// A volume of the operator; every run has a folder of its own in it.
    Volume(Box<Volume>),
    /// A folder of the host for each run, below this one.
    HostFolder(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_its_json() {
        let context = RunContext {
            labels: [("team".to_owned(), "ml".to_owned())].into(),
            workspace: Some(Workspace::default()),
            files: vec![File {
                path: "data/iris.csv".to_owned(),
                content: vec![0, 159, 146, 150],
                executable: true,
            }],
            scripts: [(script_key("true"), "true".to_owned())].into(),
            ..RunContext::default()
        };
        let json = serde_json::to_string(&context).expect("serialises");
        assert_eq!(serde_json::from_str::<RunContext>(&json).expect("reads"), context);
        assert_eq!(serde_json::to_string(&RunContext::default()).expect("serialises"), "{}");
    }
}
