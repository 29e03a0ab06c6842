//! The secrets of a run: whether those that were given are those that its steps use, where they are to be, and the way from PREPARING to
//! QUEUED.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use windlass_ids::{ClusterAlias, ClusterUid, StepIndex};
use windlass_pipeline::{Pipeline, ResolvedPipeline};
use windlass_scheduling::{Event, Reused};

use super::submit::unread;
use crate::definition;
use crate::driver::{ChangeOrder, Command, Refusal};
use crate::errors::{CallError, FieldProblem, SubmitError, Unavailable};
use crate::run_secrets::{self, Values};
use crate::secrets::check;
use crate::shared::Shared;
use crate::store::{RunHeader, SecretOwner, Store};

/// Where values stand in a request.
pub(super) const FIELD: &str = "secrets";

/// What is wrong with values, whatever they are for.
pub(crate) fn form_problems(given: &Values) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    check::values(FIELD, &given.0, &mut problems);
    problems
}

/// Keys that a step uses and nobody gave, and the other way round.
pub(super) fn problems(pipeline: &Pipeline, resolved: &ResolvedPipeline, given: &Values) -> Vec<FieldProblem> {
    let given = given.keys();
    let mut problems = unused(&used(resolved), &given);
    problems.extend(missing(pipeline, resolved, &given, |key| {
        format!("the run has no secret {key}: give its value with the submission, as with --secret-file {key}=PATH")
    }));
    problems
}

/// Keys that a step uses and that are not there, each at its place.
pub(super) fn missing(
    pipeline: &Pipeline,
    resolved: &ResolvedPipeline,
    there: &BTreeSet<&str>,
    text: impl Fn(&str) -> String,
) -> Vec<FieldProblem> {
    let used = used(resolved);
    let missing = references(pipeline)
        .into_iter()
        .filter(|(key, _)| used.contains(key) && !there.contains(key));
    missing
        .map(|(key, path)| FieldProblem::new(format!("pipeline.{path}"), "MISSING", text(key)))
        .collect()
}

/// As [`problems`], of a retry: what is reused needs nothing. `gone` says why values of the old run cannot be used again.
pub(super) fn retry_problems(
    resolved: &ResolvedPipeline,
    reused: &[Reused],
    given: &Values,
    gone: &str,
) -> Vec<FieldProblem> {
    let given = given.keys();
    let mut problems = unused(&used(resolved), &given);
    let mut missing: BTreeMap<&str, String> = BTreeMap::new();
    for (source, step) in again(resolved, reused) {
        for key in resolved.run_secrets(step).filter(|key| !given.contains(key)) {
            missing.entry(key).or_insert_with(|| source.to_owned());
        }
    }
    problems.extend(missing.into_iter().map(|(key, step)| {
        let text = format!(
            "step {step} runs again and uses it, and {gone}: give its value again, as with --secret-file {key}=PATH"
        );
        FieldProblem::new(check::key_field(FIELD, key), "MISSING", text)
    }));
    problems
}

pub(super) fn unused(used: &BTreeSet<&str>, given: &BTreeSet<&str>) -> Vec<FieldProblem> {
    let of = |key: &&str| {
        let text =
            "no step uses it: leave it out, or name it in a step's env with valueFrom: {runSecretKeyRef: {key: …}}";
        FieldProblem::new(check::key_field(FIELD, key), "UNUSED", text)
    };
    given.difference(used).map(of).collect()
}

pub(super) fn used(resolved: &ResolvedPipeline) -> BTreeSet<&str> {
    let templates = resolved.templates.iter();
    templates.flat_map(|template| template.run_secrets()).collect()
}

/// Keys as they stand in a pipeline, with their paths.
fn references(pipeline: &Pipeline) -> Vec<(&str, String)> {
    let steps = pipeline.steps.iter().enumerate();
    let steps = steps.map(|(index, step)| (format!("steps[{index}]"), &step.template));
    let defaults = pipeline
        .defaults
        .iter()
        .map(|defaults| ("defaults".to_owned(), defaults));
    let found = steps.chain(defaults).flat_map(|(place, template)| {
        let keys = template.run_secrets();
        keys.map(move |(index, key)| (key, format!("{place}.env[{index}].valueFrom.runSecretKeyRef.key")))
    });
    found.collect()
}

/// Steps that run again and use secrets, with their names in the file.
pub(super) fn again<'a>(resolved: &'a ResolvedPipeline, reused: &'a [Reused]) -> impl Iterator<Item = (&'a str, u32)> {
    let is_reused = |step: u32| {
        let found = reused.binary_search_by_key(&StepIndex(step), |reused| reused.step);
        found.is_ok()
    };
    let sources = resolved.sources.iter();
    sources
        .filter(|source| resolved.run_secrets(source.first).next().is_some())
        .flat_map(|source| (source.first..source.first + source.count).map(|step| (source.name.as_str(), step)))
        .filter(move |(_, step)| !is_reused(*step))
}

/// The clusters in which secrets are to be: of the steps that use them and are not reused. Where such a step names no cluster it gets the only
/// one, since it would find no Secret in another that comes later.
///
/// # Errors
/// When a cluster has no executor for it, or there are several and none is named.
pub(super) fn places(
    place_of: impl Fn(&str) -> Result<(ClusterUid, ClusterAlias), CallError>,
    resolved: &mut ResolvedPipeline,
    reused: &[Reused],
) -> Result<BTreeMap<ClusterUid, ClusterAlias>, SubmitError> {
    let steps: Vec<_> = again(resolved, reused).map(|(_, step)| step).collect();
    let aliases: BTreeSet<Option<String>> = steps.into_iter().map(|step| cluster_of(resolved, step)).collect();
    let mut clusters = BTreeMap::new();
    for alias in aliases {
        let (cluster, name) = place_of(alias.as_deref().unwrap_or_default()).map_err(no_place)?;
        if alias.is_none() {
            bind(resolved, &name);
        }
        clusters.insert(cluster, name);
    }
    Ok(clusters)
}

/// The cluster that a step names.
pub(super) fn cluster_of(resolved: &ResolvedPipeline, step: u32) -> Option<String> {
    definition::cluster(resolved, resolved.source(step)?.template, step)
}

/// Lets the steps that use secrets and name no cluster run in this one.
pub(super) fn bind(resolved: &mut ResolvedPipeline, cluster: &ClusterAlias) {
    let takes = |template: &&mut Arc<_>| {
        let template: &windlass_pipeline::ResolvedTemplate = template;
        template.merged.cluster.is_none() && template.run_secrets().next().is_some()
    };
    for template in resolved.templates.iter_mut().filter(takes) {
        Arc::make_mut(template).merged.cluster = Some(cluster.0.clone());
    }
}

fn no_place(error: CallError) -> SubmitError {
    match error {
        CallError::ClusterAmbiguous { clusters } => {
            let text = format!(
                "several clusters are connected: {}; name the one whose steps use the run's secrets, here or in the steps",
                clusters.join(", ")
            );
            SubmitError::Invalid(vec![FieldProblem::new("pipeline.cluster", "MISSING", text)])
        }
        error => SubmitError::SecretsNotMade {
            run: None,
            error: Box::new(error.into()),
        },
    }
}

/// Makes the secrets of a run that is PREPARING, and has it queued. What it is then is returned: it may have ended meanwhile.
///
/// # Errors
/// When they cannot be made now: the run stays PREPARING until the request is repeated, or its time is over.
pub(super) async fn prepare(
    shared: &Shared,
    store: &dyn Store,
    header: RunHeader,
    given: &Values,
) -> Result<RunHeader, SubmitError> {
    let made = run_secrets::make(shared, SecretOwner::Run(header.id), given).await;
    made.map_err(|error| SubmitError::SecretsNotMade {
        run: Some(header.name.clone()),
        error: Box::new(error),
    })?;
    let (reply, answer) = oneshot::channel();
    let order = ChangeOrder {
        event: Event::RunPrepared { run: header.id },
        request: None,
        reservation: None,
        reply,
    };
    shared.inbox.send(Command::Change(Box::new(order))).await?;
    match answer.await.map_err(|_| Unavailable::OutcomeUnknown)? {
        Err(Refusal::Unavailable(error)) => return Err(error.into()),
        // It has ended, and its secrets go again.
        Ok(()) | Err(Refusal::Rejected(_) | Refusal::NotEnded) => {}
    }
    let newest = store.run(header.id).await.map_err(unread)?;
    newest.ok_or(SubmitError::RunDeleted { run: header.id })
}
