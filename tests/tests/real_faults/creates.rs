//! I2: whatever becomes of a create, one pod for an attempt, started once.

use http::Method;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{Api, ListParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::json;
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::{Options, Part};
use windlass_tests::wait::until_within;

use super::support::{Fate, PATIENCE, Proxy, Scene, Seen, Turn, signal};

const STEPS: [(&str, &str); 3] = [("a", "echo done"), ("b", "echo done"), ("c", "echo done")];
const STARTED: [&str; 3] = ["a 1", "b 1", "c 1"];

fn creates_a_pod(method: &Method, path: &str) -> bool {
    method == Method::POST && path.ends_with("/pods")
}

fn lost(seen: &[Seen]) -> usize {
    seen.iter().filter(|one| one.fate == Fate::AnswerLost).count()
}

fn through(proxy: &Proxy, folder: &tempfile::TempDir, executor_args: &[&str]) -> Options {
    let kubeconfig = folder.path().join("kubeconfig");
    proxy.write_kubeconfig(&kubeconfig);
    Options {
        kubeconfig: Some(kubeconfig),
        executor_args: executor_args.iter().map(|text| (*text).to_owned()).collect(),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_creates_whose_replies_are_lost_are_adopted() {
    // The first answer of each pod is lost, and so is the first one of the question that follows: then the create comes again, and is 409.
    let proxy = Proxy::start(|method, path, seen| {
        let asks = method == Method::GET && path.contains("/pods/") && !path.contains("/log");
        let before = seen.iter().any(|one| one.method == *method && one.path == *path);
        match (creates_a_pod(method, path), asks && !before) {
            (true, _) if lost(seen) < 6 => Fate::AnswerLost,
            (_, true) => Fate::AnswerLost,
            _ => Fate::Answered,
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::new(Turn::shared().await, "lost-replies", through(&proxy, &folder, &[])).await;
    let run = scene.submit(json!({}), &STEPS).await;
    let steps = scene.ends(&run, RunState::Succeeded).await;
    assert!(steps.iter().all(|step| step.attempts.len() == 1), "{steps:#?}");
    scene.started(&STARTED);
    let seen = proxy.seen();
    let made = seen.iter().filter(|one| creates_a_pod(&one.method, &one.path));
    let made: Vec<_> = made.map(|one| (one.status, one.fate)).collect();
    assert!(made.contains(&(201, Fate::AnswerLost)), "{made:?}");
    assert_eq!(
        made.iter().filter(|(status, _)| *status == 201).count(),
        STEPS.len(),
        "{made:?}"
    );
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_quota_that_refuses_cannot_hide_a_pod_that_exists() {
    // Every first answer is lost; the quota allows three pods, so a repeated create is refused with 403 and not with 409.
    let proxy = Proxy::start(|method, path, seen| {
        let first = lost(seen) < STEPS.len();
        match creates_a_pod(method, path) && first {
            true => Fate::AnswerLost,
            false => Fate::Answered,
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::new(Turn::shared().await, "quota", through(&proxy, &folder, &[])).await;
    let quota: ResourceQuota = serde_json::from_value(json!({
        "metadata": {"name": "three"}, "spec": {"hard": {"pods": "3"}},
    }))
    .expect("a quota");
    let quotas: Api<ResourceQuota> = scene.api();
    quotas.create(&PostParams::default(), &quota).await.expect("a quota");
    until_within(PATIENCE, "the quota counts", async || {
        let quota = quotas.get("three").await.map_err(|error| error.to_string())?;
        let status = quota.status.and_then(|status| status.hard);
        status.ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let wait = "until [ -e $FOLDER/go ]; do sleep 0.1; done";
    let run = scene.submit(json!({}), &STEPS.map(|(name, _)| (name, wait))).await;
    for attempt in ["a", "b", "c"] {
        scene.step_in(&run, attempt, "RUNNING").await;
    }
    let pods: Api<Pod> = scene.api();
    let uids = async || {
        let list = pods.list(&ListParams::default()).await.expect("a list");
        list.items
            .into_iter()
            .filter_map(|pod| pod.metadata.uid)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = uids().await;
    assert_eq!(before.len(), 3);
    // A fourth one waits, and says for what.
    let fourth = scene.submit(json!({}), &[("d", wait)]).await;
    let explained = until_within(PATIENCE, "the quota is named", async || {
        let said = scene.says(&["explain", &fourth.name, "d"]);
        if said.contains("exceeded quota") {
            Ok(said)
        } else {
            Err(said)
        }
    })
    .await;
    assert!(explained.contains("three"), "{explained}");
    assert_eq!(uids().await, before);
    scene.write("go");
    scene.ends(&run, RunState::Succeeded).await;
    scene.ends(&fourth, RunState::Succeeded).await;
    scene.started(&["a 1", "b 1", "c 1", "d 1"]);
    assert_eq!(lost(&proxy.seen()), STEPS.len());
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_frozen_and_a_killed_executor_are_taken_over_from_without_a_write() {
    let options = Options {
        two_executors: true,
        scheduler_args: ["--lease", "3s"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let mut scene = Scene::new(Turn::shared().await, "takeover", options).await;
    let script = "until [ -e $FOLDER/go ]; do sleep 0.1; done; echo \"end of $WINDLASS_STEP\"";
    let names: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
    let steps: Vec<_> = names.iter().map(|name| (name.as_str(), script)).collect();
    let run = scene.submit(json!({}), &steps).await;
    for name in &names {
        scene.step_in(&run, name, "RUNNING").await;
    }
    let pods: Api<Pod> = scene.api();
    // What a kubelet still has to say changes a pod, too: only our own writes count.
    let written = async || {
        let list = pods.list(&ListParams::default()).await.expect("a list");
        let ours = |pod: Pod| {
            let entries = pod.metadata.managed_fields.unwrap_or_default().into_iter();
            let ours: Vec<_> = entries
                .filter(|entry| entry.subresource.is_none())
                .map(|entry| format!("{:?} {:?} {:?}", entry.manager, entry.operation, entry.time))
                .collect();
            (pod.metadata.uid, pod.metadata.labels, pod.metadata.finalizers, ours)
        };
        list.items.into_iter().map(ours).collect::<Vec<_>>()
    };
    let before = written().await;
    assert_eq!(before.len(), names.len());

    let frozen = i32::try_from(scene.deployment.pid(Part::Executor)).expect("a pid");
    signal(frozen, Signal::SIGSTOP);
    alone(&scene).await;
    assert_eq!(written().await, before, "a takeover writes nothing");
    signal(frozen, Signal::SIGCONT);
    together(&scene).await;
    scene.deployment.kill(Part::SecondExecutor);
    alone(&scene).await;
    assert_eq!(written().await, before, "a takeover writes nothing");

    scene.write("go");
    let ended = scene.ends(&run, RunState::Succeeded).await;
    assert!(ended.iter().all(|step| step.attempts.len() == 1), "{ended:#?}");
    let expected: Vec<_> = names.iter().map(|name| format!("{name} 1")).collect();
    scene.started(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        assert_eq!(scene.log(&run, name), format!("end of {name}\n"));
    }
    scene.close().await;
}

async fn alone(scene: &Scene) {
    executors(scene, 1).await;
}

async fn together(scene: &Scene) {
    executors(scene, 2).await;
}

async fn executors(scene: &Scene, count: u32) {
    use windlass_api::server::v1::GetServerInfoRequest;
    use windlass_api::server::v1::server_service_client::ServerServiceClient;
    until_within(PATIENCE, "so many executors are connected", async || {
        let mut client = ServerServiceClient::new(scene.deployment.channel(Part::Scheduler));
        let info = client.get_server_info(GetServerInfoRequest {}).await;
        let clusters = info.map_err(|status| status.to_string())?.into_inner().clusters;
        let connected: u32 = clusters.iter().map(|cluster| cluster.executors).sum();
        if connected == count {
            Ok(())
        } else {
            Err(format!("{connected}"))
        }
    })
    .await;
}
