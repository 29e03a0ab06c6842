//! Messages to other systems in their table.

use rusqlite::{Connection, Transaction, params};
use windlass_ids::Timestamp;

use super::rows::{RowError, collect, run_id};
use crate::store::{Delivery, DeliveryWrite};

/// Writes what becomes of a message.
pub(super) fn write(transaction: &Transaction<'_>, write: &DeliveryWrite) -> Result<(), RowError> {
    match write {
        DeliveryWrite::Put(delivery) => transaction
            .prepare_cached(
                "INSERT INTO delivery (id, target, run, body, created, attempts, due) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                delivery.id,
                delivery.target,
                delivery.run.as_bytes(),
                delivery.body,
                delivery.created.as_millis(),
                delivery.attempts,
                delivery.due.as_millis(),
            ])?,
        DeliveryWrite::Again { id, attempts, due } => transaction
            .prepare_cached("UPDATE delivery SET attempts = ?2, due = ?3 WHERE id = ?1")?
            .execute(params![id, attempts, due.as_millis()])?,
        DeliveryWrite::Done { id } => transaction
            .prepare_cached("DELETE FROM delivery WHERE id = ?1")?
            .execute([id])?,
        DeliveryWrite::DropTarget { target } => transaction
            .prepare_cached("DELETE FROM delivery WHERE target = ?1")?
            .execute([target])?,
    };
    Ok(())
}

/// What waits for a target, in the order in which it is due.
pub(super) fn waiting(connection: &Connection, target: &str, limit: usize) -> Result<Vec<Delivery>, RowError> {
    let sql = "SELECT id, run, target, body, created, attempts, due FROM delivery WHERE target = ?1 \
               ORDER BY due, id LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    collect(connection.prepare_cached(sql)?, params![target, limit], |row| {
        Ok(Delivery {
            id: row.get(0)?,
            run: run_id(row, 1)?,
            target: row.get(2)?,
            body: row.get(3)?,
            created: Timestamp::from_millis(row.get(4)?),
            attempts: row.get(5)?,
            due: Timestamp::from_millis(row.get(6)?),
        })
    })
}

/// The targets for which something waits.
pub(super) fn targets(connection: &Connection) -> Result<Vec<String>, RowError> {
    let statement = connection.prepare_cached("SELECT DISTINCT target FROM delivery ORDER BY target")?;
    collect(statement, [], |row| Ok(row.get(0)?))
}
