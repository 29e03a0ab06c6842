//! Reading the state back from the store: what was decided is applied, nothing is decided again.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_pipeline::ResolvedPipeline;
use windlass_scheduling::{Config as CoreConfig, Scheduler};

use super::OpenStore;
use super::ahead::Ahead;
use super::batch::{Batch, Live, LiveRun};
use crate::definition::RunDefinition;
use crate::read_model::{RunEntry, RunMeta, RunRecord};
use crate::run_secrets::Kept;
use crate::schedules::Book;
use crate::shared::{Partition, Shared};
use crate::store::{RecoveredRun, Recovery, SecretOwner, Store, StoreError};

/// A recovered state, and the first batch that follows from it.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) live: Live,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) first: Batch,
}

/// Opens the store and reads the state back.
pub(crate) async fn recover(open: &OpenStore, core: &CoreConfig, shared: &Shared) -> Result<Recovered, StoreError> {
    let open = Arc::clone(open);
    let opened = tokio::task::spawn_blocking(move || open()).await;
    let store = opened.map_err(|_| StoreError::Closed)??;
    let recovery = store.recover().await?;
    let partition = Partition {
        store: Arc::clone(&store),
        installation: recovery.installation,
        epoch: recovery.epoch,
    };
    shared.relays.begin_epoch(recovery.epoch);
    let recovered = read(store, recovery, core, shared).await?;
    shared.set_partition(Some(partition));
    Ok(recovered)
}

async fn read(
    store: Arc<dyn Store>,
    mut recovery: Recovery,
    core: &CoreConfig,
    shared: &Shared,
) -> Result<Recovered, StoreError> {
    shared.clock.advance_to(recovery.last_time);
    let mut live = Live {
        core: Scheduler::new(core.clone()),
        runs: BTreeMap::new(),
        schedules: Book::default(),
        secrets: Kept::default(),
        webhooks: Arc::clone(&shared.webhooks),
    };
    for schedule in std::mem::take(&mut recovery.schedules) {
        let schedule = Arc::new(schedule);
        let key = (schedule.namespace.clone(), schedule.name.clone());
        shared.schedules.set(key, Some(Arc::clone(&schedule)));
        if let Some(secret) = &schedule.secret {
            live.secrets.schedule_has(secret, schedule.id);
        }
        live.schedules.put(schedule);
    }
    while let Some(run) = recovery.runs.next().await {
        let run = run?;
        let id = run.header.id;
        let entry = restore(&mut live, run).map_err(|what| corrupt(&id.to_string(), what))?;
        let entry = Arc::new(entry);
        shared.relays.recovered(&entry, shared);
        shared.runs.insert(entry);
    }
    let now = shared.clock.now();
    let is_needed = |owner: &SecretOwner| match owner {
        SecretOwner::Run(run) => live.runs.contains_key(run),
        SecretOwner::Schedule { secret, .. } => live.secrets.has(*secret),
    };
    shared.run_secrets.load(recovery.secrets, now, is_needed);
    let mut first = Batch::new(now);
    first.recovered(&mut live);
    tracing::info!(runs = live.runs.len(), epoch = recovery.epoch, "state recovered");
    Ok(Recovered { live, store, first })
}

fn restore(live: &mut Live, run: RecoveredRun) -> Result<RunEntry, String> {
    let resolved: ResolvedPipeline = serde_json::from_slice(&run.definition).map_err(|error| error.to_string())?;
    let definition = RunDefinition::build(run.header.id, &run.header.namespace, resolved);
    let definition = Arc::new(definition.map_err(|error| error.to_string())?);
    live.core
        .load(Arc::clone(definition.spec()))
        .map_err(|error| error.to_string())?;
    let mut record = RunRecord::new(definition.len(), run.header.created);
    let mut ahead = Ahead::default();
    for change in &run.changes {
        live.core.apply(change).map_err(|error| error.to_string())?;
        record.apply(change);
        ahead.note(change, &definition);
    }
    if let Some(of) = &run.header.fixed.schedule {
        live.schedules.run_began(of.id, run.header.id);
    }
    if let Some(secret) = &run.header.fixed.secret {
        live.secrets.run_uses(secret, run.header.id);
    }
    let header = &run.header;
    let concerned = live.webhooks.concern(header.namespace.as_str());
    let told = concerned.then(|| Box::new(header.clone()));
    live.runs.insert(
        run.header.id,
        LiveRun {
            definition: Arc::clone(&definition),
            ahead,
            told,
        },
    );
    let meta = RunMeta {
        header: run.header,
        definition,
    };
    Ok(RunEntry::new(meta, record))
}

fn corrupt(run: &str, what: String) -> StoreError {
    StoreError::Corrupt {
        path: std::path::PathBuf::from(format!("run {run}")),
        what,
    }
}
