//! Runs that go. A commit takes the header away and remembers that the run was deleted; the fold deletes the rest little by little.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use windlass_ids::{Namespace, RunId, RunName, Timestamp};

use super::rows::{RowError, blob, collect, first, run_id};
use super::shared::Shared;
use super::write::PARTITION;
use crate::store::codec::{CodecError, decode_fixed};
use crate::store::{
    DELETED_RETENTION, DeletedRun, Deletion, DeletionCause, EndedRun, MAX_PAGE, REQUEST_KEY_RETENTION, RunFixed,
    StoreError,
};

/// Bounds on how long one transaction of the fold keeps the committer waiting.
const SWEEP_BYTES: i64 = 4 * 1024 * 1024;
const SWEEP_RUNS: usize = 256;
const EXPIRE_AT_ONCE: i64 = 500;

const COLUMNS: &str = "run, namespace, name, time, cause";

/// Takes a run away; nothing happens when it is not there.
pub(super) fn delete(transaction: &Transaction<'_>, deletion: Deletion, now: Timestamp) -> Result<(), RowError> {
    let run = deletion.run.as_bytes();
    let found = first(transaction, "SELECT fixed FROM run WHERE id = ?1", [run], |row| {
        Ok(decode_fixed(blob(row, 0)?)?)
    })?;
    let Some(RunFixed { labels, .. }) = found else {
        return Ok(());
    };
    for (key, value) in &labels {
        transaction
            .prepare_cached("DELETE FROM run_label WHERE key = ?1 AND value = ?2 AND run = ?3")?
            .execute(params![key, value, run])?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO deleted_run (run, namespace, name, time, cause, swept) \
             SELECT id, namespace, name, ?2, ?3, 0 FROM run WHERE id = ?1",
        )?
        .execute(params![run, now.as_millis(), deletion.cause as u8])?;
    transaction
        .prepare_cached("DELETE FROM run WHERE id = ?1")?
        .execute([run])?;
    transaction
        .prepare_cached("UPDATE request_key SET expires = ?2 WHERE run = ?1")?
        .execute(params![run, now.saturating_add(REQUEST_KEY_RETENTION).as_millis()])?;
    Ok(())
}

/// Runs that ended before a time, in the order of their ends, after `after`.
pub(super) fn ended(
    connection: &Connection,
    before: Timestamp,
    after: Option<&EndedRun>,
    limit: usize,
) -> Result<Vec<EndedRun>, RowError> {
    let sql = "SELECT ended, id FROM run WHERE ended < ?1 AND (ended, id) > (?2, ?3) ORDER BY ended, id LIMIT ?4";
    let (ended, id) = after.map_or((i64::MIN, RunId::from_bytes([0; 16])), |run| {
        (run.ended.as_millis(), run.id)
    });
    let limit = i64::try_from(limit.clamp(1, MAX_PAGE)).unwrap_or(i64::MAX);
    collect(
        connection.prepare_cached(sql)?,
        params![before.as_millis(), ended, id.as_bytes(), limit],
        |row| {
            Ok(EndedRun {
                ended: Timestamp::from_millis(row.get(0)?),
                id: run_id(row, 1)?,
            })
        },
    )
}

/// The run that was deleted last of those with this id or name.
pub(super) fn find(
    connection: &Connection,
    namespace: &Namespace,
    reference: &str,
) -> Result<Option<DeletedRun>, RowError> {
    if let Ok(id) = reference.parse::<RunId>() {
        let sql = format!("SELECT {COLUMNS} FROM deleted_run WHERE run = ?1 AND namespace = ?2");
        let found = first(connection, &sql, params![id.as_bytes(), namespace.as_str()], deleted)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    let sql =
        format!("SELECT {COLUMNS} FROM deleted_run WHERE namespace = ?1 AND name = ?2 ORDER BY time DESC LIMIT 1");
    first(connection, &sql, [namespace.as_str(), reference], deleted)
}

/// Those of the runs that were deleted.
pub(super) fn among(connection: &Connection, runs: &[RunId]) -> Result<Vec<RunId>, RowError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM deleted_run WHERE run = ?1")?;
    let mut deleted = Vec::new();
    for run in runs {
        if statement.exists([run.as_bytes()])? {
            deleted.push(*run);
        }
    }
    Ok(deleted)
}

fn deleted(row: &rusqlite::Row<'_>) -> Result<DeletedRun, RowError> {
    Ok(DeletedRun {
        id: run_id(row, 0)?,
        namespace: Namespace(row.get(1)?),
        name: RunName(row.get(2)?),
        time: Timestamp::from_millis(row.get(3)?),
        cause: DeletionCause::from_stored(row.get(4)?).ok_or(CodecError::Missing("cause of a deletion"))?,
    })
}

/// Deletes some of what deleted runs have left behind; whether there may be more.
pub(super) fn sweep(connection: &mut Connection, shared: &Shared) -> Result<bool, StoreError> {
    let unswept = has(connection, "SELECT 1 FROM deleted_run WHERE swept = 0 LIMIT 1");
    if !unswept.map_err(shared.row_error("read"))? {
        return Ok(false);
    }
    let _turn = shared.gate.enter_background();
    sweep_some(connection).map_err(shared.row_error("delete runs from"))?;
    Ok(true)
}

fn sweep_some(connection: &mut Connection) -> Result<(), RowError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = format!("SELECT run FROM deleted_run WHERE swept = 0 LIMIT {SWEEP_RUNS}");
    let runs = collect(transaction.prepare_cached(&sql)?, [], |row| run_id(row, 0))?;
    let mut left = SWEEP_BYTES;
    for run in runs {
        sweep_run(&transaction, run, &mut left)?;
        if left <= 0 {
            break;
        }
        transaction
            .prepare_cached("UPDATE deleted_run SET swept = 1 WHERE run = ?1")?
            .execute([run.as_bytes()])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Deletes parts of a run until `left` bytes are used up.
fn sweep_run(transaction: &Transaction<'_>, run: RunId, left: &mut i64) -> Result<(), RowError> {
    // The length of a blob is known without reading it.
    for (look, delete) in [
        (
            "SELECT first_seq, 0, length(bytes) FROM run_history WHERE run = ?1",
            "DELETE FROM run_history WHERE run = ?1 AND first_seq = ?2 AND 0 = ?3",
        ),
        (
            "SELECT kind, part, length(bytes) FROM definition WHERE run = ?1",
            "DELETE FROM definition WHERE run = ?1 AND kind = ?2 AND part = ?3",
        ),
        (
            "SELECT sequence, 0, length(bytes) FROM snapshot WHERE run = ?1",
            "DELETE FROM snapshot WHERE run = ?1 AND sequence = ?2 AND 0 = ?3",
        ),
    ] {
        let parts = collect(transaction.prepare_cached(look)?, [run.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let mut delete = transaction.prepare_cached(delete)?;
        for (first, second, bytes) in parts {
            if *left <= 0 {
                return Ok(());
            }
            delete.execute(params![run.as_bytes(), first, second])?;
            *left -= bytes.max(1);
        }
    }
    Ok(())
}

/// Forgets runs that were deleted long ago, by the time of the last commit.
pub(super) fn expire(connection: &Connection, shared: &Shared) -> Result<(), StoreError> {
    let age = i64::try_from(DELETED_RETENTION.as_millis()).unwrap_or(i64::MAX);
    let old = format!("time < (SELECT last_time FROM partition WHERE id = {PARTITION}) - {age} AND swept = 1");
    loop {
        let found = has(connection, &format!("SELECT 1 FROM deleted_run WHERE {old} LIMIT 1"));
        if !found.map_err(shared.row_error("read"))? {
            return Ok(());
        }
        let _turn = shared.gate.enter_background();
        let sql = format!(
            "DELETE FROM deleted_run WHERE run IN (SELECT run FROM deleted_run WHERE {old} LIMIT {EXPIRE_AT_ONCE})"
        );
        let removed = connection
            .prepare_cached(&sql)
            .and_then(|mut delete| delete.execute([]));
        removed.map_err(|error| shared.row_error("forget deleted runs of")(error.into()))?;
    }
}

fn has(connection: &Connection, sql: &str) -> Result<bool, RowError> {
    Ok(connection.prepare_cached(sql)?.exists([])?)
}

/// Bytes of the file that nothing uses, and that are used before it grows.
pub(super) fn reusable(connection: &Connection) -> Result<u64, RowError> {
    let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u32>(0));
    Ok(u64::from(pragma("freelist_count")?) * u64::from(pragma("page_size")?))
}
