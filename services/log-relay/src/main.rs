//! The log relay service: streams pod logs to clients and keeps them.

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_log_relay::{Config, server};
use windlass_service::{raise_open_files, stop_signal};
use windlass_telemetry as telemetry;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init("log-relay", &config.telemetry)?;
    raise_open_files();
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("failed to bind {}", config.listen))?;
    tracing::info!(addr = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "log relay started");

    let shutdown = CancellationToken::new();
    let grace = config.shutdown_grace;
    let mut serving = tokio::spawn(server::run(config, listener, shutdown.clone()));
    tokio::select! {
        finished = &mut serving => return finished?,
        signal = stop_signal() => tracing::info!(signal, "shutdown began"),
    }
    shutdown.cancel();
    tokio::select! {
        finished = &mut serving => finished?,
        () = tokio::time::sleep(grace) => {
            tracing::warn!(?grace, "shutdown cut short");
            Ok(())
        }
        signal = stop_signal() => anyhow::bail!("{signal} during shutdown"),
    }
}
