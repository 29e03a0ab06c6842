//! One chunk of the fold: some commits, read and packed outside of the turn to write, then moved in one transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use windlass_ids::RunId;
use windlass_scheduling::RunState;

use super::rows::{RowError, first, signed, unsigned};
use super::write::PARTITION;
use crate::store::codec::{CodecError, Group, decode_commit, decode_part, encode_part};

/// Where a chunk ends: bounds on how long one of its transactions keeps the committer waiting.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNK_RUNS: usize = 256;

/// A newer part joins the last one while both are small, so that a run with few changes at a time does not end up with many rows.
const JOIN_BELOW: u32 = 32 * 1024;

/// Where a part ends, before it is packed; with the largest group it stays below 1 MiB.
const PART_BYTES: usize = 512 * 1024;

/// Commits on their way into histories.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The last commit in it.
    pub(super) last_commit: u64,
    /// What is to be written for each run.
    pub(super) folds: Vec<RunFold>,
}

/// The changes of one run in a chunk.
#[derive(Debug)]
pub(super) struct RunFold {
    pub(super) run: RunId,
    /// `None` for a run that is deleted.
    pub(super) target: Option<Target>,
    pub(super) last_sequence: u64,
    /// First sequence number of the part that is written anew.
    replaces: Option<u64>,
    parts: Vec<Part>,
}

/// A run whose history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    history_from: u64,
    pub(super) state: RunState,
}

#[derive(Debug)]
struct Part {
    first: u64,
    last: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    pub(super) fn runs(&self) -> impl Iterator<Item = RunId> {
        self.folds.iter().map(|fold| fold.run)
    }
}

/// The next commits after `folded`; `None` when there are none.
pub(super) fn read_chunk(connection: &Connection, folded: u64) -> Result<Option<Chunk>, RowError> {
    let transaction = connection.unchecked_transaction()?;
    let mut groups: BTreeMap<RunId, Vec<Group>> = BTreeMap::new();
    let mut last_commit = None;
    let mut size = 0;
    let mut statement = transaction.prepare_cached(
        "SELECT commit_no, bytes FROM journal WHERE partition = ?1 AND commit_no > ?2 ORDER BY commit_no",
    )?;
    let mut rows = statement.query(params![PARTITION, signed(folded)])?;
    while size < CHUNK_BYTES
        && groups.len() < CHUNK_RUNS
        && let Some(row) = rows.next()?
    {
        last_commit = Some(unsigned(row.get(0)?));
        let bytes: Vec<u8> = row.get(1)?;
        size += bytes.len();
        for group in decode_commit(bytes)? {
            groups.entry(group.run).or_default().push(group);
        }
    }
    let Some(last_commit) = last_commit else {
        return Ok(None);
    };
    let folds = groups.into_iter().map(|(run, groups)| plan(&transaction, run, groups));
    let folds = folds.collect::<Result<_, _>>()?;
    Ok(Some(Chunk { last_commit, folds }))
}

fn plan(connection: &Connection, run: RunId, groups: Vec<Group>) -> Result<RunFold, RowError> {
    let target = look(connection, run)?;
    let last_sequence = groups.last().map_or(0, Group::last_sequence);
    let kept = |target: &Target| last_sequence >= target.history_from;
    let mut fold = RunFold {
        run,
        target,
        last_sequence,
        replaces: None,
        parts: Vec::new(),
    };
    if !target.as_ref().is_some_and(kept) {
        return Ok(fold);
    }
    let mut joined = last_part_if_small(connection, run)?.unwrap_or_default();
    fold.replaces = joined.first().map(Group::first_sequence);
    joined.extend(groups);
    fold.parts = pack(&joined);
    Ok(fold)
}

fn look(connection: &Connection, run: RunId) -> Result<Option<Target>, RowError> {
    let sql = "SELECT history_from, state FROM run WHERE id = ?1";
    first(connection, sql, [run.as_bytes()], |row| {
        Ok(Target {
            history_from: unsigned(row.get(0)?),
            state: RunState::from_code(row.get(1)?).ok_or(CodecError::Missing("state of a run"))?,
        })
    })
}

fn last_part_if_small(connection: &Connection, run: RunId) -> Result<Option<Vec<Group>>, RowError> {
    let sql = "SELECT CASE WHEN length(bytes) < ?2 THEN bytes END FROM run_history WHERE run = ?1 \
               ORDER BY first_seq DESC LIMIT 1";
    let found = first(connection, sql, params![run.as_bytes(), JOIN_BELOW], |row| {
        Ok(row.get::<_, Option<Vec<u8>>>(0)?)
    })?;
    Ok(found.flatten().map(|bytes| decode_part(run, bytes)).transpose()?)
}

fn pack(groups: &[Group]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = groups;
    while let [first, ..] = rest {
        let mut weight = 0;
        let fits = rest.iter().take_while(|group| {
            weight += group.weight();
            weight <= PART_BYTES
        });
        let (part, after) = rest.split_at(fits.count().max(1));
        parts.push(Part {
            first: first.first_sequence(),
            last: part.last().unwrap_or(first).last_sequence(),
            bytes: encode_part(part),
        });
        rest = after;
    }
    parts
}

/// Moves a chunk, once: `false` when somebody else holds the partition or has folded it already.
pub(super) fn write_chunk(
    connection: &mut Connection,
    epoch: u64,
    folded: u64,
    chunk: &Chunk,
) -> Result<bool, RowError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let updated = transaction
        .prepare_cached(
            "UPDATE partition SET folded_commit_no = ?3 WHERE id = ?4 AND epoch = ?1 AND folded_commit_no = ?2",
        )?
        .execute(params![
            signed(epoch),
            signed(folded),
            signed(chunk.last_commit),
            PARTITION
        ])?;
    if updated == 0 {
        return Ok(false);
    }
    for fold in &chunk.folds {
        write_fold(&transaction, fold)?;
    }
    transaction
        .prepare_cached("DELETE FROM journal WHERE partition = ?1 AND commit_no <= ?2")?
        .execute(params![PARTITION, signed(chunk.last_commit)])?;
    transaction.commit()?;
    Ok(true)
}

fn write_fold(transaction: &Transaction<'_>, fold: &RunFold) -> Result<(), RowError> {
    // Since the chunk was read, the run may have been deleted, or its history.
    let kept = |now: &Target| fold.target.is_some_and(|then| then.history_from == now.history_from);
    if fold.parts.is_empty() || !look(transaction, fold.run)?.as_ref().is_some_and(kept) {
        return Ok(());
    }
    if let Some(first) = fold.replaces {
        transaction
            .prepare_cached("DELETE FROM run_history WHERE run = ?1 AND first_seq = ?2")?
            .execute(params![fold.run.as_bytes(), signed(first)])?;
    }
    for part in &fold.parts {
        transaction
            .prepare_cached("INSERT INTO run_history (run, first_seq, last_seq, bytes) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                fold.run.as_bytes(),
                signed(part.first),
                signed(part.last),
                part.bytes
            ])?;
    }
    Ok(())
}
