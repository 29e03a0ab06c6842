//! What a Kubernetes API does, on the local cluster, or on the real one that `WINDLASS_TEST_KUBECONFIG` names.

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use support::Cluster;

/// A namespace of a test's own, on either cluster.
struct Place {
    client: Client,
    namespace: String,
    _local: Option<Cluster>,
}

impl Place {
    async fn new() -> Self {
        let (client, local) = match std::env::var_os("WINDLASS_TEST_KUBECONFIG") {
            Some(path) => (support::client_of(path.as_ref()).await, None),
            None => {
                let cluster = Cluster::start().await;
                (cluster.client.clone(), Some(cluster))
            }
        };
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"generateName": "both-"}})).expect("a namespace");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let created = namespaces.create(&PostParams::default(), &namespace).await;
        Self {
            client,
            namespace: created.expect("a namespace").name_any(),
            _local: local,
        }
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Begins the end of the namespace.
    async fn leave(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let deleted = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        deleted.expect("a deletion");
    }
}

#[tokio::test]
async fn a_patch_with_another_uid_is_invalid() {
    let place = Place::new().await;
    let maps = place.maps();
    let map = serde_json::from_value(json!({"metadata": {"name": "one"}})).expect("a config map");
    let created = maps.create(&PostParams::default(), &map).await.expect("created");
    let change = json!({"metadata": {"uid": "another", "labels": {"a": "b"}}});
    for patch in [Patch::Merge(&change), Patch::Strategic(&change)] {
        let refused = maps.patch("one", &PatchParams::default(), &patch).await;
        let kube::Error::Api(status) = refused.expect_err("another uid") else {
            panic!("no status")
        };
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        assert_eq!(
            status.message,
            "ConfigMap \"one\" is invalid: metadata.uid: Invalid value: \"another\": field is immutable"
        );
        let details = status.details.as_ref().expect("details");
        assert_eq!((details.name.as_str(), details.kind.as_str()), ("one", "ConfigMap"));
        assert!(!details.causes.is_empty());
        assert!(details.causes.iter().all(|cause| cause.field == "metadata.uid"));
    }
    let same = maps.get("one").await.expect("still there");
    assert_eq!(same.resource_version(), created.resource_version(), "nothing changed");
    place.leave().await;
}
