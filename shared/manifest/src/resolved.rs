//! From a resolved pipeline to what manifests take.
//!
//! The scheduler sends [`context`] once a run (`RunContext.context_json`), each `ResolvedTemplate` once a session
//! (`StepTemplate.template_json`) and a `StepOverlay` with each launch (`Launch.overlay_json`); the executor makes the step concrete
//! with `ResolvedTemplate::spec`, and [`step`] turns that into Kubernetes' types.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ResourceRequirements, SecretKeySelector, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::de::DeserializeOwned;
use windlass_pipeline::{Fragment, ResolvedPipeline, ResolvedWorkspace, Resources};

use crate::{File, ManifestError, PodSettings, RunContext, StepSpec, Workspace, script_key};

/// What the pods of a run of this pipeline share.
///
/// # Errors
/// When the workspace's volume is no volume source, or files and scripts do not fit.
pub fn context(pipeline: &ResolvedPipeline) -> Result<RunContext, ManifestError> {
    let scripts = pipeline
        .templates
        .iter()
        .filter_map(|template| template.merged.script.as_ref());
    let files = pipeline.files.iter().map(|file| File {
        path: file.path.clone(),
        content: file.bytes().unwrap_or_default().to_vec(),
        executable: file.executable.unwrap_or(false),
    });
    Ok(RunContext {
        workspace: pipeline.workspace.as_ref().map(workspace).transpose()?,
        files: files.collect(),
        scripts: scripts.map(|script| (script_key(script), script.clone())).collect(),
        ..RunContext::default()
    })
}

fn workspace(workspace: &ResolvedWorkspace) -> Result<Workspace, ManifestError> {
    let volume = workspace.volume.as_ref();
    Ok(Workspace {
        volume: volume
            .map(|volume| fragment::<Volume>("workspace.volume", volume))
            .transpose()?,
        mount_path: Some(workspace.mount_path.clone()),
        folder_of: None,
    })
}

/// A concrete step in Kubernetes' types.
///
/// # Errors
/// When a fragment does not fit its type, with its path.
pub fn step(spec: &windlass_pipeline::StepSpec) -> Result<StepSpec, ManifestError> {
    let env = spec
        .env
        .iter()
        .enumerate()
        .map(|(index, variable)| variable_of(index, variable));
    let grace = spec.policy.termination_grace.0.div_ceil(1000);
    Ok(StepSpec {
        image: (!spec.image.is_empty()).then(|| spec.image.clone()),
        command: spec.command.clone(),
        args: spec.args.clone(),
        script: spec.script.as_deref().map(script_key),
        env: env.collect::<Result<_, _>>()?,
        matrix: spec.matrix.iter().cloned().collect(),
        working_dir: spec.working_dir.clone(),
        termination_grace_seconds: Some(i64::try_from(grace).unwrap_or(i64::MAX)),
        accept_exit_zero_when_terminated: spec.policy.accept_exit_zero_when_terminated,
        pod: pod_settings(&spec.pod)?,
    })
}

fn variable_of(index: usize, variable: &windlass_pipeline::EnvVar) -> Result<EnvVar, ManifestError> {
    if variable.value_from.is_none() {
        return Ok(EnvVar {
            name: variable.name.clone(),
            value: variable.value.clone(),
            value_from: None,
        });
    }
    let run_secret = variable
        .value_from
        .as_ref()
        .and_then(|source| source.run_secret_key_ref.as_ref());
    if let Some(selector) = run_secret {
        return Ok(of_run_secret(&variable.name, &selector.key));
    }
    let path = format!("env[{index}]");
    let value = serde_json::to_value(variable).map_err(|error| mismatch(&path, &error))?;
    serde_json::from_value(value).map_err(|error| mismatch(&path, &error))
}

/// Names no Secret yet: that follows from the run.
fn of_run_secret(name: &str, key: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: String::new(),
                key: key.to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn pod_settings(pod: &windlass_pipeline::PodSettings) -> Result<PodSettings, ManifestError> {
    Ok(PodSettings {
        resources: pod.resources.as_ref().map(resources),
        node_selector: pod.node_selector.clone(),
        affinity: optional("pod.affinity", pod.affinity.as_ref())?,
        tolerations: list("pod.tolerations", &pod.tolerations)?,
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        volumes: list("pod.volumes", &pod.volumes)?,
        volume_mounts: list("pod.volumeMounts", &pod.volume_mounts)?,
        env_from: list("pod.envFrom", &pod.env_from)?,
        image_pull_secrets: pod.image_pull_secrets.clone(),
        image_pull_policy: pod.image_pull_policy.clone(),
        service_account_name: pod.service_account_name.clone(),
        automount_service_account_token: pod.automount_service_account_token,
        security_context: optional("pod.securityContext", pod.security_context.as_ref())?,
        pod_security_context: optional("pod.podSecurityContext", pod.pod_security_context.as_ref())?,
        privileged: pod.privileged,
        host_ipc: pod.host_ipc,
        priority_class_name: pod.priority_class_name.clone(),
        scheduler_name: pod.scheduler_name.clone(),
        runtime_class_name: pod.runtime_class_name.clone(),
        init_containers: list("pod.initContainers", &pod.init_containers)?,
        sidecars: list("pod.sidecars", &pod.sidecars)?,
        overlay: pod.overlay.clone().map(Fragment::into_value),
    })
}

fn resources(resources: &Resources) -> ResourceRequirements {
    let quantities = |quantities: &std::collections::BTreeMap<String, windlass_pipeline::Quantity>| {
        let all = quantities.iter();
        (!quantities.is_empty()).then(|| {
            all.map(|(name, value)| (name.clone(), Quantity(value.0.clone())))
                .collect()
        })
    };
    ResourceRequirements {
        requests: quantities(&resources.requests),
        limits: quantities(&resources.limits),
        claims: None,
    }
}

fn optional<T: DeserializeOwned>(path: &str, value: Option<&Fragment>) -> Result<Option<T>, ManifestError> {
    value.map(|value| fragment(path, value)).transpose()
}

fn list<T: DeserializeOwned>(path: &str, values: &[Fragment]) -> Result<Vec<T>, ManifestError> {
    let indexed = values.iter().enumerate();
    indexed
        .map(|(index, value)| fragment(&format!("{path}[{index}]"), value))
        .collect()
}

fn fragment<T: DeserializeOwned>(path: &str, value: &Fragment) -> Result<T, ManifestError> {
    T::deserialize(value.value()).map_err(|error| mismatch(path, &error))
}

fn mismatch(path: &str, error: &serde_json::Error) -> ManifestError {
    ManifestError::Fragment {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// behaviours M4, Z1
    #[test]
    fn a_resolved_step_becomes_kubernetes_types() {
        let template: windlass_pipeline::ResolvedTemplate = serde_json::from_value(json!({
            "merged": {
                "image": "churn:$(TAG)",
                "script": "echo $FOLD",
                "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "warehouse", "key": "password"}}}],
                "terminationGrace": "90s",
                "pod": {
                    "resources": {"limits": {"memory": "2Gi"}},
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "hostIpc": true,
                },
            },
            "variables": {"TAG": "v3"},
        }))
        .expect("a template");
        let overlay = serde_json::from_str(r#"{"step":"train","matrix":[["FOLD","3"]]}"#).expect("an overlay");
        let step = step(&template.spec("train.3", &overlay)).expect("a step");
        assert_eq!(step.image.as_deref(), Some("churn:v3"));
        assert_eq!(step.script, Some(script_key("echo $FOLD")));
        assert_eq!(step.matrix["FOLD"], "3");
        assert_eq!(step.termination_grace_seconds, Some(90));
        let password = step
            .env
            .iter()
            .find(|variable| variable.name == "PASSWORD")
            .expect("the variable");
        let source = password.value_from.as_ref().expect("a source");
        assert_eq!(source.secret_key_ref.as_ref().expect("a reference").key, "password");
        assert_eq!(step.pod.tolerations[0].key.as_deref(), Some("gpu"));
        assert_eq!(step.pod.host_ipc, Some(true));
    }

    #[test]
    fn i9_a_fragment_of_the_wrong_shape_is_refused_with_its_path() {
        let pod = windlass_pipeline::PodSettings {
            tolerations: vec![Fragment::new(json!({"key": "a"})), Fragment::new(json!({"key": 5}))],
            ..windlass_pipeline::PodSettings::default()
        };
        let error = pod_settings(&pod).expect_err("refused");
        assert!(
            matches!(&error, ManifestError::Fragment { path, .. } if path == "pod.tolerations[1]"),
            "{error}"
        );
    }
}
