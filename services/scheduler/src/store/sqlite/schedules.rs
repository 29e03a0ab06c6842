//! Schedules in their table.

use rusqlite::{Connection, Transaction, params};
use windlass_ids::{Namespace, RunId, ScheduleId};

use super::rows::{RowError, blob, collect, signed, unsigned};
use super::write::insert_definition;
use crate::store::codec::{CodecError, decode_schedule, encode_schedule};
use crate::store::{PackedDefinition, Schedule, ScheduleWrite};

/// All schedules.
pub(super) fn all(connection: &Connection) -> Result<Vec<Schedule>, RowError> {
    let sql = "SELECT id, namespace, name, version, content FROM schedule ORDER BY id";
    collect(connection.prepare_cached(sql)?, [], |row| {
        let id = ScheduleId::from_slice(blob(row, 0)?).ok_or(CodecError::Missing("id of a schedule"))?;
        let (namespace, name) = (Namespace(row.get(1)?), row.get(2)?);
        Ok(decode_schedule(
            id,
            namespace,
            name,
            unsigned(row.get(3)?),
            blob(row, 4)?,
        )?)
    })
}

/// Writes what becomes of a schedule.
pub(super) fn write(transaction: &Transaction<'_>, write: &ScheduleWrite) -> Result<(), RowError> {
    match write {
        ScheduleWrite::Put { schedule, definition } => {
            put(transaction, schedule)?;
            definition
                .as_ref()
                .map_or(Ok(()), |definition| define(transaction, schedule.id, definition))
        }
        ScheduleWrite::Delete { schedule } => {
            for sql in [
                "DELETE FROM schedule WHERE id = ?1",
                "DELETE FROM definition WHERE run = ?1",
            ] {
                transaction.prepare_cached(sql)?.execute([schedule.as_bytes()])?;
            }
            Ok(())
        }
    }
}

/// A first version must be new, a later one must follow the stored one: nothing is written over what is not known.
fn put(transaction: &Transaction<'_>, schedule: &Schedule) -> Result<(), RowError> {
    let content = encode_schedule(schedule);
    if schedule.version <= 1 {
        let sql = "INSERT INTO schedule (id, namespace, name, version, content) VALUES (?1, ?2, ?3, ?4, ?5)";
        transaction.prepare_cached(sql)?.execute(params![
            schedule.id.as_bytes(),
            schedule.namespace.as_str(),
            schedule.name,
            signed(schedule.version),
            content,
        ])?;
        return Ok(());
    }
    let updated = transaction
        .prepare_cached("UPDATE schedule SET version = ?2, content = ?3 WHERE id = ?1 AND version = ?2 - 1")?
        .execute(params![schedule.id.as_bytes(), signed(schedule.version), content])?;
    if updated == 0 {
        return Err(RowError::Conflict(format!(
            "schedule {} has no version {} to follow",
            schedule.name,
            schedule.version - 1
        )));
    }
    Ok(())
}

fn define(transaction: &Transaction<'_>, schedule: ScheduleId, definition: &PackedDefinition) -> Result<(), RowError> {
    transaction
        .prepare_cached("DELETE FROM definition WHERE run = ?1")?
        .execute([schedule.as_bytes()])?;
    insert_definition(transaction, RunId::from_bytes(*schedule.as_bytes()), definition)
}
