//! Versions of the schema.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use windlass_ids::InstallationId;

use super::connection::failure;
use crate::store::StoreError;

/// Numbered migrations, in order; the first makes version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_schedules.sql"),
    include_str!("migrations/0003_run_secrets.sql"),
    include_str!("migrations/0004_retention.sql"),
    include_str!("migrations/0005_schedule_secrets.sql"),
];

/// The version that this program writes, and the newest that it reads.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Brings the schema up to [`VERSION`], each step in one transaction.
///
/// `installation` is the identity of a database that is new.
pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    installation: InstallationId,
) -> Result<(), StoreError> {
    let found = version(connection, path)?;
    if found > VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: VERSION,
        });
    }
    for (number, script) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        step(connection, number, script, installation).map_err(|error| failure(path, "migrate", error))?;
        tracing::info!(version = number, "store migrated");
    }
    Ok(())
}

fn step(connection: &mut Connection, number: u32, script: &str, installation: InstallationId) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(script)?;
    if number == 1 {
        transaction.execute(
            "INSERT INTO meta (id, schema_version, installation) VALUES (1, 1, ?1)",
            [installation.as_bytes()],
        )?;
    } else {
        transaction.execute("UPDATE meta SET schema_version = ?1 WHERE id = 1", [number])?;
    }
    transaction.commit()
}

/// The version of the database, 0 when it is empty.
fn version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let read = |error| failure(path, "read the version of", error);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| {
            row.get(0)
        })
        .map_err(read)?;
    if tables == 0 {
        return Ok(0);
    }
    let has_meta = connection
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'",
            [],
            |_| Ok(()),
        )
        .optional()
        .map_err(read)?;
    if has_meta.is_none() {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            what: "it is not a database of Windlass".to_owned(),
        });
    }
    connection
        .query_row("SELECT schema_version FROM meta WHERE id = 1", [], |row| row.get(0))
        .map_err(read)
}
