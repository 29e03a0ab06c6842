//! Scheduler, executor, log relay and local cluster in one process, on one data folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windlass_api::server::v1::GetServerInfoRequest;
use windlass_api::server::v1::server_service_client::ServerServiceClient;
use windlass_local_cluster::{Config as ClusterConfig, Handle, LocalCluster, OnStop, StartError};
use windlass_scheduler::RunRetention;
use windlass_service::{TlsArgs, connect_lazy};
use windlass_telemetry::TelemetryArgs;

use super::{DataFolder, DevFile};
use crate::client::settings;
use crate::errors::{CliError, Result};

/// How long all parts may take to find each other.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long runs are held back for the log relay.
const RELAY_PATIENCE: Duration = Duration::from_secs(3);

/// How long one part may take to end in order.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How long killing everything may take.
const ABANDON_PATIENCE: Duration = Duration::from_secs(3);

/// Where the parts listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) scheduler: SocketAddr,
    pub(crate) relay: SocketAddr,
    pub(crate) cluster: SocketAddr,
    /// Also off loopback, without TLS.
    pub(crate) insecure: bool,
}

impl Ports {
    /// Free ports of the loopback interface.
    pub(crate) fn free() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            scheduler: any,
            relay: any,
            cluster: any,
            insecure: false,
        }
    }
}

/// What the scheduler is told beside the defaults.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerOptions {
    pub(crate) run_retention: RunRetention,
    pub(crate) webhooks: Option<PathBuf>,
    pub(crate) policy: Option<PathBuf>,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            run_retention: RunRetention::DEFAULT,
            webhooks: None,
            policy: None,
        }
    }
}

/// One of the services.
#[derive(Debug)]
struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// All parts, running.
#[derive(Debug)]
pub(crate) struct Stack {
    dev: DevFile,
    folder: DataFolder,
    cluster: Handle,
    stop_cluster: CancellationToken,
    /// In the order in which they end.
    parts: Vec<Part>,
    insecure: bool,
    options: SchedulerOptions,
}

impl Stack {
    /// Starts everything; it is ready for submissions when this returns.
    ///
    /// # Errors
    /// One clear line: a port in use, a folder that is held, a database of a newer version.
    pub(crate) async fn start(
        folder: DataFolder,
        ports: &Ports,
        options: SchedulerOptions,
        on_stop: OnStop,
    ) -> Result<Self> {
        windlass_service::raise_open_files();
        let token = folder.token()?;
        // Ports first: nothing has to be undone when one is in use.
        let scheduler = bind(ports.scheduler, "scheduler", "--listen").await?;
        let relay = bind(ports.relay, "log relay", "--relay-listen").await?;
        let stop_cluster = CancellationToken::new();
        let config = ClusterConfig {
            listen: ports.cluster,
            token: Some(token.clone()),
            on_stop,
            ..ClusterConfig::new(folder.sub("cluster"))
        };
        let cluster = LocalCluster::start(config, stop_cluster.clone())
            .await
            .map_err(|error| cluster_error(error, "--cluster-listen"))?;
        let dev = DevFile {
            scheduler: url(&scheduler)?,
            relay: url(&relay)?,
            cluster: cluster.url.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token,
        };
        let mut stack = Self {
            dev,
            folder,
            cluster,
            stop_cluster,
            parts: Vec::new(),
            insecure: ports.insecure,
            options,
        };
        if let Err(error) = stack.start_parts(scheduler, relay).await {
            stack.abandon().await;
            return Err(error);
        }
        stack.dev.write(stack.folder.path())?;
        Ok(stack)
    }

    async fn start_parts(&mut self, scheduler: TcpListener, relay: TcpListener) -> Result<()> {
        let client = windlass_executor::kubernetes::connect(Some(&self.cluster.kubeconfig), None)
            .await
            .map_err(|error| CliError::failed(format!("the local cluster cannot be reached: {error:#}")))?;
        let executor = self.executor_config();
        self.spawn("executor", |stop| {
            windlass_executor::server::run(executor, client, None, stop)
        });
        let config = self.relay_config();
        self.spawn("log relay", |stop| windlass_log_relay::server::run(config, relay, stop));
        let config = self.scheduler_config();
        self.spawn("scheduler", |stop| {
            windlass_scheduler::server::run(config, scheduler, stop)
        });
        let dev = self.dev.clone();
        let ready = ready(&dev);
        tokio::pin!(ready);
        tokio::select! {
            ready = &mut ready => ready,
            error = self.failed() => Err(error),
        }
    }

    fn spawn<Fut>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> Fut)
    where
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        self.parts.push(Part { name, stop, task });
    }

    fn scheduler_config(&self) -> windlass_scheduler::Config {
        windlass_scheduler::Config {
            token_file: Some(self.folder.sub("token")),
            insecure: self.insecure,
            run_retention: self.options.run_retention,
            webhooks: self.options.webhooks.clone(),
            policy: self.options.policy.clone(),
            telemetry: TelemetryArgs::default(),
            ..windlass_scheduler::Config::new(self.folder.sub("scheduler"))
        }
    }

    fn relay_config(&self) -> windlass_log_relay::Config {
        windlass_log_relay::Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised_address: Some(self.dev.relay.clone()),
            scheduler: self.dev.scheduler.clone(),
            token_file: Some(self.folder.sub("token")),
            access_file: None,
            tls: TlsArgs::default(),
            insecure: self.insecure,
            data_dir: self.folder.sub("log-relay"),
            archive: None,
            name: Some("dev".to_owned()),
            max_readers: 10_000,
            write_buffer: 64 * 1024 * 1024,
            shutdown_grace: STOP_PATIENCE,
            telemetry: TelemetryArgs::default(),
        }
    }

    fn executor_config(&self) -> windlass_executor::Config {
        windlass_executor::Config {
            scheduler: self.dev.scheduler.clone(),
            token_file: Some(self.folder.sub("token")),
            tls: TlsArgs::default(),
            listen: None,
            name: Some("dev".to_owned()),
            kubeconfig: Some(self.cluster.kubeconfig.clone()),
            context: None,
            cluster: "local".to_owned(),
            workspace_volume: None,
            workspace_folder: Some(self.folder.sub("workspaces")),
            local_cluster: true,
            gone_node_is_dead: false,
            ..windlass_executor::Config::default()
        }
    }

    /// Where it listens.
    pub(crate) fn dev(&self) -> &DevFile {
        &self.dev
    }

    /// The kubeconfig of its local cluster.
    pub(crate) fn kubeconfig(&self) -> &std::path::Path {
        &self.cluster.kubeconfig
    }

    /// Waits until a part ends by itself, which it should not.
    pub(crate) async fn failed(&mut self) -> CliError {
        let parts = self.parts.iter_mut().map(|part| {
            Box::pin(async {
                let ended = (&mut part.task).await;
                let why = match ended {
                    Ok(Ok(())) => "it ended by itself".to_owned(),
                    Ok(Err(error)) => format!("{error:#}"),
                    Err(error) => format!("it broke down: {error}"),
                };
                (part.name, why)
            })
        });
        let ((name, why), index, rest) = futures::future::select_all(parts).await;
        drop(rest);
        self.parts.remove(index);
        CliError::bad_input(format!("the {name} cannot go on: {why}"))
    }

    /// Ends everything in order: the executor reports what it knows, the relay seals, the scheduler commits, the cluster stops.
    ///
    /// # Errors
    /// When a part ended badly or not in time.
    pub(crate) async fn stop(self) -> Result<()> {
        DevFile::remove(self.folder.path());
        let mut problem = None;
        for part in self.parts {
            part.stop.cancel();
            let ended = tokio::time::timeout(STOP_PATIENCE, part.task).await;
            let why = match ended {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(error))) => format!("{error:#}"),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it took too long".to_owned(),
            };
            problem.get_or_insert(CliError::failed(format!(
                "the {} did not end in order: {why}",
                part.name
            )));
        }
        self.stop_cluster.cancel();
        if tokio::time::timeout(STOP_PATIENCE, self.cluster.join()).await.is_err() {
            problem.get_or_insert(CliError::failed(
                "the local cluster did not end in order: it took too long",
            ));
        }
        problem.map_or(Ok(()), Err)
    }

    /// Ends everything at once.
    pub(crate) async fn abandon(self) {
        DevFile::remove(self.folder.path());
        self.stop_cluster.cancel();
        for part in &self.parts {
            part.stop.cancel();
        }
        // Whatever is not done by then ends with the process.
        drop(tokio::time::timeout(ABANDON_PATIENCE, self.cluster.join()).await);
    }
}

/// Waits until executor and relay are connected to the scheduler.
async fn ready(dev: &DevFile) -> Result<()> {
    let settings = settings(dev.scheduler.clone(), Some(dev.token.clone()));
    let channel = connect_lazy(&settings).map_err(|error| CliError::failed(error.to_string()))?;
    let mut client = ServerServiceClient::new(channel);
    let begun = tokio::time::Instant::now();
    loop {
        let info = client.get_server_info(GetServerInfoRequest {}).await;
        let missing = match &info {
            Ok(info) if info.get_ref().clusters.is_empty() => "the executor is not connected",
            Ok(info) if info.get_ref().relay_addresses.is_empty() => "the log relay is not connected",
            Ok(_) => return Ok(()),
            Err(_) => "the scheduler does not answer",
        };
        let waited = begun.elapsed();
        // Steps run without a relay; their logs are read once it is there.
        if waited > RELAY_PATIENCE && info.is_ok_and(|info| !info.get_ref().clusters.is_empty()) {
            return Ok(());
        }
        if waited > START_PATIENCE {
            return Err(
                CliError::failed(format!("the parts did not find each other in time: {missing}"))
                    .hint("WINDLASS_LOG=info shows what they do"),
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| in_use(address, what, flag, &error))
}

fn in_use(address: SocketAddr, what: &str, flag: &str, error: &std::io::Error) -> CliError {
    let free = SocketAddr::new(address.ip(), 0);
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            CliError::bad_input(format!("the {what} cannot listen on {address}: the port is in use")).hint(format!(
                "end the process that uses it, or take a free port with {flag} {free}"
            ))
        }
        _ => CliError::bad_input(format!("the {what} cannot listen on {address}: {error}"))
            .hint(format!("name another address with {flag}")),
    }
}

/// The error of a local cluster that does not start.
pub(crate) fn cluster_error(error: StartError, flag: &str) -> CliError {
    match error {
        StartError::Listen { address, source } => in_use(address, "local cluster", flag, &source),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(&other);
            while let Some(inner) = cause {
                text.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            CliError::bad_input(text)
        }
    }
}

fn url(listener: &TcpListener) -> Result<String> {
    let address = listener.local_addr().map_err(CliError::from)?;
    Ok(format!("http://{address}"))
}
