//! A local cluster alone: `windlass-local-cluster FOLDER [--listen ADDRESS] [--instant] [--faults FILE]`.
//! Prints the path of its kubeconfig when clients can come.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tokio_util::sync::CancellationToken;
use windlass_local_cluster::{Completion, Config, FaultConfig, SHIM_ARGUMENT, run_standalone, shim_main};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == SHIM_ARGUMENT) {
        return shim_main(args.into_iter().skip(1));
    }
    match settings(args).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(args: Vec<OsString>) -> Result<Config> {
    let mut args = args.into_iter();
    let folder = args.next().context("the folder for the cluster's data is missing")?;
    let mut config = Config::new(Path::new(&folder));
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{} needs a value", arg.display()));
        match arg.to_str() {
            Some("--instant") => config.completion = Completion::Instant { exit_code: 0 },
            Some("--listen") => {
                let address = value()?;
                config.listen = address
                    .to_string_lossy()
                    .parse()
                    .context("--listen: not an address with a port")?;
            }
            Some("--faults") => config.faults = FaultConfig::read(Path::new(&value()?)).context("--faults")?,
            _ => bail!("unknown argument {}", arg.display()),
        }
    }
    Ok(config)
}

#[tokio::main]
async fn serve(config: Config) -> Result<()> {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if stop_signal().await.is_ok() {
            stop.cancel();
        }
    });
    let ready = |handle: &windlass_local_cluster::Handle| {
        let mut out = std::io::stdout();
        if writeln!(out, "{}", handle.kubeconfig.display())
            .and_then(|()| out.flush())
            .is_err()
        {
            // Nobody wants to know.
        }
    };
    run_standalone(config, shutdown, ready).await?;
    Ok(())
}

async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
