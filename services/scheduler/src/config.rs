//! Settings of the scheduler: flags, each with an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use windlass_service::TlsArgs;
use windlass_telemetry::TelemetryArgs;

use crate::retention::RunRetention;
use crate::secrets::references::ReferenceCheck;

/// The scheduler service: run state, readiness, retries and limits.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-scheduler", version)]
pub struct Config {
    /// Address to listen on for clients, executors and log relays.
    #[arg(
        long,
        env = "WINDLASS_SCHEDULER_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7610"
    )]
    pub listen: SocketAddr,
    /// Folder of the store; made when it is not there, used by one process at a time.
    #[arg(
        long,
        env = "WINDLASS_SCHEDULER_DATA",
        value_name = "FOLDER",
        default_value = "windlass-data/scheduler"
    )]
    pub data_dir: PathBuf,
    /// File with the tokens that are accepted, one a line, `TOKEN` or `NAME:TOKEN`; each may do everything.
    #[arg(long, env = "WINDLASS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the tokens that are accepted by their hashes, each with its roles in namespaces (YAML); read again when it changes.
    /// `windlass token` makes entries.
    #[arg(
        long,
        env = "WINDLASS_ACCESS_FILE",
        value_name = "FILE",
        conflicts_with = "token_file"
    )]
    pub access_file: Option<PathBuf>,
    /// File with what pods may use, by namespace: service accounts, Secrets, folders of the node, privileges (YAML). Without one, an
    /// installation with an access file allows little, and one without allows everything.
    #[arg(long, env = "WINDLASS_POLICY_FILE", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// How far the references to Secrets are looked at before a run starts: whether Secrets and their keys are there, only the Secrets,
    /// or nothing. Where no executor can tell, the run starts.
    #[arg(
        long,
        env = "WINDLASS_CHECK_REFERENCES",
        value_name = "LEVEL",
        value_enum,
        default_value_t
    )]
    pub check_references: ReferenceCheck,
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Serve other addresses than loopback without TLS or without tokens.
    #[arg(long, env = "WINDLASS_INSECURE")]
    pub insecure: bool,
    /// How long an executor's lease lasts after the last that was heard from it.
    #[arg(long, env = "WINDLASS_LEASE", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// How long a finished pod is kept for a log relay to seal its log; 0 releases pods at once.
    #[arg(long, env = "WINDLASS_SEAL_DEADLINE", value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub seal_deadline: Duration,
    /// How long an ended run is kept with its events and logs: such as `30d`, or `never` to delete none.
    #[arg(long, env = "WINDLASS_RUN_RETENTION", value_name = "DURATION", default_value = "30d")]
    pub run_retention: RunRetention,
    /// File of webhooks (YAML): who is told, with a signed message, when a run ends.
    #[arg(long, env = "WINDLASS_WEBHOOKS", value_name = "FILE")]
    pub webhooks: Option<PathBuf>,
    /// Kubernetes volume source, as JSON, for pipelines whose workspace names no volume.
    #[arg(long, env = "WINDLASS_WORKSPACE_VOLUME", value_name = "JSON")]
    pub workspace_volume: Option<String>,
    /// What is requested for steps that request nothing of a resource, such as `memory=400Mi,cpu=100m`, and at most the step's limit.
    /// None by default: a LimitRange may set a lower limit later than this could know.
    #[arg(
        long,
        env = "WINDLASS_DEFAULT_REQUESTS",
        value_name = "RESOURCE=QUANTITY",
        value_delimiter = ','
    )]
    pub default_requests: Vec<String>,
    /// The most live steps in a namespace.
    #[arg(long, env = "WINDLASS_NAMESPACE_LIMIT", value_name = "STEPS")]
    pub namespace_limit: Option<u32>,
    /// Free bytes of the file system below which new runs are refused.
    #[arg(long, env = "WINDLASS_RESERVE_BYTES", value_name = "BYTES", default_value_t = 256 * 1024 * 1024)]
    pub reserve_bytes: u64,
    /// Most bytes of the store's database; as much as there is when absent.
    #[arg(long, env = "WINDLASS_MAX_STORE_BYTES", value_name = "BYTES")]
    pub max_store_bytes: Option<u64>,
    /// How long open requests may take to end when the process is stopped.
    #[arg(long, env = "WINDLASS_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub shutdown_grace: Duration,
    /// Logging and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Config {
    /// The defaults, with a data folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7610)),
            data_dir: data_dir.into(),
            token_file: None,
            access_file: None,
            policy: None,
            check_references: ReferenceCheck::default(),
            tls: TlsArgs::default(),
            insecure: false,
            lease: Duration::from_secs(30),
            seal_deadline: Duration::from_secs(120),
            run_retention: RunRetention::DEFAULT,
            webhooks: None,
            workspace_volume: None,
            default_requests: Vec::new(),
            namespace_limit: None,
            reserve_bytes: 256 * 1024 * 1024,
            max_store_bytes: None,
            shutdown_grace: Duration::from_secs(10),
            telemetry: TelemetryArgs::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_flags_and_of_the_embedded_scheduler_are_the_same() {
        let parsed = Config::try_parse_from(["windlass-scheduler"]).expect("no flag is required");
        assert_eq!(
            format!("{parsed:?}"),
            format!("{:?}", Config::new("windlass-data/scheduler"))
        );
    }
}
