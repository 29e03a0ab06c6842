//! Secrets of runs: made in the clusters that use them before the run is queued, and deleted when it has ended (I8). Only an executor
//! sees a value after this process has; what is known here is where one may be.
//!
//! A Secret is on record from before it is made until it is known to be gone, so that none stays behind whoever dies meanwhile.

mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::run_secret_call::Action;
use windlass_ids::{ClusterUid, RunId, Timestamp};

pub(crate) use sweep::Sweeper;

use crate::errors::SecretError;
use crate::secrets::refused;
use crate::shared::Shared;
use crate::store::RunSecret;

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

/// The Secrets on record; see the module.
#[derive(Debug, Default)]
pub(crate) struct RunSecrets {
    known: Mutex<BTreeMap<(RunId, ClusterUid), Known>>,
    changed: Notify,
}

#[derive(Debug)]
struct Known {
    secret: RunSecret,
    /// When the last create was sent or answered.
    touched: Timestamp,
    /// Whether its run has ended, so that it is to go.
    ended: bool,
    /// When it is deleted next.
    due: Timestamp,
    /// Deletions that failed in a row.
    failures: u32,
}

impl RunSecrets {
    /// What a store has on record, of which the runs that `is_active` have not ended.
    pub(crate) fn load(&self, secrets: Vec<RunSecret>, now: Timestamp, is_active: impl Fn(RunId) -> bool) {
        let mut known = self.lock();
        known.clear();
        for secret in secrets {
            // Whoever was making it may still be at it.
            let ended = !is_active(secret.run);
            known.insert(key(&secret), Known::new(secret, now, ended));
        }
        drop(known);
        self.changed.notify_one();
    }

    /// Durable records of new runs.
    pub(crate) fn add(&self, secrets: Vec<RunSecret>, now: Timestamp) {
        let mut known = self.lock();
        known.extend(
            secrets
                .into_iter()
                .map(|secret| (key(&secret), Known::new(secret, now, false))),
        );
    }

    /// A record that is durably gone.
    pub(crate) fn remove(&self, gone: &(RunId, ClusterUid)) {
        self.lock().remove(gone);
    }

    /// A run has ended.
    pub(crate) fn run_ended(&self, run: RunId, now: Timestamp) {
        let mut any = false;
        for known in self.lock().values_mut().filter(|known| known.secret.run == run) {
            known.ended = true;
            known.due = now;
            any = true;
        }
        if any {
            self.changed.notify_one();
        }
    }

    fn of(&self, run: RunId) -> Vec<RunSecret> {
        let known = self.lock();
        let of_run = known.values().filter(|known| known.secret.run == run);
        of_run.map(|known| known.secret.clone()).collect()
    }

    /// A create is sent, or was answered: a Secret that is there after its run's end goes once more.
    fn touch(&self, secret: &RunSecret, now: Timestamp) {
        if let Some(known) = self.lock().get_mut(&key(secret)) {
            known.touched = now;
            known.due = now;
            if known.ended {
                self.changed.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(RunId, ClusterUid), Known>> {
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

fn key(secret: &RunSecret) -> (RunId, ClusterUid) {
    (secret.run, secret.cluster.clone())
}

/// Makes the Secrets of a run that is being prepared, in all its clusters; those that are there already stay.
///
/// # Errors
/// See [`SecretError`].
pub(crate) async fn make(shared: &Shared, run: RunId, values: &Values) -> Result<(), SecretError> {
    let makes = shared.run_secrets.of(run).into_iter().map(|secret| async move {
        let make = dispatch::RunSecretMake { data: values.0.clone() };
        shared.run_secrets.touch(&secret, shared.clock.now());
        let made = ask(shared, &secret, Action::Make(make)).await;
        shared.run_secrets.touch(&secret, shared.clock.now());
        made
    });
    futures::future::try_join_all(makes).await.map(drop)
}

async fn ask(shared: &Shared, secret: &RunSecret, action: Action) -> Result<(), SecretError> {
    let call = dispatch::RunSecretCall {
        run_id: secret.run.as_bytes().to_vec(),
        run_name: secret.run_name.0.clone(),
        namespace: secret.namespace.0.clone(),
        action: Some(action),
        ..dispatch::RunSecretCall::default()
    };
    let answer = shared.executors.ask_in((&secret.cluster, &secret.alias), call).await?;
    match answer.refusal {
        None => Ok(()),
        Some(refusal) => {
            let name = windlass_manifest::secret_name(secret.run_name.as_str(), secret.run);
            Err(refused(refusal, name, secret.namespace.clone()))
        }
    }
}
