//! The object that owns the pods of a run in a namespace, and carries its files and scripts.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::labels::{Annotation, run_labels};
use crate::{MAX_OWNER_BYTES, ManifestError, Run, owner_name};

/// A created owner object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// Its uid.
    pub uid: String,
}

impl OwnerRef {
    /// As a controlling owner: garbage collection works without us, and `kubectl drain` accepts the pods.
    pub(crate) fn reference(&self, run: &Run) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: owner_name(&run.name, run.id),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}

/// The owner object of a run: a ConfigMap with its files (`file-0`, `file-1`, …, since paths are no valid keys) and its scripts.
///
/// # Errors
/// [`ManifestError::FilesTooLarge`] when they do not fit.
pub fn owner(run: &Run) -> Result<ConfigMap, ManifestError> {
    let context = &run.context;
    let bytes = context.files.iter().map(|file| file.content.len()).sum::<usize>()
        + context.scripts.values().map(String::len).sum::<usize>();
    if bytes > MAX_OWNER_BYTES {
        return Err(ManifestError::FilesTooLarge {
            bytes,
            limit: MAX_OWNER_BYTES,
        });
    }
    let mut data = context.scripts.clone();
    let mut binary = BTreeMap::new();
    for (index, file) in context.files.iter().enumerate() {
        match String::from_utf8(file.content.clone()) {
            Ok(text) => drop(data.insert(file_key(index), text)),
            Err(other) => drop(binary.insert(file_key(index), ByteString(other.into_bytes()))),
        }
    }
    let annotations = [(Annotation::RUN, &run.name), (Annotation::PIPELINE, &run.pipeline)];
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(owner_name(&run.name, run.id)),
            namespace: Some(run.namespace.clone()),
            labels: Some(run_labels(run)),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.clone())).into()),
            ..ObjectMeta::default()
        },
        data: (!data.is_empty()).then_some(data),
        binary_data: (!binary.is_empty()).then_some(binary),
        immutable: Some(true),
    })
}

/// Key of the nth file.
pub(crate) fn file_key(index: usize) -> String {
    format!("file-{index}")
}
