//! Rows of the tables as values.

use std::path::Path;

use rusqlite::{CachedStatement, Connection, Row, params};
use windlass_ids::{Namespace, RequestId, RunId, RunName, Timestamp};
use windlass_scheduling::RunState;

use super::connection::failure;
use crate::store::codec::{CodecError, decode_fixed, decode_progress};
use crate::store::definition::{Encoding, unpack};
use crate::store::{DefinitionKind, Operation, RequestRecord, RunHeader, RunProgress, StoreError};

/// The columns that [`header`] reads, in its order.
pub(super) const HEADER: &str = "run.id, run.namespace, run.name, run.pipeline, run.state, run.submitted_by, run.created, \
     run.started, run.ended, run.last_sequence, run.fixed, run.progress";

/// The columns that [`request`] reads, in its order.
pub(super) const REQUEST: &str = "namespace, request_id, operation, digest, run, outcome, created";

/// What reading a row can find.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Conflict(String),
}

impl RowError {
    pub(super) fn at(self, path: &Path, action: &'static str) -> StoreError {
        match self {
            Self::Sqlite(error) => failure(path, action, error),
            Self::Codec(error) => StoreError::Corrupt {
                path: path.to_owned(),
                what: error.to_string(),
            },
            Self::Conflict(what) => StoreError::Conflict { what },
        }
    }
}

pub(super) fn header(row: &Row<'_>) -> Result<RunHeader, RowError> {
    let state: u8 = row.get(4)?;
    let state = RunState::from_code(state).ok_or(CodecError::Code {
        what: "RunState",
        code: state.into(),
    })?;
    let mut progress = RunProgress::new(state, unsigned(row.get(9)?));
    progress.started = row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis);
    progress.ended = row.get::<_, Option<i64>>(8)?.map(Timestamp::from_millis);
    Ok(RunHeader {
        id: run_id(row, 0)?,
        namespace: Namespace(row.get(1)?),
        name: RunName(row.get(2)?),
        pipeline: row.get(3)?,
        submitted_by: row.get(5)?,
        created: Timestamp::from_millis(row.get(6)?),
        fixed: decode_fixed(blob(row, 10)?)?,
        progress: decode_progress(blob(row, 11)?, progress)?,
    })
}

pub(super) fn request(row: &Row<'_>) -> Result<RequestRecord, RowError> {
    let operation: u8 = row.get(2)?;
    Ok(RequestRecord {
        namespace: Namespace(row.get(0)?),
        request_id: RequestId(row.get(1)?),
        operation: Operation::from_stored(operation).ok_or(CodecError::Code {
            what: "Operation",
            code: operation.into(),
        })?,
        digest: blob(row, 3)?
            .try_into()
            .map_err(|_| CodecError::Missing("digest of a request"))?,
        run: match row.get_ref(4)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(run_id(row, 4)?),
        },
        outcome: row.get(5)?,
        created: Timestamp::from_millis(row.get(6)?),
    })
}

pub(super) fn run_id(row: &Row<'_>, column: usize) -> Result<RunId, RowError> {
    Ok(RunId::from_slice(blob(row, column)?).ok_or(CodecError::Missing("id of a run"))?)
}

pub(super) fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], RowError> {
    let value = row.get_ref(column)?;
    Ok(value.as_blob().map_err(rusqlite::Error::from)?)
}

/// SQLite's integers are signed; what we count never reaches the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Reads all rows of a statement.
pub(super) fn collect<T>(
    mut statement: CachedStatement<'_>,
    parameters: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, RowError>,
) -> Result<Vec<T>, RowError> {
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Reads the first row of a statement.
pub(super) fn first<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, RowError>,
) -> Result<Option<T>, RowError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(read).transpose()
}

/// A definition of a run, unpacked.
pub(super) fn definition(
    connection: &Connection,
    run: RunId,
    kind: DefinitionKind,
) -> Result<Option<Vec<u8>>, RowError> {
    let mut statement = connection
        .prepare_cached("SELECT encoding, bytes FROM definition WHERE run = ?1 AND kind = ?2 ORDER BY part")?;
    let mut rows = statement.query(params![run.as_bytes(), kind as u8])?;
    let mut found: Option<(Encoding, Vec<u8>)> = None;
    while let Some(row) = rows.next()? {
        let encoding = Encoding::from_stored(row.get(0)?).ok_or(CodecError::Missing("encoding of a definition"))?;
        let (_, bytes) = found.get_or_insert_with(|| (encoding, Vec::new()));
        bytes.extend_from_slice(blob(row, 1)?);
    }
    let unpacked = found.map(|(encoding, bytes)| unpack(encoding, bytes)).transpose();
    Ok(unpacked.map_err(|error| CodecError::Packed(error.to_string()))?)
}
