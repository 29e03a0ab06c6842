//! Checking a pipeline as far as possible before it runs: its fields, its graph, and the pods that it would make.

use std::collections::BTreeMap;

use windlass_api::convert::{parameters_from_proto, pipeline_from_proto};
use windlass_api::pipeline::v1::Pipeline as WirePipeline;
use windlass_ids::{AttemptId, InstallationId, Namespace, RunId, StepIndex};
use windlass_manifest as manifest;
use windlass_pipeline::{Environment, Pipeline, ResolvedPipeline, Scalar, Violation, resolve};

use crate::errors::FieldProblem;

/// Requests of at most this many bytes are checked at once, others on a thread for long work.
const SMALL: usize = 64 * 1024;

/// What pipelines are checked against.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    /// Limits, and what a workspace without a volume means.
    pub(crate) environment: Environment,
    /// What the pods are made with.
    pub(crate) manifests: manifest::Settings,
    /// The installation, for labels.
    pub(crate) installation: Option<InstallationId>,
}

/// A pipeline without a fault.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) pipeline: Pipeline,
    pub(crate) parameters: BTreeMap<String, Scalar>,
    pub(crate) resolved: ResolvedPipeline,
}

/// Checks a pipeline with its parameters.
///
/// # Errors
/// Every problem that was found, with paths in the request.
pub(crate) async fn check(
    checker: Checker,
    namespace: Namespace,
    pipeline: Option<WirePipeline>,
    parameters: BTreeMap<String, prost_types::Value>,
) -> Result<Checked, Vec<FieldProblem>> {
    let Some(pipeline) = pipeline else {
        return Err(vec![FieldProblem::new("pipeline", "MISSING", "a pipeline is needed")]);
    };
    let size = prost::Message::encoded_len(&pipeline);
    let work = move || checker.check(&namespace, pipeline, parameters);
    if size <= SMALL {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let text = "the pipeline could not be checked; please report this with the pipeline";
        Err(vec![FieldProblem::new("pipeline", "INTERNAL", text)])
    })
}

impl Checker {
    fn check(
        &self,
        namespace: &Namespace,
        pipeline: WirePipeline,
        parameters: BTreeMap<String, prost_types::Value>,
    ) -> Result<Checked, Vec<FieldProblem>> {
        let parameters = parameters_from_proto(parameters).map_err(problems)?;
        let pipeline = pipeline_from_proto(pipeline).map_err(problems)?;
        let resolved = resolve(&pipeline, &parameters, &self.environment).map_err(problems)?;
        self.check_pods(namespace, &resolved)?;
        Ok(Checked {
            pipeline,
            parameters,
            resolved,
        })
    }

    /// Makes the first pod of every step as it is written: what Kubernetes would refuse for its form is refused now.
    fn check_pods(&self, namespace: &Namespace, resolved: &ResolvedPipeline) -> Result<(), Vec<FieldProblem>> {
        let run = self
            .run(namespace, resolved)
            .map_err(|error| vec![manifest_problem("", &error)])?;
        if let Err(error) = manifest::owner(&run) {
            return Err(vec![manifest_problem("", &error)]);
        }
        let mut found = Vec::new();
        for (index, source) in resolved.sources.iter().enumerate() {
            if let Err(error) = self.pod(&run, resolved, StepIndex(source.first)) {
                found.push(manifest_problem(&format!("steps[{index}]."), &error));
            }
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
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
    ) -> Result<k8s_openapi::api::core::v1::Pod, manifest::ManifestError> {
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
    FieldProblem::new(format!("pipeline.{step}{path}"), "BAD_VALUE", message)
}
