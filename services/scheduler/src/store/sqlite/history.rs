//! The changes of a run: folded parts, then the journal.

use rusqlite::{Connection, params};
use windlass_ids::RunId;
use windlass_scheduling::Change;

use super::rows::{RowError, blob, collect, first, signed, unsigned};
use super::shared::{Shared, corrupt};
use super::write::PARTITION;
use crate::store::codec::{decode_commit, decode_part};
use crate::store::{HistoryError, MAX_HISTORY};

/// How often a read starts again because the fold overtook it.
const RETRIES: usize = 4;

/// What one transaction sees of the run and the partition.
struct Seen {
    history_from: u64,
    folded: u64,
}

pub(super) fn read(
    connection: &Connection,
    shared: &Shared,
    run: RunId,
    from: u64,
    limit: usize,
) -> Result<Vec<Change>, HistoryError> {
    let from = from.max(1);
    let limit = limit.clamp(1, MAX_HISTORY);
    let failed = |error: RowError| HistoryError::Store(error.at(&shared.path, "read a history from"));
    for attempt in 0..=RETRIES {
        let transaction = connection
            .unchecked_transaction()
            .map_err(|error| failed(error.into()))?;
        let seen = look(&transaction, run).map_err(failed)?.ok_or(HistoryError::NotFound)?;
        if from < seen.history_from {
            return Err(HistoryError::TooOld {
                oldest: seen.history_from,
            });
        }
        let mut changes = folded(&transaction, run, from, limit).map_err(failed)?;
        let next = from + changes.len() as u64;
        let missing = limit - changes.len();
        // The last try reads the whole journal, which needs no index and is always right.
        let commits = if attempt == RETRIES {
            Some(all_commits(&transaction, &seen).map_err(failed)?)
        } else {
            indexed_commits(shared, &seen, run, next, missing)
        };
        let Some(commits) = commits else { continue };
        journalled(&transaction, run, &commits, next, missing, &mut changes).map_err(failed)?;
        let contiguous = (from..)
            .zip(&changes)
            .all(|(sequence, change)| change.sequence == sequence);
        if contiguous {
            return Ok(changes);
        }
        if attempt == RETRIES {
            break;
        }
    }
    Err(corrupt(&shared.path, format!("changes of run {run} are missing")).into())
}

fn look(connection: &Connection, run: RunId) -> Result<Option<Seen>, RowError> {
    let sql = "SELECT run.history_from, partition.folded_commit_no FROM run, partition WHERE run.id = ?1 AND partition.id = ?2";
    first(connection, sql, params![run.as_bytes(), PARTITION], |row| {
        Ok(Seen {
            history_from: unsigned(row.get(0)?),
            folded: unsigned(row.get(1)?),
        })
    })
}

fn folded(connection: &Connection, run: RunId, from: u64, limit: usize) -> Result<Vec<Change>, RowError> {
    let mut changes = Vec::new();
    let to = from.saturating_add(limit as u64 - 1);
    let mut statement = connection.prepare_cached(
        "SELECT bytes FROM run_history WHERE run = ?1 AND first_seq <= ?3 AND first_seq >= coalesce( \
         (SELECT max(first_seq) FROM run_history WHERE run = ?1 AND first_seq <= ?2), 0) ORDER BY first_seq",
    )?;
    let mut rows = statement.query(params![run.as_bytes(), signed(from), signed(to)])?;
    while let Some(row) = rows.next()? {
        for group in decode_part(run, row.get::<_, Vec<u8>>(0)?)? {
            group.decode_into(from, to, &mut changes)?;
        }
    }
    Ok(changes)
}

/// The commits to look into; `None` when the fold has moved some of them after this transaction began.
fn indexed_commits(shared: &Shared, seen: &Seen, run: RunId, from: u64, limit: usize) -> Option<Vec<u64>> {
    let tail = shared.tail();
    let current = tail.folded() <= seen.folded;
    current.then(|| {
        let mut commits = tail.commits_of(run, from, limit as u64);
        commits.retain(|commit_no| *commit_no > seen.folded);
        commits
    })
}

fn all_commits(connection: &Connection, seen: &Seen) -> Result<Vec<u64>, RowError> {
    let statement = connection
        .prepare_cached("SELECT commit_no FROM journal WHERE partition = ?1 AND commit_no > ?2 ORDER BY commit_no")?;
    collect(statement, params![PARTITION, signed(seen.folded)], |row| {
        Ok(unsigned(row.get(0)?))
    })
}

fn journalled(
    connection: &Connection,
    run: RunId,
    commits: &[u64],
    from: u64,
    limit: usize,
    changes: &mut Vec<Change>,
) -> Result<(), RowError> {
    let to = from.saturating_add(limit as u64).saturating_sub(1);
    for commit_no in commits {
        let sql = "SELECT bytes FROM journal WHERE partition = ?1 AND commit_no = ?2";
        let parameters = params![PARTITION, signed(*commit_no)];
        let found = first(connection, sql, parameters, |row| Ok(blob(row, 0)?.to_vec()))?;
        // A commit that is newer than this transaction.
        let Some(bytes) = found else { break };
        for group in decode_commit(bytes)?.iter().filter(|group| group.run == run) {
            group.decode_into(from, to, changes)?;
        }
    }
    Ok(())
}
