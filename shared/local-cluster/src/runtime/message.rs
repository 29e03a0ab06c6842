//! Termination messages.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::Value;

use super::cri::Entry;
use super::folders::RunFolder;

const LONGEST_MESSAGE: u64 = 4_096;
const LONGEST_FROM_LOG: usize = 2_048;
const MOST_LINES_FROM_LOG: usize = 80;
/// Enough of the log's end for the lines above, with their times.
const TAIL: u64 = 32 * 1024;

/// What a container left as its message, by its policy.
pub(super) fn termination_message(run: &RunFolder, container: &Value, exit_code: i32) -> String {
    let own = own_message(&run.termination_message());
    let from_log = container["terminationMessagePolicy"] == "FallbackToLogsOnError";
    if own.is_empty() && from_log && exit_code != 0 {
        return log_tail(&run.log()).unwrap_or_default();
    }
    own
}

fn own_message(path: &Path) -> String {
    let Ok(file) = std::fs::File::open(path) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    match file.take(LONGEST_MESSAGE).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut text = Vec::new();
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    for line in &lines[lines.len().saturating_sub(MOST_LINES_FROM_LOG)..] {
        if let Some(entry) = Entry::parse(line) {
            entry.show(false, false, &mut text)?;
        }
    }
    let from = text.len().saturating_sub(LONGEST_FROM_LOG);
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}
