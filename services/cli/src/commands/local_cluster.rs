//! `windlass local-cluster`.

use tokio_util::sync::CancellationToken;
use windlass_local_cluster::{Completion, Config, LocalCluster};
use windlass_service::stop_signal;
use windlass_telemetry::TelemetryArgs;

use crate::args::{GlobalArgs, LocalClusterArgs};
use crate::client::{data_dir, display_path};
use crate::embedded::cluster_error;
use crate::errors::{CliError, Exit, Result};
use crate::output;

pub(super) async fn run(global: &GlobalArgs, args: &LocalClusterArgs) -> Result<Exit> {
    let telemetry = TelemetryArgs {
        log: args.log.clone(),
        ..TelemetryArgs::default()
    };
    windlass_telemetry::init("local-cluster", &telemetry).map_err(|error| CliError::bad_input(format!("{error:#}")))?;
    let completion = if args.instant {
        Completion::Instant { exit_code: 0 }
    } else {
        Completion::Processes
    };
    let config = Config {
        listen: args.listen,
        completion,
        ..Config::new(data_dir(global).join("cluster"))
    };
    let shutdown = CancellationToken::new();
    let handle = LocalCluster::start(config, shutdown.clone())
        .await
        .map_err(|error| cluster_error(error, "--listen"))?;
    let kubeconfig = display_path(&handle.kubeconfig);
    output::line(format!(
        "\
local cluster  {url}
kubeconfig     {kubeconfig}

  kubectl --kubeconfig {kubeconfig} get pods
  windlass-executor --local-cluster --kubeconfig {kubeconfig}

Ctrl-C stops; pods that run go on, and the next start finds them",
        url = handle.url,
    ))?;
    stop_signal().await;
    shutdown.cancel();
    tokio::select! {
        () = handle.join() => Ok(Exit::Succeeded),
        _ = stop_signal() => Ok(Exit::Interrupted),
    }
}
