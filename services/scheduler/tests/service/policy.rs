//! What the operator's policy allows of pods, at the public API: behaviours E18, E42, S4, N10, F2, U10, U15.

use std::path::{Path, PathBuf};

use tonic_types::StatusExt as _;
use windlass_api::convert::pipeline_to_proto;
use windlass_api::pipeline::v1 as wire;
use windlass_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use windlass_api::run::v1 as run;
use windlass_api::schedule::v1 as schedule;
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_pipeline::source;
use windlass_scheduler::{Config, ReferenceCheck, server};

use crate::executor::Play;
use crate::support::{Scheduler, Stage, config, eventually, reason, submission};

/// Settings with a policy file.
fn with_policy(data: &Path, policy: &str) -> Config {
    let file = data.join("policy.yaml");
    std::fs::write(&file, policy).expect("a file");
    Config {
        policy: Some(file),
        // No Secret is there.
        check_references: ReferenceCheck::None,
        ..config(data)
    }
}

/// A scheduler with a policy, whose executor serves a cluster that uses images; every step fails.
async fn stage(policy: &str) -> Stage {
    let data = tempfile::tempdir().expect("a folder");
    let config = with_policy(data.path(), policy);
    connected(data, config).await
}

async fn connected(data: tempfile::TempDir, config: Config) -> Stage {
    let stage = Stage::with(data, config, |_, _| Play::Fail(1)).await;
    eventually("the executor", || async {
        (!stage.executor.seen().welcomes.is_empty()).then_some(())
    })
    .await;
    stage
}

fn parsed(text: &str) -> wire::Pipeline {
    pipeline_to_proto(&source::parse(text).into_pipeline().expect("a pipeline"))
}

/// A pipeline of one step with these pod settings.
fn with_pod(pod: &str) -> wire::Pipeline {
    parsed(&format!(
        "name: churn\nsteps:\n  - name: s\n    image: i\n    pod: {pod}\n"
    ))
}

/// What is wrong with a pipeline in a namespace: codes, paths and messages.
async fn problems_in(
    scheduler: &Scheduler,
    namespace: &str,
    pipeline: wire::Pipeline,
) -> Vec<(String, String, String)> {
    let request = wire::ValidatePipelineRequest {
        namespace: namespace.to_owned(),
        pipeline: Some(pipeline),
        ..wire::ValidatePipelineRequest::default()
    };
    let mut pipelines = PipelineServiceClient::new(scheduler.channel());
    let answer = pipelines
        .validate_pipeline(request)
        .await
        .expect("answers")
        .into_inner();
    let found = answer
        .violations
        .into_iter()
        .map(|one| (one.code, one.path, one.message));
    found.collect()
}

/// Paths of what is not allowed; nothing else may be wrong.
async fn refused(scheduler: &Scheduler, pipeline: wire::Pipeline) -> Vec<String> {
    let found = problems_in(scheduler, "ml", pipeline).await.into_iter();
    let paths = found.map(|(code, path, message)| {
        assert_eq!(code, "NOT_ALLOWED", "{path}: {message}");
        path
    });
    paths.collect()
}

/// What is not allowed unless the operator says so, and where it is said to stand.
const ESCAPES: &[(&str, &str)] = &[
    ("{serviceAccountName: admin}", "pod.serviceAccountName"),
    (
        "{overlay: {serviceAccountName: admin}}",
        "pod.overlay.serviceAccountName",
    ),
    // The old name of the field, which Kubernetes still takes.
    ("{overlay: {serviceAccount: admin}}", "pod.overlay.serviceAccount"),
    (
        "{volumes: [{name: v, hostPath: {path: /}}]}",
        "pod.volumes[0].hostPath.path",
    ),
    (
        "{overlay: {volumes: [{name: v, hostPath: {path: /etc}}]}}",
        "pod.overlay.volumes[0].hostPath.path",
    ),
    ("{privileged: true}", "pod.privileged"),
    (
        "{securityContext: {privileged: true}}",
        "pod.securityContext.privileged",
    ),
    (
        "{sidecars: [{name: x, image: i, securityContext: {privileged: true}}]}",
        "pod.sidecars[0].securityContext.privileged",
    ),
    (
        "{initContainers: [{name: x, image: i, securityContext: {privileged: true}}]}",
        "pod.initContainers[0].securityContext.privileged",
    ),
    (
        "{overlay: {containers: [{name: x, image: i, securityContext: {privileged: true}}]}}",
        "pod.overlay.containers[0].securityContext.privileged",
    ),
    (
        "{securityContext: {procMount: Unmasked}}",
        "pod.securityContext.procMount",
    ),
    (
        "{securityContext: {seccompProfile: {type: Unconfined}}}",
        "pod.securityContext.seccompProfile",
    ),
    (
        "{podSecurityContext: {seccompProfile: {type: Unconfined}}}",
        "pod.podSecurityContext.seccompProfile",
    ),
    (
        "{podSecurityContext: {appArmorProfile: {type: Unconfined}}}",
        "pod.podSecurityContext.appArmorProfile",
    ),
    (
        "{securityContext: {seLinuxOptions: {type: spc_t}}}",
        "pod.securityContext.seLinuxOptions",
    ),
    (
        "{podSecurityContext: {windowsOptions: {hostProcess: true}}}",
        "pod.podSecurityContext.windowsOptions.hostProcess",
    ),
    (
        "{annotations: {container.apparmor.security.beta.kubernetes.io/main: unconfined}}",
        r#"pod.annotations["container.apparmor.security.beta.kubernetes.io/main"]"#,
    ),
    (
        "{securityContext: {capabilities: {add: [CHOWN, SYS_ADMIN]}}}",
        "pod.securityContext.capabilities.add[1]",
    ),
    (
        "{securityContext: {capabilities: {add: [ALL]}}}",
        "pod.securityContext.capabilities.add[0]",
    ),
    ("{hostIpc: true}", "pod.hostIpc"),
    ("{overlay: {hostPID: true}}", "pod.overlay.hostPID"),
    ("{overlay: {hostNetwork: true}}", "pod.overlay.hostNetwork"),
    (
        "{sidecars: [{name: x, image: i, ports: [{containerPort: 80, hostPort: 80}]}]}",
        "pod.sidecars[0].ports[0].hostPort",
    ),
    ("{imagePullSecrets: [other]}", "pod.imagePullSecrets[0]"),
    (
        "{envFrom: [{secretRef: {name: other}}]}",
        "pod.envFrom[0].secretRef.name",
    ),
    (
        "{volumes: [{name: v, secret: {secretName: other}}]}",
        "pod.volumes[0].secret.secretName",
    ),
    (
        "{volumes: [{name: v, secret: {secretName: other, optional: true}}]}",
        "pod.volumes[0].secret.secretName",
    ),
    (
        "{volumes: [{name: v, projected: {sources: [{configMap: {name: c}}, {secret: {name: other}}]}}]}",
        "pod.volumes[0].projected.sources[1].secret.name",
    ),
    (
        "{volumes: [{name: v, csi: {driver: d, nodePublishSecretRef: {name: other}}}]}",
        "pod.volumes[0].csi.nodePublishSecretRef.name",
    ),
    (
        "{volumes: [{name: v, azureFile: {secretName: other, shareName: s}}]}",
        "pod.volumes[0].azureFile.secretName",
    ),
    (
        "{initContainers: [{name: x, image: i, env: [{name: A, valueFrom: {secretKeyRef: {name: other, key: k}}}]}]}",
        "pod.initContainers[0].env[0].valueFrom.secretKeyRef.name",
    ),
    (
        "{overlay: {containers: [{name: main, env: [{name: A, valueFrom: {secretKeyRef: {name: other, key: k}}}]}]}}",
        "pod.overlay.containers[0].env[0].valueFrom.secretKeyRef.name",
    ),
];

/// behaviours E18, E42, N10, F2, S4
#[tokio::test]
async fn e18_e42_what_the_policy_does_not_allow_is_refused_wherever_it_stands() {
    let stage = stage("namespaces: {ml: {secrets: {managed: false, names: [warehouse]}}}").await;
    for (pod, path) in ESCAPES {
        let found = refused(&stage.scheduler, with_pod(pod)).await;
        assert_eq!(found, [format!("steps[0].{path}")], "{pod}");
    }
    let in_defaults = "
name: churn
defaults: {image: i, env: [{name: A, valueFrom: {secretKeyRef: {name: other, key: k}}}], pod: {privileged: true}}
workspace: {volume: {hostPath: {path: /data}}}
steps: [{name: a}, {name: b}, {name: c, unset: [pod.privileged, env]}]
";
    let mut found = refused(&stage.scheduler, parsed(in_defaults)).await;
    found.sort();
    assert_eq!(
        found,
        [
            "defaults.env[0].valueFrom.secretKeyRef.name",
            "defaults.pod.privileged",
            "workspace.volume.hostPath.path"
        ]
    );
    // The run's own Secret is made for it: nobody else's is meant.
    let own = "{name: A, valueFrom: {runSecretKeyRef: {key: k}}}";
    let own = parsed(&format!("name: churn\nsteps: [{{name: s, image: i, env: [{own}]}}]\n"));
    assert_eq!(refused(&stage.scheduler, own).await, Vec::<String>::new());
    // What a step has when it says nothing.
    for good in [
        "{}",
        "{automountServiceAccountToken: true, imagePullSecrets: [warehouse]}",
        "{volumes: [{name: v, secret: {secretName: warehouse}}, {name: w, emptyDir: {}}], nodeSelector: {hostNetwork: 'true'}}",
        "{securityContext: {runAsUser: 1000, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}}",
    ] {
        assert_eq!(
            refused(&stage.scheduler, with_pod(good)).await,
            Vec::<String>::new(),
            "{good}"
        );
    }
}

/// behaviours E18, E42
#[tokio::test]
async fn e18_e42_a_namespace_may_do_what_its_rules_say_and_the_refusal_says_who_allows_more() {
    let policy = "
defaults: {serviceAccounts: [default, shared]}
namespaces:
  ml:
    serviceAccounts: [team-*]
    secrets: {names: ['*']}
    hostPaths: [{path: /data}, {path: /sets, readOnly: true}]
    privileged: true
    hostNamespaces: [ipc, network, pid]
    capabilities: ['*']
  strict: {allowPrivilegeEscalation: false, serviceAccountTokens: false}
";
    let stage = stage(policy).await;
    for (pod, path) in ESCAPES {
        let pod = pod
            .replace("admin", "team-a")
            .replace("path: /etc", "path: /data/x")
            .replace("path: /}", "path: /data}");
        let base = "serviceAccountName: team-a, ";
        let named = if pod.contains("serviceAccount") {
            pod.clone()
        } else {
            pod.replacen('{', &format!("{{{base}"), 1)
        };
        let found = refused(&stage.scheduler, with_pod(&named)).await;
        assert_eq!(found, Vec::<String>::new(), "{path}: {named}");
    }
    let found = problems_in(&stage.scheduler, "ml", with_pod("{serviceAccountName: shared}")).await;
    assert_eq!(
        found[0].2,
        "service account shared is not allowed in namespace ml; allowed: team-*. An operator allows more with serviceAccounts in the \
         scheduler's policy file (--policy)"
    );
    // The account of who names none is the namespace's default one.
    assert_eq!(refused(&stage.scheduler, with_pod("{}")).await, ["steps[0].pod"]);
    let mounted = |mount: &str| {
        let pod =
            "{serviceAccountName: team-a, volumes: [{name: v, hostPath: {path: /sets/a}}], volumeMounts: [MOUNT]}";
        with_pod(&pod.replace("MOUNT", mount))
    };
    let writable = mounted("{name: v, mountPath: /v}");
    assert_eq!(
        refused(&stage.scheduler, writable).await,
        ["steps[0].pod.volumeMounts[0]"]
    );
    let read_only = mounted("{name: v, mountPath: /v, readOnly: true}");
    assert_eq!(refused(&stage.scheduler, read_only).await, Vec::<String>::new());

    for (pod, path) in [
        ("{securityContext: {runAsUser: 5}}", "steps[0].pod.securityContext"),
        ("{sidecars: [{name: x, image: i}]}", "steps[0].pod.sidecars[0]"),
        (
            "{automountServiceAccountToken: true}",
            "steps[0].pod.automountServiceAccountToken",
        ),
        (
            "{volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]}",
            "steps[0].pod.volumes[0].projected.sources[0].serviceAccountToken",
        ),
    ] {
        let found = problems_in(&stage.scheduler, "strict", with_pod(pod)).await;
        assert_eq!((found.len(), found[0].1.as_str()), (1, path), "{pod}: {found:?}");
    }
    assert_eq!(
        problems_in(&stage.scheduler, "strict", with_pod("{serviceAccountName: shared}")).await,
        []
    );
}

/// behaviours E18: no value of a matrix or parameter goes around the policy.
#[tokio::test]
async fn e18_a_value_that_is_filled_in_is_looked_at_in_every_instance() {
    let stage = stage("defaults: {hostPaths: [{path: /data}]}").await;
    let text = "
name: churn
parameters: [{name: WHO, default: admin}]
steps:
  - {name: one, image: i, pod: {serviceAccountName: $(WHO)}}
  - name: two
    image: i
    matrix: [{name: FOLD, values: [1, 2, 3]}, {name: PLACE, values: [/data/long, /data, /etc]}]
    args: [$(FOLD)]
    pod: {volumes: [{name: v, hostPath: {path: $(PLACE)}}]}
";
    let found = problems_in(&stage.scheduler, "ml", parsed(text)).await;
    let paths: Vec<_> = found.iter().map(|(_, path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "steps[0].pod.serviceAccountName",
            "steps[1].pod.volumes[0].hostPath.path"
        ]
    );
    assert!(
        found[1].2.starts_with("the node's folder /etc is not allowed"),
        "{found:?}"
    );
    let many: Vec<String> = (0..10_001).map(|number| format!("a{number}")).collect();
    let text = format!(
        "name: churn\nsteps:\n  - name: s\n    image: i\n    matrix: [{{name: WHO, values: [{}]}}]\n    pod: {{serviceAccountName: $(WHO)}}\n",
        many.join(", ")
    );
    let found = problems_in(&stage.scheduler, "ml", parsed(&text)).await;
    assert_eq!(
        (found[0].0.as_str(), found[0].1.as_str()),
        ("LIMIT", "steps[0].matrix"),
        "{found:?}"
    );
}

/// behaviours F2: what the operator gives as workspace is no folder of the node that anybody may have.
#[tokio::test]
async fn f2_the_operators_workspace_is_allowed_in_the_runs_own_folder_only() {
    let data = tempfile::tempdir().expect("a folder");
    let config = Config {
        workspace_volume: Some(r#"{"hostPath": {"path": "/srv/windlass"}}"#.to_owned()),
        ..with_policy(data.path(), "{}")
    };
    let stage = connected(data, config).await;
    let with = |step: &str| {
        parsed(&format!(
            "name: churn\nworkspace: {{}}\nsteps: [{{name: s, image: i{step}}}]\n"
        ))
    };
    assert_eq!(refused(&stage.scheduler, with("")).await, Vec::<String>::new());
    let all = ", pod: {volumeMounts: [{name: windlass-workspace, mountPath: /all}]}";
    assert_eq!(
        refused(&stage.scheduler, with(all)).await,
        ["steps[0].pod.volumeMounts[0]"]
    );
    let named = ", pod: {volumes: [{name: v, hostPath: {path: /srv/windlass}}]}";
    assert_eq!(
        refused(&stage.scheduler, with(named)).await,
        ["steps[0].pod.volumes[0].hostPath.path"]
    );
}

/// behaviours E18, U15: every way to a pod asks the policy, also when it has become stricter since.
#[tokio::test]
async fn e18_submissions_retries_renderings_and_schedules_are_checked() {
    let stage = stage("defaults: {serviceAccounts: [trainer]}").await;
    let pipeline = with_pod("{serviceAccountName: trainer}");
    let run = stage.submit("r1", pipeline.clone()).await;
    stage.ended(&run).await;
    let creation = |name: &str| schedule::CreateScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: name.to_owned(),
        schedule: name.to_owned(),
        spec: Some(schedule::ScheduleSpec {
            timing: Some(schedule::schedule_spec::Timing::Cron("0 0 1 1 *".to_owned())),
            ..schedule::ScheduleSpec::default()
        }),
        pipeline: Some(pipeline.clone()),
        ..schedule::CreateScheduleRequest::default()
    };
    let mut schedules = ScheduleServiceClient::new(stage.scheduler.channel());
    schedules.create_schedule(creation("nightly")).await.expect("created");
    let Stage { scheduler, data, .. } = stage;
    scheduler.stop().await;

    let stage = connected_again(data, "{}").await;
    let mut runs = stage.scheduler.runs();
    let mut schedules = ScheduleServiceClient::new(stage.scheduler.channel());
    let mut pipelines = PipelineServiceClient::new(stage.scheduler.channel());
    let again = runs
        .submit_run(submission("r1", pipeline.clone()))
        .await
        .expect("known");
    assert!(!again.into_inner().created, "what was accepted stays accepted");
    let retry = run::RetryRunRequest {
        namespace: "ml".to_owned(),
        run: run.name.clone(),
        request_id: "again".to_owned(),
        ..run::RetryRunRequest::default()
    };
    let render = wire::RenderPipelineRequest {
        namespace: "ml".to_owned(),
        pipeline: Some(pipeline.clone()),
        ..wire::RenderPipelineRequest::default()
    };
    let trigger = schedule::TriggerScheduleRequest {
        namespace: "ml".to_owned(),
        request_id: "now".to_owned(),
        schedule: "nightly".to_owned(),
        ..schedule::TriggerScheduleRequest::default()
    };
    let statuses = [
        runs.submit_run(submission("r2", pipeline.clone()))
            .await
            .expect_err("refused"),
        runs.retry_run(retry).await.expect_err("refused"),
        pipelines.render_pipeline(render).await.expect_err("refused"),
        schedules.create_schedule(creation("other")).await.expect_err("refused"),
        schedules.trigger_schedule(trigger).await.expect_err("refused"),
    ];
    for status in statuses {
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert!(
            ["INVALID_PIPELINE", "INVALID_SCHEDULE"].contains(&reason(&status).as_str()),
            "{status:?}"
        );
        let violations = status.get_details_bad_request().expect("violations").field_violations;
        assert_eq!(
            violations[0].field, "pipeline.steps[0].pod.serviceAccountName",
            "{status:?}"
        );
        assert!(violations[0].description.ends_with("(NOT_ALLOWED)"), "{violations:?}");
    }
}

async fn connected_again(data: tempfile::TempDir, policy: &str) -> Stage {
    let config = with_policy(data.path(), policy);
    connected(data, config).await
}

/// Where roles make a difference, little is allowed unless a policy says so; where every token may do everything, all is.
#[tokio::test]
async fn e18_without_a_policy_an_installation_with_roles_allows_little() {
    let data = tempfile::tempdir().expect("a folder");
    let file = data.path().join("access.yaml");
    // The hash of `token`.
    let entry = "- {name: ana, sha256: 3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0, roles: [{role: admin, namespaces: ['*']}]}";
    std::fs::write(&file, entry).expect("a file");
    let with_roles = Config {
        access_file: Some(file),
        ..config(data.path())
    };
    let scheduler = Scheduler::start(with_roles).await;
    let settings = windlass_service::ChannelSettings {
        address: scheduler.address.clone(),
        token: Some("token".to_owned()),
        ..windlass_service::ChannelSettings::default()
    };
    let channel = windlass_service::connect_lazy(&settings).expect("an address");
    let request = wire::ValidatePipelineRequest {
        namespace: "ml".to_owned(),
        pipeline: Some(with_pod("{serviceAccountName: admin}")),
        ..wire::ValidatePipelineRequest::default()
    };
    let answer = PipelineServiceClient::new(channel).validate_pipeline(request).await;
    assert_eq!(answer.expect("answers").into_inner().violations[0].code, "NOT_ALLOWED");
    scheduler.stop().await;

    let scheduler = Scheduler::start(config(data.path())).await;
    assert_eq!(
        problems_in(
            &scheduler,
            "ml",
            with_pod("{serviceAccountName: admin, privileged: true}")
        )
        .await,
        []
    );
}

/// behaviours U11
#[tokio::test]
async fn i9_a_policy_file_with_a_fault_stops_the_start_with_every_problem() {
    let data = tempfile::tempdir().expect("a folder");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = with_policy(data.path(), "defaults: {serviceAcounts: [a], privileged: 1}\n");
    let error = server::run(config, listener, tokio_util::sync::CancellationToken::new()).await;
    let error = format!("{:#}", error.expect_err("does not start"));
    for part in [
        "policy.yaml",
        "line 1, column 12: defaults.serviceAcounts",
        "did you mean serviceAccounts?",
        "defaults.privileged",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let absent = Config {
        policy: Some(PathBuf::from("/no/such/policy.yaml")),
        ..crate::support::config(data.path())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let error = server::run(absent, listener, tokio_util::sync::CancellationToken::new()).await;
    assert!(format!("{:#}", error.expect_err("does not start")).contains("/no/such/policy.yaml"));
}
