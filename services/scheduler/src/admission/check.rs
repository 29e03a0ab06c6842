//! Checking a pipeline as far as possible before it runs: its fields, its graph, and the pods that it would make.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use windlass_api::convert::{parameters_from_proto, pipeline_from_proto};
use windlass_api::pipeline::v1::Pipeline as WirePipeline;
use windlass_ids::{AttemptId, InstallationId, Namespace, RunId, StepIndex};
use windlass_manifest as manifest;
use windlass_pipeline::resolved::SourceStep;
use windlass_pipeline::source::joined;
use windlass_pipeline::violation::MAX_VIOLATIONS;
use windlass_pipeline::{Environment, Pipeline, ResolvedPipeline, Scalar, Violation, Violations, resolve};

use super::inspect::Inspection;
use super::lanes::{Broken, Lanes, Size};
use crate::errors::FieldProblem;
use crate::policy::Policy;
use crate::secrets::references::{Reference, ReferenceCheck};

/// Most bytes of a pod as JSON: the API server's store refuses objects above 1.5 MiB, and adds to what it gets.
const MAX_POD_BYTES: usize = 1 << 20;

/// What pipelines are checked against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    /// Limits, and what a workspace without a volume means.
    pub(crate) environment: Environment,
    /// What the pods are made with.
    pub(crate) manifests: manifest::Settings,
    /// The installation, for labels.
    pub(crate) installation: Option<InstallationId>,
    /// What pods may use; everything without one.
    pub(crate) policy: Option<Arc<Policy>>,
    /// How far references to Secrets are looked at.
    pub(crate) check_references: ReferenceCheck,
}

/// A pipeline without a fault.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) pipeline: Pipeline,
    pub(crate) resolved: ResolvedPipeline,
    /// The Secrets that its pods refer to; an executor can tell whether they are there.
    pub(crate) references: Vec<Reference>,
}

/// A pipeline as it was read, with what could not be read of it.
#[derive(Debug)]
pub(crate) struct Unchecked {
    pub(crate) pipeline: Pipeline,
    pub(crate) parameters: BTreeMap<String, Scalar>,
    unread: Vec<Violation>,
}

impl Unchecked {
    /// Reads a message.
    pub(crate) fn read(pipeline: WirePipeline, parameters: BTreeMap<String, prost_types::Value>) -> Self {
        let mut unread = Violations::default();
        Self {
            parameters: parameters_from_proto(parameters, &mut unread),
            pipeline: pipeline_from_proto(pipeline, &mut unread),
            unread: unread.into_vec(),
        }
    }

    /// Whether everything could be read.
    pub(crate) fn is_whole(&self) -> bool {
        self.unread.is_empty()
    }
}

/// Checks a pipeline with its parameters.
///
/// # Errors
/// Every problem that was found, with paths in the request.
pub(crate) async fn check(
    lanes: &Lanes,
    checker: Checker,
    namespace: Namespace,
    pipeline: Option<WirePipeline>,
    parameters: BTreeMap<String, prost_types::Value>,
) -> Result<Checked, Vec<FieldProblem>> {
    let Some(pipeline) = pipeline else {
        return Err(no_pipeline());
    };
    let size = Size::of(&pipeline);
    let work = move || {
        let unchecked = Unchecked::read(pipeline, parameters);
        checker.check(&namespace, unchecked)
    };
    lanes.run(size, work).await.unwrap_or_else(|Broken| Err(broken()))
}

/// What is wrong with a request without a pipeline.
pub(crate) fn no_pipeline() -> Vec<FieldProblem> {
    vec![FieldProblem::new("pipeline", "MISSING", "a pipeline is needed")]
}

/// What is said about a pipeline that the server cannot cope with.
pub(crate) fn broken() -> Vec<FieldProblem> {
    let text = "the pipeline could not be checked; please report this with the pipeline";
    vec![FieldProblem::new("pipeline", "INTERNAL", text)]
}

impl Checker {
    /// The same, but without a look at references where they are not `wanted`.
    pub(super) fn with_references(mut self, wanted: bool) -> Self {
        if !wanted {
            self.check_references = ReferenceCheck::None;
        }
        self
    }

    /// Checks what was read.
    ///
    /// # Errors
    /// Every problem that was found.
    pub(crate) fn check(&self, namespace: &Namespace, unchecked: Unchecked) -> Result<Checked, Vec<FieldProblem>> {
        let Unchecked {
            pipeline,
            parameters,
            unread,
        } = unchecked;
        let resolved = match resolve(&pipeline, &parameters, &self.environment) {
            Ok(resolved) => resolved,
            Err(found) => return Err(problems(joined(unread, found))),
        };
        let mut found = problems(unread);
        match self.check_pods(namespace, &resolved, Some(&pipeline)) {
            Ok(references) if found.is_empty() => Ok(Checked {
                pipeline,
                resolved,
                references,
            }),
            Ok(_) => Err(found),
            Err(more) => {
                found.extend(more);
                Err(found)
            }
        }
    }

    /// Checks once more what was accepted before: the operator may have decided otherwise since. Answers with the Secrets that its pods
    /// refer to.
    ///
    /// # Errors
    /// Every problem that was found.
    pub(crate) fn check_resolved(
        &self,
        namespace: &Namespace,
        resolved: &ResolvedPipeline,
    ) -> Result<Vec<Reference>, Vec<FieldProblem>> {
        self.check_pods(namespace, resolved, None)
    }

    /// Makes the pod of every step as it is written, for its first instance and for the one with the longest values: what Kubernetes
    /// would refuse for its form or its size is refused now, and what the operator does not allow.
    fn check_pods(
        &self,
        namespace: &Namespace,
        resolved: &ResolvedPipeline,
        written: Option<&Pipeline>,
    ) -> Result<Vec<Reference>, Vec<FieldProblem>> {
        let run = self.run(namespace, resolved);
        let run = run.map_err(|error| vec![manifest_problem("", &error)])?;
        let mut found = Vec::new();
        if let Err(error) = manifest::owner(&run) {
            found.push(manifest_problem("", &error));
        }
        let mut inspection = Inspection::new(self, namespace, &run, resolved, written);
        // Pods of steps without a matrix differ in names only when their templates are equal.
        let mut good = HashSet::new();
        for (index, source) in resolved.sources.iter().enumerate() {
            let is_single = source.matrix.is_empty();
            if is_single && good.contains(&source.template) {
                continue;
            }
            let problems = self.check_source(&run, resolved, index, source, &mut inspection);
            if is_single && problems.is_empty() {
                good.insert(source.template);
            }
            found.extend(problems);
            if found.len() > MAX_VIOLATIONS {
                break;
            }
        }
        if found.is_empty() {
            Ok(inspection.into_references())
        } else {
            Err(found)
        }
    }

    /// What is wrong with the pods of a step: the first problem of their form, or else all that is not allowed of the first pod that
    /// uses something which is not.
    fn check_source(
        &self,
        run: &manifest::Run,
        resolved: &ResolvedPipeline,
        index: usize,
        source: &SourceStep,
        inspection: &mut Inspection<'_>,
    ) -> Vec<FieldProblem> {
        let mut instances = BTreeSet::from([source.first, source.first + longest(source)]);
        match inspection.instances(index, source) {
            Ok(more) => instances.extend(more),
            Err(problem) => return vec![problem],
        }
        for instance in instances {
            let problems = match self.sound_pod(run, resolved, instance, index) {
                Ok(pod) => inspection.look(index, StepIndex(instance), &pod),
                Err(problem) => vec![problem],
            };
            if !problems.is_empty() {
                return problems;
            }
        }
        Vec::new()
    }

    fn sound_pod(
        &self,
        run: &manifest::Run,
        resolved: &ResolvedPipeline,
        instance: u32,
        step: usize,
    ) -> Result<Pod, FieldProblem> {
        let pod = self.pod(run, resolved, StepIndex(instance));
        let pod = pod.map_err(|error| manifest_problem(&format!("steps[{step}]."), &error))?;
        let bytes = serde_json::to_vec(&pod).map_or(0, |json| json.len());
        if bytes <= MAX_POD_BYTES {
            return Ok(pod);
        }
        let message = format!(
            "the pod has {bytes} bytes, more than {MAX_POD_BYTES}, which Kubernetes takes; hand large values over in files"
        );
        Err(FieldProblem::new(format!("pipeline.steps[{step}]"), "LIMIT", message))
    }

    /// The run as manifests see it, before it has an identity.
    pub(crate) fn run(
        &self,
        namespace: &Namespace,
        resolved: &ResolvedPipeline,
    ) -> Result<manifest::Run, manifest::ManifestError> {
        Ok(manifest::Run {
            id: RunId::from_bytes([0; 16]),
            name: resolved.name.clone(),
            namespace: namespace.0.clone(),
            pipeline: resolved.name.clone(),
            installation: self.installation.unwrap_or(InstallationId::from_bytes([0; 16])),
            context: manifest::context(resolved)?,
        })
    }

    /// The pod of a step's first attempt.
    pub(crate) fn pod(
        &self,
        run: &manifest::Run,
        resolved: &ResolvedPipeline,
        step: StepIndex,
    ) -> Result<Pod, manifest::ManifestError> {
        let spec = resolved
            .step_spec(step.0)
            .ok_or_else(|| manifest::ManifestError::Fragment {
                path: String::new(),
                message: "no such step".to_owned(),
            })?;
        let attempt = manifest::Attempt {
            id: AttemptId {
                run: run.id,
                step,
                number: 1,
            },
            step_name: &spec.name,
        };
        manifest::pod(&self.manifests, run, &manifest::step(&spec)?, attempt, None)
    }
}

/// The instance with the longest value of every axis.
fn longest(source: &SourceStep) -> u32 {
    source.matrix.iter().fold(0, |instance, axis| {
        let lengths = axis.values.iter().enumerate();
        let longest = lengths
            .max_by_key(|(_, value)| value.len())
            .map_or(0, |(index, _)| index);
        let of = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        instance * of(axis.values.len()) + of(longest)
    })
}

/// Violations of the pipeline with their paths in the request; those of `parameters.NAME` are the request's own.
fn problems(violations: Vec<Violation>) -> Vec<FieldProblem> {
    let of = |violation: Violation| {
        let path = match violation.path.as_str() {
            "" => "pipeline".to_owned(),
            path if path.starts_with("parameters.") => violation.path,
            path => format!("pipeline.{path}"),
        };
        FieldProblem::new(path, violation.code.as_str(), violation.message)
    };
    violations.into_iter().map(of).collect()
}

/// Texts of manifest errors begin with the path of the field.
fn manifest_problem(step: &str, error: &manifest::ManifestError) -> FieldProblem {
    let text = error.to_string();
    let (path, message) = text.split_once(": ").unwrap_or(("", &text));
    let path = format!("pipeline.{step}{path}");
    FieldProblem::new(path.trim_end_matches('.'), "BAD_VALUE", message)
}
