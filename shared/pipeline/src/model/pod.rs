//! Settings of a step's pod.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use super::{list, map};
use crate::Fragment;
use crate::fragment::optional_patch;

/// Settings of a step's pod. Fragments are parts of Kubernetes objects, checked strictly when the pipeline is resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSettings {
    /// Requests and limits of the main container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that the node must have.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Kubernetes Affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Fragment>,
    /// Kubernetes Tolerations.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Fragment>,
    /// Labels of the pod.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Kubernetes Volumes, merged by name.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Fragment>,
    /// Kubernetes VolumeMounts of the main container, merged by mountPath.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<Fragment>,
    /// Kubernetes EnvFromSources of the main container.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<Fragment>,
    /// Names of image pull secrets.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Always, IfNotPresent or Never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Service account; the namespace's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Whether the account's token is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// Kubernetes SecurityContext of the main container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Fragment>,
    /// Kubernetes PodSecurityContext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<Fragment>,
    /// Shorthand for securityContext.privileged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// Whether the pod shares the host's IPC namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ipc: Option<bool>,
    /// Priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Kubernetes scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Runtime class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Kubernetes Containers that run to their end before the main container.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Fragment>,
    /// Kubernetes Containers beside the main container, started as native sidecars.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Fragment>,
    /// A Kubernetes PodSpec fragment merged over the result; a null in it removes a field.
    #[serde(deserialize_with = "optional_patch", skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Fragment>,
}

/// Requests and limits by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the container is promised.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may not exceed.
    #[serde(deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity as it was written; a number is taken as its text. It may hold `$(NAME)` before parameters are substituted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QuantityVisitor;

        impl Visitor<'_> for QuantityVisitor {
            type Value = Quantity;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a quantity, such as 500m, 2Gi or 1")
            }

            fn visit_str<E>(self, text: &str) -> Result<Quantity, E> {
                Ok(text.into())
            }

            fn visit_i64<E>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }

        deserializer.deserialize_any(QuantityVisitor)
    }
}
