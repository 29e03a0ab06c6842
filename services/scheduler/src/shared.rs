//! What the driver and the handlers of requests share.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use windlass_ids::InstallationId;
use windlass_service::Clock;

use crate::admission::Lanes;
use crate::driver::{Inbox, Reservations};
use crate::errors::{LookupError, Unavailable};
use crate::executors::Executors;
use crate::history::History;
use crate::read_model::ReadModel;
use crate::relays::Relays;
use crate::run_secrets::RunSecrets;
use crate::schedules::ScheduleModel;
use crate::secrets::references::FireLooks;
use crate::store::Store;
use crate::webhooks::Webhooks;

/// Most watchers at a time.
const MAX_WATCHERS: usize = 20_000;

/// Most streams of rendered pods at a time; each holds its pipeline.
const MAX_RENDERS: usize = 32;

/// See the module. One for each server: nothing is global.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) runs: ReadModel,
    pub(crate) schedules: ScheduleModel,
    pub(crate) executors: Executors,
    pub(crate) relays: Relays,
    pub(crate) run_secrets: RunSecrets,
    pub(crate) fire_looks: FireLooks,
    pub(crate) history: History,
    pub(crate) inbox: Inbox,
    pub(crate) reservations: Reservations,
    pub(crate) timing: Timing,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) renders: Arc<Semaphore>,
    pub(crate) lanes: Lanes,
    pub(crate) webhooks: Arc<Webhooks>,
    partition: RwLock<Option<Partition>>,
}

/// Times that sessions are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long an executor's lease lasts.
    pub(crate) lease: Duration,
    /// Least time between heartbeats.
    pub(crate) heartbeat: Duration,
    /// Least time between keep-alives of a watch.
    pub(crate) keep_alive: Duration,
}

/// The store as it was last opened.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) installation: InstallationId,
    pub(crate) epoch: u64,
}

impl Shared {
    pub(crate) fn new(clock: Clock, inbox: Inbox, timing: Timing, relays: Relays, history: History) -> Self {
        Self {
            clock,
            runs: ReadModel::default(),
            schedules: ScheduleModel::default(),
            executors: Executors::default(),
            relays,
            run_secrets: RunSecrets::default(),
            fire_looks: FireLooks::default(),
            history,
            inbox,
            reservations: Reservations::default(),
            timing,
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            renders: Arc::new(Semaphore::new(MAX_RENDERS)),
            lanes: Lanes::default(),
            webhooks: Arc::default(),
            partition: RwLock::default(),
        }
    }

    /// With others who are told of ends.
    pub(crate) fn with_webhooks(self, webhooks: Webhooks) -> Self {
        Self {
            webhooks: Arc::new(webhooks),
            ..self
        }
    }

    /// The store, for reading.
    ///
    /// # Errors
    /// While the state is being read back.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>, LookupError> {
        self.partition()
            .map(|partition| partition.store)
            .map_err(|_| LookupError::StoreFailed)
    }

    /// The store with its identity and epoch.
    ///
    /// # Errors
    /// While the state is being read back.
    pub(crate) fn partition(&self) -> Result<Partition, Unavailable> {
        let partition = self.partition.read().unwrap_or_else(PoisonError::into_inner);
        partition.clone().ok_or(Unavailable::Recovering)
    }

    /// A store that is recovered; none while the state is being read back, so that nobody holds the old one.
    pub(crate) fn set_partition(&self, partition: Option<Partition>) {
        *self.partition.write().unwrap_or_else(PoisonError::into_inner) = partition;
    }
}
