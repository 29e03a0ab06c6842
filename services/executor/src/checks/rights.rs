//! The rights that an executor uses: exactly those that the chart gives (`deploy/chart/templates/rbac.yaml`).

/// Where a right is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster.
    Cluster,
    /// In every namespace in which steps run.
    Namespace,
}

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Kubernetes' verb.
    pub verb: &'static str,
    /// The resource, of the core group; with its subresource, as in `pods/log`.
    pub resource: &'static str,
    /// Where it is used.
    pub scope: Scope,
    /// Whether runs do without it.
    pub optional: bool,
    /// What it is for.
    pub purpose: &'static str,
}

const NODES: &str = "proof that the pods of a lost node are dead";
const PODS: &str = "what becomes of steps, in all namespaces at once";
const SECRETS: &str = "`windlass secret`, and whether the Secrets of a run are there before it starts";

/// All of them.
pub const RIGHTS: [Right; 21] = [
    cluster(
        "get",
        "namespaces",
        "the cluster's identity, and whether a namespace is there",
    ),
    cluster("get", "nodes", NODES),
    cluster("list", "nodes", NODES),
    cluster("watch", "nodes", NODES),
    cluster("list", "pods", PODS),
    cluster("watch", "pods", PODS),
    namespaced("create", "pods", "to start steps"),
    namespaced("get", "pods", "whether a pod is there already, or really gone"),
    namespaced("patch", "pods", "to let go of pods whose end is stored"),
    namespaced("delete", "pods", "to stop steps"),
    namespaced("deletecollection", "pods", "to remove pods that were let go"),
    namespaced("get", "pods/log", "the logs of steps"),
    namespaced("create", "configmaps", "what owns the pods of a run and has its files"),
    namespaced("get", "configmaps", "the same, when it was made before"),
    namespaced("deletecollection", "configmaps", "to remove it after the run"),
    namespaced("list", "events", "why a pod does not start"),
    secret("create"),
    secret("get"),
    secret("patch"),
    secret("list"),
    secret("delete"),
];

const fn cluster(verb: &'static str, resource: &'static str, purpose: &'static str) -> Right {
    Right {
        verb,
        resource,
        scope: Scope::Cluster,
        optional: false,
        purpose,
    }
}

const fn namespaced(verb: &'static str, resource: &'static str, purpose: &'static str) -> Right {
    Right {
        scope: Scope::Namespace,
        ..cluster(verb, resource, purpose)
    }
}

/// The chart's value `secrets.manage` takes these away.
const fn secret(verb: &'static str) -> Right {
    Right {
        optional: true,
        ..namespaced(verb, "secrets", SECRETS)
    }
}
