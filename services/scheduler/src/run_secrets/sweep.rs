//! Deletes the Secrets that nothing needs any more once the logs of their runs are kept, until they are known to be gone.
//!
//! Before that an executor that begins to read a log could not mask their values in it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use windlass_ids::Timestamp;

use super::{RunSecrets, SETTLED, SecretKey, ask, key};
use crate::driver::Command;
use crate::errors::{CallError, SecretError};
use crate::metric;
use crate::shared::Shared;
use crate::store::{RunSecret, SecretOwner};

/// Deletions that are under way at a time.
const AT_A_TIME: usize = 8;
/// How soon a run whose logs are still read is looked at again; that costs no call.
const LOGS: Duration = Duration::from_secs(1);
/// How soon a cluster without an executor is looked at again; that costs no call.
const NO_EXECUTOR: Duration = Duration::from_secs(2);
/// How soon a deletion that failed is tried again, at first and at most.
const FIRST_DELAY: Duration = Duration::from_secs(2);
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sweeper {
    pub(crate) shared: Arc<Shared>,
}

impl Sweeper {
    /// Works until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let secrets = &self.shared.run_secrets;
        let mut deletions = FuturesUnordered::new();
        loop {
            let room = AT_A_TIME - deletions.len();
            let (due, next) = secrets.take_due(self.shared.clock.now(), room);
            deletions.extend(due.into_iter().map(|secret| self.delete(secret)));
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(gone) = deletions.next() => {
                    if let Some(gone) = gone {
                        // Nobody takes it at the end of the process: the next one looks again.
                        self.shared.inbox.send(Command::SecretGone(gone)).await.ok();
                    }
                }
                () = secrets.changed.notified() => {}
                () = self.shared.clock.sleep_until(next), if deletions.len() < AT_A_TIME => {}
            }
        }
    }

    /// Deletes one; returned when it is gone and cannot come any more.
    async fn delete(&self, secret: RunSecret) -> Option<SecretKey> {
        let (secrets, clock) = (&self.shared.run_secrets, &self.shared.clock);
        let began = clock.now();
        if self.is_read(&secret) {
            secrets.postpone(&secret, began.saturating_add(LOGS));
            return None;
        }
        let deleted = ask(&self.shared, &secret, None).await;
        if let Err(error) = &deleted
            && !matches!(error, SecretError::Call(CallError::NoExecutor { .. }))
        {
            let of = &secret.owner_name;
            tracing::warn!(%of, namespace = %secret.namespace, %error, "secret that nothing needs is not deleted yet");
        }
        secrets.deleted(&secret, began, clock.now(), deleted)
    }

    /// Whether a log may still be read with it.
    fn is_read(&self, secret: &RunSecret) -> bool {
        let (relays, cluster) = (&self.shared.relays, &secret.cluster);
        match secret.owner {
            SecretOwner::Run(run) => relays.may_read(run, cluster, &self.shared),
            SecretOwner::Schedule { secret, .. } => relays.may_read_with(secret, cluster, &self.shared),
        }
    }
}

impl RunSecrets {
    /// Those to be deleted now, at most `room`, and when the next one is.
    fn take_due(&self, now: Timestamp, room: usize) -> (Vec<RunSecret>, Option<Timestamp>) {
        let mut known = self.lock();
        let ended = known.values_mut().filter(|known| known.ended);
        let mut due = Vec::new();
        let (mut count, mut next) = (0_u32, None);
        for known in ended {
            count += 1;
            if known.due <= now && due.len() < room {
                due.push(known.secret.clone());
                // Its deletion says when it is due again.
                known.due = now.saturating_add(LONGEST_DELAY);
            }
            next = next.into_iter().chain([known.due]).min();
        }
        metrics::gauge!(metric::RUN_SECRETS_TO_DELETE).set(f64::from(count));
        (due, next)
    }

    /// Not now.
    fn postpone(&self, secret: &RunSecret, until: Timestamp) {
        if let Some(known) = self.lock().get_mut(&key(secret)) {
            known.due = until;
        }
    }

    /// What came of a deletion.
    fn deleted(
        &self,
        secret: &RunSecret,
        began: Timestamp,
        now: Timestamp,
        deleted: Result<(), SecretError>,
    ) -> Option<SecretKey> {
        let key = key(secret);
        let mut known = self.lock();
        let known = known.get_mut(&key)?;
        let settled = known.touched.saturating_add(SETTLED);
        match deleted {
            // Its record goes. Should that fail, it is read back and looked at again.
            Ok(()) | Err(SecretError::NamespaceNotFound(_)) if began >= settled => return Some(key),
            // Gone; whether a late create makes another one is seen then.
            Ok(()) | Err(SecretError::NamespaceNotFound(_)) => {
                known.failures = 0;
                known.due = settled;
            }
            Err(SecretError::Call(CallError::NoExecutor { .. })) => known.due = now.saturating_add(NO_EXECUTOR),
            Err(_) => {
                let delay = FIRST_DELAY.saturating_mul(1 << known.failures.min(16));
                known.failures += 1;
                known.due = now.saturating_add(delay.min(LONGEST_DELAY));
            }
        }
        None
    }
}
