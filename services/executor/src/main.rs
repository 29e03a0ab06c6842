//! The executor service: every Kubernetes operation.

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_executor::{Config, server};
use windlass_service::{raise_open_files, stop_signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    windlass_telemetry::init("executor", &config.telemetry)?;
    config.check()?;
    raise_open_files();
    let client = config.client().await?;
    let listener = match config.listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("failed to bind {address}"))?)
        }
        None => None,
    };
    let shutdown = CancellationToken::new();
    let mut running = tokio::spawn(server::run(config, client, listener, shutdown.clone()));
    tokio::select! {
        finished = &mut running => return finished?,
        signal = stop_signal() => tracing::info!(signal, "shutdown began"),
    }
    shutdown.cancel();
    // The drain has its own bound.
    tokio::select! {
        finished = &mut running => finished?,
        signal = stop_signal() => anyhow::bail!("{signal} during shutdown"),
    }
}
