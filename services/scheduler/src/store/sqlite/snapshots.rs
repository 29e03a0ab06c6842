//! Snapshots of long runs, so that recovery replays only what came after.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use windlass_ids::RunId;

use super::chunk::{Chunk, RunFold};
use super::query;
use super::recovery::{folded_changes, read_snapshot};
use super::rows::{self, RowError, first, signed, unsigned};
use super::shared::Shared;
use crate::store::codec::encode_snapshot;
use crate::store::{DefinitionKind, StoreError};

/// Knows how old the snapshots of active runs are.
#[derive(Debug, Default)]
pub(super) struct SnapshotWriter {
    /// Sequence number that a run's snapshot has; 0 without one. Holds active runs only.
    covered: BTreeMap<RunId, u64>,
}

impl SnapshotWriter {
    /// Writes the snapshots that have become due, and removes those of ended runs.
    pub(super) fn after_fold(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        folded: u64,
        chunk: &Chunk,
    ) -> Result<(), StoreError> {
        for fold in &chunk.folds {
            self.one(connection, shared, folded, fold)
                .map_err(shared.row_error("write a snapshot to"))?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        folded: u64,
        fold: &RunFold,
    ) -> Result<(), RowError> {
        let covered = match self.covered.get(&fold.run) {
            Some(covered) => *covered,
            None => covered(connection, fold.run)?,
        };
        if fold.target.is_none_or(|target| target.state.is_terminal()) {
            self.covered.remove(&fold.run);
            return if covered > 0 {
                remove(connection, shared, fold.run)
            } else {
                Ok(())
            };
        }
        let due = fold.last_sequence.saturating_sub(covered) >= shared.options.snapshot_changes;
        let sequence = if due && write(connection, shared, folded, fold)? {
            fold.last_sequence
        } else {
            covered
        };
        self.covered.insert(fold.run, sequence);
        Ok(())
    }
}

fn covered(connection: &Connection, run: RunId) -> Result<u64, RowError> {
    let sql = "SELECT sequence FROM snapshot WHERE run = ?1";
    let found = first(connection, sql, [run.as_bytes()], |row| Ok(unsigned(row.get(0)?)))?;
    Ok(found.unwrap_or(0))
}

fn remove(connection: &Connection, shared: &Shared, run: RunId) -> Result<(), RowError> {
    let _turn = shared.gate.enter_background();
    connection
        .prepare_cached("DELETE FROM snapshot WHERE run = ?1")?
        .execute([run.as_bytes()])?;
    Ok(())
}

/// Whether there is a snapshot now.
fn write(connection: &mut Connection, shared: &Shared, folded: u64, fold: &RunFold) -> Result<bool, RowError> {
    let Some(maker) = &shared.options.snapshots else {
        return Ok(false);
    };
    let transaction = connection.unchecked_transaction()?;
    let header = query::run(&transaction, fold.run)?;
    let definition = rows::definition(&transaction, fold.run, DefinitionKind::Resolved)?;
    let (Some(header), Some(definition)) = (header, definition) else {
        return Ok(false);
    };
    let base = read_snapshot(&transaction, fold.run)?;
    let after = base.as_ref().map_or(0, |base| base.last_sequence);
    let changes = folded_changes(&transaction, fold.run, after)?;
    drop(transaction);
    let made = maker.snapshot(&header, &definition, base.as_ref(), &changes);
    let expected = changes.last().map_or(after, |change| change.sequence);
    let Some(snapshot) = made.filter(|snapshot| snapshot.last_sequence == expected) else {
        tracing::warn!(run_id = %fold.run, "snapshot could not be made");
        return Ok(false);
    };
    let bytes = encode_snapshot(&snapshot);
    let _turn = shared.gate.enter_background();
    connection
        .prepare_cached(
            "INSERT INTO snapshot (run, commit_no, sequence, bytes) SELECT ?1, ?2, ?3, ?4 \
             WHERE EXISTS (SELECT 1 FROM run WHERE id = ?1) \
             ON CONFLICT (run) DO UPDATE SET commit_no = excluded.commit_no, sequence = excluded.sequence, bytes = excluded.bytes",
        )?
        .execute(params![
            fold.run.as_bytes(),
            signed(folded),
            signed(snapshot.last_sequence),
            bytes
        ])?;
    Ok(true)
}
