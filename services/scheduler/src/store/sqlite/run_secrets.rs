//! Secrets of runs in their table.

use rusqlite::{Connection, Transaction, params};
use windlass_ids::{ClusterAlias, ClusterUid, Namespace, RunName};

use super::rows::{RowError, collect, run_id};
use crate::store::{RunSecret, RunSecretWrite};

/// All of them.
pub(super) fn all(connection: &Connection) -> Result<Vec<RunSecret>, RowError> {
    let sql = "SELECT run, cluster, alias, namespace, run_name FROM run_secret ORDER BY run, cluster";
    collect(connection.prepare_cached(sql)?, [], |row| {
        Ok(RunSecret {
            run: run_id(row, 0)?,
            cluster: ClusterUid(row.get(1)?),
            alias: ClusterAlias(row.get(2)?),
            namespace: Namespace(row.get(3)?),
            run_name: RunName(row.get(4)?),
        })
    })
}

/// Writes what becomes of one.
pub(super) fn write(transaction: &Transaction<'_>, write: &RunSecretWrite) -> Result<(), RowError> {
    match write {
        RunSecretWrite::Put(secret) => {
            let sql = "INSERT INTO run_secret (run, cluster, alias, namespace, run_name) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.prepare_cached(sql)?.execute(params![
                secret.run.as_bytes(),
                secret.cluster.0,
                secret.alias.0,
                secret.namespace.as_str(),
                secret.run_name.as_str(),
            ])?;
        }
        RunSecretWrite::Delete { run, cluster } => {
            transaction
                .prepare_cached("DELETE FROM run_secret WHERE run = ?1 AND cluster = ?2")?
                .execute(params![run.as_bytes(), cluster.0])?;
        }
    }
    Ok(())
}
