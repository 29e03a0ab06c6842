//! The fold: moves the journal into a history per run, on a thread and a connection of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::chunk::{Chunk, read_chunk, write_chunk};
use super::deletions;
use super::maintenance::{Checkpointer, expire_requests};
use super::shared::Shared;
use super::snapshots::SnapshotWriter;
use crate::store::StoreError;

/// How long the fold lets a broken disk rest.
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);

/// How often it looks around while commits go on.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) enum Order {
    /// There is something to fold, or much of it.
    Wake,
    /// Fold everything that is durable now.
    Now(oneshot::Sender<Result<(), StoreError>>),
}

/// Reaches the fold's thread, which ends when all handles are gone.
#[derive(Clone, Debug)]
pub(super) struct FoldHandle(pub(super) SyncSender<Order>);

impl FoldHandle {
    /// Never waits: a full queue means that it is awake.
    pub(super) fn wake(&self) {
        self.0.try_send(Order::Wake).ok();
    }
}

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Receiver<Order>,
    pub(super) epoch: u64,
    pub(super) folded: u64,
    pub(super) snapshots: SnapshotWriter,
    pub(super) checkpointer: Checkpointer,
}

impl Folder {
    /// Until all handles are gone.
    pub(super) fn run(mut self) {
        let mut seen = self.shared.tail().durable();
        let mut quiet_since = Instant::now();
        loop {
            let order = if self.has_work() {
                self.orders.recv_timeout(LOOK.min(self.shared.options.fold_idle))
            } else {
                self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let durable = self.shared.tail().durable();
            if durable != seen {
                quiet_since = Instant::now();
            }
            seen = durable;
            let outcome = match order {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Now(reply)) => {
                    let outcome = self.everything();
                    reply.send(outcome.clone()).ok();
                    outcome
                }
                Ok(Order::Wake) | Err(RecvTimeoutError::Timeout) => self.look_around(quiet_since.elapsed()),
            };
            if let Err(error) = outcome {
                tracing::warn!(error = &error as &dyn std::error::Error, "fold failed");
                if matches!(error, StoreError::Fenced { .. }) || !self.rest() {
                    return;
                }
            }
        }
    }

    fn has_work(&self) -> bool {
        self.shared.tail().bytes() > 0 || self.shared.is_unswept() || self.checkpointer.is_pending(&self.shared)
    }

    fn look_around(&mut self, quiet: Duration) -> Result<(), StoreError> {
        if quiet >= self.shared.options.fold_idle {
            return self.everything();
        }
        self.fold_until(self.shared.options.fold_bytes)?;
        self.sweep(1)?;
        self.checkpointer.checkpoint(&self.connection, &self.shared, false)
    }

    fn everything(&mut self) -> Result<(), StoreError> {
        self.fold_until(0)?;
        expire_requests(&mut self.connection, &self.shared)?;
        self.sweep(usize::MAX)?;
        deletions::expire(&self.connection, &self.shared)?;
        self.checkpointer.checkpoint(&self.connection, &self.shared, true)
    }

    /// Folds until at most `keep` bytes are in the journal, in chunks between which the committer has its turn.
    fn fold_until(&mut self, keep: usize) -> Result<(), StoreError> {
        while !self.shared.is_closing() && self.shared.tail().bytes() > keep {
            let Some(chunk) = read_chunk(&self.connection, self.folded).map_err(self.shared.row_error("fold"))? else {
                break;
            };
            self.fold_chunk(&chunk)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        metrics::gauge!(super::metric::JOURNAL_BYTES).set(self.shared.tail().bytes() as f64);
        Ok(())
    }

    /// Deletes what deleted runs have left behind, in at most `turns` transactions.
    fn sweep(&mut self, turns: usize) -> Result<(), StoreError> {
        for _ in 0..turns {
            if self.shared.is_closing() || !self.shared.is_unswept() {
                break;
            }
            // First: a run may be deleted while nothing is found.
            self.shared.set_unswept(false);
            let more = deletions::sweep(&mut self.connection, &self.shared);
            self.shared
                .set_unswept(self.shared.is_unswept() || !matches!(more, Ok(false)));
            more?;
        }
        let reusable = deletions::reusable(&self.connection).map_err(self.shared.row_error("read"))?;
        self.shared.space.reusable.store(reusable, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        metrics::gauge!(super::metric::REUSABLE_BYTES).set(reusable as f64);
        Ok(())
    }

    fn fold_chunk(&mut self, chunk: &Chunk) -> Result<(), StoreError> {
        let turn = self.shared.gate.enter_background();
        let written = write_chunk(&mut self.connection, self.epoch, self.folded, chunk);
        drop(turn);
        if !written.map_err(self.shared.row_error("fold"))? {
            return Err(StoreError::Fenced { epoch: self.epoch });
        }
        self.folded = chunk.last_commit;
        self.shared.tail().trim(self.folded, chunk.runs());
        metrics::counter!(super::metric::FOLDS_TOTAL).increment(1);
        self.snapshots
            .after_fold(&mut self.connection, &self.shared, self.folded, chunk)
    }

    /// Whether to go on after a failure.
    fn rest(&mut self) -> bool {
        let mut left = AFTER_A_FAILURE;
        loop {
            let began = Instant::now();
            match self.orders.recv_timeout(left) {
                Ok(Order::Now(reply)) => {
                    let outcome = self.everything();
                    let healed = outcome.is_ok();
                    reply.send(outcome).ok();
                    if healed {
                        return true;
                    }
                }
                Ok(Order::Wake) => {}
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            left = left.saturating_sub(began.elapsed());
        }
    }
}
