//! The Secret of a run in a namespace.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_ids::{InstallationId, RunId};

use crate::labels::{Annotation, Label, label_value};
use crate::secret_name;

/// Whose Secret it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretOwner {
    /// The run.
    pub run: RunId,
    /// Its name.
    pub run_name: String,
    /// Its namespace.
    pub namespace: String,
    /// The installation.
    pub installation: InstallationId,
}

impl SecretOwner {
    /// Name of the Secret.
    pub fn name(&self) -> String {
        secret_name(&self.run_name, self.run)
    }

    /// Whether labels are those of this Secret.
    pub fn is_of(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(Label::INSTALLATION) == Some(&self.installation.to_string())
            && labels.get(Label::RUN_ID) == Some(&self.run.to_string())
    }

    /// The Secret. It cannot be changed: its values are those that the run was submitted with, and kubelets need not watch it.
    pub fn secret(&self, data: BTreeMap<String, Vec<u8>>) -> Secret {
        let labels = [
            (Label::RUN, label_value(&self.run_name)),
            (Label::INSTALLATION, self.installation.to_string()),
            (Label::RUN_ID, self.run.to_string()),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
                annotations: Some([(Annotation::RUN.to_owned(), self.run_name.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
            immutable: Some(true),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }
}
