//! Where a reader of logs is: the relay's cursor, rolled forward by what came after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use windlass_api::log::v1::Source;

use crate::errors::{CliError, Result};

/// One container of one attempt, across streams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceKey {
    /// Name of the step.
    pub step: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Name of the container.
    pub container: String,
    /// Uid of the pod.
    pub pod_uid: String,
}

impl From<&Source> for SourceKey {
    fn from(source: &Source) -> Self {
        Self {
            step: source.step.clone(),
            attempt: source.attempt,
            container: source.container.clone(),
            pod_uid: source.pod_uid.clone(),
        }
    }
}

/// Where to go on, so that no line is lost and none comes twice (I7).
///
/// A checkpoint may be older than the newest line, and a relay that was killed may know less than it told: lines up to the positions
/// noted here are dropped after a resume. Sources that are complete are forgotten with the next checkpoint
/// of the same stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    checkpoint: Vec<u8>,
    read: BTreeMap<SourceKey, u64>,
    complete: BTreeSet<SourceKey>,
}

impl Cursor {
    /// True when nothing was read yet.
    pub fn is_start(&self) -> bool {
        self.checkpoint.is_empty() && self.read.is_empty()
    }

    /// The relay's part.
    pub fn checkpoint(&self) -> &[u8] {
        &self.checkpoint
    }

    /// Notes a line; false when it was read before.
    pub fn advance(&mut self, source: &SourceKey, line: u64) -> bool {
        match self.read.get_mut(source) {
            Some(read) if line <= *read => false,
            Some(read) => {
                *read = line;
                true
            }
            None => {
                self.read.insert(source.clone(), line);
                true
            }
        }
    }

    /// A new stream begins at the checkpoint. What was complete after it comes again, to its end; until then it is not forgotten: the
    /// new stream's first checkpoint is no newer than this one.
    pub fn resume(&mut self) {
        self.complete.clear();
    }

    /// Notes that nothing more comes from a source.
    pub fn complete(&mut self, source: &SourceKey) {
        self.complete.insert(source.clone());
    }

    /// The relay's cursor now covers everything that was read before it.
    pub fn check(&mut self, checkpoint: Vec<u8>) {
        if !checkpoint.is_empty() {
            self.checkpoint = checkpoint;
            for source in std::mem::take(&mut self.complete) {
                self.read.remove(&source);
            }
        }
    }

    /// Reads a cursor file; `None` when it is not there yet.
    ///
    /// # Errors
    /// When it cannot be read, is no cursor file, or belongs to another run.
    pub fn load(path: &Path, run: &str) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::bad_input(format!("cannot read {}: {error}", path.display()))),
        };
        let broken = || CliError::bad_input(format!("{} is no cursor file", path.display()));
        let file: CursorFile = serde_json::from_slice(&bytes).map_err(|_| broken())?;
        if file.run != run {
            return Err(CliError::bad_input(format!(
                "the cursor file {} belongs to run {}, not to {run}",
                path.display(),
                file.run
            ))
            .hint("use one cursor file for each run"));
        }
        Ok(Some(Self {
            checkpoint: STANDARD.decode(&file.cursor).map_err(|_| broken())?,
            read: file.read.into_iter().map(|entry| (entry.source, entry.line)).collect(),
            complete: BTreeSet::new(),
        }))
    }

    /// Writes the cursor file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path, run: &str) -> Result<()> {
        let file = CursorFile {
            run: run.to_owned(),
            cursor: STANDARD.encode(&self.checkpoint),
            read: self
                .read
                .iter()
                .map(|(source, line)| ReadUpTo {
                    source: source.clone(),
                    line: *line,
                })
                .collect(),
        };
        let write = || -> std::io::Result<()> {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let temporary = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))?;
            serde_json::to_writer(&temporary, &file)?;
            temporary.persist(path)?;
            Ok(())
        };
        write().map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))
    }
}

#[derive(Serialize, Deserialize)]
struct CursorFile {
    run: String,
    cursor: String,
    read: Vec<ReadUpTo>,
}

#[derive(Serialize, Deserialize)]
struct ReadUpTo {
    source: SourceKey,
    line: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(step: &str) -> SourceKey {
        SourceKey {
            step: step.to_owned(),
            attempt: 1,
            container: "main".to_owned(),
            pod_uid: "u".to_owned(),
        }
    }

    #[test]
    fn i7_after_a_resume_no_line_comes_twice_and_none_is_lost() {
        let mut cursor = Cursor::default();
        assert!((0..5).all(|line| cursor.advance(&source("a"), line)));
        cursor.check(vec![1]);
        assert!((5..8).all(|line| cursor.advance(&source("a"), line)));
        // The stream broke: the relay sends everything after the checkpoint again.
        let again: Vec<_> = (5..10).filter(|line| cursor.advance(&source("a"), *line)).collect();
        assert_eq!(again, [8, 9]);
        assert!(cursor.advance(&source("b"), 0));
    }

    #[test]
    fn i7_what_was_complete_after_the_checkpoint_does_not_come_twice() {
        let mut cursor = Cursor::default();
        assert!(cursor.advance(&source("a"), 0));
        cursor.check(vec![1]);
        assert!((1..5).all(|line| cursor.advance(&source("a"), line)));
        cursor.complete(&source("a"));
        // The stream breaks; the next one begins with the cursor that it was asked with.
        cursor.resume();
        cursor.check(vec![1]);
        assert!(!(1..5).any(|line| cursor.advance(&source("a"), line)));
        cursor.complete(&source("a"));
        cursor.check(vec![2]);
        assert!(cursor.read.is_empty(), "now it is covered");
    }

    #[test]
    fn i7_a_relay_that_forgot_what_it_told_brings_no_line_twice() {
        let mut cursor = Cursor::default();
        assert!((0..5).all(|line| cursor.advance(&source("a"), line)));
        cursor.check(vec![5]);
        // It was killed before line 4 was on its disk, reads it again, and sends it after a cursor that stood behind it.
        assert!(!cursor.advance(&source("a"), 4));
        assert!(cursor.advance(&source("a"), 5));
        cursor.complete(&source("a"));
        cursor.check(vec![6]);
        assert!(cursor.read.is_empty(), "what is complete is forgotten");
    }

    #[test]
    fn a_cursor_file_goes_on_where_it_stopped_and_knows_its_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cursor");
        assert_eq!(Cursor::load(&path, "r").expect("absent"), None);
        let mut cursor = Cursor::default();
        cursor.check(vec![1, 2, 3]);
        cursor.advance(&source("a"), 7);
        cursor.save(&path, "r").expect("saved");
        assert_eq!(Cursor::load(&path, "r").expect("loaded"), Some(cursor));
        let other = Cursor::load(&path, "s").expect_err("another run");
        assert!(other.message.contains("belongs to run r"), "{other}");
    }
}
