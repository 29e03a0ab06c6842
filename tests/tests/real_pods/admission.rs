//! What stands in front of the API server's store: quotas, limit ranges, policies, webhooks, accounts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, ResourceQuota, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use windlass_tests::wait::until;

use crate::support::said::Step;
use crate::support::scene::Scene;
use crate::support::webhook::{Answer, Webhook};

const WORK: &str = "- {name: work, command: ['true']}";

/// Nothing of it was ever stored: the API server refused it for good.
fn rejected(step: &Step, reason: &str, what: &str) {
    step.failed_with("REJECTED", reason)
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&[what])
        .evidence(&[what]);
    step.run_says(&["FAILED REJECTED", what])
        .get_says(&[what])
        .explain_says(&["step work is FAILED", what, "help"]);
}

/// A quota of so many pods that is in force.
async fn quota(scene: &Scene, pods: u32) {
    quota_of(scene, "pods", pods).await;
}

/// A quota of so many objects of a kind, in force.
async fn quota_of(scene: &Scene, kind: &str, count: u32) {
    let quota = json!({"metadata": {"name": "pods"}, "spec": {"hard": {kind: count.to_string()}}});
    scene.put::<ResourceQuota>(quota).await;
    let quotas: Api<ResourceQuota> = scene.api();
    until("the quota is in force", async || {
        let quota = quotas.get("pods").await.map_err(|error| error.to_string())?;
        let used = quota.status.and_then(|status| status.used);
        used.ok_or_else(|| "no status".to_owned())
    })
    .await;
}

/// behaviours U21
#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_is_waited_for() {
    let scene = Scene::new("quota").await;
    quota(&scene, 0).await;
    let run = scene.run(WORK);
    scene.explained("REFUSED", "exceeded quota: pods").await.has(&[
        "the API server refuses its pod for now (QuotaExceeded): ",
        "fails with STARTUP_TIMEOUT",
        "fix the quota, webhook or rights that the message names; it is tried again by itself",
    ]);
    scene
        .says(&["get", "@latest"])
        .has(&["STARTING", "exceeded quota: pods"]);
    scene
        .change::<ResourceQuota>("pods", json!({"spec": {"hard": {"pods": "9"}}}))
        .await;
    run.succeeds().await.succeeded().attempts(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_keeps_the_runs_own_object_out_is_waited_for() {
    let scene = Scene::new("quota-owner").await;
    // The cluster's own ConfigMap fills it.
    quota_of(&scene, "count/configmaps", 1).await;
    let run = scene.run(WORK);
    scene.explained("REFUSED", "the run's ConfigMap: ").await.has(&[
        "(QuotaExceeded): ",
        "exceeded quota: pods, requested: count/configmaps=1",
        "fails with STARTUP_TIMEOUT",
    ]);
    scene
        .change::<ResourceQuota>("pods", json!({"spec": {"hard": {"count/configmaps": "9"}}}))
        .await;
    run.succeeds().await.succeeded().attempts(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_stays_full_is_a_startup_timeout() {
    let scene = Scene::new("quota-full").await;
    quota(&scene, 0).await;
    let step = scene
        .run("- {name: work, command: ['true'], deadlines: {created: 3s}}")
        .fails()
        .await;
    step.failed_with("STARTUP_TIMEOUT", "NOT_CREATED")
        .exit_code(serde_json::Value::Null)
        .attempts(1)
        .never_started()
        .why(&[
            "its pod was not created within 3s (deadlines.created): QuotaExceeded: ",
            "exceeded quota: pods",
        ]);
    step.run_says(&["FAILED STARTUP_TIMEOUT", "exceeded quota: pods"])
        .get_says(&["exceeded quota: pods"])
        .explain_says(&[
            "NOT_CREATED: its pod was not created within 3s",
            "provide what it waited for",
        ]);
    scene.close().await;
}

/// Admission runs before storage: a create that is said again, because its first answer was lost, meets a quota that its own pod has
/// filled. The 403 hides a pod that exists.
#[tokio::test(flavor = "multi_thread")]
async fn i2_a_quota_that_hides_the_steps_own_pod_is_no_refusal() {
    let scene = Scene::new("hidden").await;
    quota(&scene, 1).await;
    let (pods, asked) = (scene.api::<Pod>(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (pods, asked) = (pods.clone(), asked.clone());
        move |request: serde_json::Value| {
            let (pods, first) = (pods.clone(), asked.fetch_add(1, Ordering::SeqCst) == 0);
            async move {
                if first {
                    // The same pod is stored while the executor's create is under way, as an earlier create of it would.
                    let pod: Pod = serde_json::from_value(request["object"].clone()).expect("a pod");
                    pods.create(&PostParams::default(), &pod).await.expect("it is created");
                }
                Answer::Allow
            }
            .boxed()
        }
    };
    let webhook = Webhook::start(&scene, handler).await;
    let run = scene.run("- {name: work, command: [sleep, '3']}");
    let pod = scene.running_pod().await;
    let other = Pod {
        metadata: kube::core::ObjectMeta {
            name: Some("other".to_owned()),
            ..Default::default()
        },
        ..pod.clone()
    };
    let refusal = pods
        .create(&PostParams::default(), &other)
        .await
        .expect_err("the quota is full");
    assert!(refusal.to_string().contains("exceeded quota"), "{refusal}");
    let step = run.succeeds().await;
    step.succeeded()
        .attempts(1)
        .pod_uid(pod.metadata.uid.as_deref().expect("a uid"));
    // Its own, the nested one, and the one of this test.
    assert_eq!(asked.load(Ordering::SeqCst), 3, "creates that reached the webhook");
    webhook.remove().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_limit_range_allows_is_rejected() {
    let scene = Scene::new("limit-range").await;
    scene
        .put::<LimitRange>(json!({"metadata": {"name": "small"}, "spec": {"limits": [
            {"type": "Container", "max": {"memory": "64Mi"}}]}}))
        .await;
    let step = scene
        .run("- {name: work, command: ['true'], pod: {resources: {limits: {memory: 1Gi}}}}")
        .fails()
        .await;
    rejected(
        &step,
        "PolicyDenied",
        "maximum memory usage per Container is 64Mi, but limit is 1Gi",
    );
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_of_a_limit_range_is_a_limit_like_any_other() {
    let scene = Scene::new("default").await;
    scene
        .put::<LimitRange>(json!({"metadata": {"name": "small"}, "spec": {"limits": [
            {"type": "Container", "default": {"memory": "24Mi"}, "defaultRequest": {"memory": "8Mi"}}]}}))
        .await;
    let step = scene
        .run(r#"- {name: work, image: "python:3", command: [python3, -c, "x = bytearray(10**9)"]}"#)
        .fails()
        .await;
    step.failed_with("OOM_KILLED", "OOMKilled")
        .exit_code(137)
        .why(&["it used more memory than its limit of 24Mi"])
        .explain_says(&["its limit of 24Mi"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pod_security_standard_forbids_is_rejected() {
    let scene = Scene::new("restricted").await;
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    namespaces
        .patch(scene.name(), &PatchParams::default(), &Patch::Merge(labels))
        .await
        .expect("it is labelled");
    let step = scene
        .run("- {name: work, command: ['true'], pod: {privileged: true}}")
        .fails()
        .await;
    rejected(
        &step,
        "PolicyDenied",
        r#"violates PodSecurity "baseline:latest": privileged"#,
    );
    step.explain_says(&["ask whoever runs the cluster's policies"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_class_that_is_not_there_is_rejected() {
    let scene = Scene::new("priority").await;
    let step = scene
        .run("- {name: work, command: ['true'], pod: {priorityClassName: absent}}")
        .fails()
        .await;
    rejected(&step, "PolicyDenied", "no PriorityClass with name absent was found");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_that_comes_late_is_waited_for() {
    let scene = Scene::new("account").await;
    let run = scene.run("- {name: work, command: ['true'], pod: {serviceAccountName: late}}");
    scene.explained("REFUSED", "service account").await.has(&[
        "(ServiceAccountNotFound): ",
        "late",
        "fails with STARTUP_TIMEOUT",
    ]);
    scene.put::<ServiceAccount>(json!({"metadata": {"name": "late"}})).await;
    run.succeeds().await.succeeded().attempts(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_denies_is_rejected() {
    let scene = Scene::new("denied").await;
    let webhook = Webhook::start(&scene, |_| {
        async { Answer::Deny("images come from registry.example only") }.boxed()
    })
    .await;
    let step = scene.run(WORK).fails().await;
    rejected(
        &step,
        "PolicyDenied",
        r#"admission webhook "pods.policy.example" denied the request: images come from registry.example only"#,
    );
    let pods: Api<Pod> = scene.api();
    let list = pods.list(&ListParams::default()).await.expect("a list");
    assert!(list.items.is_empty(), "no pod was made");
    webhook.remove().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_webhook_that_answers_too_late_is_waited_for() {
    let scene = Scene::new("slow").await;
    let is_slow = Arc::new(AtomicBool::new(true));
    let handler = {
        let is_slow = is_slow.clone();
        move |_| {
            let is_slow = is_slow.load(Ordering::SeqCst);
            async move {
                if is_slow {
                    std::future::pending().await
                } else {
                    Answer::Allow
                }
            }
            .boxed()
        }
    };
    let webhook = Webhook::start(&scene, handler).await;
    let run = scene.run(WORK);
    scene.explained("REFUSED", "pods.policy.example").await.has(&[
        "(WebhookUnreachable): ",
        "failed calling webhook",
        "fails with STARTUP_TIMEOUT",
        "fix the quota, webhook or rights",
    ]);
    is_slow.store(false, Ordering::SeqCst);
    run.succeeds().await.succeeded().attempts(1);
    webhook.remove().await;
    scene.close().await;
}
