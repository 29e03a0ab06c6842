//! Nodes that are drained, contended for, deleted, deaf or without power.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, EvictParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use windlass_api::run::v1::RunState;
use windlass_tests::deployment::Options;
use windlass_tests::wait::until_within;

use super::support::{PATIENCE, Scene, Turn, kubelet, repair, signal};

/// The first attempt stays until it is stopped, or until there is a file `go`; another one ends at once.
const STAYS: &str = "trap 'echo stopped; exit 0' TERM; echo $WINDLASS_ATTEMPT > $FOLDER/up.$WINDLASS_ATTEMPT
if [ $WINDLASS_ATTEMPT = 1 ]; then until [ -e $FOLDER/go ]; do sleep 0.1; done; fi
echo through";

fn on(node: &str) -> Value {
    json!({"pod": {"nodeSelector": {"kubernetes.io/hostname": node}}})
}

fn first_attempt_failed_as(step: &Value, class: &str) {
    assert_eq!(step["state"], "SUCCEEDED", "{step:#}");
    assert_eq!(step["attempts"].as_array().map(Vec::len), Some(2), "{step:#}");
    assert_eq!(step["attempts"][0]["failureClass"], class, "{step:#}");
}

/// behaviours E35, U3
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_costs_an_attempt_and_the_next_one_runs_elsewhere() {
    let scene = Scene::new(Turn::alone().await, "drain", Options::default()).await;
    let run = scene.submit(json!({}), &[("work", STAYS)]).await;
    scene.file("up.1").await;
    let pod = scene.pod_of("work", 1).await;
    let node = pod.spec.and_then(|spec| spec.node_name).expect("a node");
    scene.cordon(&node, true).await;
    let pods: Api<Pod> = scene.api();
    let name = pod.metadata.name.expect("a name");
    pods.evict(&name, &EvictParams::default()).await.expect("an eviction");
    scene.ends(&run, RunState::Succeeded).await;
    scene.cordon(&node, false).await;
    let step = scene.step(&run, "work");
    // It trapped SIGTERM and ended with 0, which is no success.
    first_attempt_failed_as(&step, "EVICTED");
    assert_ne!(step["attempts"][1]["node"], node.as_str(), "{step:#}");
    let said = scene.says(&["get", &run.name, "work"]);
    assert!(
        said.contains("EVICTED") && said.contains("EvictionByEvictionAPI"),
        "{said}"
    );
    scene.started(&["work 1", "work 2"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preempted_step_waits_for_room_and_runs_again() {
    let scene = Scene::new(Turn::alone().await, "preemption", Options::default()).await;
    let classes: Api<PriorityClass> = Api::all(scene.client.clone());
    let class: PriorityClass = serde_json::from_value(json!({
        "metadata": {"name": scene.namespace.name}, "value": 1000, "preemptionPolicy": "PreemptLowerPriority",
    }))
    .expect("a class");
    classes.create(&PostParams::default(), &class).await.expect("a class");
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let node = scene.node(2);
    let status = nodes.get(&node).await.expect("a node").status.expect("a status");
    let cores: u32 = status.allocatable.expect("an amount")["cpu"]
        .0
        .parse()
        .expect("whole cores");
    let most = format!("{}m", cores * 1000 - 400);
    let mut defaults = on(&node);
    defaults["pod"]["resources"] = json!({"requests": {"cpu": most}});
    let run = scene.submit(defaults, &[("work", STAYS)]).await;
    scene.file("up.1").await;
    let important: Pod = serde_json::from_value(json!({
        "metadata": {"name": "important"},
        "spec": {
            "priorityClassName": scene.namespace.name, "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "busybox:1.36", "imagePullPolicy": "Never", "command": ["sleep", "600"],
                "resources": {"requests": {"cpu": most}},
            }],
        },
    }))
    .expect("a pod");
    let pods: Api<Pod> = scene.api();
    pods.create(&PostParams::default(), &important).await.expect("a pod");
    scene
        .step_that(&run, "work", "has lost its first attempt", |step| {
            step["attempts"][0]["failureClass"] == "PREEMPTED"
        })
        .await;
    let explained = until_within(PATIENCE, "the wait is explained", async || {
        let said = scene.says(&["explain", &run.name, "work"]);
        if said.contains("Insufficient cpu") {
            Ok(said)
        } else {
            Err(said)
        }
    })
    .await;
    assert!(explained.starts_with("exit status 0"), "{explained}");
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("important", &at_once).await.expect("deleted");
    scene.ends(&run, RunState::Succeeded).await;
    first_attempt_failed_as(&scene.step(&run, "work"), "PREEMPTED");
    scene.started(&["work 1", "work 2"]);
    classes
        .delete(&scene.namespace.name, &DeleteParams::default())
        .await
        .expect("deleted");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_node_object_that_is_deleted_while_its_containers_live_is_lost_contact() {
    let scene = Scene::new(Turn::alone().await, "gone-node", Options::default()).await;
    let (first, second) = (scene.node(1), scene.node(2));
    scene.cordon(&first, true).await;
    // The first attempt shows that it lives by what it writes.
    let beats = "echo > $FOLDER/up.$WINDLASS_ATTEMPT
if [ $WINDLASS_ATTEMPT = 1 ]; then while true; do date +%s%N > $FOLDER/beat; sleep 0.1; done; fi";
    let run = scene.submit(json!({}), &[("work", beats)]).await;
    scene.file("up.1").await;
    scene.file("beat").await;
    // A kubelet that hears of the deletion would end the container, and prove its death.
    let deaf = kubelet(&second);
    signal(deaf, Signal::SIGSTOP);
    let nodes: Api<Node> = Api::all(scene.client.clone());
    nodes.delete(&second, &DeleteParams::default()).await.expect("deleted");
    scene.cordon(&first, false).await;

    // PodGC writes Failed after its quarantine of 40 s.
    let pods: Api<Pod> = scene.api();
    let name = scene.pod_of("work", 1).await.metadata.name.expect("a name");
    until_within(PATIENCE, "PodGC says that the pod has failed", async || {
        let pod = pods.get(&name).await.map_err(|error| error.to_string())?;
        let phase = pod.status.and_then(|status| status.phase);
        if phase.as_deref() == Some("Failed") {
            Ok(())
        } else {
            Err(format!("{phase:?}"))
        }
    })
    .await;
    let step = scene.step_in(&run, "work", "LOST_CONTACT").await;
    assert_eq!(step["attempts"].as_array().map(Vec::len), Some(1), "{step:#}");
    let beat = scene.file("beat").await;
    until_within(PATIENCE, "the container lives", async || {
        let now = scene.file("beat").await;
        if now == beat { Err("no beat") } else { Ok(()) }
    })
    .await;
    let said = scene.says(&["explain", &run.name, "work"]);
    assert!(said.contains("confirm-dead") && said.contains(&second), "{said}");
    scene.started(&["work 1"]);

    let said = scene.says(&["confirm-dead", &run.name, "work"]);
    assert!(said.starts_with("exit status 0"), "{said}");
    scene.ends(&run, RunState::Succeeded).await;
    let step = scene.step(&run, "work");
    first_attempt_failed_as(&step, "NODE_LOST");
    assert_eq!(step["attempts"][1]["node"], first.as_str(), "{step:#}");
    scene.started(&["work 1", "work 2"]);
    // It registers its node when it starts.
    signal(deaf, Signal::SIGKILL);
    repair();
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_kubelet_that_dies_and_comes_back_fails_no_step() {
    let scene = Scene::new(Turn::alone().await, "kubelet", Options::default()).await;
    let node = scene.node(2);
    let run = scene
        .submit(
            on(&node),
            &[
                (
                    "goes-on",
                    "echo up > $FOLDER/up; until [ -e $FOLDER/go ]; do sleep 0.1; done; echo through",
                ),
                (
                    "ends-meanwhile",
                    "echo up > $FOLDER/up.too; until [ -e $FOLDER/end ]; do sleep 0.05; done; exit 9",
                ),
            ],
        )
        .await;
    scene.file("up").await;
    scene.file("up.too").await;
    scene.step_in(&run, "goes-on", "RUNNING").await;
    scene.step_in(&run, "ends-meanwhile", "RUNNING").await;
    // One container ends while no kubelet hears it.
    let old = kubelet(&node);
    signal(old, Signal::SIGSTOP);
    scene.write("end");
    signal(old, Signal::SIGKILL);
    let ended = scene.step_in(&run, "ends-meanwhile", "FAILED").await;
    assert_eq!(ended["attempts"][0]["failureClass"], "USER_ERROR", "{ended:#}");
    assert_eq!(ended["attempts"][0]["exitCode"], 9, "{ended:#}");
    scene.write("go");
    scene.ends(&run, RunState::Failed).await;
    assert_eq!(scene.step(&run, "goes-on")["state"], "SUCCEEDED");
    assert_eq!(scene.log(&run, "goes-on"), "through\n");
    scene.started(&["ends-meanwhile 1", "goes-on 1"]);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_node_that_lost_power_and_boots_again_proves_death() {
    let scene = Scene::new(Turn::alone().await, "power-cut", Options::default()).await;
    let node = scene.node(2);
    let run = scene.submit(on(&node), &[("work", STAYS)]).await;
    scene.file("up.1").await;
    scene.step_in(&run, "work", "RUNNING").await;
    let outer = scene.cluster.pid(&format!("node-{node}"));
    let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).expect("its children");
    for child in children.split_whitespace() {
        signal(child.parse().expect("a pid"), Signal::SIGKILL);
    }
    // Dead and not heard of again: that alone ends nothing.
    let step = scene.step(&run, "work");
    assert_eq!(step["attempts"].as_array().map(Vec::len), Some(1), "{step:#}");
    scene.cluster.up(2);
    scene.ends(&run, RunState::Succeeded).await;
    let step = scene.step(&run, "work");
    first_attempt_failed_as(&step, "NODE_LOST");
    scene.started(&["work 1", "work 2"]);
    println!("{}", scene.says(&["get", &run.name, "work"]));
    scene.close().await;
}
