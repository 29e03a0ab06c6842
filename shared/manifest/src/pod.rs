//! The pod of an attempt.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec,
    SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::labels::{Annotation, pod_labels};
use crate::volumes::{self, Mounted};
use crate::{
    Attempt, FILES_PATH, FINALIZER, MAIN_CONTAINER, ManifestError, OwnerRef, PodSettings, Run, Settings, StepSpec,
    pod_name, secret_name, strategic_merge,
};

/// Makes the pod of an attempt. Without an owner, it is what will be created but for the owner reference: what the scheduler
/// renders and checks at admission.
///
/// # Errors
/// See [`ManifestError`].
pub fn pod(
    settings: &Settings,
    run: &Run,
    step: &StepSpec,
    attempt: Attempt<'_>,
    owner: Option<&OwnerRef>,
) -> Result<Pod, ManifestError> {
    let files = volumes::files(run, step)?;
    let workspace = volumes::workspace(settings, run)?;
    let main = main_container(settings, run, step, attempt, [&files, &workspace])?;
    let mut spec = pod_spec(step, main);
    let volumes = spec.volumes.get_or_insert_default();
    volumes.extend(files.into_iter().chain(workspace).map(|(volume, _)| volume));
    if volumes.is_empty() {
        spec.volumes = None;
    }
    Ok(Pod {
        metadata: metadata(run, step, attempt, owner),
        spec: Some(match &step.pod.overlay {
            Some(overlay) => overlaid(&spec, overlay)?,
            None => spec,
        }),
        status: None,
    })
}

fn metadata(run: &Run, step: &StepSpec, attempt: Attempt<'_>, owner: Option<&OwnerRef>) -> ObjectMeta {
    let mut labels = run.context.labels.clone();
    labels.extend(step.pod.labels.clone());
    // Last, so that nobody can take over another step's identity (behaviours X6).
    labels.extend(pod_labels(run, &attempt));
    ObjectMeta {
        name: Some(pod_name(&run.name, attempt.step_name, attempt.id)),
        namespace: Some(run.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations(run, step, attempt)),
        finalizers: Some(vec![FINALIZER.to_owned()]),
        owner_references: owner.map(|owner| vec![owner.reference(run)]),
        ..ObjectMeta::default()
    }
}

fn annotations(run: &Run, step: &StepSpec, attempt: Attempt<'_>) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([(Annotation::SAFE_TO_EVICT.to_owned(), "false".to_owned())]);
    annotations.extend(run.context.annotations.clone());
    annotations.extend(step.pod.annotations.clone());
    let own = [
        (Annotation::RUN, run.name.as_str()),
        (Annotation::PIPELINE, run.pipeline.as_str()),
        (Annotation::STEP, attempt.step_name),
    ];
    annotations.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    if step.accept_exit_zero_when_terminated {
        annotations.insert(Annotation::ACCEPT_EXIT_ZERO.to_owned(), "true".to_owned());
    }
    annotations
}

fn main_container(
    settings: &Settings,
    run: &Run,
    step: &StepSpec,
    attempt: Attempt<'_>,
    mounted: [&Option<Mounted>; 2],
) -> Result<Container, ManifestError> {
    let image = step.image.as_ref().or(settings.default_image.as_ref());
    let (command, args) = match &step.script {
        Some(script) => (vec!["/bin/sh".to_owned(), volumes::script_path(script)], Vec::new()),
        None => (step.command.clone(), step.args.clone()),
    };
    let has_files = mounted[0].is_some();
    let mut mounts = step.pod.volume_mounts.clone();
    mounts.extend(mounted.into_iter().flatten().map(|(_, mount)| mount.clone()));
    Ok(Container {
        name: MAIN_CONTAINER.to_owned(),
        image: Some(image.ok_or(ManifestError::MissingImage)?.clone()),
        image_pull_policy: step.pod.image_pull_policy.clone(),
        command: non_empty(command),
        args: non_empty(args),
        env: non_empty(environment(run, step, attempt, has_files)),
        env_from: non_empty(step.pod.env_from.clone()),
        working_dir: step
            .working_dir
            .clone()
            .or_else(|| has_files.then(|| FILES_PATH.to_owned())),
        resources: step.pod.resources.clone(),
        volume_mounts: non_empty(mounts),
        security_context: Some(security_context(&step.pod)),
        ..Container::default()
    })
}

/// System variables, then values of the matrix, then the user's, which for a script begin with the parameters. A name stands once, the later value
/// wins, but nobody overrides `WINDLASS_*`.
fn environment(run: &Run, step: &StepSpec, attempt: Attempt<'_>, has_files: bool) -> Vec<EnvVar> {
    let mut system = vec![
        literal("WINDLASS_RUN_ID", &run.id.to_string()),
        literal("WINDLASS_RUN", &run.name),
        literal("WINDLASS_NAMESPACE", &run.namespace),
        literal("WINDLASS_PIPELINE", &run.pipeline),
        literal("WINDLASS_STEP", attempt.step_name),
        literal("WINDLASS_ATTEMPT", &attempt.id.number.to_string()),
    ];
    if has_files {
        system.push(literal("WINDLASS_FILES", FILES_PATH));
    }
    if let Some(path) = volumes::workspace_path(run) {
        system.push(literal("WINDLASS_WORKSPACE", path));
    }
    system.push(field("WINDLASS_POD", "metadata.name"));
    system.push(field("WINDLASS_NODE", "spec.nodeName"));
    let reserved = system.len();
    let values = step.matrix.iter().map(|(name, value)| literal(name, value));
    let mut merged = system;
    let own = step.env.iter().map(|variable| with_secret_of(run, variable));
    for variable in values.chain(own) {
        match merged.iter().position(|present| present.name == variable.name) {
            Some(position) if position < reserved => {}
            Some(position) => merged[position] = variable,
            None => merged.push(variable),
        }
    }
    merged
}

/// A reference to a Secret without a name means the run's own.
fn with_secret_of(run: &Run, variable: &EnvVar) -> EnvVar {
    let mut variable = variable.clone();
    let source = variable.value_from.as_mut();
    if let Some(selector) = source.and_then(|source| source.secret_key_ref.as_mut())
        && selector.name.is_empty()
    {
        selector.name = secret_name(&run.name, run.id);
    }
    variable
}

fn literal(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        // Kubernetes expands `$(X)` and halves `$$` in every value.
        value: Some(value.replace('$', "$$")),
        value_from: None,
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// The user's context as it is; without one, nothing may gain rights (behaviours E42).
fn security_context(pod: &PodSettings) -> SecurityContext {
    let privileged = pod.privileged;
    match &pod.security_context {
        Some(context) => SecurityContext {
            privileged: privileged.or(context.privileged),
            ..context.clone()
        },
        None => SecurityContext {
            privileged,
            allow_privilege_escalation: (privileged != Some(true)).then_some(false),
            ..SecurityContext::default()
        },
    }
}

fn pod_spec(step: &StepSpec, main: Container) -> PodSpec {
    let pod = &step.pod;
    let secrets = pod.image_pull_secrets.iter().cloned();
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        init_containers: non_empty(init_containers(pod)),
        containers: vec![main],
        volumes: non_empty(pod.volumes.clone()),
        termination_grace_period_seconds: step.termination_grace_seconds,
        node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
        affinity: pod.affinity.clone(),
        tolerations: non_empty(pod.tolerations.clone()),
        image_pull_secrets: non_empty(secrets.map(|name| LocalObjectReference { name }).collect()),
        service_account_name: pod.service_account_name.clone(),
        automount_service_account_token: Some(pod.automount_service_account_token.unwrap_or(false)),
        security_context: Some(pod.pod_security_context.clone().unwrap_or_else(runtime_default)),
        host_ipc: pod.host_ipc,
        priority_class_name: pod.priority_class_name.clone(),
        scheduler_name: pod.scheduler_name.clone(),
        runtime_class_name: pod.runtime_class_name.clone(),
        enable_service_links: Some(false),
        ..PodSpec::default()
    }
}

fn runtime_default() -> PodSecurityContext {
    PodSecurityContext {
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// Sidecars come first: the init containers that follow, and the main container, may need them.
fn init_containers(pod: &PodSettings) -> Vec<Container> {
    let sidecars = pod.sidecars.iter().map(|sidecar| Container {
        restart_policy: Some("Always".to_owned()),
        ..sidecar.clone()
    });
    sidecars.chain(pod.init_containers.iter().cloned()).collect()
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Merges the user's fragment over the spec. What makes the pod a step must stay.
fn overlaid(spec: &PodSpec, overlay: &Value) -> Result<PodSpec, ManifestError> {
    let refused = |path: &str, message: String| ManifestError::Overlay {
        path: path.to_owned(),
        message,
    };
    let mut merged = serde_json::to_value(spec).map_err(|error| refused("", error.to_string()))?;
    strategic_merge(&mut merged, overlay);
    let merged: PodSpec = serde_json::from_value(merged).map_err(|error| refused("", error.to_string()))?;
    if merged.restart_policy.as_deref() != Some("Never") {
        return Err(refused(
            "restartPolicy",
            "must stay Never: retries are attempts".to_owned(),
        ));
    }
    let mains = merged
        .containers
        .iter()
        .filter(|container| container.name == MAIN_CONTAINER);
    if mains.count() != 1 {
        return Err(refused("containers", "must keep the container \"main\"".to_owned()));
    }
    if merged.node_name.is_some() {
        return Err(refused(
            "nodeName",
            "is set by the cluster; use nodeSelector".to_owned(),
        ));
    }
    Ok(merged)
}
