//! The chart's rights are enough for a run from its first pod to its last trace, and are no more than it needs.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tonic_types::StatusExt as _;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::run::v1::{CancelRunRequest, Run, RunState, SubmitRunRequest};
use windlass_api::secret::v1::secret_service_client::SecretServiceClient;
use windlass_api::secret::v1::{DeleteSecretRequest, ListSecretsRequest, PutSecretMode, PutSecretRequest};
use windlass_tests::client::watch_to_end_in;
use windlass_tests::deployment::{Deployment, Options, Part};
use windlass_tests::pipelines::from_json;
use windlass_tests::real_cluster::RealCluster;
use windlass_tests::wait::{until, until_within};

/// Sweeps and garbage collection take their time on a busy machine.
const CLEANED: std::time::Duration = std::time::Duration::from_secs(180);

async fn submit(deployment: &Deployment, namespace: &str, steps: serde_json::Value) -> Run {
    let pipeline = from_json(json!({
        "name": "rights",
        "defaults": {"image": "busybox:1.36", "terminationGrace": "1s"},
        "steps": steps,
    }));
    let request = SubmitRunRequest {
        namespace: namespace.to_owned(),
        request_id: uuid::Uuid::new_v4().to_string(),
        pipeline: Some(pipeline_to_proto(&pipeline)),
        ..SubmitRunRequest::default()
    };
    let response = deployment.runs().submit_run(request).await.expect("accepted");
    response.into_inner().run.expect("a run")
}

/// Every right to Secrets is needed once: a create; a change, which looks first; a list; a deletion.
async fn keep_a_secret(deployment: &Deployment, namespace: &str) {
    let mut secrets = SecretServiceClient::new(deployment.channel(Part::Scheduler));
    let put = |value: &str, mode: PutSecretMode| PutSecretRequest {
        namespace: namespace.to_owned(),
        name: "warehouse".to_owned(),
        mode: mode.into(),
        data: [("password".to_owned(), value.as_bytes().to_vec())].into(),
        ..PutSecretRequest::default()
    };
    let created = secrets.put_secret(put("one", PutSecretMode::Create)).await;
    assert!(created.expect("created").into_inner().created);
    let changed = secrets.put_secret(put("two", PutSecretMode::Update)).await;
    assert!(!changed.expect("changed").into_inner().created);
    let list = ListSecretsRequest {
        namespace: namespace.to_owned(),
        ..ListSecretsRequest::default()
    };
    let listed = secrets.list_secrets(list).await.expect("listed").into_inner();
    assert_eq!(listed.secrets.len(), 1, "{listed:?}");
    let delete = DeleteSecretRequest {
        namespace: namespace.to_owned(),
        name: "warehouse".to_owned(),
        ..DeleteSecretRequest::default()
    };
    secrets.delete_secret(delete).await.expect("deleted");

    let elsewhere = PutSecretRequest {
        namespace: "kube-system".to_owned(),
        ..put("one", PutSecretMode::Create)
    };
    let refused = secrets.put_secret(elsewhere).await.expect_err("no right there");
    let info = refused.get_details_error_info().expect("a reason");
    assert_eq!(
        (info.reason.as_str(), info.metadata["right"].as_str()),
        ("RIGHT_MISSING", "create secrets")
    );
}

/// behaviours U15
#[tokio::test(flavor = "multi_thread")]
async fn runs_need_no_more_than_the_rights_of_the_chart() {
    let cluster = RealCluster::of_environment();
    let namespace = cluster.namespace("rights").await;
    let deployment = Deployment::start(Options {
        kubeconfig: Some(cluster.executor_kubeconfig().await),
        executor_args: ["--stuck-after", "1s", "--image-tolerance", "3s"]
            .map(str::to_owned)
            .to_vec(),
        ..Options::default()
    })
    .await;

    // Created, followed, let go, swept; and one that fails at its image, for which its events are read.
    let steps = json!([
        {"name": "first", "command": ["sh", "-c", "echo out"]},
        {"name": "second", "upstream": ["first"], "command": ["true"]},
        {"name": "stuck", "command": ["true"], "image": "nowhere:1", "pod": {"imagePullPolicy": "Never"}},
    ]);
    let run = submit(&deployment, &namespace.name, steps).await;
    let ended = watch_to_end_in(&deployment, &namespace.name, &run.name).await;
    assert_eq!(ended.state(), RunState::Failed, "{ended:?}");
    let mut cli = std::process::Command::new(windlass_tests::binaries::binary("windlass"));
    cli.args([
        "logs",
        &run.name,
        "first",
        "--prefix",
        "never",
        "--namespace",
        &namespace.name,
    ]);
    cli.args(["--server", &deployment.address(Part::Scheduler).to_string()]);
    cli.env("WINDLASS_TOKEN", windlass_tests::deployment::TOKEN);
    let logs = cli.output().expect("windlass runs");
    assert_eq!(String::from_utf8_lossy(&logs.stdout), "out\n", "{logs:?}");

    // Cancelled while it runs: deleted.
    let steps = json!([{"name": "long", "command": ["sleep", "600"]}]);
    let long = submit(&deployment, &namespace.name, steps).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, &namespace.name);
    until("the pod runs", async || {
        let pods = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let running = pods.items.iter().any(|pod| phase(pod).as_deref() == Some("Running"));
        running.then_some(()).ok_or_else(|| format!("{pods:?}"))
    })
    .await;
    let cancel = CancelRunRequest {
        namespace: namespace.name.clone(),
        run: long.name.clone(),
        ..CancelRunRequest::default()
    };
    deployment.runs().cancel_run(cancel).await.expect("cancelled");
    let ended = watch_to_end_in(&deployment, &namespace.name, &long.name).await;
    assert_eq!(ended.state(), RunState::Cancelled, "{ended:?}");

    keep_a_secret(&deployment, &namespace.name).await;

    // Nothing is left: pods go by collection, and owner objects, too.
    let owners: Api<ConfigMap> = Api::namespaced(cluster.client().await, &namespace.name);
    until_within(CLEANED, "no trace is left", async || {
        let pods = pods
            .list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())?;
        let ours = ListParams::default().labels("windlass.dev/installation");
        let owners = owners.list(&ours).await.map_err(|error| error.to_string())?;
        (pods.items.is_empty() && owners.items.is_empty())
            .then_some(())
            .ok_or_else(|| format!("{} pods, {} owners", pods.items.len(), owners.items.len()))
    })
    .await;
    let log = deployment.log(Part::Executor);
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_executor_does_not_need_is_refused_to_it() {
    let cluster = RealCluster::of_environment();
    let own = cluster.namespace("mine").await;
    let kubeconfig = Kubeconfig::read_from(cluster.executor_kubeconfig().await).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = kube::Client::try_from(config.expect("a configuration")).expect("a client");
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    let may = async |verb: &str, resource: &str, namespace: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.expect("reviewed");
        answer.status.expect("a status").allowed
    };
    for verb in ["create", "get", "patch", "delete", "deletecollection"] {
        assert!(may(verb, "pods", &own.name).await, "{verb}");
        assert!(!may(verb, "pods", "kube-system").await, "{verb} in kube-system");
    }
    for verb in ["create", "get", "patch", "list", "delete"] {
        assert!(may(verb, "secrets", &own.name).await, "{verb}");
        assert!(!may(verb, "secrets", "kube-system").await, "{verb} in kube-system");
        assert!(!may(verb, "secrets", "").await, "{verb} everywhere");
    }
    for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
        for resource in ["serviceaccounts", "serviceaccounts/token", "roles", "rolebindings"] {
            assert!(!may(verb, resource, &own.name).await, "{verb} {resource}");
            assert!(!may(verb, resource, "").await, "{verb} {resource} everywhere");
        }
    }
    for (verb, resource) in [
        ("create", "pods/exec"),
        ("create", "pods/attach"),
        ("create", "pods/portforward"),
        ("update", "pods"),
        ("create", "pods/eviction"),
        ("list", "configmaps"),
        ("watch", "secrets"),
        ("update", "secrets"),
        ("deletecollection", "secrets"),
        ("create", "nodes"),
        ("patch", "nodes"),
        ("list", "namespaces"),
        ("delete", "namespaces"),
    ] {
        assert!(!may(verb, resource, &own.name).await, "{verb} {resource}");
    }
    own.delete().await;
}
