//! `windlass reference`.

use clap::CommandFactory as _;

use crate::args::{Cli, ReferenceArgs, ReferenceSubject};
use crate::errors::{Exit, Result};
use crate::{output, reference};

pub(super) fn run(args: &ReferenceArgs) -> Result<Exit> {
    let text = match args.subject {
        ReferenceSubject::Cli => reference::cli(Cli::command()),
        ReferenceSubject::File => reference::file(),
        ReferenceSubject::Api => reference::api(),
    };
    output::raw(text.as_bytes())?;
    Ok(Exit::Succeeded)
}
