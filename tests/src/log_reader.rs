//! A client that follows the logs of a run by the command line, and what it got beside what was written.

use std::collections::{BTreeMap, HashMap};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::binaries::binary;
use crate::deployment::{Deployment, Part, TOKEN};

/// `windlass logs --follow` of a run, under way.
#[derive(Debug)]
pub struct Reader {
    output: JoinHandle<std::io::Result<Output>>,
}

/// What came of one attempt's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A line.
    Line(String),
    /// A mark that says that lines are missing: how many, when that is known.
    Lost(Option<u64>),
}

/// Lines that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many lines had come.
    pub after: usize,
    /// How many are missing; none when a mark stands where nothing is.
    pub lines: usize,
}

/// What came of each attempt, by `step/attempt`.
#[derive(Debug)]
pub struct Logs(BTreeMap<String, Vec<Entry>>);

impl Reader {
    /// Begins to read.
    ///
    /// # Panics
    /// When the command does not start.
    pub fn start(deployment: &Deployment, namespace: &str, run: &str) -> Self {
        let child = Command::new(binary("windlass"))
            .args(["logs", run, "--follow", "--output", "json", "--server"])
            .arg(deployment.url(Part::Scheduler))
            .args(["--namespace", namespace])
            .env("WINDLASS_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("windlass runs");
        Self {
            output: tokio::task::spawn_blocking(|| child.wait_with_output()),
        }
    }

    /// What came until the end.
    ///
    /// # Panics
    /// When the command fails, or the number of a line is not the next one.
    pub async fn end(self) -> Logs {
        let output = self.output.await.expect("no panic").expect("windlass ends");
        let notes = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{notes}");
        let mut logs: BTreeMap<String, (u64, Vec<Entry>)> = BTreeMap::new();
        for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let Some(step) = line["step"].as_str() else { continue };
            let (lines, entries) = logs.entry(format!("{step}/{}", line["attempt"])).or_default();
            if let Some(text) = line["text"].as_str() {
                assert_eq!(line["line"], *lines, "no line left out, and none twice: {line}");
                *lines += 1;
                entries.push(Entry::Line(text.to_owned()));
            } else if line["mark"] == "LOST" {
                entries.push(Entry::Lost(line["lostLines"].as_u64()));
            }
        }
        Logs(logs.into_iter().map(|(of, (_, entries))| (of, entries)).collect())
    }
}

impl Logs {
    /// What came of an attempt, `step/attempt`.
    pub fn of(&self, attempt: &str) -> &[Entry] {
        self.0.get(attempt).map_or(&[], Vec::as_slice)
    }

    /// The attempt's log is this, and no mark says otherwise.
    ///
    /// # Panics
    /// When it is not.
    pub fn is_whole<T: AsRef<str>>(&self, attempt: &str, written: &[T]) {
        let gaps = self.gaps(attempt, written);
        assert!(gaps.is_empty(), "{attempt}: {gaps:?} of {} lines", written.len());
    }

    /// The attempt's log is this, but for lines that are missing where a mark says so. Lines are unlike each other. Beside a mark may be a
    /// piece of a line, since runtimes cut a line where they change files; the line counts as missing.
    ///
    /// # Panics
    /// When a line is none that was written, or comes twice or too late, or is missing without a mark, or another number of lines than
    /// a mark says.
    pub fn gaps<T: AsRef<str>>(&self, attempt: &str, written: &[T]) -> Vec<Gap> {
        let written: Vec<&str> = written.iter().map(AsRef::as_ref).collect();
        let numbers: HashMap<&str, usize> = written.iter().enumerate().map(|(at, line)| (*line, at)).collect();
        let entries = self.of(attempt);
        let (mut next, mut came, mut mark, mut gaps) = (0, 0, None, Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let text = match entry {
                Entry::Lost(lines) => {
                    mark = Some(*lines);
                    continue;
                }
                Entry::Line(text) => text.as_str(),
            };
            let place = format!("{attempt}, after {came} lines");
            let (at, through) = match numbers.get(text) {
                Some(at) => (*at, *at + 1),
                None if mark.is_some() => {
                    let rest = written[next..].iter().position(|line| line.ends_with(text));
                    let at = next + rest.unwrap_or_else(|| panic!("{place}: nobody wrote {text:?}"));
                    (at + 1, at + 1)
                }
                None if matches!(entries.get(index + 1), Some(Entry::Lost(_))) && is_piece(text, &written[next..]) => {
                    continue;
                }
                None => panic!("{place}: nobody wrote {text:?}"),
            };
            assert!(at >= next, "{place}: {text:?} again or too late");
            gaps.extend(gap(&place, came, at - next, mark.take()));
            (next, came) = (through, came + 1);
        }
        gaps.extend(gap(attempt, came, written.len() - next, mark));
        gaps
    }
}

/// Whether a text is the begin of the first line, and perhaps the end of another one.
fn is_piece(text: &str, lines: &[&str]) -> bool {
    let Some(first) = lines.first() else { return false };
    let same = text.bytes().zip(first.bytes()).take_while(|(a, b)| a == b).count();
    (1..=same).any(|cut| text.is_char_boundary(cut) && lines.iter().any(|line| line.ends_with(&text[cut..])))
}

/// What is missing at a place, and what a mark says of it.
fn gap(place: &str, after: usize, lines: usize, mark: Option<Option<u64>>) -> Option<Gap> {
    let Some(said) = mark else {
        assert_eq!(lines, 0, "{place}: missing without a mark");
        return None;
    };
    let right = said.is_none_or(|said| said == lines as u64);
    assert!(right, "{place}: {lines} are missing, a mark says {said:?}");
    Some(Gap { after, lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: [&str; 6] = ["0 a", "1 b", "2 c", "3 d", "4 e", "5 f"];

    /// Gaps (after, lines); marks are `!` and, with a number, `!2`.
    fn gaps(entries: &[&str]) -> Vec<(usize, usize)> {
        let entries = entries.iter().map(|entry| match entry.strip_prefix('!') {
            Some(lines) => Entry::Lost(lines.parse().ok()),
            None => Entry::Line((*entry).to_owned()),
        });
        let logs = Logs(BTreeMap::from([("s/1".to_owned(), entries.collect())]));
        let gaps = logs.gaps("s/1", &WRITTEN);
        gaps.iter().map(|gap| (gap.after, gap.lines)).collect()
    }

    #[test]
    fn what_is_missing_is_counted_where_a_mark_is() {
        assert_eq!(gaps(&WRITTEN), []);
        assert_eq!(gaps(&["0 a", "!", "3 d", "4 e", "!1"]), [(1, 2), (3, 1)]);
        assert_eq!(gaps(&["0 a", "!", "1 b", "2 c", "3 d", "4 e", "5 f"]), [(1, 0)]);
        assert_eq!(gaps(&["0 a", "1 ", "!", " d", "4 e", "5 f"]), [(1, 3)], "pieces");
        assert_eq!(gaps(&["0 a", "1  d", "!", "4 e", "5 f"]), [(1, 3)], "two pieces in one");
    }

    #[test]
    fn what_no_mark_explains_is_found() {
        let wrong: [&[&str]; 6] = [
            &["0 a", "2 c", "3 d", "4 e", "5 f"],
            &["0 a", "1 b", "2 c", "3 d", "4 e"],
            &["0 a", "!3", "3 d", "4 e", "5 f"],
            &["0 a", "1 b", "1 b", "2 c", "3 d", "4 e", "5 f"],
            &["0 a", "2 c", "1 b", "3 d", "4 e", "5 f"],
            &["0 a", "1 ", "1 b", "2 c", "3 d", "4 e", "5 f"],
        ];
        for entries in wrong {
            let found = std::panic::catch_unwind(|| gaps(entries));
            assert!(found.is_err(), "{entries:?}: {found:?}");
        }
    }
}
