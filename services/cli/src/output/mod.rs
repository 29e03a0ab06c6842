//! Printing: to people as tables and trees, to programs as JSON and YAML.

pub mod graph;
mod human;
mod prefix;
mod proto_json;
mod table;

use std::io::Write as _;

pub use human::{age, clock_time, duration, log_time, millis, time_rfc3339};
pub use prefix::Prefixes;
pub use proto_json::to_json;
pub use table::Table;

use crate::args::{ColorChoice, Format};
use crate::errors::{CliError, Result};

/// Decides about colour once, for everything that prints.
pub fn set_color(choice: ColorChoice) {
    let automatic = |terminal: bool| {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        terminal && !no_color && !dumb
    };
    let (out, err) = match choice {
        ColorChoice::Auto => (
            automatic(console::Term::stdout().is_term()),
            automatic(console::Term::stderr().is_term()),
        ),
        ColorChoice::Always => (true, true),
        ColorChoice::Never => (false, false),
    };
    console::set_colors_enabled(out);
    console::set_colors_enabled_stderr(err);
}

/// Prints one line to standard output.
///
/// # Errors
/// When nobody reads it any more.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    raw(format!("{}\n", text.as_ref()).as_bytes())
}

/// Prints bytes to standard output as they are.
///
/// # Errors
/// When nobody reads them any more.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Prints a note about what goes on to standard error; that nobody reads it is no error.
pub fn note(text: impl AsRef<str>) {
    drop(writeln!(std::io::stderr().lock(), "{}", text.as_ref()));
}

/// Prints data in the format asked for; `table` makes the text for people.
///
/// # Errors
/// When nobody reads it any more, or the data has no such form.
pub fn data(format: Format, value: &serde_json::Value, table: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::Table => {
            let text = table();
            if text.is_empty() { Ok(()) } else { line(text) }
        }
        Format::Json => line(
            serde_json::to_string_pretty(value)
                .map_err(|error| CliError::failed(format!("cannot be printed as JSON: {error}")))?,
        ),
        Format::Yaml => raw(yaml(value)?.as_bytes()),
    }
}

/// A value as a YAML document, with its newline.
///
/// # Errors
/// When the value has no YAML form.
pub fn yaml(value: &serde_json::Value) -> Result<String> {
    let mut text = serde_saphyr::to_string(value)
        .map_err(|error| CliError::failed(format!("cannot be printed as YAML: {error}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
