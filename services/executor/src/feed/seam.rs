//! Where a log that is read again goes on: `sinceTime` has whole seconds, so that lines come twice and are matched.

use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use windlass_api::feed::v1::{FeedLine, FeedOpen};

const NANOS: i64 = 1_000_000_000;

/// The last line that the relay holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    time: i64,
    /// Lines with exactly that time.
    ordinal: u64,
    digest: Vec<u8>,
}

impl Position {
    /// Where the relay wants to go on; nothing for the begin.
    pub(crate) fn of(open: &FeedOpen) -> Option<Self> {
        let Timestamp { seconds, nanos } = open.after_time?;
        Some(Self {
            time: seconds.checked_mul(NANOS)?.checked_add(i64::from(nanos))?,
            ordinal: open.after_ordinal.max(1),
            digest: open.last_line_digest.to_vec(),
        })
    }

    /// Time of the line.
    pub(crate) fn time(&self) -> i64 {
        self.time
    }

    /// Lines up to it that have its time.
    pub(crate) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Whether another position is the same, as far as this one tells.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        let same_line = self.digest.is_empty() || self.digest == other.digest;
        same_line && (self.time, self.ordinal) == (other.time, other.ordinal)
    }

    /// The second in which it lies, as the API server takes it.
    pub(crate) fn since(&self) -> Option<String> {
        let second = jiff::Timestamp::from_second(self.time.div_euclid(NANOS)).ok()?;
        Some(second.to_string())
    }
}

/// The position after a line.
pub(crate) fn advance(position: Option<Position>, line: &FeedLine) -> Position {
    let ordinal = match position {
        Some(position) if position.time == line.time_nanos => position.ordinal + 1,
        _ => 1,
    };
    Position {
        time: line.time_nanos,
        ordinal,
        digest: Sha256::digest(&line.content).to_vec(),
    }
}

/// What becomes of a line that is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The relay holds it.
    Held,
    /// It is new.
    New,
    /// It is new, and lines before it are lost: the last held one was not found.
    NewAfterGap,
}

/// Matches the lines of a second reading with the last held one.
#[derive(Debug)]
pub(crate) struct Seam {
    /// What is looked for; nothing once the seam is passed.
    wanted: Option<Position>,
    found: u64,
}

impl Seam {
    /// Looks for a position; without one, every line is new.
    pub(crate) fn new(wanted: Option<Position>) -> Self {
        Self { wanted, found: 0 }
    }

    /// Judges the next line.
    pub(crate) fn judge(&mut self, line: &FeedLine) -> Verdict {
        let Some(wanted) = &self.wanted else {
            return Verdict::New;
        };
        if line.time_nanos < wanted.time {
            return Verdict::Held;
        }
        if line.time_nanos == wanted.time && self.found < wanted.ordinal {
            self.found += 1;
            let last = self.found == wanted.ordinal;
            if last && wanted.is(line) {
                self.wanted = None;
            }
            return Verdict::Held;
        }
        // Beyond it, and the last held line was not there: the file was rotated.
        self.wanted = None;
        Verdict::NewAfterGap
    }
}

impl Position {
    fn is(&self, line: &FeedLine) -> bool {
        self.digest.is_empty() || Sha256::digest(&line.content).as_slice() == self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: i64, text: &str) -> FeedLine {
        FeedLine {
            time_nanos: time,
            content: text.to_owned().into_bytes().into(),
            ..FeedLine::default()
        }
    }

    fn after(lines: &[FeedLine]) -> Option<Position> {
        lines.iter().fold(None, |position, line| Some(advance(position, line)))
    }

    fn read_again(position: Option<Position>, lines: &[FeedLine]) -> Vec<Verdict> {
        let mut seam = Seam::new(position);
        lines.iter().map(|line| seam.judge(line)).collect()
    }

    #[test]
    fn i7_the_seam_is_found_among_lines_of_the_same_time() {
        let log = [line(1, "a"), line(5, "b"), line(5, "b"), line(5, "c"), line(6, "d")];
        for held in 0..=log.len() {
            let verdicts = read_again(after(&log[..held]), &log);
            let expected: Vec<_> = (0..log.len())
                .map(|index| if index < held { Verdict::Held } else { Verdict::New })
                .collect();
            assert_eq!(verdicts, expected, "{held} lines held");
        }
    }

    #[test]
    fn e10_a_rotated_log_is_marked_once() {
        let position = after(&[line(1, "a"), line(5, "b")]);
        let verdicts = read_again(position, &[line(8, "c"), line(9, "d")]);
        assert_eq!(verdicts, [Verdict::NewAfterGap, Verdict::New]);
    }

    #[test]
    fn another_line_in_its_place_is_a_gap() {
        let verdicts = read_again(after(&[line(5, "b")]), &[line(5, "x"), line(6, "y")]);
        assert_eq!(verdicts, [Verdict::Held, Verdict::NewAfterGap]);
    }

    #[test]
    fn the_api_server_is_asked_for_whole_seconds() {
        let position = after(&[line(7 * NANOS + 5, "a")]).expect("a position");
        assert_eq!(position.since().as_deref(), Some("1970-01-01T00:00:07Z"));
        let open = FeedOpen {
            after_time: Some(Timestamp { seconds: 7, nanos: 5 }),
            after_ordinal: 1,
            last_line_digest: Sha256::digest("a").to_vec(),
            ..FeedOpen::default()
        };
        assert_eq!(Position::of(&open), Some(position));
    }
}
