//! The committer: one thread that owns the writing connection.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use windlass_ids::Timestamp;

use super::fold::FoldHandle;
use super::shared::Shared;
use super::write::{Prepared, Written, write};
use crate::store::codec::{CommitEncoder, Span};
use crate::store::{CommitBatch, Committed, StoreError};

/// Bound on what is committed together, by [`CommitBatch::weight`]; a heavier batch goes alone.
const MAX_GROUP: usize = 20_000;

/// A batch and who waits for it.
pub(super) type Item = (CommitBatch, oneshot::Sender<Result<Committed, StoreError>>);

#[derive(Debug)]
pub(super) struct Committer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) fold: FoldHandle,
    pub(super) queue: mpsc::Receiver<Item>,
    pub(super) epoch: u64,
    pub(super) commit_no: u64,
}

impl Committer {
    /// Until the queue is closed and empty.
    ///
    /// Natural group commit: what has queued up while the last commit was written becomes the next one.
    pub(super) fn run(mut self) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| self.queue.blocking_recv()) {
            let mut weight = first.0.weight();
            let mut group = vec![first];
            while let Ok(item) = self.queue.try_recv() {
                weight += item.0.weight();
                if weight > MAX_GROUP {
                    next = Some(item);
                    break;
                }
                group.push(item);
            }
            self.commit_group(group);
        }
    }

    fn commit_group(&mut self, group: Vec<Item>) {
        let (batches, waiting): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcome = self.shared.check_poison().and_then(|()| self.commit(batches));
        if let Err(error) = &outcome {
            self.shared.poison(error);
        }
        for reply in waiting {
            // Nobody has to wait for a ticket.
            reply.send(outcome.clone()).ok();
        }
    }

    fn commit(&mut self, batches: Vec<CommitBatch>) -> Result<Committed, StoreError> {
        let size = batches.len();
        let (prepared, spans) = prepare(batches);
        let commit_no = self.commit_no;
        if prepared.batches.is_empty() {
            return Ok(Committed { commit_no });
        }
        let commit_no = commit_no + 1;
        let began = Instant::now();
        let turn = self.shared.gate.enter_committer();
        let written = write(&mut self.connection, self.epoch, commit_no, &prepared);
        drop(turn);
        match written.map_err(self.shared.row_error("commit to"))? {
            Written::Fenced => return Err(StoreError::Fenced { epoch: self.epoch }),
            Written::Yes => self.commit_no = commit_no,
        }
        metrics::histogram!(super::metric::COMMIT_SECONDS).record(began.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        metrics::histogram!(super::metric::COMMIT_BATCHES).record(size as f64);
        if prepared.batches.iter().any(|batch| !batch.deleted.is_empty()) {
            self.shared.set_unswept(true);
        }
        self.publish(commit_no, prepared.journal.map_or(0, |bytes| bytes.len()), &spans);
        Ok(Committed { commit_no })
    }

    /// Before the tickets resolve, so that who was told can read.
    fn publish(&self, commit_no: u64, bytes: usize, spans: &[Span]) {
        let mut tail = self.shared.tail();
        let was_empty = tail.bytes() == 0;
        tail.push(commit_no, bytes, spans);
        let pressing = tail.bytes() >= self.shared.options.fold_bytes;
        drop(tail);
        if was_empty || pressing {
            self.fold.wake();
        }
    }
}

/// Packs the changes outside of the turn to write.
fn prepare(mut batches: Vec<CommitBatch>) -> (Prepared, Vec<Span>) {
    batches.retain(|batch| !batch.is_empty());
    let mut encoder = CommitEncoder::default();
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        encoder.push(change);
    }
    let time = batches.iter().map(|batch| batch.time).max();
    let (journal, spans) = encoder.finish();
    let prepared = Prepared {
        journal: (!spans.is_empty()).then_some(journal),
        time: time.unwrap_or(Timestamp::from_millis(0)),
        batches,
    };
    (prepared, spans)
}
