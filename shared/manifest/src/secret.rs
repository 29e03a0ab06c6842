//! The Secrets of runs and schedules in a namespace.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_ids::{InstallationId, RunId, ScheduleId, ScheduleSecretId};

use crate::labels::{Annotation, Label, label_value};
use crate::{schedule_secret_name, secret_name};

/// Whose Secret it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretOwner {
    /// A run or a schedule.
    pub of: SecretOf,
    /// Its name.
    pub owner_name: String,
    /// Its namespace.
    pub namespace: String,
    /// The installation.
    pub installation: InstallationId,
}

/// See [`SecretOwner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretOf {
    /// A run has one.
    Run(RunId),
    /// A schedule has one for each set of values.
    Schedule {
        /// The schedule.
        schedule: ScheduleId,
        /// The values.
        secret: ScheduleSecretId,
    },
}

impl SecretOwner {
    /// Name of the Secret.
    pub fn name(&self) -> String {
        match self.of {
            SecretOf::Run(run) => secret_name(&self.owner_name, run),
            SecretOf::Schedule { secret, .. } => schedule_secret_name(&self.owner_name, secret),
        }
    }

    /// Whether labels are those of this Secret.
    pub fn is_of(&self, labels: &BTreeMap<String, String>) -> bool {
        let (key, id) = self.identity();
        labels.get(Label::INSTALLATION) == Some(&self.installation.to_string()) && labels.get(key) == Some(&id)
    }

    /// The label that no other Secret of the installation has.
    fn identity(&self) -> (&'static str, String) {
        match self.of {
            SecretOf::Run(run) => (Label::RUN_ID, run.to_string()),
            SecretOf::Schedule { secret, .. } => (Label::SECRET_ID, secret.to_string()),
        }
    }

    /// The Secret. It cannot be changed: its values are those that were submitted, and kubelets need not watch it.
    pub fn secret(&self, data: BTreeMap<String, Vec<u8>>) -> Secret {
        let (name_label, annotation) = match self.of {
            SecretOf::Run(_) => (Label::RUN, Annotation::RUN),
            SecretOf::Schedule { .. } => (Label::SCHEDULE, Annotation::SCHEDULE),
        };
        let mut labels = vec![
            (name_label, label_value(&self.owner_name)),
            (Label::INSTALLATION, self.installation.to_string()),
            self.identity(),
        ];
        if let SecretOf::Schedule { schedule, .. } = self.of {
            labels.push((Label::SCHEDULE_ID, schedule.to_string()));
        }
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value));
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels.collect()),
                annotations: Some([(annotation.to_owned(), self.owner_name.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
            immutable: Some(true),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }
}
