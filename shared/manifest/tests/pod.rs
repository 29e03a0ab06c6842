//! Pods as they reach Kubernetes.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, Toleration, Volume};
use serde_json::json;
use windlass_ids::{AttemptId, InstallationId, RunId, Shard, StepIndex};
use windlass_manifest::{
    Attempt, FINALIZER, File, Identity, ManifestError, OwnerRef, PodSettings, Run, RunContext, Settings, StepSpec,
    Workspace, WorkspaceDefault, owner, owner_name, pod, pod_name, script_key,
};

fn run() -> Run {
    Run {
        id: RunId::from_bytes([7; 16]),
        name: "churn-7k2m".to_owned(),
        namespace: "ml".to_owned(),
        pipeline: "Churn Model!".to_owned(),
        installation: InstallationId::from_bytes([1; 16]),
        context: RunContext::default(),
    }
}

fn step() -> StepSpec {
    StepSpec {
        image: Some("churn:v3".to_owned()),
        command: vec!["python".to_owned(), "train.py".to_owned()],
        ..StepSpec::default()
    }
}

const ATTEMPT: Attempt<'static> = Attempt {
    id: AttemptId {
        run: RunId::from_bytes([7; 16]),
        step: StepIndex(3),
        number: 2,
    },
    step_name: "train.2",
};

fn made(run: &Run, step: &StepSpec) -> Pod {
    pod(&Settings::default(), run, step, ATTEMPT, None).expect("a pod")
}

fn spec(run: &Run, step: &StepSpec) -> PodSpec {
    made(run, step).spec.expect("a spec")
}

fn main_of(spec: &PodSpec) -> &Container {
    spec.containers
        .iter()
        .find(|container| container.name == "main")
        .expect("main")
}

fn value<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let variables = container.env.as_deref().unwrap_or_default();
    assert!(variables.iter().filter(|variable| variable.name == name).count() <= 1);
    variables
        .iter()
        .find(|variable| variable.name == name)?
        .value
        .as_deref()
}

fn variable(name: &str, value: &str) -> EnvVar {
    serde_json::from_value(json!({"name": name, "value": value})).expect("a variable")
}

/// behaviours N8, N9, M2, E30, X6, X15
#[test]
fn i2_a_pod_carries_its_exact_identity() {
    let mut run = run();
    let hijack = [("windlass.dev/run-id", "x"), ("run", "x"), ("team", "ml")];
    run.context.labels = hijack.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let mut step = step();
    step.pod.labels = run.context.labels.clone();
    let pod = made(&run, &step);
    let labels = pod.metadata.labels.expect("labels");
    // behaviours X6: a user's label cannot replace the system's.
    let identity = Identity::from_labels(|key| labels.get(key).map(String::as_str)).expect("an identity");
    assert_eq!(identity.attempt, ATTEMPT.id);
    assert_eq!(identity.shard, Shard::of(ATTEMPT.id));
    assert_eq!(labels["run"], "churn-7k2m");
    assert!(labels["pipeline"].starts_with("Churn-Model-"), "{}", labels["pipeline"]);
    assert_eq!(labels["team"], "ml");
    assert_eq!(labels["windlass.dev/installation"], run.installation.to_string());
    assert_eq!(
        pod.metadata.annotations.expect("annotations")["windlass.dev/pipeline"],
        "Churn Model!"
    );
    assert_eq!(pod.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    assert_eq!(pod.metadata.name, Some(pod_name("churn-7k2m", "train.2", ATTEMPT.id)));
}

/// behaviours N7, N10, F1, E42
#[test]
fn a_pod_has_one_main_container_that_never_restarts() {
    let spec = spec(&run(), &step());
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.containers.len(), 1);
    assert_eq!(spec.automount_service_account_token, Some(false));
    let main = main_of(&spec);
    assert_eq!(
        main.command.as_deref(),
        Some(&["python".to_owned(), "train.py".to_owned()][..])
    );
    assert_eq!(main.working_dir, None);
    assert_eq!(value(main, "WINDLASS_STEP"), Some("train.2"));
    assert_eq!(value(main, "WINDLASS_ATTEMPT"), Some("2"));
    let context = main.security_context.as_ref().expect("a context");
    assert_eq!(context.allow_privilege_escalation, Some(false));
}

#[test]
fn an_owner_controls_the_pod_and_carries_files_and_scripts() {
    let mut run = run();
    let script = "set -e\necho $FOLD";
    run.context.scripts = [(script_key(script), script.to_owned())].into();
    run.context.files = vec![
        File {
            path: "data/a.csv".to_owned(),
            content: b"1,2".to_vec(),
            executable: false,
        },
        File {
            path: "tool".to_owned(),
            content: vec![0xff],
            executable: true,
        },
    ];
    let step = StepSpec {
        script: Some(script_key(script)),
        matrix: [
            ("FOLD".to_owned(), "3".to_owned()),
            ("RATE".to_owned(), "$(HOME)".to_owned()),
            ("PRICE".to_owned(), "5$$ or $6".to_owned()),
        ]
        .into(),
        ..step()
    };
    let map = owner(&run).expect("an owner");
    assert_eq!(map.data.expect("data")["file-0"], "1,2");
    assert_eq!(map.binary_data.expect("binary")["file-1"].0, [0xff]);

    let reference = OwnerRef { uid: "u".to_owned() };
    let pod = pod(&Settings::default(), &run, &step, ATTEMPT, Some(&reference)).expect("a pod");
    let owners = pod.metadata.owner_references.expect("owners");
    assert_eq!(owners[0].controller, Some(true));
    assert_eq!(owners[0].name, owner_name(&run.name, run.id));
    let spec = pod.spec.expect("a spec");
    let main = main_of(&spec);
    let path = format!("/windlass/files/.windlass/{}", script_key(script));
    assert_eq!(main.command.as_deref(), Some(&["/bin/sh".to_owned(), path][..]));
    assert_eq!(main.args, None);
    assert_eq!(main.working_dir.as_deref(), Some("/windlass/files"));
    assert_eq!(value(main, "FOLD"), Some("3"));
    assert_eq!(value(main, "RATE"), Some("$$(HOME)"), "a value is text");
    assert_eq!(value(main, "PRICE"), Some("5$$$$ or $$6"), "Kubernetes halves them");
    let volume = &spec.volumes.as_ref().expect("volumes")[0];
    let items = volume
        .config_map
        .as_ref()
        .expect("a config map")
        .items
        .as_ref()
        .expect("items");
    assert_eq!(
        items.iter().map(|item| item.path.as_str()).collect::<Vec<_>>()[..2],
        ["data/a.csv", "tool"]
    );
    assert_eq!(items[1].mode, Some(0o555));
}

/// behaviours N6
#[test]
fn a_name_stands_once_in_the_environment_and_nobody_overrides_windlass() {
    let step = StepSpec {
        env: vec![variable("A", "1"), variable("WINDLASS_STEP", "x"), variable("A", "2")],
        ..step()
    };
    let spec = spec(&run(), &step);
    assert_eq!(value(main_of(&spec), "A"), Some("2"));
    assert_eq!(value(main_of(&spec), "WINDLASS_STEP"), Some("train.2"));
}

/// behaviours F2
#[test]
fn a_workspace_is_a_folder_of_the_run_or_refused() {
    let mut run = run();
    run.context.workspace = Some(Workspace::default());
    let make = |workspace, run: &Run| {
        let settings = Settings {
            workspace,
            default_image: None,
        };
        pod(&settings, run, &step(), ATTEMPT, None).map(|pod| pod.spec.expect("a spec"))
    };
    assert_eq!(
        make(WorkspaceDefault::None, &run).expect_err("refused"),
        ManifestError::NoWorkspaceVolume
    );
    let local = make(WorkspaceDefault::HostFolder("/data/workspaces/".to_owned()), &run).expect("a pod");
    let host = local.volumes.as_ref().expect("volumes")[0]
        .host_path
        .as_ref()
        .expect("a host path");
    assert_eq!(host.path, format!("/data/workspaces/{}", run.id));
    assert_eq!(
        value(main_of(&local), "WINDLASS_WORKSPACE"),
        Some("/windlass/workspace")
    );
    let volume: Volume =
        serde_json::from_value(json!({"name": "x", "persistentVolumeClaim": {"claimName": "team"}})).expect("a volume");
    run.context.workspace = Some(Workspace {
        volume: Some(volume),
        mount_path: Some("/work".to_owned()),
        folder_of: None,
    });
    let claimed = make(WorkspaceDefault::None, &run).expect("a pod");
    let mount = &main_of(&claimed).volume_mounts.as_ref().expect("mounts")[0];
    assert_eq!(
        (mount.mount_path.as_str(), mount.sub_path.as_deref()),
        ("/work", Some(&*format!("windlass/{}", run.id)))
    );
}

#[test]
fn a_retried_run_goes_on_in_the_folder_of_the_first_one() {
    let mut run = run();
    let first = windlass_ids::RunId::from_bytes([9; 16]);
    run.context.workspace = Some(Workspace {
        folder_of: Some(first),
        ..Workspace::default()
    });
    let place = |workspace| {
        let settings = Settings {
            workspace,
            default_image: None,
        };
        let spec = pod(&settings, &run, &step(), ATTEMPT, None).expect("a pod").spec;
        let spec = spec.expect("a spec");
        let host = spec.volumes.as_ref().expect("volumes")[0].host_path.clone();
        let mounts = main_of(&spec).volume_mounts.as_ref().expect("mounts");
        host.map_or_else(|| mounts[0].sub_path.clone(), |host| Some(host.path))
    };
    let volume: Volume =
        serde_json::from_value(json!({"name": "x", "persistentVolumeClaim": {"claimName": "team"}})).expect("a volume");
    assert_eq!(
        place(WorkspaceDefault::Volume(Box::new(volume))),
        Some(format!("windlass/{first}"))
    );
    assert_eq!(
        place(WorkspaceDefault::HostFolder("/data".to_owned())),
        Some(format!("/data/{first}"))
    );
}

#[test]
fn pod_settings_reach_the_pod() {
    let container =
        |name: &str| serde_json::from_value::<Container>(json!({"name": name, "image": "i"})).expect("a container");
    let step = StepSpec {
        pod: PodSettings {
            resources: serde_json::from_value(json!({"limits": {"nvidia.com/gpu": "1"}})).expect("resources"),
            node_selector: [("gpu".to_owned(), "a100".to_owned())].into(),
            tolerations: vec![Toleration {
                key: Some("gpu".to_owned()),
                ..Toleration::default()
            }],
            image_pull_secrets: vec!["registry".to_owned()],
            host_ipc: Some(true),
            privileged: Some(true),
            service_account_name: Some("trainer".to_owned()),
            scheduler_name: Some("volcano".to_owned()),
            sidecars: vec![container("proxy")],
            init_containers: vec![container("fetch")],
            overlay: Some(json!({"dnsPolicy": "None", "containers": [{"name": "main", "stdin": true}]})),
            ..PodSettings::default()
        },
        ..step()
    };
    let spec = spec(&run(), &step);
    let main = main_of(&spec);
    assert_eq!(
        main.resources
            .as_ref()
            .expect("resources")
            .limits
            .as_ref()
            .expect("limits")["nvidia.com/gpu"]
            .0,
        "1"
    );
    assert_eq!(main.stdin, Some(true));
    let context = main.security_context.as_ref().expect("a context");
    assert_eq!(
        (context.privileged, context.allow_privilege_escalation),
        (Some(true), None)
    );
    let inits = spec.init_containers.as_ref().expect("init containers");
    assert_eq!(inits[0].name, "proxy");
    assert_eq!(inits[0].restart_policy.as_deref(), Some("Always"));
    assert_eq!(
        (inits[1].name.as_str(), inits[1].restart_policy.as_deref()),
        ("fetch", None)
    );
    assert_eq!(spec.dns_policy.as_deref(), Some("None"));
    assert_eq!(spec.image_pull_secrets.as_ref().expect("secrets")[0].name, "registry");
    assert_eq!(
        (spec.host_ipc, spec.scheduler_name.as_deref()),
        (Some(true), Some("volcano"))
    );
    assert_eq!(spec.service_account_name.as_deref(), Some("trainer"));
    assert_eq!(spec.node_selector.as_ref().expect("a selector")["gpu"], "a100");
}

#[test]
fn what_cannot_be_a_step_is_refused() {
    let refused =
        |step: &StepSpec, run: &Run| pod(&Settings::default(), run, step, ATTEMPT, None).expect_err("refused");
    let overlaid = |overlay| StepSpec {
        pod: PodSettings {
            overlay: Some(overlay),
            ..PodSettings::default()
        },
        ..step()
    };
    assert_eq!(refused(&StepSpec::default(), &run()), ManifestError::MissingImage);
    let unknown = StepSpec {
        script: Some("script-x".to_owned()),
        ..step()
    };
    assert_eq!(
        refused(&unknown, &run()),
        ManifestError::UnknownScript("script-x".to_owned())
    );
    for (overlay, path) in [
        (json!({"restartPolicy": "Always"}), "restartPolicy"),
        (
            json!({"containers": [{"name": "main", "$patch": "delete"}]}),
            "containers",
        ),
        (json!({"nodeName": "n1"}), "nodeName"),
    ] {
        let error = refused(&overlaid(overlay), &run());
        assert!(
            matches!(&error, ManifestError::Overlay { path: found, .. } if found == path),
            "{error}"
        );
    }
    let mut run = run();
    run.context.scripts = [("script-y".to_owned(), "x".repeat(2_000_000))].into();
    assert!(matches!(
        owner(&run),
        Err(ManifestError::FilesTooLarge { bytes: 2_000_000, .. })
    ));
}

#[test]
fn e39_a_manifest_leaves_its_inputs_alone() {
    let (run, step) = (run(), step());
    let first = made(&run, &step);
    assert_eq!(first, made(&run, &step));
}
