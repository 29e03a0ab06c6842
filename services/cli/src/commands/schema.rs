//! `windlass schema`.

use windlass_pipeline::schema::json_schema;

use crate::errors::{CliError, Exit, Result};
use crate::output;

pub(super) fn run() -> Result<Exit> {
    let mut text = serde_json::to_string_pretty(&json_schema()).map_err(|error| CliError::failed(error.to_string()))?;
    text.push('\n');
    output::raw(text.as_bytes())?;
    Ok(Exit::Succeeded)
}
