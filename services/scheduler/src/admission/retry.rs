//! Retrying a run: its pipeline once more, in a run of its own that takes over what has succeeded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::run::v1::RetryRunRequest;
use windlass_ids::{AttemptId, Namespace, RunId, RunName, StepIndex};
use windlass_pipeline::ResolvedPipeline;
use windlass_pipeline::resolved::SourceStep;
use windlass_scheduling::{Reused, RunState, StepState};

use super::check::Checker;
use super::lanes::Size;
use super::secrets;
use super::shared_secrets;
use super::submit::{Begun, Content, Request, Submitted, Submitter, field_problems, is_broken, unread};
use crate::definition::RunDefinition;
use crate::errors::{LookupError, RetryError, SubmitError, Unavailable};
use crate::lookup;
use crate::read_model::RunEntry;
use crate::run_secrets::Values;
use crate::secrets::references;
use crate::shared::Shared;
use crate::store::{DefinitionKind, Lineage, Operation, RunHeader, Store};

/// What a retry takes over and what it does again; both ascending.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) reused: Vec<StepIndex>,
    pub(crate) rerun: Vec<StepIndex>,
}

impl Plan {
    /// Of a run that was retried.
    pub(crate) fn of_retried(entry: &RunEntry) -> Self {
        let record = entry.record();
        Self::from_reused(record.reused().keys().copied().collect(), &entry.meta().definition)
    }

    fn from_reused(reused: Vec<StepIndex>, definition: &RunDefinition) -> Self {
        let rerun = definition.spec().graph().indices();
        let rerun = rerun.filter(|step| reused.binary_search(step).is_err()).collect();
        Self { reused, rerun }
    }
}

/// What a retry of an ended run would take over, and the keys of secrets that it wants to be given.
///
/// # Errors
/// See [`RetryError`].
pub(crate) async fn plan(
    shared: &Shared,
    namespace: &Namespace,
    request: &RetryRunRequest,
) -> Result<(Plan, RunEntryRef, BTreeSet<String>), RetryError> {
    let header = lookup::header(shared, namespace, &request.run).await?;
    let entry = retryable(shared, &header).await?;
    let again = again(&entry, &request.from_steps)?;
    let of = Arc::clone(&entry);
    let work = move || {
        let reused = reusable(&of, &again).iter().map(|reused| reused.step).collect();
        Plan::from_reused(reused, &of.meta().definition)
    };
    let plan = shared.lanes.run(size(&entry, 0), work).await.map_err(is_broken)?;
    let resolved = entry.meta().definition.resolved();
    let rerun = || plan.rerun.iter().map(|step| step.0);
    let keys = match shared_secrets::of_retry(shared, &header, resolved, rerun()) {
        Some(_) => BTreeSet::new(),
        None => rerun()
            .flat_map(|step| resolved.run_secrets(step))
            .map(str::to_owned)
            .collect(),
    };
    Ok((plan, entry, keys))
}

/// A run with its steps.
pub(crate) type RunEntryRef = Arc<RunEntry>;

/// Retries a run and waits until the new one is durable.
///
/// # Errors
/// See [`RetryError`].
pub(crate) async fn retry(
    shared: &Shared,
    checker: Checker,
    submitter: Submitter,
    namespace: Namespace,
    request: RetryRunRequest,
) -> Result<Submitted, RetryError> {
    let RetryRunRequest {
        run,
        request_id,
        name,
        from_steps,
        secrets,
        skip_reference_check,
        ..
    } = request;
    let checker = checker.with_references(!skip_reference_check);
    let secrets = Values(secrets);
    let mut problems = field_problems(&request_id, &name, &BTreeMap::new());
    problems.extend(secrets::form_problems(&secrets));
    if !problems.is_empty() {
        return Err(RetryError::Invalid(problems));
    }
    // As it was asked: what `@latest` means may be another run when the request is repeated.
    let content = match secrets.keys() {
        keys if keys.is_empty() => serde_json::to_vec(&("retry", &run, &name, &from_steps)),
        keys => serde_json::to_vec(&("retry", &run, &name, &from_steps, keys)),
    };
    let content = content.unwrap_or_default();
    let mut request = Request {
        size: Size::Small,
        operation: Operation::Retry,
        namespace,
        request_id,
        name,
        labels: BTreeMap::new(),
        secrets,
    };
    let store = shared.store().map_err(|_| Unavailable::Recovering)?;
    let digest = Sha256::digest(content).into();
    let fresh = match request.begin(shared, store.as_ref(), digest).await? {
        Begun::Fresh(fresh) => fresh,
        Begun::Again(header) => {
            let header = request.go_on(shared, store.as_ref(), *header).await?;
            return Ok(Submitted { header, created: false });
        }
    };
    let header = lookup::header(shared, &request.namespace, &run).await?;
    let entry = retryable(shared, &header).await?;
    let again = again(&entry, &from_steps)?;
    let mut content = content_of(shared, store.as_ref(), checker, &entry, again).await?;
    let reused = content.retried.as_ref().map_or(&[][..], |(_, reused)| reused);
    if request.secrets.keys().is_empty() {
        let rerun = secrets::again(&content.resolved, reused).map(|(_, step)| step);
        content.secret = shared_secrets::of_retry(shared, &header, &content.resolved, rerun);
    }
    let places = match &content.secret {
        Some(_) => BTreeMap::new(),
        None => {
            let gone = match &header.fixed.secret {
                Some(_) => "the secrets of its schedule are gone, or have no such key",
                None => "the secrets of an ended run are gone",
            };
            let problems = secrets::retry_problems(&content.resolved, reused, &request.secrets, gone);
            if !problems.is_empty() {
                return Err(RetryError::Invalid(problems));
            }
            let place_of = |alias: &str| shared.executors.place_of::<dispatch::RunSecretCall>(alias);
            secrets::places(place_of, &mut content.resolved, reused)?
        }
    };
    request.size = size(&entry, content.submitted.len());
    request.labels.clone_from(&header.fixed.labels);
    let header = request
        .enter(shared, store.as_ref(), submitter, fresh, (content, places))
        .await?;
    Ok(Submitted { header, created: true })
}

/// The steps of a run that ended without success.
async fn retryable(shared: &Shared, header: &RunHeader) -> Result<RunEntryRef, RetryError> {
    match header.progress.state {
        RunState::Failed | RunState::Cancelled => Ok(lookup::entry_of(shared, header).await?),
        RunState::Succeeded => Err(RetryError::NothingToRetry {
            run: header.name.clone(),
        }),
        state @ (RunState::Preparing | RunState::Queued | RunState::Running | RunState::Cancelling) => {
            Err(RetryError::RunNotEnded {
                run: header.name.clone(),
                state: state.to_string(),
            })
        }
    }
}

fn size(entry: &RunEntry, bytes: usize) -> Size {
    Size::by(entry.meta().definition.len(), bytes)
}

/// The pipeline of a run once more, and what is taken over.
async fn content_of(
    shared: &Shared,
    store: &dyn Store,
    checker: Checker,
    entry: &RunEntryRef,
    again: BTreeSet<StepIndex>,
) -> Result<Content, RetryError> {
    let header = &entry.meta().header;
    let level = checker.check_references;
    let submitted = store.definition(header.id, DefinitionKind::Submitted).await;
    let submitted = submitted.map_err(unread)?.ok_or_else(|| LookupError::HistoryGone {
        run: header.name.clone(),
    })?;
    let of = Arc::clone(entry);
    let work = move || {
        let meta = of.meta();
        // Resolved anew it might have other steps, as limits and defaults change.
        let resolved = meta.definition.resolved().clone();
        let mut references = checker.check_resolved(&meta.header.namespace, &resolved)?;
        let reused = reusable(&of, &again);
        let rerun = rerun_templates(&resolved, &reused);
        references.retain(|reference| rerun.contains(&reference.template));
        let lineage = lineage(&meta.header, &reused);
        let content = Content {
            resolved,
            submitted,
            retried: Some((lineage, reused)),
            secret: None,
        };
        Ok((content, references))
    };
    let made = shared.lanes.run(size(entry, 0), work).await.map_err(is_broken)?;
    let (content, references) = made.map_err(SubmitError::Invalid)?;
    references::check(&shared.executors, &header.namespace, level, &references).await?;
    Ok(content)
}

/// Templates of the steps that run again.
fn rerun_templates(resolved: &ResolvedPipeline, reused: &[Reused]) -> BTreeSet<u32> {
    let again = |source: &&SourceStep| {
        let steps = source.first..source.first + source.count;
        let from = reused.partition_point(|one| one.step.0 < steps.start);
        let to = reused.partition_point(|one| one.step.0 < steps.end);
        to - from < steps.len()
    };
    resolved
        .sources
        .iter()
        .filter(again)
        .map(|source| source.template)
        .collect()
}

/// The steps that need not run again: they succeeded, or were reused themselves, and so did all steps before them. With the attempts that
/// did the work, in whichever run that was. Those of `again` run again in any case.
fn reusable(entry: &RunEntry, again: &BTreeSet<StepIndex>) -> Vec<Reused> {
    let (meta, record) = (entry.meta(), entry.record());
    let source = |index: StepIndex| {
        let step = record.step(index)?;
        match step.state {
            StepState::Cached => step.reused,
            StepState::Succeeded => step.attempt.map(|attempt| AttemptId {
                run: meta.header.id,
                step: index,
                number: attempt.cell.number,
            }),
            _ => None,
        }
    };
    let graph = meta.definition.spec().graph();
    let steps = graph.closed_upwards(|step| !again.contains(&step) && source(step).is_some());
    let reused = steps.into_iter().filter_map(|step| {
        let source = source(step)?;
        Some(Reused { step, source })
    });
    reused.collect()
}

/// The steps with these names.
fn again(entry: &RunEntry, names: &[String]) -> Result<BTreeSet<StepIndex>, LookupError> {
    let meta = entry.meta();
    let mut again = BTreeSet::new();
    for name in names {
        let steps = meta
            .definition
            .find_steps(name)
            .ok_or_else(|| LookupError::UnknownStep {
                run: meta.header.name.clone(),
                step: name.clone(),
            })?;
        again.extend(steps.map(StepIndex));
    }
    Ok(again)
}

fn lineage(old: &RunHeader, reused: &[Reused]) -> Lineage {
    let earlier = old.fixed.lineage.as_ref();
    let name = |run: RunId| match earlier.and_then(|earlier| earlier.sources.get(&run)) {
        Some(name) => name.clone(),
        None if run == old.id => old.name.clone(),
        None => RunName(run.to_string()),
    };
    let sources = reused.iter().map(|reused| reused.source.run);
    Lineage {
        retry_of: (old.id, old.name.clone()),
        workspace: earlier.map_or(old.id, |earlier| earlier.workspace),
        sources: sources.map(|run| (run, name(run))).collect(),
    }
}
