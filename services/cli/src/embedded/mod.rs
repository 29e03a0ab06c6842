//! Everything in one process: `windlass dev`, `--local` and `windlass local-cluster`.

mod dev_file;
mod folder;
mod stack;

use std::process::ExitCode;
use std::time::Duration;

use windlass_local_cluster::{OnStop, SHIM_ARGUMENT, shim_main};
use windlass_service::ChannelSettings;
use windlass_telemetry::TelemetryArgs;

pub(crate) use dev_file::DevFile;
pub(crate) use folder::{DataFolder, Held};
pub(crate) use stack::{Ports, SchedulerOptions, Stack, cluster_error};

use crate::args::GlobalArgs;
use crate::client::{data_dir, display_path, settings};
use crate::errors::{CliError, Result};
use crate::output;

/// How long the process that holds a folder may take to say where it listens.
const DEV_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the process of a container when this process was started for that.
pub(crate) fn shim() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == SHIM_ARGUMENT).then(|| shim_main(args))
}

/// A server of this machine: ours, or the one that already runs on the data folder.
#[derive(Debug)]
pub(crate) struct Embedded {
    dev: DevFile,
    ours: Option<Stack>,
}

impl Embedded {
    /// Joins the server that runs on the data folder, or starts one on free ports.
    ///
    /// # Errors
    /// When the folder cannot be used or a part does not start.
    pub(crate) async fn start_or_join(args: &GlobalArgs) -> Result<Self> {
        let path = data_dir(args);
        match DataFolder::take(&path)? {
            Held::Ours(folder) => {
                if let Ok(log) = std::env::var("WINDLASS_LOG") {
                    let telemetry = TelemetryArgs {
                        log,
                        ..TelemetryArgs::default()
                    };
                    windlass_telemetry::init("local", &telemetry)
                        .map_err(|error| CliError::bad_input(format!("{error:#}")))?;
                }
                let stack = Stack::start(folder, &Ports::free(), SchedulerOptions::default(), OnStop::Kill).await?;
                Ok(Self {
                    dev: stack.dev().clone(),
                    ours: Some(stack),
                })
            }
            Held::Elsewhere => {
                let dev = wait_for_dev(&path).await?;
                output::note(format!("using the server that runs on {}", display_path(&path)));
                Ok(Self { dev, ours: None })
            }
        }
    }

    /// How to reach it.
    pub(crate) fn settings(&self) -> ChannelSettings {
        settings(self.dev.scheduler.clone(), Some(self.dev.token.clone()))
    }

    /// True when it ends with this process.
    pub(crate) fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// Ends it in order, when it is ours.
    ///
    /// # Errors
    /// When a part ended badly.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.ours {
            Some(stack) => stack.stop().await,
            None => Ok(()),
        }
    }

    /// Ends what is ours at once: processes of steps are killed.
    pub(crate) async fn abandon(self) {
        if let Some(stack) = self.ours {
            stack.abandon().await;
        }
    }
}

/// The process that holds the folder may still be starting.
async fn wait_for_dev(path: &std::path::Path) -> Result<DevFile> {
    let deadline = tokio::time::Instant::now() + DEV_PATIENCE;
    loop {
        if let Some(dev) = DevFile::read(path)? {
            return Ok(dev);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(
                CliError::bad_input(format!("another process holds the data folder {}", display_path(path)))
                    .hint("wait for it to end, or name another folder with --data-dir"),
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
