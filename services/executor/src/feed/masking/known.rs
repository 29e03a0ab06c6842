//! The values that are known at present, shared by all readers of logs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Masks;
use crate::attempts::SecretUse;
use crate::kubernetes::{Api, ApiError};
use crate::metrics;

/// How long what was read of Secrets is good for those who begin to read a log.
const FRESH: Duration = Duration::from_secs(60);

/// What the logs of a pod must not show.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<Key, Entry>>);

type Key = (String, Arc<[SecretUse]>);
type Cell = Arc<OnceCell<Option<Arc<Masks>>>>;

#[derive(Debug)]
struct Entry {
    since: Instant,
    cell: Cell,
}

impl Known {
    /// What is looked for in the logs of a pod that uses these Secrets; many readers at once cost one read of each. A Secret that is
    /// not there, or that this process may not read, has no values that are known.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub(crate) async fn masks(
        &self,
        api: &Api,
        namespace: &str,
        uses: &Arc<[SecretUse]>,
    ) -> Result<Option<Arc<Masks>>, ApiError> {
        let cell = self.cell((namespace.to_owned(), Arc::clone(uses)));
        cell.get_or_try_init(|| read(api, namespace, uses)).await.cloned()
    }

    fn cell(&self, key: Key) -> Cell {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, entry| now - entry.since < FRESH);
        let entry = known.entry(key).or_insert_with(|| Entry {
            since: now,
            cell: Cell::default(),
        });
        Arc::clone(&entry.cell)
    }
}

async fn read(api: &Api, namespace: &str, uses: &[SecretUse]) -> Result<Option<Arc<Masks>>, ApiError> {
    let mut secrets: BTreeMap<&str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for one in uses {
        if secrets.contains_key(&*one.name) {
            continue;
        }
        let values = match api.secret_values(namespace, &one.name).await {
            Ok(Some(values)) => values,
            Ok(None) => unknown(namespace, &one.name, "it is not there"),
            Err(error) if error.code() == Some(403) => unknown(namespace, &one.name, "it may not be read"),
            Err(error) => return Err(error),
        };
        secrets.insert(&one.name, values);
    }
    let values = uses.iter().flat_map(|one| {
        let values = secrets.get(&*one.name).into_iter().flatten();
        values.filter(|(key, _)| one.key.as_deref().is_none_or(|wanted| wanted == *key))
    });
    let masks = Masks::of(values.map(|(_, value)| value.as_slice()));
    let masks = masks.map_err(|_| ApiError::Malformed("too many values of Secrets to look for".to_owned()))?;
    Ok(masks.map(Arc::new))
}

fn unknown(namespace: &str, secret: &str, why: &str) -> BTreeMap<String, Vec<u8>> {
    ::metrics::counter!(metrics::LOG_UNMASKED).increment(1);
    tracing::warn!(namespace, secret, why, "values of a Secret are not masked in logs");
    BTreeMap::new()
}
