//! Namespaces of tests on a real cluster.

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{KUBECONFIG, client, kubeconfig};

/// A namespace of a test's own, in which pods are accepted.
pub async fn namespace(kube: &kube::Client) -> String {
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"generateName": "executor-"}})).expect("a namespace");
    let created = namespaces.create(&PostParams::default(), &namespace).await;
    let name = created.expect("a namespace").metadata.name.expect("a name");
    let accounts: Api<ServiceAccount> = Api::namespaced(kube.clone(), &name);
    let end = tokio::time::Instant::now() + super::PATIENCE;
    while let Err(error) = accounts.get("default").await {
        assert!(tokio::time::Instant::now() < end, "no pods are accepted: {error}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    name
}

/// Begins the end of a namespace when its test is over, in whatever state; nobody else lets its pods go.
pub fn leave(namespace: String) {
    let leaving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let path = std::env::var_os(KUBECONFIG).expect("set when the test began");
            let kube = client(kubeconfig(path.as_ref()).await, None);
            let namespaces: Api<Namespace> = Api::all(kube.clone());
            namespaces.delete(&namespace, &DeleteParams::default()).await.ok();
            let pods: Api<Pod> = Api::namespaced(kube, &namespace);
            let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            for pod in pods.list(&ListParams::default()).await.into_iter().flatten() {
                let name = pod.metadata.name.unwrap_or_default();
                pods.patch(&name, &PatchParams::default(), &free).await.ok();
                pods.delete(&name, &DeleteParams::default().grace_period(0)).await.ok();
            }
        });
    });
    // What went wrong was told; the test's own result stands.
    leaving.join().ok();
}
