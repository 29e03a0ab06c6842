//! The arguments of what runs on this machine: `dev` and `local-cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  windlass dev
  windlass dev --data-dir /tmp/windlass --listen 127.0.0.1:0 --relay-listen 127.0.0.1:0 --cluster-listen 127.0.0.1:0

Everything is in the data folder: stop it in any way, start it again, and runs go on.")]
/// Arguments of `dev`.
pub struct DevArgs {
    /// Address of the scheduler.
    #[arg(long, default_value = "127.0.0.1:7610", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address of the log relay.
    #[arg(long, default_value = "127.0.0.1:7611", value_name = "ADDRESS")]
    pub relay_listen: SocketAddr,
    /// Address of the local cluster.
    #[arg(long, default_value = "127.0.0.1:7612", value_name = "ADDRESS")]
    pub cluster_listen: SocketAddr,
    /// Serve other addresses than loopback, although tokens and logs then pass the network in plain text.
    #[arg(long)]
    pub insecure: bool,
    /// How long an ended run is kept with its events and logs: such as `12h` or `30d`, or `never` to delete none.
    #[arg(long, default_value = "30d", value_name = "DURATION")]
    pub run_retention: windlass_scheduler::RunRetention,
    /// File of webhooks (YAML): who is told, with a signed message, when a run ends.
    #[arg(long, value_name = "FILE")]
    pub webhooks: Option<PathBuf>,
    /// File with what pods may use, by namespace (YAML), to try one out; without it everything is allowed.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Address of Prometheus metrics; off when absent.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_addr: Option<SocketAddr>,
    /// What is logged to standard error, such as `info` or `warn,windlass_executor=debug`.
    #[arg(
        long,
        env = "WINDLASS_LOG",
        hide_env_values = true,
        default_value = "warn,tower_http=off",
        value_name = "FILTER"
    )]
    pub log: String,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  windlass local-cluster &
  kubectl --kubeconfig ~/.local/share/windlass/cluster/kubeconfig get pods")]
/// Arguments of `local-cluster`.
pub struct LocalClusterArgs {
    /// Address to serve on.
    #[arg(long, default_value = "127.0.0.1:7612", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Complete pods at once, without starting processes: for tests of scale.
    #[arg(long, hide = true)]
    pub instant: bool,
    /// What is logged to standard error.
    #[arg(
        long,
        env = "WINDLASS_LOG",
        hide_env_values = true,
        default_value = "warn,tower_http=off",
        value_name = "FILTER"
    )]
    pub log: String,
}
