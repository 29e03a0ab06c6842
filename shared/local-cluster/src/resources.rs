//! The kinds that this API serves, as one table.

/// One served kind: where it lives in the URL space and how discovery names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Position in the table of kinds; the store indexes by it.
    pub index: usize,
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version inside the group.
    pub version: &'static str,
    /// Plural name, as in URLs.
    pub plural: &'static str,
    /// Singular name, for people.
    pub singular: &'static str,
    /// Kind, as in objects.
    pub kind: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether there is a `/status` subresource.
    pub status: bool,
    /// What `kubectl` accepts instead of the plural.
    pub short_names: &'static [&'static str],
}

impl Resource {
    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `plural` or `plural.group`, as Kubernetes' messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

macro_rules! resource {
    ($index:expr, $group:expr, $plural:expr, $singular:expr, $kind:expr, $namespaced:expr, $status:expr, $short:expr) => {
        Resource {
            index: $index,
            group: $group,
            version: "v1",
            plural: $plural,
            singular: $singular,
            kind: $kind,
            namespaced: $namespaced,
            status: $status,
            short_names: $short,
        }
    };
}

/// Everything served, in the order of discovery.
pub(crate) static RESOURCES: [Resource; 15] = [
    resource!(0, "", "namespaces", "namespace", "Namespace", false, true, &["ns"]),
    resource!(1, "", "nodes", "node", "Node", false, true, &["no"]),
    resource!(2, "", "pods", "pod", "Pod", true, true, &["po"]),
    resource!(3, "", "secrets", "secret", "Secret", true, false, &[]),
    resource!(4, "", "configmaps", "configmap", "ConfigMap", true, false, &["cm"]),
    resource!(
        5,
        "",
        "serviceaccounts",
        "serviceaccount",
        "ServiceAccount",
        true,
        false,
        &["sa"]
    ),
    resource!(6, "", "events", "event", "Event", true, false, &["ev"]),
    resource!(
        7,
        "",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        "PersistentVolumeClaim",
        true,
        true,
        &["pvc"]
    ),
    resource!(8, RBAC, "roles", "role", "Role", true, false, &[]),
    resource!(9, RBAC, "rolebindings", "rolebinding", "RoleBinding", true, false, &[]),
    resource!(
        10,
        RBAC,
        "clusterroles",
        "clusterrole",
        "ClusterRole",
        false,
        false,
        &[]
    ),
    resource!(
        11,
        RBAC,
        "clusterrolebindings",
        "clusterrolebinding",
        "ClusterRoleBinding",
        false,
        false,
        &[]
    ),
    resource!(12, "batch", "jobs", "job", "Job", true, true, &[]),
    resource!(13, "batch", "cronjobs", "cronjob", "CronJob", true, true, &["cj"]),
    resource!(14, "coordination.k8s.io", "leases", "lease", "Lease", true, false, &[]),
];

/// Namespaces.
pub(crate) static NAMESPACES: &Resource = &RESOURCES[0];
/// Nodes.
pub(crate) static NODES: &Resource = &RESOURCES[1];
/// Pods.
pub(crate) static PODS: &Resource = &RESOURCES[2];
/// Secrets.
pub(crate) static SECRETS: &Resource = &RESOURCES[3];
/// Config maps.
pub(crate) static CONFIG_MAPS: &Resource = &RESOURCES[4];
/// Service accounts.
pub(crate) static SERVICE_ACCOUNTS: &Resource = &RESOURCES[5];
/// Events.
pub(crate) static EVENTS: &Resource = &RESOURCES[6];
/// The kind at this place in the URL space.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The kind with this name, as stored on disk.
pub(crate) fn by_name(group: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.group == group && r.plural == plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_knows_its_place_in_the_table() {
        for (index, resource) in RESOURCES.iter().enumerate() {
            assert_eq!(resource.index, index, "{}", resource.plural);
        }
        assert_eq!(EVENTS.plural, "events");
    }
}
