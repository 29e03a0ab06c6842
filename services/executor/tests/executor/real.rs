//! Namespaces of tests on a real cluster, and the rights of an executor there: those of the chart and no others.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{KUBECONFIG, client, kubeconfig};

/// Whom the chart gives its rights: the account of a release in a namespace.
const RELEASE: &str = "windlass";
const HOME: &str = "windlass-executor-tests";

/// A client that may do what the chart lets an executor do.
pub fn as_executor(config: kube::Config) -> kube::Client {
    let user = format!("system:serviceaccount:{HOME}:{RELEASE}-executor");
    let user = http::HeaderValue::from_str(&user).expect("a user");
    let layer = tower::util::MapRequestLayer::new(move |mut request: http::Request<kube::client::Body>| {
        request.headers_mut().insert("impersonate-user", user.clone());
        request
    });
    let builder = kube::client::ClientBuilder::try_from(config).expect("a client");
    builder.with_layer(&layer).build()
}

/// Applies the chart's rights: those of the whole cluster, and those in a namespace.
fn give_rights(namespace: &str) {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let program = |name: &str| Command::new(repository.join("target/cluster/bin").join(name));
    let helm = program("helm")
        .args([
            "template",
            RELEASE,
            "--namespace",
            HOME,
            "--show-only",
            "templates/rbac.yaml",
            "--set-json",
        ])
        .arg(format!("stepNamespaces={}", json!([namespace])))
        .arg(repository.join("deploy/chart"))
        .output()
        .expect("helm runs: tests/cluster/build.sh builds it");
    assert!(helm.status.success(), "{}", String::from_utf8_lossy(&helm.stderr));
    let mut kubectl = program("kubectl")
        .arg("--kubeconfig")
        .arg(std::env::var_os(KUBECONFIG).expect("the tests run on it"))
        .args(["apply", "--server-side", "--force-conflicts", "--filename", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("kubectl runs: tests/cluster/build.sh builds it");
    let home = format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {HOME}}}\n---\n");
    let mut pipe = kubectl.stdin.take().expect("a pipe");
    pipe.write_all(home.as_bytes())
        .and_then(|()| pipe.write_all(&helm.stdout))
        .expect("kubectl reads");
    drop(pipe);
    assert!(
        kubectl.wait().expect("kubectl ends").success(),
        "the chart's rights are refused"
    );
}

/// A namespace of a test's own, in which pods are accepted and an executor has its rights.
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
    let granted = name.clone();
    tokio::task::spawn_blocking(move || give_rights(&granted))
        .await
        .expect("the rights are given");
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
