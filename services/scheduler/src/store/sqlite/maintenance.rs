//! What else the fold's thread does: checkpoints of the write-ahead log, and request ids whose time is over.

use rusqlite::{Connection, params};

use super::connection::failure;
use super::rows::RowError;
use super::shared::Shared;
use super::write::PARTITION;
use crate::store::StoreError;

/// Frames (of 4 KiB) from which the log is worth a checkpoint although commits go on.
const WORTH_IT: i64 = 1_000;

/// Frames from which the committer waits for the rest of a checkpoint, so that the log can begin anew.
const TOO_LONG: i64 = 8_192;

/// Rows that go in one transaction.
const EXPIRE_AT_ONCE: i64 = 500;

/// Copies the write-ahead log into the database.
#[derive(Debug, Default)]
pub(super) struct Checkpointer {
    /// The newest commit that a complete checkpoint covered.
    complete: u64,
}

impl Checkpointer {
    /// Whether commits came after the last complete checkpoint.
    pub(super) fn is_pending(&self, shared: &Shared) -> bool {
        shared.tail().durable() != self.complete
    }

    pub(super) fn checkpoint(
        &mut self,
        connection: &Connection,
        shared: &Shared,
        quiet: bool,
    ) -> Result<(), StoreError> {
        let failed = |error| failure(&shared.path, "checkpoint", error);
        let durable = shared.tail().durable();
        let (log, copied) = wal(connection, "NOOP").map_err(failed)?;
        if !quiet && log - copied < WORTH_IT {
            return Ok(());
        }
        let (log, copied) = wal(connection, "PASSIVE").map_err(failed)?;
        let (log, copied) = if log > TOO_LONG && copied < log {
            let _turn = shared.gate.enter_background();
            wal(connection, "PASSIVE").map_err(failed)?
        } else {
            (log, copied)
        };
        if log == copied {
            self.complete = durable;
        }
        Ok(())
    }
}

/// Frames in the log, and how many of them are in the database.
fn wal(connection: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get(1)?, row.get(2)?))
    })
}

/// Removes request ids whose time is over by the time of the last commit.
pub(super) fn expire_requests(connection: &mut Connection, shared: &Shared) -> Result<(), StoreError> {
    while has_expired(connection).map_err(shared.row_error("read"))? {
        let _turn = shared.gate.enter_background();
        remove_expired(connection).map_err(shared.row_error("expire request ids in"))?;
    }
    Ok(())
}

fn has_expired(connection: &Connection) -> Result<bool, RowError> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM request_key WHERE expires < (SELECT last_time FROM partition WHERE id = ?1) LIMIT 1",
    )?;
    Ok(statement.exists([PARTITION])?)
}

fn remove_expired(connection: &mut Connection) -> Result<(), RowError> {
    connection
        .prepare_cached(
            "DELETE FROM request_key WHERE (namespace, request_id) IN (SELECT namespace, request_id FROM request_key \
             WHERE expires < (SELECT last_time FROM partition WHERE id = ?1) LIMIT ?2)",
        )?
        .execute(params![PARTITION, EXPIRE_AT_ONCE])?;
    Ok(())
}
