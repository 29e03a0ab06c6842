//! `windlass cluster purge`, after an installation that is gone.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use windlass_api::run::v1::RunState;
use windlass_api::server::v1::GetServerInfoRequest;
use windlass_api::server::v1::server_service_client::ServerServiceClient;
use windlass_tests::binaries::binary;
use windlass_tests::deployment::{Deployment, Options, Part};

use super::support::{Scene, Turn, has_finalizer, signal};

async fn installation(deployment: &Deployment) -> String {
    let mut client = ServerServiceClient::new(deployment.channel(Part::Scheduler));
    let info = client.get_server_info(GetServerInfoRequest {}).await;
    info.expect("the server answers").into_inner().installation
}

/// `windlass cluster purge` without any server: exit status, what it printed, what it noted.
fn purge(scene: &Scene, args: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(binary("windlass"))
        .args(["cluster", "purge", "--kubeconfig"])
        .arg(scene.cluster.kubeconfig())
        .arg("--data-dir")
        .arg(scene.deployment.folder().join("nothing"))
        .args(args)
        .env_remove("WINDLASS_SERVER")
        .env("NO_COLOR", "1")
        .output()
        .expect("windlass runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_purge_removes_what_an_abandoned_installation_left_and_nothing_else() {
    let mut scene = Scene::new(Turn::shared().await, "purge", Options::default()).await;
    let neighbour = Deployment::start(Options {
        kubeconfig: Some(scene.cluster.executor_kubeconfig().await),
        ..Options::default()
    })
    .await;
    let wait = "echo > $FOLDER/$WINDLASS_RUN_NAME; until [ -e $FOLDER/go ]; do sleep 0.1; done";
    let abandoned = scene.submit(json!({}), &[("left", wait)]).await;
    let living = scene.submit_to(&neighbour, json!({}), &[("stays", wait)]).await;
    let left = scene.pod_of("left", 1).await;
    let stays = scene.pod_of("stays", 1).await;
    scene.step_in(&abandoned, "left", "RUNNING").await;
    let (gone, other) = (installation(&scene.deployment).await, installation(&neighbour).await);

    // It lives: the server that has it is asked, and its pods run.
    let kubeconfig = scene.cluster.kubeconfig().display().to_string();
    let said = scene.says(&[
        "cluster",
        "purge",
        "--installation",
        &gone,
        "--yes",
        "--force",
        "--kubeconfig",
        &kubeconfig,
    ]);
    assert!(said.starts_with("exit status 2"), "{said}");
    assert!(said.contains(&format!("installation {gone} lives")), "{said}");

    scene.deployment.kill_services();
    // Somebody gave up and deletes the pod: nobody lets it go.
    let pods: Api<Pod> = scene.api();
    let name = left.metadata.name.clone().expect("a name");
    pods.delete(&name, &Default::default())
        .await
        .expect("a deletion begins");

    let (status, listed, _) = purge(&scene, &[]);
    assert_eq!(status, 0);
    assert!(listed.contains(&gone) && listed.contains(&other), "{listed}");

    let (status, listed, notes) = purge(&scene, &["--installation", &gone, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((status, &listed["dryRun"]), (0, &json!(true)), "{notes}");
    let kinds: Vec<_> = listed["objects"].as_array().into_iter().flatten().collect();
    assert!(
        kinds
            .iter()
            .any(|object| object["kind"] == "Pod" && object["name"] == name.as_str())
    );
    assert!(kinds.iter().any(|object| object["kind"] == "ConfigMap"), "{listed:#}");
    assert!(
        notes.contains("nothing was removed; --yes --force removes it"),
        "{notes}"
    );
    assert!(has_finalizer(
        &pods.get(&name).await.expect("a dry run removes nothing")
    ));

    let (status, _, refused) = purge(&scene, &["--installation", &gone, "--yes"]);
    assert_eq!(status, 2, "{refused}");
    assert!(
        refused.contains("may live") && refused.contains("was made"),
        "{refused}"
    );

    let (status, removed, notes) = purge(&scene, &["--installation", &gone, "--yes", "--force", "-o", "yaml"]);
    assert_eq!(status, 0, "{removed}\n{notes}");
    assert!(
        removed.contains("outcome: removed") && !removed.contains("not removed"),
        "{removed}"
    );

    let selector = ListParams::default().labels(&format!("windlass.dev/installation={gone}"));
    assert!(pods.list(&selector).await.expect("a list").items.is_empty());
    let maps: Api<ConfigMap> = scene.api();
    assert!(maps.list(&selector).await.expect("a list").items.is_empty());

    // The neighbour noticed nothing: the same pod runs to its end.
    let after = pods
        .get(&stays.metadata.name.clone().expect("a name"))
        .await
        .expect("it is there");
    assert_eq!(after.metadata.uid, stays.metadata.uid);
    assert!(after.metadata.deletion_timestamp.is_none() && has_finalizer(&after));
    scene.write("go");
    scene.deployment = neighbour;
    scene.ends(&living, RunState::Succeeded).await;
    scene.started(&["left 1", "stays 1"]);
    let (status, _, notes) = purge(&scene, &["--installation", &gone, "--yes"]);
    assert_eq!(status, 0, "a second purge finds nothing: {notes}");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_purge_says_what_others_hold() {
    let mut scene = Scene::new(Turn::shared().await, "held", Options::default()).await;
    let run = scene.submit(json!({}), &[("held", "sleep 600")]).await;
    scene.step_in(&run, "held", "RUNNING").await;
    let pod = scene.pod_of("held", 1).await;
    let name = pod.metadata.name.expect("a name");
    let pods: Api<Pod> = scene.api();
    let finalizers = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let both = finalizers(json!([windlass_manifest::FINALIZER, "example.com/audit"]));
    pods.patch(&name, &PatchParams::default(), &both)
        .await
        .expect("patched");
    let gone = installation(&scene.deployment).await;
    scene.deployment.kill_services();
    let (status, said, notes) = purge(
        &scene,
        &["--installation", &gone, "--yes", "--force", "--timeout", "5s"],
    );
    assert_eq!(status, 4, "{said}\n{notes}");
    assert!(said.contains("held by the finalizer example.com/audit"), "{said}");
    let held = pods
        .get(&name)
        .await
        .expect("others' finalizers are not ours to take off");
    assert_eq!(
        held.metadata.finalizers.as_deref(),
        Some(&["example.com/audit".to_owned()][..])
    );
    pods.patch(&name, &PatchParams::default(), &finalizers(json!([])))
        .await
        .expect("patched");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_without_an_api_server_says_so() {
    let scene = Scene::new(Turn::alone().await, "nobody", Options::default()).await;
    signal(scene.cluster.pid("kube-apiserver"), Signal::SIGKILL);
    let (status, _, notes) = purge(&scene, &[]);
    assert_eq!(status, 3, "{notes}");
    assert!(
        notes.contains("error: the cluster cannot be read: no answer"),
        "{notes}"
    );
    super::support::repair();
    scene.close().await;
}
