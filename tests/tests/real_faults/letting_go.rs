//! I4: nothing unobserved disappears, and nothing is held for ever.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::wait::until_within;

use super::support::{PATIENCE, Scene, Turn, has_finalizer};

const TRAPS: &str = "trap 'echo bye; exit 7' TERM; echo up > $FOLDER/up; while true; do sleep 0.1; done";

fn once() -> serde_json::Value {
    json!({"retries": {"infrastructure": {"attempts": 1}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_pod_that_others_delete_while_no_executor_looks_keeps_its_end() {
    let mut scene = Scene::new(Turn::shared().await, "deleted", Options::default()).await;
    let run = scene.submit(once(), &[("work", TRAPS)]).await;
    scene.file("up").await;
    let name = scene.pod_of("work", 1).await.metadata.name.expect("a name");
    scene.deployment.kill(Part::Executor);
    let pods: Api<Pod> = scene.api();
    pods.delete(&name, &Default::default())
        .await
        .expect("a deletion begins");
    let ended = until_within(PATIENCE, "its container has ended", async || {
        let pod = pods.get(&name).await.map_err(|error| error.to_string())?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        match phase.as_deref() {
            Some("Failed" | "Succeeded") => Ok(pod),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(has_finalizer(&ended), "it stays until its end is stored");
    scene.deployment.start_part(Part::Executor);
    scene.ends(&run, RunState::Failed).await;
    let step = scene.step(&run, "work");
    let attempt = &step["attempts"][0];
    assert_eq!(attempt["failureClass"], "POD_DELETED", "{step:#}");
    assert_eq!(attempt["exitCode"], 7, "{step:#}");
    scene.started(&["work 1"]);
    until_within(PATIENCE, "the pod goes", async || match pods.get_opt(&name).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i4_a_finalizer_that_others_strip_fails_nothing_while_the_pod_lives() {
    let scene = Scene::new(Turn::shared().await, "stripped", Options::default()).await;
    let wait = "echo up > $FOLDER/up; until [ -e $FOLDER/go ]; do sleep 0.1; done; echo out";
    let run = scene.submit(once(), &[("work", wait)]).await;
    scene.file("up").await;
    let name = scene.pod_of("work", 1).await.metadata.name.expect("a name");
    let pods: Api<Pod> = scene.api();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    pods.patch(&name, &PatchParams::default(), &patch)
        .await
        .expect("patched");
    scene.write("go");
    scene.ends(&run, RunState::Succeeded).await;
    scene.started(&["work 1"]);
    assert_eq!(scene.log(&run, "work"), "out\n");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i4_a_pod_that_vanished_is_lost_contact_until_a_person_speaks() {
    let mut scene = Scene::new(Turn::shared().await, "vanished", Options::default()).await;
    let run = scene
        .submit(
            json!({}),
            &[(
                "work",
                "echo $$ > $FOLDER/up.$WINDLASS_ATTEMPT; [ $WINDLASS_ATTEMPT = 2 ] || sleep 600",
            )],
        )
        .await;
    scene.file("up.1").await;
    let name = scene.pod_of("work", 1).await.metadata.name.expect("a name");
    // Nobody of ours sees its end: finalizer off, and deleted by force.
    scene.deployment.kill(Part::Executor);
    let pods: Api<Pod> = scene.api();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    pods.patch(&name, &PatchParams::default(), &patch)
        .await
        .expect("patched");
    let now = kube::api::DeleteParams::default().grace_period(0);
    pods.delete(&name, &now).await.expect("deleted");
    scene.deployment.start_part(Part::Executor);
    scene.step_in(&run, "work", "LOST_CONTACT").await;
    let said = scene.says(&["explain", &run.name, "work"]);
    assert!(said.contains("confirm-dead"), "{said}");
    scene.started(&["work 1"]);
    let said = scene.says(&["confirm-dead", &run.name, "work"]);
    assert!(said.starts_with("exit status 0"), "{said}");
    scene.ends(&run, RunState::Succeeded).await;
    scene.started(&["work 1", "work 2"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_with_the_scheduler_gone_a_deleted_pod_is_let_go_after_its_bound() {
    let options = Options {
        executor_args: ["--strip-after", "5s"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let mut scene = Scene::new(Turn::shared().await, "no-scheduler", options).await;
    let run = scene
        .submit(
            once(),
            &[
                ("work", TRAPS),
                ("other", "until [ -e $FOLDER/go ]; do sleep 0.1; done"),
            ],
        )
        .await;
    scene.file("up").await;
    scene.step_in(&run, "other", "RUNNING").await;
    let name = scene.pod_of("work", 1).await.metadata.name.expect("a name");
    scene.deployment.kill(Part::Scheduler);
    let pods: Api<Pod> = scene.api();
    pods.delete(&name, &Default::default())
        .await
        .expect("a deletion begins");
    until_within(PATIENCE, "the pod goes", async || match pods.get_opt(&name).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(
        has_finalizer(&scene.pod_of("other", 1).await),
        "what nobody deletes is kept"
    );
    // The executor has seen the end and still holds it.
    scene.deployment.start_part(Part::Scheduler);
    scene.write("go");
    scene.ends(&run, RunState::Failed).await;
    let step = scene.step(&run, "work");
    assert_eq!(step["attempts"][0]["failureClass"], "POD_DELETED", "{step:#}");
    scene.started(&["other 1", "work 1"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_two_installations_in_one_namespace_never_touch_each_other() {
    let mut scene = Scene::new(Turn::shared().await, "two", Options::default()).await;
    let options = Options {
        kubeconfig: Some(scene.cluster.executor_kubeconfig().await),
        executor_args: ["--inventory-interval", "1s"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let other = Deployment::start(options).await;
    let wait = "until [ -e $FOLDER/go ]; do sleep 0.1; done";
    let mine = scene.submit(json!({}), &[("mine", wait)]).await;
    scene.step_in(&mine, "mine", "RUNNING").await;
    let before = scene.pod_of("mine", 1).await;
    // The other one runs, cancels and sweeps beside it.
    let ends = scene.submit_to(&other, json!({}), &[("ends", "true")]).await;
    let cancelled = scene.submit_to(&other, json!({}), &[("cancelled", "sleep 600")]).await;
    let first = std::mem::replace(&mut scene.deployment, other);
    scene.ends(&ends, RunState::Succeeded).await;
    scene.step_in(&cancelled, "cancelled", "RUNNING").await;
    let said = scene.says(&["cancel", &cancelled.name, "--wait"]);
    assert!(said.contains("cancelled"), "{said}");
    let pods: Api<Pod> = scene.api();
    until_within(PATIENCE, "its own pods are swept", async || {
        let list = pods
            .list(&Default::default())
            .await
            .map_err(|error| error.to_string())?;
        if list.items.len() == 1 {
            Ok(())
        } else {
            Err(format!("{} pods", list.items.len()))
        }
    })
    .await;
    let after = scene.pod_of("mine", 1).await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert!(after.metadata.deletion_timestamp.is_none() && has_finalizer(&after));
    scene.write("go");
    scene.deployment = first;
    scene.ends(&mine, RunState::Succeeded).await;
    scene.close().await;
}
