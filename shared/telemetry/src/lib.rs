//! Logging and metrics set-up: the only place that names a subscriber or an exporter.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::EnvFilter;

/// Settings of logging and metrics, flattened into every service's settings.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Format of log lines on standard error.
    #[arg(long, env = "WINDLASS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,windlass_executor=debug`.
    #[arg(long, env = "WINDLASS_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Address on which Prometheus metrics are served at `/metrics`; off when absent.
    #[arg(long, env = "WINDLASS_METRICS_ADDR", value_name = "ADDRESS")]
    pub metrics_addr: Option<SocketAddr>,
}

impl Default for TelemetryArgs {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log: "info".to_owned(),
            metrics_addr: None,
        }
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging, and metrics when an address is given. Must be called inside a tokio runtime, once per process.
///
/// # Errors
/// When the filter does not parse, logging was set up before, or the metrics address cannot be bound.
pub fn init(service: &'static str, args: &TelemetryArgs) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&args.log).with_context(|| format!("the log filter {:?} does not parse", args.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let result = match args.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("logging cannot be set up: {error}"))?;
    if let Some(address) = args.metrics_addr {
        serve_metrics(service, address)?;
    }
    Ok(())
}

fn serve_metrics(service: &'static str, address: SocketAddr) -> anyhow::Result<()> {
    // The exporter's own error does not name the address, so it is tried first.
    drop(
        std::net::TcpListener::bind(address)
            .with_context(|| format!("failed to bind the metrics address {address}"))?,
    );
    PrometheusBuilder::new()
        .with_http_listener(address)
        .add_global_label("service", service)
        .install()
        .with_context(|| format!("failed to serve metrics on {address}"))?;
    tracing::info!(%address, "metrics served");
    Ok(())
}
