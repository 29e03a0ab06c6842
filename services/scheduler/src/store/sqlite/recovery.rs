//! Taking the partition over and bringing back what has not ended.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::mpsc;
use windlass_ids::{InstallationId, RunId, Timestamp};
use windlass_scheduling::{Change, RunSnapshot, RunState};

use super::query;
use super::rows::{self, RowError, blob, collect, first, signed, unsigned};
use super::shared::Shared;
use super::tail::Tail;
use super::write::PARTITION;
use crate::store::codec::{CodecError, Group, decode_commit, decode_part, decode_snapshot};
use crate::store::{DefinitionKind, RecoveredRun, RunHeader, StoreError};

/// Where the partition stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) installation: InstallationId,
    pub(super) epoch: u64,
    pub(super) commit_no: u64,
    pub(super) folded: u64,
    pub(super) last_time: Timestamp,
}

/// Begins a new epoch, durably.
pub(super) fn take_over(connection: &mut Connection) -> Result<Position, RowError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("UPDATE partition SET epoch = epoch + 1 WHERE id = ?1", [PARTITION])?;
    let position = first(
        &transaction,
        "SELECT installation, epoch, commit_no, folded_commit_no, last_time FROM meta, partition WHERE partition.id = ?1",
        [PARTITION],
        |row| {
            Ok(Position {
                installation: InstallationId::from_slice(blob(row, 0)?)
                    .ok_or(CodecError::Missing("installation"))?,
                epoch: unsigned(row.get(1)?),
                commit_no: unsigned(row.get(2)?),
                folded: unsigned(row.get(3)?),
                last_time: Timestamp::from_millis(row.get(4)?),
            })
        },
    )?
    .ok_or(CodecError::Missing("partition"))?;
    transaction.commit()?;
    Ok(position)
}

/// What the journal holds beyond the fold: an index of it, and the changes by run, still packed.
pub(super) fn read_tail(
    connection: &Connection,
    position: &Position,
) -> Result<(Tail, HashMap<RunId, Vec<Group>>), RowError> {
    let mut tail = Tail::starting_at(position.folded);
    let mut groups: HashMap<RunId, Vec<Group>> = HashMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT commit_no, bytes FROM journal WHERE partition = ?1 AND commit_no > ?2 ORDER BY commit_no",
    )?;
    let mut rows = statement.query(params![PARTITION, signed(position.folded)])?;
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(1)?;
        let size = bytes.len();
        let found = decode_commit(bytes)?;
        let spans: Vec<_> = found.iter().map(Group::span).collect();
        tail.push(unsigned(row.get(0)?), size, &spans);
        for group in found {
            groups.entry(group.run).or_default().push(group);
        }
    }
    tail.set_durable(position.commit_no);
    Ok((tail, groups))
}

/// Reads the runs that have not ended, in the order of their ids, and sends them one by one.
#[derive(Debug)]
pub(super) struct RunReader {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) tail: HashMap<RunId, Vec<Group>>,
    pub(super) sender: mpsc::Sender<Result<RecoveredRun, StoreError>>,
}

impl RunReader {
    /// Until all were sent, or nobody listens.
    pub(super) fn run(mut self) {
        if let Err(error) = self.send_all() {
            let error = self.shared.row_error("recover from")(error);
            self.sender.blocking_send(Err(error)).ok();
        }
    }

    fn send_all(&mut self) -> Result<(), RowError> {
        for id in active_runs(&self.connection)? {
            let groups = self.tail.remove(&id).unwrap_or_default();
            let header = query::run(&self.connection, id)?.ok_or(CodecError::Missing("header of a run"))?;
            let run = recover_run(&self.connection, header, &groups)?;
            if self.sender.blocking_send(Ok(run)).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn active_runs(connection: &Connection) -> Result<Vec<RunId>, RowError> {
    let active: Vec<String> = RunState::ALL
        .iter()
        .filter(|state| !state.is_terminal())
        .map(|state| state.code().to_string())
        .collect();
    let sql = format!("SELECT id FROM run WHERE state IN ({}) ORDER BY id", active.join(", "));
    collect(connection.prepare_cached(&sql)?, [], |row| rows::run_id(row, 0))
}

fn recover_run(connection: &Connection, header: RunHeader, tail: &[Group]) -> Result<RecoveredRun, RowError> {
    let run = header.id;
    let definition = rows::definition(connection, run, DefinitionKind::Resolved)?;
    let snapshot = read_snapshot(connection, run)?;
    let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.last_sequence);
    let mut changes = folded_changes(connection, run, after)?;
    changes.reserve_exact(tail.iter().map(Group::count).sum());
    for group in tail {
        group.decode_into(after + 1, u64::MAX, &mut changes)?;
    }
    let contiguous = (after + 1..)
        .zip(&changes)
        .all(|(sequence, change)| change.sequence == sequence);
    if !contiguous {
        return Err(CodecError::Missing("change of a run").into());
    }
    Ok(RecoveredRun {
        definition: definition.ok_or(CodecError::Missing("definition of a run"))?,
        header,
        snapshot,
        changes,
    })
}

/// The newest snapshot of a run.
pub(super) fn read_snapshot(connection: &Connection, run: RunId) -> Result<Option<RunSnapshot>, RowError> {
    let sql = "SELECT bytes FROM snapshot WHERE run = ?1";
    first(connection, sql, [run.as_bytes()], |row| {
        Ok(decode_snapshot(run, Bytes::from(row.get::<_, Vec<u8>>(0)?))?)
    })
}

/// The changes of a run after `after` that were folded.
pub(super) fn folded_changes(connection: &Connection, run: RunId, after: u64) -> Result<Vec<Change>, RowError> {
    let mut changes = Vec::new();
    let mut statement = connection
        .prepare_cached("SELECT bytes FROM run_history WHERE run = ?1 AND last_seq > ?2 ORDER BY first_seq")?;
    let mut rows = statement.query(params![run.as_bytes(), signed(after)])?;
    while let Some(row) = rows.next()? {
        for group in decode_part(run, row.get::<_, Vec<u8>>(0)?)? {
            group.decode_into(after + 1, u64::MAX, &mut changes)?;
        }
    }
    Ok(changes)
}
