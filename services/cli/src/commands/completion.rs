//! `windlass completion`.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};
use crate::errors::{Exit, Result};
use crate::output;

pub(super) fn run(args: &CompletionArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "windlass", &mut script);
    output::raw(&script)?;
    Ok(Exit::Succeeded)
}
