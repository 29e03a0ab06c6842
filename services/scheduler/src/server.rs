//! The service: store, driver and gRPC, from a listener to a stop signal.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_ids::InstallationId;
use windlass_pipeline::{DefaultRequests, Fragment, WorkspaceDefault, parse_default_requests};
use windlass_scheduling::Config as CoreConfig;
use windlass_service::{Access, Clock, ServeSettings, serve};

use crate::config::Config;
use crate::driver::{self, Driver, Limits};
use crate::grpc::{self, Provided};
use crate::history::{Bound, History};
use crate::policy::{Policy, PolicyError};
use crate::relays::Relays;
use crate::retention::{Retention, RunRetention};
use crate::run_secrets::Sweeper;
use crate::schedules::{self, Firer};
use crate::shared::{Shared, Timing};
use crate::store::Store;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::webhooks::{Deliverer, Webhooks};

pub use crate::driver::OpenStore;

/// Runs the scheduler on a bound listener until `shutdown`, or until its store is lost for good.
///
/// # Errors
/// One clear line for a person: settings that cannot be used, a store that cannot be opened or is lost.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let open = opener(&config);
    run_on(config, open, listener, shutdown).await
}

/// As [`run`], on a store that `open` opens: at the start, and again after a commit has failed.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    config: Config,
    open: OpenStore,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    run_at(config, open, Clock::system(), listener, shutdown).await
}

/// As [`run_on`], by a clock of the caller's: what is scheduled happens by it.
///
/// # Errors
/// As [`run`].
pub async fn run_at(
    config: Config,
    open: OpenStore,
    clock: Clock,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let access = Access::open(config.access_file.as_deref(), config.token_file.as_deref())?;
    let tls = config.tls.server()?;
    let provided = Provided {
        workspace: workspace(&config)?,
        default_requests: default_requests(&config)?,
        policy: policy(&config)?.map(Arc::new),
        check_references: config.check_references,
    };
    let webhooks = match &config.webhooks {
        Some(path) => Webhooks::read(path)?,
        None => Webhooks::default(),
    };
    let (inbox, outlet) = driver::inbox(Limits::default());
    let shared = Shared::new(
        clock,
        inbox,
        timing(&config),
        Relays::new(config.seal_deadline),
        History::new(Bound::default()),
    );
    let shared = Arc::new(shared.with_webhooks(webhooks));
    let (jobs, due) = schedules::jobs();
    let driver = Driver {
        shared: Arc::clone(&shared),
        outlet,
        limits: Limits::default(),
        core: CoreConfig {
            lease: config.lease,
            namespace_limit: config.namespace_limit,
            ..CoreConfig::default()
        },
        open,
        jobs,
    };
    let recovered = driver::recover(&driver.open, &driver.core, &shared).await?;
    // The driver ends after the requests that wait for it.
    let drained = CancellationToken::new();
    let api = grpc::Api::new(Arc::clone(&shared), provided, shutdown.clone());
    let firer = Firer {
        api: api.clone(),
        jobs: due,
    };
    tokio::spawn(firer.run(drained.clone()));
    if let RunRetention(Some(keep)) = config.run_retention {
        let retention = Retention {
            shared: Arc::clone(&shared),
            keep,
        };
        tokio::spawn(retention.run(drained.clone()));
    }
    let deliverer = Deliverer {
        shared: Arc::clone(&shared),
    };
    tokio::spawn(deliverer.run(drained.clone()));
    let sweeper = Sweeper {
        shared: Arc::clone(&shared),
    };
    tokio::spawn(sweeper.run(drained.clone()));
    let mut driving = tokio::spawn(driver.run(recovered, drained.clone()));
    let settings = ServeSettings {
        services: grpc::SERVICES.to_vec(),
        descriptors: windlass_api::DESCRIPTORS,
        access,
        tls,
        insecure: config.insecure,
    };
    let routes = grpc::routes(api);
    let serving = serve(routes, settings, listener, shutdown.clone());
    tokio::select! {
        served = serving => {
            drained.cancel();
            driving.await.context("the driver broke down")?.context("the store failed during shutdown")?;
            served.map_err(Into::into)
        }
        driven = &mut driving => {
            shutdown.cancel();
            driven.context("the driver broke down")?.context("the store is lost")
        }
    }
}

fn timing(config: &Config) -> Timing {
    Timing {
        lease: config.lease,
        heartbeat: config.lease / 5,
        keep_alive: std::time::Duration::from_secs(15),
    }
}

fn workspace(config: &Config) -> anyhow::Result<Option<WorkspaceDefault>> {
    let Some(volume) = &config.workspace_volume else {
        return Ok(None);
    };
    let volume = serde_json::from_str(volume).context("--workspace-volume is not JSON")?;
    Ok(Some(WorkspaceDefault::Volume(Fragment::new(volume))))
}

fn default_requests(config: &Config) -> anyhow::Result<DefaultRequests> {
    let texts = config.default_requests.iter().map(String::as_str);
    parse_default_requests(texts).map_err(|problem| anyhow::anyhow!("--default-requests: {problem}"))
}

/// Roles make a difference between who submits and whom the namespace belongs to; tokens of an owner do not.
fn policy(config: &Config) -> Result<Option<Policy>, PolicyError> {
    match &config.policy {
        Some(path) => Policy::open(path).map(Some),
        None => Ok(config.access_file.is_some().then(Policy::default)),
    }
}

/// Opens the store that the settings name.
pub fn opener(config: &Config) -> OpenStore {
    let options = SqliteOptions {
        reserve_bytes: config.reserve_bytes,
        max_bytes: config.max_store_bytes,
        ..SqliteOptions::new(
            &config.data_dir,
            InstallationId::from_bytes(*uuid::Uuid::new_v4().as_bytes()),
        )
    };
    Arc::new(move || Ok(Arc::new(SqliteStore::open(options.clone())?) as Arc<dyn Store>))
}
