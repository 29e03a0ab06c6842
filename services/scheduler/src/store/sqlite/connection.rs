//! Connections: settings, and errors of SQLite as errors of the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use crate::store::StoreError;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Commits: each one is on disk before it is acknowledged.
    Commit,
    /// The fold: may lose its newest transactions with the power, never part of one; it then does them again.
    Fold,
    /// Reads.
    Read,
}

/// Opens the database.
///
/// Nobody checkpoints on commit: the fold's thread does it, so that a commit never pays for it.
pub(crate) fn open(path: &Path, purpose: Purpose, max_bytes: Option<u64>) -> Result<Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if purpose == Purpose::Commit {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let failed = |error| failure(path, "open", error);
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    let synchronous = if purpose == Purpose::Commit { "FULL" } else { "NORMAL" };
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 0; \
             PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192; \
             PRAGMA foreign_keys = OFF;"
        ))
        .map_err(failed)?;
    if purpose == Purpose::Read {
        connection.execute_batch("PRAGMA query_only = ON;").map_err(failed)?;
    }
    if let Some(max_bytes) = max_bytes {
        limit(&connection, max_bytes).map_err(failed)?;
    }
    Ok(connection)
}

fn limit(connection: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    let page_size: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let pages = i64::try_from(max_bytes).unwrap_or(i64::MAX) / page_size.max(1);
    connection.query_row(&format!("PRAGMA max_page_count = {}", pages.max(1)), [], |_| Ok(()))
}

/// What an error of SQLite means.
pub(crate) fn failure(path: &Path, action: &'static str, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let rusqlite::Error::SqliteFailure(cause, message) = &error else {
        return unreadable(path, &error);
    };
    match cause.code {
        ErrorCode::DiskFull => StoreError::Full { path },
        ErrorCode::SystemIoFailure if is_write(cause.extended_code) && disk_is_full(&path) => StoreError::Full { path },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SchemaChanged => StoreError::Corrupt {
            path,
            what: error.to_string(),
        },
        ErrorCode::ConstraintViolation => StoreError::Conflict {
            what: message.clone().unwrap_or_else(|| cause.to_string()),
        },
        _ => StoreError::Io {
            action,
            path,
            source: Arc::new(error),
        },
    }
}

fn unreadable(path: PathBuf, error: &rusqlite::Error) -> StoreError {
    StoreError::Corrupt {
        path,
        what: error.to_string(),
    }
}

fn is_write(extended_code: i32) -> bool {
    matches!(
        extended_code,
        ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_SHMSIZE
            | ffi::SQLITE_IOERR_SHMMAP
            | ffi::SQLITE_IOERR_SHMOPEN
    )
}

fn disk_is_full(path: &Path) -> bool {
    const NEARLY_NOTHING: u64 = 64 * 1024;
    fs4::available_space(path.parent().unwrap_or(path)).is_ok_and(|free| free < NEARLY_NOTHING)
}
