//! Looking at pods as they would be made: whether the operator's policy allows what they use, and to which Secrets they refer.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use windlass_ids::{Namespace, StepIndex};
use windlass_manifest as manifest;
use windlass_pipeline::resolved::SourceStep;
use windlass_pipeline::{FREE_MAPS, Pipeline, ResolvedPipeline, WorkspaceDefault};

use super::check::Checker;
use crate::errors::FieldProblem;
use crate::pods::{SecretUse, Written, secret_uses};
use crate::policy::{self, Subject};
use crate::secrets::references::Reference;

/// Most instances of a step that are looked at because a matrix decides what they use.
const MAX_INSTANCES: u64 = 10_000;
/// The volume of a workspace, and of its mount.
const WORKSPACE_VOLUME: &str = "windlass-workspace";

/// See the module.
pub(super) struct Inspection<'a> {
    checker: &'a Checker,
    namespace: &'a Namespace,
    resolved: &'a ResolvedPipeline,
    /// As it was written, where that is known.
    written: Option<&'a Pipeline>,
    /// The volume that the operator provides as workspace, and its mount.
    workspace: Option<(Value, Value)>,
    /// Name of the run's own Secret, which is made for it.
    run_secret: String,
    said: HashSet<(String, String)>,
    /// The Secrets that the pods refer to.
    references: Vec<Reference>,
    /// Template, name, keys and place of them.
    referred: HashSet<(u32, SecretUse)>,
}

impl<'a> Inspection<'a> {
    pub(super) fn new(
        checker: &'a Checker,
        namespace: &'a Namespace,
        run: &manifest::Run,
        resolved: &'a ResolvedPipeline,
        written: Option<&'a Pipeline>,
    ) -> Self {
        Self {
            checker,
            namespace,
            resolved,
            written,
            workspace: provided_workspace(checker, run, resolved),
            run_secret: manifest::secret_name(&run.name, run.id),
            said: HashSet::new(),
            references: Vec::new(),
            referred: HashSet::new(),
        }
    }

    /// The Secrets that the pods refer to which were looked at.
    pub(super) fn into_references(self) -> Vec<Reference> {
        self.references
    }

    /// What the pod of an instance of the step at `index` of the pipeline uses and may not; nothing twice.
    pub(super) fn look(&mut self, index: usize, instance: StepIndex, pod: &Pod) -> Vec<FieldProblem> {
        let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
        let mut secrets = secret_uses(&without(&spec, self.workspace.as_ref().map(|(volume, _)| volume)));
        secrets.retain(|one| one.name != self.run_secret);
        self.refer(index, instance, &secrets);
        let Some(policy) = &self.checker.policy else {
            return Vec::new();
        };
        let annotations = serde_json::to_value(&pod.metadata.annotations).unwrap_or_default();
        let subject = Subject {
            namespace: self.namespace,
            spec: &spec,
            annotations: Some(&annotations),
            secrets: &secrets,
            workspace: self.workspace.as_ref().map(|(volume, mount)| (volume, mount)),
        };
        let offences = policy::check(policy.rules(self.namespace), subject);
        if offences.is_empty() {
            return Vec::new();
        }
        let written = self.written(index);
        let problems = offences.into_iter().map(|offence| {
            let path = format!("pipeline.{}", written.locate(&offence.place));
            FieldProblem::new(path, "NOT_ALLOWED", offence.message)
        });
        let new = problems.filter(|problem| self.said.insert((problem.path.clone(), problem.message.clone())));
        new.collect()
    }

    /// Keeps the Secrets that a pod refers to.
    fn refer(&mut self, index: usize, instance: StepIndex, secrets: &[SecretUse]) {
        let template = self.resolved.sources.get(index).map(|source| source.template);
        let (Some(template), false) = (template, secrets.is_empty()) else {
            return;
        };
        let new = secrets
            .iter()
            .filter(|one| self.referred.insert((template, (*one).clone())));
        let new: Vec<&SecretUse> = new.collect();
        if new.is_empty() {
            return;
        }
        let spec = self.resolved.step_spec(instance.0);
        let cluster = spec
            .and_then(|spec| spec.cluster)
            .or_else(|| self.resolved.cluster.clone());
        let (written, rules) = (self.written(index), self.checker.policy.as_ref());
        let rules = rules.map(|policy| policy.rules(self.namespace));
        let references = new.into_iter().map(|one| Reference {
            cluster: cluster.clone().unwrap_or_default(),
            name: one.name.clone(),
            keys: one.keys.clone(),
            optional: one.optional,
            path: format!("pipeline.{}", written.locate(&one.place)),
            template,
            managed_only: rules.and_then(|rules| policy::unmanaged(rules, self.namespace, &one.name)),
        });
        self.references.extend(references);
    }

    fn written(&self, index: usize) -> Written {
        match self.written {
            Some(pipeline) => Written::of(pipeline, index),
            None => Written::of_resolved(self.resolved, index),
        }
    }

    /// The instances of a step whose pods may use something else than that of its first one.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn instances(&self, index: usize, source: &SourceStep) -> Result<Vec<u32>, FieldProblem> {
        if source.matrix.is_empty() {
            return Ok(Vec::new());
        }
        let template = self.resolved.templates.get(source.template as usize);
        let pod = template.and_then(|template| serde_json::to_value((&template.merged.pod, &template.merged.env)).ok());
        let pod = pod.unwrap_or_default();
        let tells: Vec<bool> = source
            .matrix
            .iter()
            .map(|axis| decides(&pod, &format!("$({})", axis.name)))
            .collect();
        let telling = || source.matrix.iter().zip(&tells).filter(|(_, tells)| **tells);
        let count = telling().fold(1_u64, |count, (axis, _)| count.saturating_mul(axis.values.len() as u64));
        if count > MAX_INSTANCES && self.checker.policy.is_none() {
            return Ok(Vec::new());
        }
        if count > MAX_INSTANCES {
            let message = format!(
                "the matrix decides in {count} ways what the pods may use; at most {MAX_INSTANCES} are looked at, so use the values in \
                 command, args or plain variables only"
            );
            return Err(FieldProblem::new(
                format!("pipeline.steps[{index}].matrix"),
                "LIMIT",
                message,
            ));
        }
        let mut instances = vec![0_u32];
        for (axis, tells) in source.matrix.iter().zip(&tells) {
            let values = u32::try_from(axis.values.len()).unwrap_or(u32::MAX);
            let range = if *tells { values } else { 1 };
            let longer = instances
                .iter()
                .flat_map(|instance| (0..range).map(move |value| instance * values + value));
            instances = longer.collect();
        }
        Ok(instances.into_iter().map(|instance| source.first + instance).collect())
    }
}

/// Fields whose texts decide nothing about what a pod may use.
const INNOCENT: [&str; 13] = [
    "affinity",
    "args",
    "command",
    "image",
    "imagePullPolicy",
    "mountPath",
    "priorityClassName",
    "resources",
    "runtimeClassName",
    "schedulerName",
    "tolerations",
    "value",
    "workingDir",
];

/// Whether the value of a matrix that `reference` stands for can decide what a pod uses.
fn decides(value: &Value, reference: &str) -> bool {
    match value {
        Value::String(text) => text.contains(reference),
        Value::Array(items) => items.iter().any(|item| decides(item, reference)),
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let is_free = FREE_MAPS.contains(&name.as_str()) && name != "annotations";
            !is_free && !INNOCENT.contains(&name.as_str()) && decides(value, reference)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A workspace of the operator's as its pods have it, when the pipeline has named no volume of its own.
fn provided_workspace(checker: &Checker, run: &manifest::Run, resolved: &ResolvedPipeline) -> Option<(Value, Value)> {
    let provided = match &checker.environment.workspace {
        WorkspaceDefault::Volume(volume) => Some(volume),
        WorkspaceDefault::RunFolder | WorkspaceDefault::Refused => None,
    };
    if resolved.workspace.as_ref()?.volume.as_ref() != provided {
        return None;
    }
    let plain = manifest::StepSpec {
        image: Some("none".to_owned()),
        ..manifest::StepSpec::default()
    };
    let attempt = manifest::Attempt {
        id: windlass_ids::AttemptId {
            run: run.id,
            step: StepIndex(0),
            number: 1,
        },
        step_name: "step",
    };
    let spec = manifest::pod(&checker.manifests, run, &plain, attempt, None)
        .ok()?
        .spec?;
    let volume = spec
        .volumes?
        .into_iter()
        .find(|volume| volume.name == WORKSPACE_VOLUME)?;
    let mounts = spec
        .containers
        .into_iter()
        .flat_map(|container| container.volume_mounts.unwrap_or_default());
    let mount = mounts.into_iter().find(|mount| mount.name == WORKSPACE_VOLUME)?;
    Some((serde_json::to_value(volume).ok()?, serde_json::to_value(mount).ok()?))
}

/// A pod's spec without a volume.
fn without(spec: &Value, volume: Option<&Value>) -> Value {
    let mut spec = spec.clone();
    if let (Some(volume), Some(volumes)) = (volume, spec.get_mut("volumes").and_then(Value::as_array_mut)) {
        volumes.retain(|one| one != volume);
    }
    spec
}
