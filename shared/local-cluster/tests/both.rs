//! What a Kubernetes API does, on the local cluster, or on the real one that `WINDLASS_TEST_KUBECONFIG` names.

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
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

    fn secrets(&self) -> Api<Secret> {
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

fn secret(name: &str, data: serde_json::Value) -> Secret {
    let object = json!({"metadata": {"name": name, "labels": {"team": "ml"}}, "stringData": data});
    serde_json::from_value(object).expect("a secret")
}

fn values(secret: &Secret) -> Vec<(&str, &[u8])> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()
}

#[tokio::test]
async fn k10_a_patch_of_a_secret_keeps_removes_and_empties_keys() {
    let place = Place::new().await;
    let secrets = place.secrets();
    let first = secret("one", json!({"stays": "1", "goes": "2", "empty": ""}));
    let created = secrets.create(&PostParams::default(), &first).await.expect("created");
    assert_eq!(created.type_.as_deref(), Some("Opaque"));
    // `YQ==` is `a`.
    let change =
        json!({"metadata": {"uid": created.uid()}, "data": {"goes": null, "never": null, "new": "YQ==", "void": ""}});
    for patch in [Patch::Strategic(&change), Patch::Merge(&change)] {
        let changed = secrets
            .patch("one", &PatchParams::default(), &patch)
            .await
            .expect("changed");
        let expected: [(&str, &[u8]); 4] = [("empty", b""), ("new", b"a"), ("stays", b"1"), ("void", b"")];
        assert_eq!(values(&changed), expected);
    }
    let head = secrets.get_metadata("one").await.expect("there");
    assert_eq!(head.labels()["team"], "ml");
    let labelled = ListParams::default().labels("team=ml,!other");
    let listed = secrets.list(&labelled).await.expect("listed");
    assert_eq!(listed.items.len(), 1);
    let none = secrets.list(&ListParams::default().labels("team=ml,other")).await;
    assert!(none.expect("listed").items.is_empty());
    place.leave().await;
}

#[tokio::test]
async fn a_secret_with_a_bad_key_or_too_many_bytes_is_invalid() {
    let place = Place::new().await;
    let secrets = place.secrets();
    let refused = async |secret: Secret| {
        let refused = secrets.create(&PostParams::default(), &secret).await;
        let kube::Error::Api(status) = refused.expect_err("invalid") else {
            panic!("no status")
        };
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let causes: Vec<_> = causes
            .map(|cause| (cause.field.clone(), cause.reason.clone(), cause.message.clone()))
            .collect();
        let [(field, reason, message)] = &causes[..] else {
            panic!("one cause: {causes:?}")
        };
        format!("{field} {reason} {message}")
    };
    let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    assert_eq!(
        refused(secret("bad", json!({"a b": "1"}))).await,
        format!("data[a b] FieldValueInvalid Invalid value: \"a b\": {rule}")
    );
    let mib = "x".repeat(1024 * 1024);
    assert_eq!(
        refused(secret("large", json!({"a": mib, "b": "1"}))).await,
        "data FieldValueTooLong Too long: may not be more than 1048576 bytes"
    );
    let full = secret("full", json!({"a": mib, "b": ""}));
    secrets.create(&PostParams::default(), &full).await.expect("just fits");
    place.leave().await;
}
