//! The driver: the one task that owns the core. It commits first and acts then, and commits one batch while it applies the next.
//!
//! Any failure of a commit discards the core with everything that is held back, tells those who wait that the outcome is unknown,
//! and reads the state back from the store.

mod ahead;
mod batch;
mod command;
mod durable;
mod held;
mod recovery;
mod reservations;
mod schedules;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass_scheduling::Config as CoreConfig;
use windlass_service::{Backoff, BackoffSettings};

use self::batch::{Batch, Live};
use self::held::Held;
use crate::errors::Unavailable;
use crate::metric;
use crate::schedules::FireJob;
use crate::shared::Shared;
use crate::store::{CommitBatch, Committed, Store, StoreError};

pub(crate) use command::{
    ChangeOrder, Command, ConnectOrder, DeleteOrder, DeliveredOrder, Disconnected, ExpireOrder, ExplainOrder, Inbox,
    Limits, MakeSecretOrder, Outlet, Refusal, Report, ScheduleChange, ScheduleOrder, ScheduleRefusal, Submission,
    inbox,
};
pub(crate) use recovery::{Recovered, recover};
pub(crate) use reservations::{Reservation, Reservations, ReservedKey};

/// How often sessions and log sources are looked over (I6).
const SWEEP: Duration = Duration::from_secs(5);

/// Opens the store again after a failure.
pub type OpenStore = Arc<dyn Fn() -> Result<Arc<dyn Store>, StoreError> + Send + Sync>;

/// See the module.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outlet: Outlet,
    pub(crate) limits: Limits,
    pub(crate) core: CoreConfig,
    pub(crate) open: OpenStore,
    /// Where schedules that are due go to be prepared.
    pub(crate) jobs: mpsc::Sender<FireJob>,
}

impl Driver {
    /// Works until `shutdown`, or until the store is lost for good.
    ///
    /// # Errors
    /// When the store cannot be used any more, for example because another scheduler took over.
    pub(crate) async fn run(mut self, recovered: Recovered, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut recovered = Some(recovered);
        loop {
            let state = match recovered.take() {
                Some(state) => state,
                None => match self.recover_again(&shutdown).await? {
                    Some(state) => state,
                    None => return Ok(()),
                },
            };
            match self.work(state, &shutdown).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => {
                    metrics::counter!(metric::COMMIT_FAILURES).increment(1);
                    tracing::error!(%error, "commit failed, recovering from the store");
                }
                Err(error) => return Err(error),
            }
            self.shared.set_partition(None);
            self.shared.executors.reset();
            self.shared.relays.reset();
            self.shared.runs.clear();
            self.shared.schedules.clear();
        }
    }

    /// Reads the state back, as often as it takes; `None` at shutdown.
    async fn recover_again(&self, shutdown: &CancellationToken) -> Result<Option<Recovered>, StoreError> {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let mut random = StdRng::from_os_rng();
        loop {
            match recovery::recover(&self.open, &self.core, &self.shared).await {
                Ok(recovered) => return Ok(Some(recovered)),
                Err(error) if error.is_transient() || matches!(error, StoreError::Held { .. }) => {
                    tracing::warn!(%error, "recovery failed, trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(backoff.next_delay(&mut random)) => {}
            }
        }
    }

    /// Applies and commits until shutdown or a failure of the store.
    async fn work(&mut self, recovered: Recovered, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let Recovered { mut live, store, first } = recovered;
        let mut held: VecDeque<Held> = VecDeque::new();
        let mut commands = Vec::new();
        let mut sweep = tokio::time::interval(SWEEP);
        let clock = self.shared.clock.clone();
        let outcome = self.commit(&store, &mut live, first, &mut held).await;
        if let Err(error) = outcome {
            return self.fail(held, error);
        }
        loop {
            let room = held.len() < self.limits.depth;
            let timeout = [live.core.poll_timeout(), live.schedules.poll_timeout()];
            let timeout = timeout.into_iter().flatten().min();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.drain(&mut live, held).await;
                    return Ok(());
                }
                outcome = durable(&mut held) => match outcome {
                    Ok(batch) => self.carry_out(&mut live, batch),
                    Err(error) => return self.fail(held, error),
                },
                open = self.outlet.receive(&mut commands), if room => {
                    let applied = self.apply(&store, &mut live, &mut commands, &mut held).await;
                    if let Err(error) = applied {
                        return self.fail(held, error);
                    }
                    if !open {
                        self.drain(&mut live, held).await;
                        return Ok(());
                    }
                },
                () = clock.sleep_until(timeout), if room => {
                    let mut batch = Batch::new(clock.now());
                    batch.tick(&mut live);
                    if let Err(error) = self.commit(&store, &mut live, batch, &mut held).await {
                        return self.fail(held, error);
                    }
                },
                _ = sweep.tick() => {
                    metrics::gauge!(metric::HELD_BATCHES).set(held.len() as f64);
                    self.sweep(&mut live);
                }
            }
        }
    }

    /// Applies commands; a new session is a batch of its own, since orders of the older one must not reach it.
    async fn apply(
        &self,
        store: &Arc<dyn Store>,
        live: &mut Live,
        commands: &mut Vec<Command>,
        held: &mut VecDeque<Held>,
    ) -> Result<(), StoreError> {
        metrics::histogram!(metric::BATCH_COMMANDS).record(commands.len() as f64);
        let mut batch = Batch::new(self.shared.clock.now());
        for command in commands.drain(..) {
            if matches!(command, Command::Connect(_)) {
                let before = std::mem::replace(&mut batch, Batch::new(self.shared.clock.now()));
                self.commit(store, live, before, held).await?;
            }
            batch.apply(live, command);
        }
        // Last, so that no lease ends whose executor was heard: after a stall its reports are here, and had no chance to be applied.
        batch.tick(live);
        self.commit(store, live, batch, held).await
    }

    /// Hands a batch to the committer and holds back what waits for it.
    async fn commit(
        &self,
        store: &Arc<dyn Store>,
        live: &mut Live,
        batch: Batch,
        held: &mut VecDeque<Held>,
    ) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (commit, mut waiting) = batch.finish(live);
        if !is_volatile(&commit) {
            match store.commit(commit).await {
                Ok(ticket) => waiting.ticket = Some(ticket),
                Err(error) => {
                    waiting.fail(Unavailable::OutcomeUnknown);
                    return Err(error);
                }
            }
        }
        if held.is_empty() && waiting.ticket.is_none() {
            self.carry_out(live, waiting);
        } else {
            held.push_back(waiting);
        }
        Ok(())
    }

    fn fail(&self, held: VecDeque<Held>, error: StoreError) -> Result<(), StoreError> {
        for batch in held {
            batch.fail(Unavailable::OutcomeUnknown);
        }
        Err(error)
    }

    /// Waits for what is being committed, so that nobody is left without an answer.
    async fn drain(&mut self, live: &mut Live, mut held: VecDeque<Held>) {
        while !held.is_empty() {
            match durable(&mut held).await {
                Ok(batch) => self.carry_out(live, batch),
                Err(error) => {
                    tracing::error!(%error, "commit failed during shutdown");
                    for batch in held {
                        batch.fail(Unavailable::OutcomeUnknown);
                    }
                    return;
                }
            }
        }
    }
}

/// Whether a commit has nothing to store.
fn is_volatile(commit: &CommitBatch) -> bool {
    commit.is_empty()
}

/// Waits until the oldest batch is durable and returns it; for ever when there is none. Safe to be dropped halfway.
async fn durable(held: &mut VecDeque<Held>) -> Result<Held, StoreError> {
    let Some(oldest) = held.front_mut() else {
        return std::future::pending().await;
    };
    if let Some(ticket) = &mut oldest.ticket {
        let Committed { commit_no } = std::pin::Pin::new(ticket).await?;
        tracing::trace!(commit_no, "batch is durable");
    }
    Ok(held.pop_front().unwrap_or_default())
}
