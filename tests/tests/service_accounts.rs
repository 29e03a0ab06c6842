//! `windlass cluster create-service-account` on the local cluster: what it makes, leaves alone and refuses.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use serde_json::json;
use windlass_tests::binaries::binary;
use windlass_tests::deployment::{Deployment, Options, Part, TOKEN};
use windlass_tests::wait::until;

fn windlass(kubeconfig: &Path, server: Option<String>, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary("windlass"));
    command.arg("cluster").args(args).arg("--kubeconfig").arg(kubeconfig);
    command
        .env_remove("WINDLASS_SERVER")
        .env("WINDLASS_TOKEN", TOKEN)
        .env("NO_COLOR", "1");
    if let Some(server) = server {
        command.args(["--server", &server]);
    }
    let output = command.output().expect("windlass runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// behaviours K7, F6, U15, E18: without the fault of binding `edit`, and never by itself.
#[tokio::test(flavor = "multi_thread")]
async fn k7_f6_an_account_has_the_rights_that_were_named_and_goes_with_its_bindings() {
    let deployment = Deployment::start(Options::default()).await;
    let kubeconfig = deployment.kubeconfig();
    let server = || Some(deployment.address(Part::Scheduler).to_string());
    let read = kube::config::Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(read, &Default::default()).await;
    let client = kube::Client::try_from(config.expect("a config")).expect("a client");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), "default");
    let roles: Api<Role> = Api::namespaced(client, "default");

    // A Role that is not there: nothing is made.
    let create = ["create-service-account", "trainer", "--role", "reads"];
    let (status, said) = windlass(&kubeconfig, server(), &create);
    assert_eq!(
        (status, said.contains("there is no Role reads in namespace default")),
        (2, true),
        "{said}"
    );
    assert!(accounts.get_opt("trainer").await.expect("answers").is_none());

    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "reads"}, "rules": [rule]})).expect("a role");
    roles.create(&PostParams::default(), &role).await.expect("created");
    let (status, said) = windlass(&kubeconfig, server(), &create);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("service account trainer in default created, bound to Role reads"),
        "{said}"
    );
    let account = accounts.get("trainer").await.expect("made");
    assert_eq!(account.automount_service_account_token, Some(false));
    let installation = account.metadata.labels.expect("labels")["windlass.dev/installation"].clone();
    let binding = bindings.get("trainer-reads").await.expect("made");
    assert_eq!(
        (binding.role_ref.kind.as_str(), binding.role_ref.name.as_str()),
        ("Role", "reads")
    );
    let subjects = binding.subjects.expect("subjects");
    let subjects: Vec<_> = subjects
        .iter()
        .map(|one| (one.kind.as_str(), one.name.as_str()))
        .collect();
    assert_eq!(subjects, [("ServiceAccount", "trainer")]);
    // Once more changes nothing.
    let (status, said) = windlass(&kubeconfig, server(), &create);
    assert_eq!(
        (status, said.contains("is there, bound to Role reads")),
        (0, true),
        "{said}"
    );

    // What belongs to an installation is listed.
    let purge = ["purge", "--installation", &installation, "--data-dir", "/nonexistent"];
    let (status, said) = windlass(&kubeconfig, None, &purge);
    assert_eq!(status, 0, "{said}");
    for object in ["ServiceAccount", "RoleBinding"] {
        assert!(said.contains(object), "{said}");
    }

    // A binding that gives others' rights, or to others, is not taken for ours.
    let other = json!({
        "metadata": {"name": "trainer-edits"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "somebody", "namespace": "default"}],
    });
    let other: RoleBinding = serde_json::from_value(other).expect("a binding");
    bindings.create(&PostParams::default(), &other).await.expect("created");
    let edits: Role = serde_json::from_value(json!({"metadata": {"name": "edits"}, "rules": []})).expect("a role");
    roles.create(&PostParams::default(), &edits).await.expect("created");
    let (status, said) = windlass(
        &kubeconfig,
        server(),
        &["create-service-account", "trainer", "--role", "edits"],
    );
    assert_eq!(
        (
            status,
            said.contains("RoleBinding trainer-edits in namespace default is not of")
        ),
        (2, true),
        "{said}"
    );

    // Nor is an account of others.
    let theirs: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "theirs"}})).expect("an account");
    accounts.create(&PostParams::default(), &theirs).await.expect("created");
    for command in ["create-service-account", "delete-service-account"] {
        let (status, said) = windlass(&kubeconfig, server(), &[command, "theirs"]);
        assert_eq!(
            (
                status,
                said.contains("service account theirs in namespace default is not of")
            ),
            (2, true),
            "{said}"
        );
    }

    let (status, said) = windlass(&kubeconfig, server(), &["delete-service-account", "trainer"]);
    assert_eq!(status, 0, "{said}");
    until("the account and its binding are gone", async || {
        let account = accounts.get_opt("trainer").await.expect("answers");
        let binding = bindings.get_opt("trainer-reads").await.expect("answers");
        match (account.is_none(), binding.is_none()) {
            (true, true) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    let (status, said) = windlass(&kubeconfig, server(), &["create-service-account", "Train_er"]);
    assert_eq!(
        (status, said.contains("is no name of a service account")),
        (2, true),
        "{said}"
    );
}
