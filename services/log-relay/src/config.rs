//! Settings of the log relay.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use windlass_service::TlsArgs;
use windlass_telemetry::TelemetryArgs;

/// The log relay of Windlass: streams the logs of steps to clients and keeps them.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-log-relay", version)]
pub struct Config {
    /// Address on which clients and executors are served.
    #[arg(
        long,
        env = "WINDLASS_RELAY_LISTEN",
        default_value = "127.0.0.1:7611",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// Address that clients and executors are told to dial; the listening address when absent.
    #[arg(long, env = "WINDLASS_RELAY_ADVERTISE", value_name = "URL")]
    pub advertised_address: Option<String>,
    /// Address of the scheduler.
    #[arg(
        long,
        env = "WINDLASS_SCHEDULER",
        default_value = "http://127.0.0.1:7610",
        value_name = "URL"
    )]
    pub scheduler: String,
    /// File with the tokens that are accepted, one a line; the first one is shown to the scheduler. With --access-file it is only shown.
    #[arg(long, env = "WINDLASS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the tokens that are accepted by their hashes, each with its roles in namespaces (YAML); read again when it changes.
    /// `windlass token` makes entries.
    #[arg(long, env = "WINDLASS_ACCESS_FILE", value_name = "FILE")]
    pub access_file: Option<PathBuf>,
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Serve without TLS or without tokens even where others can reach the listener.
    #[arg(long, env = "WINDLASS_INSECURE")]
    pub insecure: bool,
    /// Folder of live logs, and of the archive by default. One process uses it at a time.
    #[arg(
        long,
        env = "WINDLASS_RELAY_DATA",
        default_value = "windlass-logs",
        value_name = "FOLDER"
    )]
    pub data_dir: PathBuf,
    /// Where sealed logs are kept: `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or
    /// `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`; a folder in the data folder when absent. Several relays need one that all
    /// of them reach. Credentials and settings of the store come from the environment (AWS_…, GOOGLE_…, AZURE_…), never from the URL.
    #[arg(long, env = "WINDLASS_RELAY_ARCHIVE", value_name = "URL")]
    pub archive: Option<String>,
    /// Name of this relay, for people; the advertised address when absent.
    #[arg(long, env = "WINDLASS_RELAY_NAME")]
    pub name: Option<String>,
    /// Log streams that are served at once; further ones are refused.
    #[arg(
        long,
        env = "WINDLASS_RELAY_MAX_READERS",
        default_value_t = 10_000,
        value_name = "NUMBER"
    )]
    pub max_readers: usize,
    /// Memory for lines that wait to be written, in bytes.
    #[arg(long, env = "WINDLASS_RELAY_WRITE_BUFFER", default_value_t = 64 * 1024 * 1024, value_name = "BYTES")]
    pub write_buffer: usize,
    /// How long open streams may take to end at shutdown.
    #[arg(long, env = "WINDLASS_SHUTDOWN_GRACE", default_value = "10s", value_parser = humantime::parse_duration)]
    pub shutdown_grace: Duration,
    /// Logging and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_and_help_are_consistent() {
        Config::command().debug_assert();
    }
}
