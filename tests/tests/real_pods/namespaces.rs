//! Namespaces that are being deleted, or are not there.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams};
use serde_json::json;
use windlass_tests::wait::until;

use crate::support::scene::Scene;

async fn delete(scene: &Scene) -> Api<Namespace> {
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    namespaces
        .delete(scene.name(), &DeleteParams::default())
        .await
        .expect("its deletion begins");
    namespaces
}

/// The finalizer holds the pod until its end is stored, and not longer: the namespace goes.
#[tokio::test(flavor = "multi_thread")]
async fn i4_a_namespace_that_is_deleted_under_a_step_goes() {
    let scene = Scene::new("deleted").await;
    let run =
        scene.run("- {name: work, command: [sleep, '1000'], retries: {infrastructure: {attempts: 3, delay: 100ms}}}");
    scene.running_pod().await;
    let namespaces = delete(&scene).await;
    let step = run.fails().await;
    step.failed_with("REJECTED", "NamespaceTerminating")
        .attempts(2)
        .why(&["because it is being terminated"])
        .step_says(&[
            "class       POD_DELETED",
            "somebody deleted the pod; exit code 137 (SIGKILL) came after that",
        ]);
    step.run_says(&["FAILED REJECTED", "because it is being terminated"])
        .get_says(&["because it is being terminated"])
        .explain_says(&[
            "NamespaceTerminating: ",
            "create the namespace, or submit to another one (-n)",
        ]);
    until("the namespace is gone", async || {
        match namespaces.get_opt(scene.name()).await {
            Ok(None) => Ok(()),
            Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_being_deleted_is_rejected() {
    let scene = Scene::new("terminating").await;
    // What keeps it from going at once.
    let held = json!({"metadata": {"name": "held", "finalizers": ["tests.example/held"]}});
    scene.put::<ConfigMap>(held).await;
    delete(&scene).await;
    let step = scene.run("- {name: work, command: ['true']}").fails().await;
    step.failed_with("REJECTED", "NamespaceTerminating")
        .attempts(1)
        .never_started()
        .why(&[scene.name(), "because it is being terminated"])
        .explain_says(&[
            "NamespaceTerminating: ",
            "create the namespace, or submit to another one (-n)",
        ]);
    scene
        .change::<ConfigMap>("held", json!({"metadata": {"finalizers": null}}))
        .await;
    scene.close().await;
}

/// behaviours C3, E5, E40: a step whose pod never was has an end with its reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_there_is_rejected() {
    let scene = Scene::without_namespace("absent").await;
    let step = scene.run("- {name: work, command: ['true']}").fails().await;
    step.failed_with("REJECTED", "NamespaceNotFound")
        .attempts(1)
        .never_started()
        .why(&[r#"namespaces "absent" not found"#])
        .explain_says(&[
            "NamespaceNotFound: ",
            "create the namespace, or submit to another one (-n)",
        ]);
    scene.close().await;
}
