//! Pods as processes, through the `kube` client.

mod support;

use std::time::Duration;

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use support::{Cluster, refusal, shell_pod};
use windlass_local_cluster::{BadImage, Completion, FaultConfig, OnStop};

fn end_of(pod: &Value) -> Value {
    pod["status"]["containerStatuses"][0]["state"]["terminated"].clone()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    conditions.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

async fn log(cluster: &Cluster, name: &str) -> String {
    cluster.pods().logs(name, &LogParams::default()).await.expect("a log")
}

#[tokio::test]
async fn a_pod_runs_to_its_end() {
    let cluster = Cluster::start().await;
    cluster
        .create(shell_pod("good", "echo out; echo err >&2; printf tail"))
        .await;
    let pod = cluster.wait_phase("good", "Succeeded").await;
    assert_eq!(pod["spec"]["nodeName"], "local");
    assert_eq!(end_of(&pod)["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready")["reason"], "PodCompleted");
    let text = log(&cluster, "good").await;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out", "tail"]);

    cluster.create(shell_pod("bad", "exit 3")).await;
    let pod = cluster.wait_phase("bad", "Failed").await;
    assert_eq!(
        (&end_of(&pod)["exitCode"], &end_of(&pod)["reason"]),
        (&json!(3), &json!("Error"))
    );

    cluster.create(shell_pod("shot", "kill -9 $$$$")).await;
    let pod = cluster.wait_phase("shot", "Failed").await;
    assert_eq!(end_of(&pod)["exitCode"], 137);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let cluster = Cluster::start().await;
    let mut missing = shell_pod("missing", "");
    missing["spec"]["containers"][0]["command"] = json!(["no-such-program"]);
    cluster.create(missing).await;
    let end = end_of(&cluster.wait_phase("missing", "Failed").await);
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(128), &json!("StartError")));
    assert!(
        end["message"]
            .as_str()
            .expect("text")
            .contains("executable file not found in $PATH"),
        "{end}"
    );
    // It was never running, and no event says so.
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let of_it = ListParams::default().fields("involvedObject.name=missing");
    let reasons: Vec<_> = events.list(&of_it).await.expect("events").items;
    let reasons: Vec<_> = reasons.into_iter().filter_map(|event| event.reason).collect();
    assert!(reasons.contains(&"Failed".to_owned()), "{reasons:?}");
    assert!(!reasons.contains(&"Started".to_owned()), "{reasons:?}");

    let mut nowhere = shell_pod("nowhere", "true");
    nowhere["spec"]["containers"][0]["workingDir"] = json!("/etc/passwd");
    cluster.create(nowhere).await;
    let end = end_of(&cluster.wait_phase("nowhere", "Failed").await);
    assert_eq!(
        end["message"],
        "failed to create containerd task: failed to create shim task: chdir to cwd (\"/etc/passwd\") set in \
         config.json failed: not a directory: unknown"
    );

    let mut bare = shell_pod("bare", "");
    bare["spec"]["containers"][0]["command"] = Value::Null;
    cluster.create(bare).await;
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    cluster
        .wait("bare", "refused", |pod| waiting(pod) == "CreateContainerError")
        .await;
}

#[tokio::test]
async fn environments_come_from_everywhere() {
    let cluster = Cluster::start().await;
    let mut pod = shell_pod("env", "echo \"$A|$B|$NAME|$LABEL|$TOKEN|$X_K|$MEM|$0|$1\"");
    pod["metadata"]["labels"] = json!({"team": "ml"});
    let container = &mut pod["spec"]["containers"][0];
    container["args"] = json!(["$(B)", "$$(B)"]);
    container["resources"] = json!({"limits": {"memory": "64Mi"}});
    container["envFrom"] = json!([{"prefix": "X_", "configMapRef": {"name": "settings"}}]);
    container["env"] = json!([
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "login", "key": "token"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]);
    cluster.create(pod).await;
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let stuck = cluster
        .wait("env", "waiting", |p| {
            waiting(p)["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(waiting(&stuck)["message"], "configmap \"settings\" not found");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"K": "v"}})).expect("map");
    maps.create(&PostParams::default(), &map).await.expect("created");
    let missing = "secret \"login\" not found";
    cluster
        .wait("env", "waiting for the secret", |p| waiting(p)["message"] == missing)
        .await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "default");
    let secret = json!({"metadata": {"name": "login"}, "stringData": {"token": "s3"}});
    let secret = serde_json::from_value(secret).expect("secret");
    secrets.create(&PostParams::default(), &secret).await.expect("created");
    cluster.wait_phase("env", "Succeeded").await;
    assert_eq!(log(&cluster, "env").await, "1|12|env|ml|s3|v|64|12|$(B)\n");
}

#[tokio::test]
async fn mounted_files_are_found_at_their_paths() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = json!({"metadata": {"name": "files"}, "data": {"run": "cat \"$DATA/in\"; pwd; echo why > $WINDLASS_TERMINATION_LOG"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).expect("map"))
        .await
        .expect("created");
    let shared = cluster.folder.path().join("shared");
    let mut pod = shell_pod("files", "");
    pod["spec"]["volumes"] = json!([
        {"name": "files", "configMap": {"name": "files", "items": [{"key": "run", "path": "bin/run.sh"}]}},
        {"name": "work", "hostPath": {"path": shared, "type": "DirectoryOrCreate"}},
        {"name": "scratch", "emptyDir": {}},
    ]);
    pod["spec"]["initContainers"] = json!([{
        "name": "fill", "image": "none", "command": ["sh", "-c", "echo content > /work/in; touch /scratch/x"],
        "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "scratch", "mountPath": "/scratch"}],
    }]);
    let container = &mut pod["spec"]["containers"][0];
    container["command"] = json!(["sh", "/windlass/files/bin/run.sh"]);
    container["workingDir"] = json!("/work");
    container["env"] = json!([{"name": "DATA", "value": "/work"}]);
    container["volumeMounts"] = json!([
        {"name": "files", "mountPath": "/windlass/files"},
        {"name": "work", "mountPath": "/work"},
    ]);
    cluster.create(pod).await;
    let pod = cluster.wait_phase("files", "Succeeded").await;
    let params = LogParams {
        container: Some("main".into()),
        ..LogParams::default()
    };
    let text = cluster.pods().logs("files", &params).await.expect("a log");
    assert_eq!(text, format!("content\n{}\n", shared.display()));
    assert_eq!(end_of(&pod)["message"], "why\n");
    let error = cluster
        .pods()
        .logs("files", &LogParams::default())
        .await
        .expect_err("which container");
    assert!(
        refusal(error)
            .2
            .starts_with("a container name must be specified for pod files")
    );
}

#[tokio::test]
async fn a_failed_init_container_fails_the_pod_and_sidecars_end_with_it() {
    let cluster = Cluster::start().await;
    let mut pod = shell_pod("init", "true");
    pod["spec"]["initContainers"] = json!([{"name": "first", "image": "none", "command": ["sh", "-c", "exit 9"]}]);
    cluster.create(pod).await;
    let pod = cluster.wait_phase("init", "Failed").await;
    assert_eq!(
        pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        9
    );
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );

    let mut pod = shell_pod("sidecar", "exit 0");
    pod["spec"]["initContainers"] = json!([{
        "name": "proxy", "image": "none", "restartPolicy": "Always", "command": ["sleep", "600"],
    }]);
    cluster.create(pod).await;
    let pod = cluster.wait_phase("sidecar", "Succeeded").await;
    assert_eq!(
        pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        143
    );
}

#[tokio::test]
async fn deletion_asks_first_and_then_kills_the_whole_group() {
    let cluster = Cluster::start().await;
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut pod = shell_pod("polite", polite);
    pod["metadata"]["finalizers"] = json!(["windlass.dev/observed"]);
    cluster.create(pod).await;
    wait_log(&cluster, "polite", "ready").await;
    cluster
        .pods()
        .delete("polite", &DeleteParams::default())
        .await
        .expect("deleted");
    let pod = cluster.wait_phase("polite", "Succeeded").await;
    assert!(
        pod["metadata"]["deletionTimestamp"].is_string(),
        "it trapped the signal, and stays while held"
    );
    assert_eq!(end_of(&pod)["exitCode"], 0);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster
        .pods()
        .patch("polite", &PatchParams::default(), &free)
        .await
        .expect("freed");
    cluster.wait_gone("polite").await;

    // This one ignores the signal, and has a child that left its group.
    let marker = cluster.folder.path().join("pids");
    let script = format!(
        "trap '' TERM; setsid sleep 600 & echo $! >> {m}; sleep 600 & echo $! >> {m}; echo ready; wait; sleep 600",
        m = marker.display()
    );
    cluster.create(shell_pod("rude", &script)).await;
    wait_log(&cluster, "rude", "ready").await;
    let pids = std::fs::read_to_string(&marker).expect("pids");
    cluster
        .pods()
        .delete("rude", &DeleteParams::default().grace_period(1))
        .await
        .expect("deleted");
    cluster.wait_gone("rude").await;
    for pid in pids.split_whitespace() {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} lives on"
        );
    }
}

async fn wait_log(cluster: &Cluster, name: &str, text: &str) {
    for _ in 0..2400 {
        if cluster
            .pods()
            .logs(name, &LogParams::default())
            .await
            .is_ok_and(|log| log.contains(text))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} never wrote {text}");
}

#[tokio::test]
async fn a_deadline_ends_a_pod() {
    let cluster = Cluster::start().await;
    let mut pod = shell_pod("slow", "exec sleep 600");
    pod["spec"]["activeDeadlineSeconds"] = json!(3);
    cluster.create(pod).await;
    let pod = cluster.wait_phase("slow", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(
        pod["status"]["message"],
        "Pod was active on the node longer than the specified deadline"
    );
    assert_eq!(end_of(&pod)["exitCode"], 143);
}

#[tokio::test]
async fn what_the_node_cannot_serve_stays_pending() {
    let cluster = Cluster::start().await;
    let mut pod = shell_pod("gpu", "true");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
    cluster.create(pod).await;
    let pod = cluster
        .wait("gpu", "refused", |p| p["status"]["conditions"].is_array())
        .await;
    let scheduled = condition(&pod, "PodScheduled");
    assert_eq!(
        (&scheduled["status"], &scheduled["reason"]),
        (&json!("False"), &json!("Unschedulable"))
    );
    assert_eq!(
        scheduled["message"],
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    );
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let about = ListParams::default().fields("involvedObject.name=gpu");
    for _ in 0..2400 {
        if !events.list(&about).await.expect("events").items.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let listed = events.list(&about).await.expect("events");
    assert_eq!(listed.items[0].reason.as_deref(), Some("FailedScheduling"));
}

#[tokio::test]
async fn more_pods_than_slots_wait_for_their_turn() {
    let cluster = Cluster::with(|c| c.most_pods = 1).await;
    let gate = cluster.folder.path().join("gate");
    let script = format!("while ! test -e {}; do sleep 0.02; done", gate.display());
    cluster.create(shell_pod("first", &script)).await;
    cluster.wait_phase("first", "Running").await;
    cluster.create(shell_pod("second", "true")).await;
    let pod = cluster
        .wait("second", "refused", |p| p["status"]["conditions"].is_array())
        .await;
    assert_eq!(
        condition(&pod, "PodScheduled")["message"],
        "0/1 nodes are available: 1 Too many pods."
    );
    std::fs::write(gate, "").expect("gate");
    cluster.wait_phase("second", "Succeeded").await;
}

#[tokio::test]
async fn logs_can_be_followed_and_cut() {
    let cluster = Cluster::start().await;
    let gate = cluster.folder.path().join("gate");
    let script = format!(
        "echo one; echo two; while ! test -e {}; do sleep 0.02; done; echo three",
        gate.display()
    );
    cluster.create(shell_pod("talk", &script)).await;
    wait_log(&cluster, "talk", "two").await;
    let params = LogParams {
        follow: true,
        timestamps: true,
        ..LogParams::default()
    };
    let mut stream = Box::pin(cluster.pods().log_stream("talk", &params).await.expect("follows"));
    std::fs::write(gate, "").expect("gate");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("to its end");
    let words: Vec<_> = text
        .lines()
        .map(|l| l.split_once(' ').expect("time and text"))
        .collect();
    assert_eq!(words.iter().map(|w| w.1).collect::<Vec<_>>(), ["one", "two", "three"]);
    let times: Vec<jiff::Timestamp> = words.iter().map(|w| w.0.parse().expect("a time")).collect();
    assert!(times.is_sorted());
    let logs = async |params: LogParams| cluster.pods().logs("talk", &params).await.expect("a log");
    assert_eq!(
        logs(LogParams {
            tail_lines: Some(1),
            ..LogParams::default()
        })
        .await,
        "three\n"
    );
    assert_eq!(
        logs(LogParams {
            limit_bytes: Some(5),
            ..LogParams::default()
        })
        .await,
        "one\nt"
    );
    let error = cluster
        .pods()
        .logs(
            "talk",
            &LogParams {
                previous: true,
                ..LogParams::default()
            },
        )
        .await;
    assert_eq!(refusal(error.expect_err("no previous")).0, 400);
}

#[tokio::test]
async fn faults_of_images_nodes_and_memory() {
    let cluster = Cluster::start().await;
    cluster.handle.faults().add_bad_image(BadImage {
        contains: "broken".into(),
        message: "not found".into(),
    });
    let mut pod = shell_pod("pull", "true");
    pod["spec"]["containers"][0]["image"] = json!("registry/broken:1");
    cluster.create(pod).await;
    let reason = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    cluster
        .wait("pull", "backing off", |p| reason(p) == "ImagePullBackOff")
        .await;

    cluster.create(shell_pod("big", "sleep 600")).await;
    cluster.wait_phase("big", "Running").await;
    cluster.handle.out_of_memory("default", "big", "main").expect("ordered");
    let end = end_of(&cluster.wait_phase("big", "Failed").await);
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("OOMKilled"), &json!(137)));

    cluster.create(shell_pod("evicted", "sleep 600")).await;
    cluster.wait_phase("evicted", "Running").await;
    cluster
        .handle
        .evict("default", "evicted", "The node was low on resource: memory.")
        .expect("ordered");
    let pod = cluster.wait_phase("evicted", "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(condition(&pod, "DisruptionTarget")["reason"], "TerminationByKubelet");

    cluster.create(shell_pod("lost", "sleep 600")).await;
    cluster.wait_phase("lost", "Running").await;
    cluster.handle.lose_node().await.expect("lost");
    let node: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client.clone());
    let seen = node.get("local").await.expect("node");
    assert_eq!(seen.spec.and_then(|s| s.taints).map(|t| t.len()), Some(2));
    assert_eq!(
        condition(&json!(cluster.pods().get("lost").await.expect("pod")), "Ready")["status"],
        "False"
    );
    cluster.handle.return_node(true).await.expect("back");
    let pod = cluster.wait_phase("lost", "Failed").await;
    assert_eq!(end_of(&pod)["reason"], "ContainerStatusUnknown");
    let again = node.get("local").await.expect("node");
    assert!(again.spec.and_then(|s| s.taints).is_none());
}

#[tokio::test]
async fn a_reboot_starts_what_had_not_started_and_ends_the_rest() {
    let cluster = Cluster::start().await;
    cluster.handle.faults().add_bad_image(BadImage {
        contains: "broken".into(),
        message: "not found".into(),
    });
    let mut fresh = shell_pod("fresh", "true");
    fresh["spec"]["containers"][0]["image"] = json!("registry/broken:1");
    let mut begun = fresh.clone();
    begun["metadata"]["name"] = json!("begun");
    begun["spec"]["initContainers"] = json!([{"name": "first", "image": "none", "command": ["true"]}]);
    for (name, pod) in [("fresh", fresh), ("begun", begun)] {
        cluster.create(pod).await;
        let reason = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
        cluster
            .wait(name, "backing off", |p| reason(p) == "ImagePullBackOff")
            .await;
    }
    cluster.handle.lose_node().await.expect("lost");
    cluster.handle.return_node(true).await.expect("back");
    cluster.wait_phase("begun", "Failed").await;
    cluster.handle.faults().set(FaultConfig::default());
    cluster.wait_phase("fresh", "Succeeded").await;
}

#[tokio::test]
async fn a_pod_without_a_node_has_an_empty_log() {
    let cluster = Cluster::start().await;
    let mut pod = shell_pod("nowhere", "true");
    pod["spec"]["nodeSelector"] = json!({"no": "such-node"});
    cluster.create(pod).await;
    assert_eq!(log(&cluster, "nowhere").await, "");
}

#[tokio::test]
async fn containers_run_on_while_the_cluster_is_away() {
    let cluster = Cluster::with(|c| c.on_stop = OnStop::Leave).await;
    let gate = cluster.folder.path().join("gate");
    let starts = cluster.folder.path().join("starts");
    let script = format!(
        "echo start >> {}; echo before; while ! test -e {}; do sleep 0.02; done; echo after; exit 7",
        starts.display(),
        gate.display()
    );
    cluster.create(shell_pod("long", &script)).await;
    wait_log(&cluster, "long", "before").await;
    cluster
        .create(shell_pod(
            "short",
            &format!("while ! test -e {}; do sleep 0.02; done; exit 4", gate.display()),
        ))
        .await;
    cluster.wait_phase("short", "Running").await;
    let folder = cluster.stop().await;
    std::fs::write(&gate, "").expect("gate");
    let cluster = Cluster::in_folder(folder, |_| {}).await;
    let pod = cluster.wait_phase("long", "Failed").await;
    assert_eq!(end_of(&pod)["exitCode"], 7);
    assert_eq!(end_of(&cluster.wait_phase("short", "Failed").await)["exitCode"], 4);
    assert_eq!(log(&cluster, "long").await, "before\nafter\n");
    assert_eq!(
        std::fs::read_to_string(starts).expect("starts"),
        "start\n",
        "started once"
    );
}

#[tokio::test]
async fn restarts_follow_the_policy() {
    let cluster = Cluster::start().await;
    let marker = cluster.folder.path().join("second");
    let script = format!(
        "if test -e {m}; then echo again; exit 0; fi; touch {m}; echo once; exit 1",
        m = marker.display()
    );
    let mut pod = shell_pod("retry", &script);
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    cluster.create(pod).await;
    let pod = cluster.wait_phase("retry", "Succeeded").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    assert_eq!(cluster.pods().logs("retry", &previous).await.expect("log"), "once\n");
    assert_eq!(log(&cluster, "retry").await, "again\n");
}

#[tokio::test]
async fn instant_pods_end_without_processes() {
    let cluster = Cluster::with(|c| c.completion = Completion::Instant { exit_code: 0 }).await;
    cluster.create(shell_pod("a", "true")).await;
    let mut failing = shell_pod("b", "true");
    failing["metadata"]["annotations"] = json!({"local-cluster.windlass.dev/exit-code": "5"});
    cluster.create(failing).await;
    cluster.wait_phase("a", "Succeeded").await;
    assert_eq!(end_of(&cluster.wait_phase("b", "Failed").await)["exitCode"], 5);
}

#[tokio::test]
async fn an_eviction_request_marks_and_deletes() {
    let cluster = Cluster::start().await;
    let mut pod = shell_pod("one", "sleep 600");
    pod["metadata"]["finalizers"] = json!(["windlass.dev/observed"]);
    cluster.create(pod).await;
    cluster.wait_phase("one", "Running").await;
    cluster
        .pods()
        .evict("one", &kube::api::EvictParams::default())
        .await
        .expect("evicted");
    let pod = cluster.wait_phase("one", "Failed").await;
    assert_eq!(condition(&pod, "DisruptionTarget")["reason"], "EvictionByEvictionAPI");
    assert!(
        cluster
            .pods()
            .get("one")
            .await
            .expect("held")
            .metadata
            .deletion_timestamp
            .is_some()
    );
    assert!(!cluster.pods().get("one").await.expect("held").finalizers().is_empty());
}
