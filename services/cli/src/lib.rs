//! The command line, and the three services in one process.
//!
//! It knows the services' libraries for `windlass dev` and `--local` alone; every command talks to a server over
//! gRPC like any client, but `cluster purge`, which cleans up where no server is left and uses the executor's client.

pub mod args;
pub mod client;
mod commands;
mod embedded;
pub mod errors;
pub mod output;
pub mod pipeline_file;
pub mod progress;
mod reference;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

pub use args::Cli;
pub use errors::{CliError, Exit};

/// The whole program.
pub fn main() -> ExitCode {
    if let Some(code) = embedded::shim() {
        return code;
    }
    let cli = match Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    output::set_color(cli.global.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&CliError::failed(format!("cannot start: {error}"))),
    };
    let result = runtime.block_on(commands::run(cli));
    // Blocked threads (a read of standard input, for one) do not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(error) => report(&error),
    }
}

fn report(error: &CliError) -> ExitCode {
    if !matches!(error.exit, Exit::BrokenPipe) && !error.message.is_empty() {
        output::note(error.render());
    }
    error.exit.into()
}

fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let quiet = error.print().is_err();
    match error.kind() {
        _ if quiet => Exit::BrokenPipe.into(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Succeeded.into(),
        _ => Exit::BadInput.into(),
    }
}
