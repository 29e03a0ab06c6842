//! Secrets of runs and schedules: made in the clusters that use them before the run is queued, or the schedule is there, and deleted when
//! the run has ended, or neither the schedule nor a run of it needs them any more (I8). Only an executor sees a value after this process
//! has; what is known here is where one may be.
//!
//! A Secret is on record from before it is made until it is known to be gone, so that none stays behind whoever dies meanwhile.

mod kept;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::{run_secret_call, schedule_secret_call};
use windlass_ids::{ClusterUid, RunId, ScheduleSecretId, Timestamp};

pub(crate) use kept::Kept;
pub(crate) use sweep::Sweeper;

use crate::errors::SecretError;
use crate::secrets::refused;
use crate::shared::Shared;
use crate::store::{RunSecret, SecretOwner};

/// How long a create may still be under way that nobody waits for any more: what an executor may take for a call, and what the API server
/// may take after that.
const SETTLED: Duration = Duration::from_secs(90);

/// Values by key. Printed, they are a number.
#[derive(Clone, Default)]
pub(crate) struct Values(pub(crate) BTreeMap<String, Vec<u8>>);

impl Values {
    /// The keys, which are no secret.
    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "<{} values>", self.0.len())
    }
}

/// Whose Secret, in which cluster.
pub(crate) type SecretKey = (SecretOwner, ClusterUid);

/// The Secrets on record; see the module.
#[derive(Debug, Default)]
pub(crate) struct RunSecrets {
    known: Mutex<BTreeMap<SecretKey, Known>>,
    changed: Notify,
}

#[derive(Debug)]
struct Known {
    secret: RunSecret,
    /// When the last create was sent or answered.
    touched: Timestamp,
    /// Whether nothing needs it any more, so that it is to go.
    ended: bool,
    /// When it is deleted next.
    due: Timestamp,
    /// Deletions that failed in a row.
    failures: u32,
}

impl RunSecrets {
    /// What a store has on record, of which something needs those that `is_needed`.
    pub(crate) fn load(&self, secrets: Vec<RunSecret>, now: Timestamp, is_needed: impl Fn(&SecretOwner) -> bool) {
        let mut known = self.lock();
        known.clear();
        for secret in secrets {
            // Whoever was making it may still be at it.
            let ended = !is_needed(&secret.owner);
            known.insert(key(&secret), Known::new(secret, now, ended));
        }
        drop(known);
        self.changed.notify_one();
    }

    /// Durable records of what is about to be made.
    pub(crate) fn add(&self, secrets: Vec<RunSecret>, now: Timestamp) {
        let mut known = self.lock();
        known.extend(
            secrets
                .into_iter()
                .map(|secret| (key(&secret), Known::new(secret, now, false))),
        );
    }

    /// A record that is durably gone.
    pub(crate) fn remove(&self, gone: &SecretKey) {
        self.lock().remove(gone);
    }

    /// A run has ended.
    pub(crate) fn run_ended(&self, run: RunId, now: Timestamp) {
        self.unneeded(SecretOwner::Run(run), now);
    }

    /// Nothing needs the Secrets of an owner any more, and nothing will.
    pub(crate) fn unneeded(&self, owner: SecretOwner, now: Timestamp) {
        let mut any = false;
        for known in self.lock().values_mut().filter(|known| known.secret.owner == owner) {
            known.ended = true;
            known.due = now;
            any = true;
        }
        if any {
            self.changed.notify_one();
        }
    }

    /// Whether secrets of a schedule are there and stay for now.
    pub(crate) fn keeps(&self, id: ScheduleSecretId) -> bool {
        let is_it = |owner| matches!(owner, SecretOwner::Schedule { secret, .. } if secret == id);
        let known = self.lock();
        known.values().any(|known| is_it(known.secret.owner) && !known.ended)
    }

    fn of(&self, owner: SecretOwner) -> Vec<RunSecret> {
        let known = self.lock();
        let of_owner = known.values().filter(|known| known.secret.owner == owner);
        of_owner.map(|known| known.secret.clone()).collect()
    }

    /// A create is sent, or was answered: a Secret that is there although nothing needs it goes once more.
    fn touch(&self, secret: &RunSecret, now: Timestamp) {
        if let Some(known) = self.lock().get_mut(&key(secret)) {
            known.touched = now;
            known.due = now;
            if known.ended {
                self.changed.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SecretKey, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(secret: RunSecret, now: Timestamp, ended: bool) -> Self {
        Self {
            secret,
            touched: now,
            ended,
            due: now,
            failures: 0,
        }
    }
}

fn key(secret: &RunSecret) -> SecretKey {
    (secret.owner, secret.cluster.clone())
}

/// Makes the Secrets on record of an owner, in all its clusters; those that are there already stay.
///
/// # Errors
/// See [`SecretError`].
pub(crate) async fn make(shared: &Shared, owner: SecretOwner, values: &Values) -> Result<(), SecretError> {
    let makes = shared.run_secrets.of(owner).into_iter().map(|secret| async move {
        let make = dispatch::RunSecretMake { data: values.0.clone() };
        shared.run_secrets.touch(&secret, shared.clock.now());
        let made = ask(shared, &secret, Some(make)).await;
        shared.run_secrets.touch(&secret, shared.clock.now());
        made
    });
    futures::future::try_join_all(makes).await.map(drop)
}

/// Has a Secret made, or deleted when there is nothing to make.
async fn ask(shared: &Shared, of: &RunSecret, make: Option<dispatch::RunSecretMake>) -> Result<(), SecretError> {
    let (executors, place) = (&shared.executors, (&of.cluster, &of.alias));
    let namespace = of.namespace.0.clone();
    let (refusal, name) = match of.owner {
        SecretOwner::Run(run) => {
            use run_secret_call::Action;
            let call = dispatch::RunSecretCall {
                run_id: run.as_bytes().to_vec(),
                run_name: of.owner_name.clone(),
                namespace,
                action: Some(make.map_or(Action::Delete(dispatch::RunSecretDelete {}), Action::Make)),
                ..dispatch::RunSecretCall::default()
            };
            let name = windlass_manifest::secret_name(&of.owner_name, run);
            (executors.ask_in(place, call).await?.refusal, name)
        }
        SecretOwner::Schedule { secret, schedule } => {
            use schedule_secret_call::Action;
            let call = dispatch::ScheduleSecretCall {
                secret_id: secret.as_bytes().to_vec(),
                schedule_id: schedule.as_bytes().to_vec(),
                schedule: of.owner_name.clone(),
                namespace,
                action: Some(make.map_or(Action::Delete(dispatch::RunSecretDelete {}), Action::Make)),
                ..dispatch::ScheduleSecretCall::default()
            };
            let name = windlass_manifest::schedule_secret_name(&of.owner_name, secret);
            (executors.ask_in(place, call).await?.refusal, name)
        }
    };
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(refused(refusal, name, of.namespace.clone())),
    }
}
