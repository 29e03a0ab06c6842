//! The secrets of a schedule, which its runs share: those that are given for it, those that it keeps, and those that a run of it uses, or
//! its retry.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng as _;
use tokio::sync::oneshot;
use windlass_api::dispatch::v1 as dispatch;
use windlass_ids::{ClusterAlias, ClusterUid, Namespace, ScheduleId, ScheduleSecretId};
use windlass_pipeline::{Pipeline, ResolvedPipeline};

use super::check::Checked;
use super::secrets::{self, cluster_of};
use crate::driver::{Command, MakeSecretOrder, Refusal};
use crate::errors::{FieldProblem, SubmitError, Unavailable};
use crate::run_secrets::{self, Values};
use crate::shared::Shared;
use crate::store::{RunHeader, RunSecret, ScheduleSecret, SecretOwner, SharedSecret};

/// Secrets that a schedule is to have.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// None, or those that it has.
    Present(Option<ScheduleSecret>),
    /// New ones, in these clusters.
    New(BTreeMap<ClusterUid, ClusterAlias>),
}

/// The secrets that a schedule of a pipeline is to have: those that are given, or those that it has when none are.
///
/// # Errors
/// Keys that are missing or not used, and clusters that have no executor for it.
pub(crate) fn wanted(
    shared: &Shared,
    checked: &mut Checked,
    given: Option<&Values>,
    present: Option<&ScheduleSecret>,
) -> Result<Wanted, SubmitError> {
    let Checked { pipeline, resolved, .. } = checked;
    let problems = match given {
        Some(given) => given_problems(pipeline, resolved, given),
        None => present_problems(pipeline, resolved, present),
    };
    if !problems.is_empty() {
        return Err(SubmitError::Invalid(problems));
    }
    let uses_any = !secrets::used(resolved).is_empty();
    match given {
        Some(_) if uses_any => {
            let place_of = |alias: &str| shared.executors.place_of::<dispatch::ScheduleSecretCall>(alias);
            secrets::places(place_of, resolved, &[]).map(Wanted::New)
        }
        Some(_) => Ok(Wanted::Present(None)),
        None => Ok(Wanted::Present(present.filter(|_| uses_any).cloned())),
    }
}

fn given_problems(pipeline: &Pipeline, resolved: &ResolvedPipeline, given: &Values) -> Vec<FieldProblem> {
    let given = given.keys();
    let mut problems = secrets::unused(&secrets::used(resolved), &given);
    problems.extend(secrets::missing(pipeline, resolved, &given, |key| {
        format!("the schedule has no secret {key}: give its value with the schedule, as with --secret-file {key}=PATH")
    }));
    problems
}

/// What the secrets that a schedule has lack for a pipeline.
fn present_problems(
    pipeline: &Pipeline,
    resolved: &ResolvedPipeline,
    present: Option<&ScheduleSecret>,
) -> Vec<FieldProblem> {
    let keys = present.iter().flat_map(|present| &present.keys).map(String::as_str);
    let mut problems = secrets::missing(pipeline, resolved, &keys.collect(), |key| {
        format!(
            "the schedule has no secret {key}, and values are never read back: give those of all keys, as with --secret-file {key}=PATH"
        )
    });
    if let Some(present) = present.filter(|_| problems.is_empty()) {
        let elsewhere = secrets::again(resolved, &[]).find(|(_, step)| !is_in(present, resolved, *step));
        problems.extend(elsewhere.map(|(name, step)| {
            let cluster = cluster_of(resolved, step).unwrap_or_else(|| "that it does not name".to_owned());
            let text = format!(
                "step {name} uses secrets in cluster {cluster}, where the schedule has none: give the values of all keys again"
            );
            FieldProblem::new(secrets::FIELD, "MISSING", text)
        }));
    }
    problems
}

/// Whether secrets are in the cluster of a step. One that names none runs in the only cluster that they are in.
fn is_in(present: &ScheduleSecret, resolved: &ResolvedPipeline, step: u32) -> bool {
    match cluster_of(resolved, step) {
        Some(cluster) => present.clusters.values().any(|alias| alias.0 == cluster),
        None => present.clusters.len() == 1,
    }
}

/// Makes new secrets of a schedule, in all their clusters. They go again when no change of the schedule takes them.
///
/// # Errors
/// When they cannot be made now.
pub(crate) async fn make(
    shared: &Shared,
    (namespace, name, schedule): (&Namespace, &str, ScheduleId),
    given: &Values,
    clusters: BTreeMap<ClusterUid, ClusterAlias>,
) -> Result<ScheduleSecret, SubmitError> {
    let millis = u64::try_from(shared.clock.now().as_millis()).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid();
    let id = ScheduleSecretId::from_bytes(*uuid.as_bytes());
    let owner = SecretOwner::Schedule { secret: id, schedule };
    let records = clusters.iter().map(|(cluster, alias)| RunSecret {
        owner,
        owner_name: name.to_owned(),
        cluster: cluster.clone(),
        alias: alias.clone(),
        namespace: namespace.clone(),
    });
    let (reply, answer) = oneshot::channel();
    let order = MakeSecretOrder {
        id,
        schedule,
        records: records.collect(),
        reply,
    };
    shared.inbox.send(Command::MakeSecret(order)).await?;
    match answer.await.map_err(|_| Unavailable::OutcomeUnknown)? {
        Ok(()) => {}
        Err(Refusal::Unavailable(error)) => return Err(error.into()),
        Err(Refusal::Rejected(_) | Refusal::NotEnded) => return Err(Unavailable::OutcomeUnknown.into()),
    }
    if let Err(error) = run_secrets::make(shared, owner, given).await {
        shared.inbox.send(Command::AbandonSecret(id)).await?;
        return Err(SubmitError::SecretsNotMade {
            run: None,
            error: Box::new(error),
        });
    }
    Ok(ScheduleSecret {
        id,
        keys: given.keys().into_iter().map(str::to_owned).collect(),
        clusters,
    })
}

/// The secrets of its schedule that a run uses; steps that name no cluster are bound to the one that has them.
///
/// # Errors
/// When they lack what it needs.
pub(super) fn of_run(
    pipeline: &Pipeline,
    resolved: &mut ResolvedPipeline,
    (schedule, schedule_name): (ScheduleId, &str),
    present: Option<&ScheduleSecret>,
) -> Result<Option<SharedSecret>, SubmitError> {
    let problems = present_problems(pipeline, resolved, present);
    if !problems.is_empty() {
        return Err(SubmitError::Invalid(problems));
    }
    let Some(present) = present.filter(|_| !secrets::used(resolved).is_empty()) else {
        return Ok(None);
    };
    if let (None, [only]) = (&resolved.cluster, &present.clusters.values().collect::<Vec<_>>()[..]) {
        secrets::bind(resolved, only);
    }
    Ok(Some(SharedSecret {
        id: present.id,
        schedule,
        schedule_name: schedule_name.to_owned(),
    }))
}

/// The secrets of a schedule that the retry of a run of it uses: those of that run while they are kept, else those that the schedule has
/// now if the steps that run again find what they need in them.
pub(super) fn of_retry(
    shared: &Shared,
    header: &RunHeader,
    resolved: &ResolvedPipeline,
    rerun: impl Iterator<Item = u32>,
) -> Option<SharedSecret> {
    let of_run = header.fixed.secret.as_ref()?;
    if shared.run_secrets.keeps(of_run.id) {
        return Some(of_run.clone());
    }
    let schedule = shared.schedules.get(&header.namespace, &of_run.schedule_name);
    let schedule = schedule.filter(|schedule| schedule.id == of_run.schedule)?;
    let present = schedule.secret.as_ref()?;
    let fits = |step: u32| {
        let keys: BTreeSet<&str> = resolved.run_secrets(step).collect();
        keys.is_empty() || keys.iter().all(|key| present.keys.contains(*key)) && is_in(present, resolved, step)
    };
    let mut rerun = rerun;
    rerun.all(fits).then(|| SharedSecret {
        id: present.id,
        ..of_run.clone()
    })
}
