//! The objects on disk: one SQLite file, written by one thread in groups.
//!
//! It has to survive the death of the process, not of the machine, hence `synchronous=NORMAL`.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::object::{Key, Object};
use crate::resources;

const FORMAT: i64 = 1;

/// Why the objects could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the local cluster's database does not open")]
    Database(#[from] rusqlite::Error),
    /// Written by a newer release.
    #[error("the local cluster's database has format {found}, this release knows up to {known}")]
    TooNew {
        /// Format on disk.
        found: i64,
        /// Newest known format.
        known: i64,
    },
    /// A stored object does not parse.
    #[error("the local cluster's database holds a damaged object: {namespace}/{name}")]
    Damaged {
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
    },
}

/// A change on its way to the disk.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: Key,
    pub(super) body: Option<Bytes>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Disk {
    connection: Connection,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 8_000)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if found > FORMAT {
            return Err(StoreError::TooNew { found, known: FORMAT });
        }
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS object (
                 api_group TEXT NOT NULL, plural TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
                 body BLOB NOT NULL, PRIMARY KEY (api_group, plural, namespace, name)) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;",
        )?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        Ok(Self { connection })
    }

    /// Everything stored, and the last resource version.
    pub(super) fn load(&self) -> Result<(Vec<Object>, u64), StoreError> {
        let version: Option<i64> = self
            .connection
            .query_row("SELECT value FROM counter WHERE name = 'version'", [], |row| row.get(0))
            .optional()?;
        let mut statement = self
            .connection
            .prepare("SELECT api_group, plural, namespace, name, body FROM object")?;
        let mut rows = statement.query([])?;
        let mut objects = Vec::new();
        while let Some(row) = rows.next()? {
            let (group, plural): (String, String) = (row.get(0)?, row.get(1)?);
            let Some(resource) = resources::by_name(&group, &plural) else {
                continue;
            };
            let body: Vec<u8> = row.get(4)?;
            let damaged = |row: &rusqlite::Row<'_>| -> Result<StoreError, rusqlite::Error> {
                Ok(StoreError::Damaged {
                    namespace: row.get(2)?,
                    name: row.get(3)?,
                })
            };
            let Ok(value) = serde_json::from_slice::<Value>(&body) else {
                return Err(damaged(row)?);
            };
            let Some(version) = value["metadata"]["resourceVersion"]
                .as_str()
                .and_then(|v| v.parse().ok())
            else {
                return Err(damaged(row)?);
            };
            objects.push(Object::with_bytes(resource, version, &value, Bytes::from(body)));
        }
        Ok((objects, u64::try_from(version.unwrap_or(1)).unwrap_or(1)))
    }

    /// One group: all of it or nothing.
    pub(super) fn commit(&mut self, writes: &[Write], version: u64) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO object VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET body = excluded.body",
            )?;
            let mut remove = transaction.prepare_cached(
                "DELETE FROM object WHERE api_group = ?1 AND plural = ?2 AND namespace = ?3 AND name = ?4",
            )?;
            for write in latest(writes) {
                let Key {
                    resource,
                    namespace,
                    name,
                } = &write.key;
                match &write.body {
                    Some(body) => {
                        put.execute(params![resource.group, resource.plural, namespace, name, body.as_ref()])?
                    }
                    None => remove.execute(params![resource.group, resource.plural, namespace, name])?,
                };
            }
            transaction
                .prepare_cached(
                    "INSERT INTO counter VALUES ('version', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
                )?
                .execute([i64::try_from(version).unwrap_or(i64::MAX)])?;
        }
        transaction.commit()
    }
}

/// Of several writes to one object only the last matters.
fn latest(writes: &[Write]) -> Vec<&Write> {
    let mut seen = std::collections::HashSet::with_capacity(writes.len());
    let mut kept: Vec<&Write> = writes
        .iter()
        .rev()
        .filter(|w| seen.insert((w.key.resource.index, &w.key.namespace, &w.key.name)))
        .collect();
    kept.reverse();
    kept
}
