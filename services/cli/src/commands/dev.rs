//! `windlass dev`.

use windlass_local_cluster::OnStop;
use windlass_service::stop_signal;
use windlass_telemetry::TelemetryArgs;

use crate::args::{DevArgs, GlobalArgs};
use crate::client::{data_dir, display_path};
use crate::embedded::{DataFolder, DevFile, Held, Ports, SchedulerOptions, Stack};
use crate::errors::{CliError, Exit, Result};
use crate::output;

pub(super) async fn run(global: &GlobalArgs, args: &DevArgs) -> Result<Exit> {
    if global.local || global.server.is_some() {
        return Err(CliError::bad_input(
            "`windlass dev` is itself the server: --local and --server mean nothing here",
        ));
    }
    let telemetry = TelemetryArgs {
        log: args.log.clone(),
        metrics_addr: args.metrics_addr,
        ..TelemetryArgs::default()
    };
    windlass_telemetry::init("dev", &telemetry).map_err(|error| CliError::bad_input(format!("{error:#}")))?;
    let path = data_dir(global);
    let folder = match DataFolder::take(&path)? {
        Held::Ours(folder) => folder,
        Held::Elsewhere => return Err(held(&path)),
    };
    let ports = Ports {
        scheduler: args.listen,
        relay: args.relay_listen,
        cluster: args.cluster_listen,
        insecure: args.insecure,
    };
    let options = SchedulerOptions {
        run_retention: args.run_retention,
        webhooks: args.webhooks.clone(),
        policy: args.policy.clone(),
    };
    let mut stack = Stack::start(folder, &ports, options, OnStop::Leave).await?;
    output::line(welcome(&stack, &path, global))?;
    tokio::select! {
        _ = stop_signal() => {}
        error = stack.failed() => {
            stack.abandon().await;
            return Err(error);
        }
    }
    output::note("\nstopping; steps that run go on by themselves, and the next start finds them");
    tokio::select! {
        stopped = stack.stop() => stopped.map(|()| Exit::Succeeded),
        _ = stop_signal() => Ok(Exit::Interrupted),
    }
}

fn held(path: &std::path::Path) -> CliError {
    let folder = display_path(path);
    let by = match DevFile::read(path) {
        Ok(Some(dev)) => format!("process {} at {}", dev.pid, dev.scheduler),
        _ => "another process".to_owned(),
    };
    CliError::bad_input(format!("the data folder {folder} is in use by {by}"))
        .hint("use that one, or name another folder with --data-dir (and other ports)")
}

fn welcome(stack: &Stack, path: &std::path::Path, global: &GlobalArgs) -> String {
    let dev = stack.dev();
    let folder = match &global.data_dir {
        Some(folder) if std::env::var_os("WINDLASS_DATA_DIR").is_none_or(|set| set != *folder) => {
            format!(" --data-dir {}", folder.display())
        }
        _ => String::new(),
    };
    format!(
        "\
windlass {version} on {path}
  scheduler      {scheduler}
  log relay      {relay}
  local cluster  {cluster}
steps run as processes of this machine: images and resource amounts are not used

in another terminal:
  windlass run pipeline.yaml --logs{folder}
  windlass list{folder}
  kubectl --kubeconfig {kubeconfig} get pods

Ctrl-C stops; everything is kept in the folder, and runs go on at the next start",
        version = dev.version,
        path = display_path(path),
        scheduler = dev.scheduler,
        relay = dev.relay,
        cluster = dev.cluster,
        kubeconfig = display_path(stack.kubeconfig()),
    )
}
