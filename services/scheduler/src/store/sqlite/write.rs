//! What one commit writes.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use windlass_ids::{RunId, Timestamp};

use super::rows::{RowError, signed};
use super::{deletions, deliveries, run_secrets, schedules};
use crate::store::codec::{encode_fixed, encode_progress};
use crate::store::{CommitBatch, HeaderUpdate, NewRun, PackedDefinition, REQUEST_KEY_RETENTION, RequestRecord};

/// The only partition so far.
pub(super) const PARTITION: i64 = 0;

/// A commit that is ready to be written.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) batches: Vec<CommitBatch>,
    /// The journal row; `None` when nothing was decided.
    pub(super) journal: Option<Vec<u8>>,
    pub(super) time: Timestamp,
}

/// Whether a commit was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is durable.
    Yes,
    /// Somebody else holds the partition; nothing was written.
    Fenced,
}

/// Writes a commit in one transaction, which holds only while the epoch does.
pub(super) fn write(
    connection: &mut Connection,
    epoch: u64,
    commit_no: u64,
    prepared: &Prepared,
) -> Result<Written, RowError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let updated = transaction
        .prepare_cached(
            "UPDATE partition SET commit_no = ?3, last_time = max(last_time, ?4) \
             WHERE id = ?5 AND epoch = ?1 AND commit_no = ?2",
        )?
        .execute(params![
            signed(epoch),
            signed(commit_no - 1),
            signed(commit_no),
            prepared.time.as_millis(),
            PARTITION
        ])?;
    if updated == 0 {
        return Ok(Written::Fenced);
    }
    if let Some(bytes) = &prepared.journal {
        transaction
            .prepare_cached("INSERT INTO journal (partition, commit_no, epoch, bytes) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![PARTITION, signed(commit_no), signed(epoch), bytes])?;
    }
    for batch in &prepared.batches {
        write_batch(&transaction, batch)?;
    }
    transaction.commit()?;
    Ok(Written::Yes)
}

fn write_batch(transaction: &Transaction<'_>, batch: &CommitBatch) -> Result<(), RowError> {
    for run in &batch.new_runs {
        insert_run(transaction, run)?;
    }
    for update in &batch.updates {
        update_run(transaction, update)?;
    }
    for request in &batch.requests {
        insert_request(transaction, request)?;
    }
    for run in &batch.forgotten {
        forget_history(transaction, *run)?;
    }
    for delivery in &batch.deliveries {
        deliveries::write(transaction, delivery)?;
    }
    for deletion in &batch.deleted {
        deletions::delete(transaction, *deletion, batch.time)?;
    }
    for write in &batch.schedules {
        schedules::write(transaction, write)?;
    }
    for write in &batch.secrets {
        run_secrets::write(transaction, write)?;
    }
    Ok(())
}

fn insert_run(transaction: &Transaction<'_>, run: &NewRun) -> Result<(), RowError> {
    let header = &run.header;
    let schedule = header.fixed.schedule.as_ref();
    transaction
        .prepare_cached(
            "INSERT INTO run (id, namespace, name, pipeline, state, submitted_by, created, started, ended, last_sequence, \
             history_from, fixed, progress, schedule, scheduled_time) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?12, \
             ?13, ?14)",
        )?
        .execute(params![
            header.id.as_bytes(),
            header.namespace.as_str(),
            header.name.as_str(),
            header.pipeline,
            header.progress.state.code(),
            header.submitted_by,
            header.created.as_millis(),
            header.progress.started.map(Timestamp::as_millis),
            header.progress.ended.map(Timestamp::as_millis),
            signed(header.progress.last_sequence),
            encode_fixed(&header.fixed),
            encode_progress(&header.progress),
            schedule.map(|schedule| schedule.id.as_bytes()),
            schedule.and_then(|schedule| schedule.time).map(Timestamp::as_millis),
        ])?;
    for (key, value) in &header.fixed.labels {
        transaction
            .prepare_cached("INSERT INTO run_label (key, value, run) VALUES (?1, ?2, ?3)")?
            .execute(params![key, value, header.id.as_bytes()])?;
    }
    for definition in &run.definitions {
        insert_definition(transaction, header.id, definition)?;
    }
    run.request
        .as_ref()
        .map_or(Ok(()), |request| insert_request(transaction, request))
}

pub(super) fn insert_definition(
    transaction: &Transaction<'_>,
    run: RunId,
    definition: &PackedDefinition,
) -> Result<(), RowError> {
    let mut insert = transaction
        .prepare_cached("INSERT INTO definition (run, kind, part, encoding, bytes) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (part, bytes) in (0_i64..).zip(definition.parts()) {
        insert.execute(params![
            run.as_bytes(),
            definition.kind as u8,
            part,
            definition.encoding as u8,
            bytes
        ])?;
    }
    Ok(())
}

fn update_run(transaction: &Transaction<'_>, update: &HeaderUpdate) -> Result<(), RowError> {
    let progress = &update.progress;
    transaction
        .prepare_cached(
            "UPDATE run SET state = ?2, started = ?3, ended = ?4, last_sequence = ?5, progress = ?6 WHERE id = ?1",
        )?
        .execute(params![
            update.run.as_bytes(),
            progress.state.code(),
            progress.started.map(Timestamp::as_millis),
            progress.ended.map(Timestamp::as_millis),
            signed(progress.last_sequence),
            encode_progress(progress),
        ])?;
    Ok(())
}

fn insert_request(transaction: &Transaction<'_>, request: &RequestRecord) -> Result<(), RowError> {
    // Without a run nothing ends its time later.
    let expires = request.run.is_none().then(|| expiry(request.created));
    transaction
        .prepare_cached(
            "INSERT INTO request_key (namespace, request_id, operation, digest, run, outcome, created, expires) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            request.namespace.as_str(),
            request.request_id.as_str(),
            request.operation as u8,
            request.digest,
            request.run.as_ref().map(RunId::as_bytes),
            request.outcome,
            request.created.as_millis(),
            expires,
        ])?;
    Ok(())
}

fn expiry(from: Timestamp) -> i64 {
    from.saturating_add(REQUEST_KEY_RETENTION).as_millis()
}

fn forget_history(transaction: &Transaction<'_>, run: RunId) -> Result<(), RowError> {
    // What the journal still holds is dropped by the fold, which looks at history_from.
    transaction
        .prepare_cached("UPDATE run SET history_from = last_sequence + 1 WHERE id = ?1")?
        .execute([run.as_bytes()])?;
    for sql in [
        "DELETE FROM run_history WHERE run = ?1",
        "DELETE FROM snapshot WHERE run = ?1",
    ] {
        transaction.prepare_cached(sql)?.execute([run.as_bytes()])?;
    }
    Ok(())
}
