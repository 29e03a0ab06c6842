//! Whether the Secrets that a run refers to are there, asked before it starts: names and keys, never values.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::refusal::shorten;
use windlass_ids::Namespace;

use crate::errors::{CallError, FieldProblem, SubmitError};
use crate::executors::Executors;

/// How long an executor is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a fire, which nobody waits for.
const FIRE_PATIENCE: Duration = Duration::from_secs(2);
/// Fires that are looked after at a time; they are few of those that are prepared, so that a slow executor holds up no others.
const FIRE_LOOKS: usize = 8;
/// Most Secrets that are asked for of one cluster; the others are found when their steps start.
const MAX_SECRETS: usize = 256;
/// Longest text of the keys that a Secret has.
const MAX_TOLD: usize = 500;

/// How far references are looked at before a run starts (behaviours R11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReferenceCheck {
    /// Secrets and their keys must be there.
    #[default]
    Keys,
    /// Secrets must be there.
    Secrets,
    /// Nothing is looked at: a step waits for what is missing, and then fails.
    None,
}

/// A reference to a Secret, of the pods of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Alias of the cluster; the only one when empty.
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) keys: Vec<String>,
    pub(crate) optional: bool,
    /// Path of the field in the request.
    pub(crate) path: String,
    /// Position of the template in the resolved pipeline.
    pub(crate) template: u32,
    /// What is not allowed when it is none of those of `windlass secret`; any Secret is allowed when absent.
    pub(crate) managed_only: Option<String>,
}

/// Looks that fires have under way.
#[derive(Debug)]
pub(crate) struct FireLooks(Semaphore);

impl Default for FireLooks {
    fn default() -> Self {
        Self(Semaphore::new(FIRE_LOOKS))
    }
}

/// How references are looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    level: ReferenceCheck,
    patience: Duration,
    /// What lets the run start without what is missing.
    all_the_same: &'static str,
}

/// What an executor has said of the Secrets of its cluster.
type Seen = Result<BTreeMap<String, dispatch::SecretSeen>, Unseen>;

/// Why nothing is known of them.
#[derive(Clone, Debug)]
enum Unseen {
    /// It may be known later.
    Later(String),
    /// The executor may not look.
    Never(String),
}

/// As [`check`], of the run of a schedule, which starts without the look when too many are under way. A person waits for a triggered one.
///
/// # Errors
/// As [`check`].
pub(crate) async fn check_scheduled(
    (executors, looks): (&Executors, &FireLooks),
    namespace: &Namespace,
    level: ReferenceCheck,
    references: &[Reference],
    is_fire: bool,
) -> Result<(), SubmitError> {
    let room = if is_fire { looks.0.try_acquire().ok() } else { None };
    let look = Look {
        level: match is_fire && room.is_none() {
            true => ReferenceCheck::None,
            false => level,
        },
        patience: if is_fire { FIRE_PATIENCE } else { PATIENCE },
        all_the_same: "`optional: true` lets runs start without it",
    };
    let checked = checked(executors, namespace, look, references).await;
    drop(room);
    checked
}

/// Looks whether the Secrets are there and may be used. Where it cannot be known whether one is there, the run may start: the kubelet
/// finds out. Where it cannot be known whether one may be used, it may not.
///
/// # Errors
/// What is missing, what is not allowed, and that it cannot be known.
pub(crate) async fn check(
    executors: &Executors,
    namespace: &Namespace,
    level: ReferenceCheck,
    references: &[Reference],
) -> Result<(), SubmitError> {
    let look = Look {
        level,
        patience: PATIENCE,
        all_the_same: "--no-check-references starts the run all the same",
    };
    checked(executors, namespace, look, references).await
}

async fn checked(
    executors: &Executors,
    namespace: &Namespace,
    how: Look,
    references: &[Reference],
) -> Result<(), SubmitError> {
    let must_exist = |reference: &Reference| how.level != ReferenceCheck::None && !reference.optional;
    let asked = references
        .iter()
        .filter(|one| one.managed_only.is_some() || must_exist(one));
    let asked: Vec<&Reference> = asked.collect();
    let seen = look(executors, namespace, how.patience, &asked).await;
    let (mut refused, mut missing, mut unknown) = (Vec::new(), Vec::new(), None);
    for reference in asked {
        let seen = match seen.get(&reference.cluster) {
            Some(Ok(seen)) => seen.get(&reference.name).ok_or(Unseen::Never(format!(
                "the run refers to more than {MAX_SECRETS} Secrets"
            ))),
            Some(Err(unseen)) => Err(unseen.clone()),
            None => continue,
        };
        if let Some(message) = &reference.managed_only {
            match &seen {
                Ok(seen) if seen.managed => {}
                Ok(_) => refused.push(not_allowed(reference, message)),
                Err(Unseen::Never(why)) => {
                    let message = format!("{message}. Whether it is one of those cannot be seen: {why}");
                    refused.push(not_allowed(reference, &message));
                }
                Err(Unseen::Later(why)) => unknown = Some((reference.name.clone(), why.clone())),
            }
        }
        match seen {
            Ok(seen) if must_exist(reference) => missing.extend(absent(namespace, how, reference, seen)),
            Ok(_) => {}
            Err(unseen) => {
                tracing::debug!(secret = reference.name, ?unseen, "reference not checked");
            }
        }
    }
    if !refused.is_empty() {
        return Err(SubmitError::Invalid(refused));
    }
    if let Some((secret, why)) = unknown {
        return Err(SubmitError::SecretUnknown { secret, why });
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(SubmitError::ReferencesMissing(missing))
    }
}

fn not_allowed(reference: &Reference, message: &str) -> FieldProblem {
    FieldProblem::new(&reference.path, "NOT_ALLOWED", message)
}

/// Asks one executor of each cluster once.
async fn look(
    executors: &Executors,
    namespace: &Namespace,
    patience: Duration,
    references: &[&Reference],
) -> BTreeMap<String, Seen> {
    let mut wanted: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for reference in references {
        let secrets = wanted.entry(&reference.cluster).or_default();
        if secrets.len() < MAX_SECRETS || secrets.contains_key(reference.name.as_str()) {
            let keys = secrets.entry(&reference.name).or_default();
            keys.extend(reference.keys.iter().map(String::as_str));
        }
    }
    let asked = wanted.into_iter().map(async |(cluster, secrets)| {
        let secrets = secrets.into_iter().map(|(name, keys)| dispatch::SecretWanted {
            name: name.to_owned(),
            keys: keys.into_iter().map(str::to_owned).collect(),
        });
        let call = dispatch::SecretCall {
            namespace: namespace.as_str().to_owned(),
            call_kind: Some(CallKind::Lookup(dispatch::SecretLookup {
                secrets: secrets.collect(),
            })),
            ..dispatch::SecretCall::default()
        };
        let answer = tokio::time::timeout(patience, executors.ask(cluster, call)).await;
        (cluster.to_owned(), seen(answer.unwrap_or(Err(CallError::ExecutorLost))))
    });
    join_all(asked).await.into_iter().collect()
}

fn seen(answer: Result<(std::sync::Arc<crate::executors::Session>, dispatch::SecretAnswer), CallError>) -> Seen {
    use dispatch::SecretFault as Fault;
    let (_, answer) = answer.map_err(|error| Unseen::Later(error.to_string()))?;
    match answer.outcome {
        Some(Outcome::Looked(looked)) => {
            let secrets = looked.secrets.into_iter();
            Ok(secrets.map(|secret| (secret.name.clone(), secret)).collect())
        }
        Some(Outcome::Refusal(refusal)) => Err(match refusal.fault() {
            Fault::RightMissing => Unseen::Never(format!("the executor has no right to {}", refusal.right)),
            Fault::OwnNamespace => Unseen::Never("no step runs in the executor's own namespace".to_owned()),
            _ => Unseen::Later(format!("the cluster was not reached: {}", refusal.message)),
        }),
        _ => Err(Unseen::Later(
            "the executor does not know the question; upgrade it".to_owned(),
        )),
    }
}

/// What of a reference is not there.
fn absent(namespace: &Namespace, how: Look, reference: &Reference, seen: &dispatch::SecretSeen) -> Vec<FieldProblem> {
    let name = &reference.name;
    let all_the_same = how.all_the_same;
    if !seen.found {
        let of = match reference.cluster.as_str() {
            "" => String::new(),
            cluster => format!(" of cluster {cluster}"),
        };
        let message = format!(
            "there is no Secret {name} in namespace {namespace}{of}; `windlass secret put {name}` makes one, and {all_the_same}"
        );
        return vec![FieldProblem::new(&reference.path, "SECRET_NOT_FOUND", message)];
    }
    if how.level != ReferenceCheck::Keys {
        return Vec::new();
    }
    let missing = reference.keys.iter().filter(|key| seen.missing_keys.contains(key));
    let problem = |key: &String| {
        let has = match seen.keys.as_slice() {
            [] => "no keys".to_owned(),
            keys => shorten(&keys.join(", "), MAX_TOLD),
        };
        let message = format!(
            "Secret {name} in namespace {namespace} has no key {key}; it has {has}. `windlass secret put {name}` adds one, and \
             {all_the_same}"
        );
        FieldProblem::new(&reference.path, "SECRET_KEY_NOT_FOUND", message)
    };
    missing.map(problem).collect()
}
