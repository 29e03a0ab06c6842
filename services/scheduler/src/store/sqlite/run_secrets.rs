//! Secrets of runs and schedules in their table.

use rusqlite::{Connection, Transaction, params};
use windlass_ids::{ClusterAlias, ClusterUid, Namespace, RunId, ScheduleId, ScheduleSecretId};

use super::rows::{RowError, collect};
use crate::store::codec::CodecError;
use crate::store::{RunSecret, RunSecretWrite, SecretOwner};

/// All of them.
pub(super) fn all(connection: &Connection) -> Result<Vec<RunSecret>, RowError> {
    let sql = "SELECT run, schedule, cluster, alias, namespace, run_name FROM run_secret ORDER BY run, cluster";
    collect(connection.prepare_cached(sql)?, [], |row| {
        let (id, schedule): (Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        let owner = owner(&id, schedule.as_deref()).ok_or(CodecError::Missing("owner of a secret"))?;
        Ok(RunSecret {
            owner,
            cluster: ClusterUid(row.get(2)?),
            alias: ClusterAlias(row.get(3)?),
            namespace: Namespace(row.get(4)?),
            owner_name: row.get(5)?,
        })
    })
}

fn owner(id: &[u8], schedule: Option<&[u8]>) -> Option<SecretOwner> {
    Some(match schedule {
        None => SecretOwner::Run(RunId::from_slice(id)?),
        Some(schedule) => SecretOwner::Schedule {
            secret: ScheduleSecretId::from_slice(id)?,
            schedule: ScheduleId::from_slice(schedule)?,
        },
    })
}

/// Writes what becomes of one.
pub(super) fn write(transaction: &Transaction<'_>, write: &RunSecretWrite) -> Result<(), RowError> {
    match write {
        RunSecretWrite::Put(secret) => {
            let sql = "INSERT INTO run_secret (run, schedule, cluster, alias, namespace, run_name) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (id, schedule) = columns(&secret.owner);
            transaction.prepare_cached(sql)?.execute(params![
                id,
                schedule,
                secret.cluster.0,
                secret.alias.0,
                secret.namespace.as_str(),
                secret.owner_name,
            ])?;
        }
        RunSecretWrite::Delete { owner, cluster } => {
            transaction
                .prepare_cached("DELETE FROM run_secret WHERE run = ?1 AND cluster = ?2")?
                .execute(params![columns(owner).0, cluster.0])?;
        }
    }
    Ok(())
}

fn columns(owner: &SecretOwner) -> (&[u8; 16], Option<&[u8; 16]>) {
    match owner {
        SecretOwner::Run(run) => (run.as_bytes(), None),
        SecretOwner::Schedule { secret, schedule } => (secret.as_bytes(), Some(schedule.as_bytes())),
    }
}
