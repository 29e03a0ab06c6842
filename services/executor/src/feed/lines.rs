//! From the bytes of a log to lines: framed on newlines, with their times, long ones split.

use bytes::{Buf, Bytes, BytesMut};
use windlass_api::feed::v1::FeedLine;

/// Longest content of one line; a longer one is split into parts.
pub(crate) const MAX_CONTENT: usize = 256 * 1024;
/// Longest timestamp with the space after it.
const MAX_STAMP: usize = 48;

/// Frames lines; a half-written one is held back.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    searched: usize,
    /// Time of the line that is being split.
    splitting: Option<i64>,
    last_time: i64,
}

impl Lines {
    /// More bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line, or part of a long one.
    pub(crate) fn next(&mut self) -> Option<FeedLine> {
        let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = newline.map(|position| self.searched + position);
        let held = end.unwrap_or(self.buffer.len());
        let stamp = if self.splitting.is_some() { 0 } else { MAX_STAMP };
        if held > MAX_CONTENT + stamp {
            return Some(self.part());
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(self.line(line, false))
    }

    /// The unfinished line at the end of a log that is over.
    pub(crate) fn rest(&mut self) -> Option<FeedLine> {
        if self.buffer.is_empty() {
            return None;
        }
        let rest = self.buffer.split().freeze();
        self.searched = 0;
        Some(self.line(rest, false))
    }

    /// Forgets an unfinished line: it is read again.
    pub(crate) fn reset(&mut self) {
        self.buffer.clear();
        self.searched = 0;
        self.splitting = None;
    }

    fn part(&mut self) -> FeedLine {
        let stamp = match self.splitting {
            Some(_) => 0,
            None => stamp(&self.buffer).map_or(0, |(_, length)| length),
        };
        let bytes = self.buffer.split_to(stamp + MAX_CONTENT).freeze();
        self.searched = 0;
        self.line(bytes, true)
    }

    fn line(&mut self, line: Bytes, partial: bool) -> FeedLine {
        let (time, content) = match (self.splitting, stamp(&line)) {
            (Some(time), _) => (time, line),
            (None, Some((time, length))) => (time, line.slice(length..)),
            // The kubelet puts its own complaints between the lines, without a time.
            (None, None) => (self.last_time, line),
        };
        self.splitting = partial.then_some(time);
        self.last_time = time;
        // Values of secrets are masked here, between reading and counting, once executors know them.
        FeedLine {
            time_nanos: time,
            content,
            partial,
            unmasked_length: 0,
        }
    }
}

/// The time at the begin of a line, and the length of it with the space after it.
fn stamp(line: &[u8]) -> Option<(i64, usize)> {
    let space = line.iter().take(MAX_STAMP).position(|byte| *byte == b' ');
    let end = space.unwrap_or(line.len().min(MAX_STAMP));
    let text = std::str::from_utf8(&line[..end]).ok()?;
    let time: jiff::Timestamp = text.parse().ok()?;
    let nanos = i64::try_from(time.as_nanosecond()).ok()?;
    Some((nanos, end + usize::from(space.is_some())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<(i64, String, bool)> {
        std::iter::from_fn(|| lines.next())
            .map(|line| {
                (
                    line.time_nanos,
                    String::from_utf8_lossy(&line.content).into_owned(),
                    line.partial,
                )
            })
            .collect()
    }

    #[test]
    fn e9_a_half_written_line_is_held_back() {
        let mut lines = Lines::default();
        lines.push(b"1970-01-01T00:00:01.000000005Z step 1 of ");
        assert_eq!(all(&mut lines), []);
        lines.push(b"10 done\n1970-01-01T00:00:02Z\n1970-01-01T00:00:03Z x");
        let expected = [
            (1_000_000_005, "step 1 of 10 done".to_owned(), false),
            (2_000_000_000, String::new(), false),
        ];
        assert_eq!(all(&mut lines), expected);
        assert_eq!(lines.rest().map(|line| line.content), Some(Bytes::from_static(b"x")));
        assert!(lines.rest().is_none());
    }

    #[test]
    fn i11_a_long_line_is_split_and_marked() {
        let mut lines = Lines::default();
        lines.push(b"1970-01-01T00:00:01Z ");
        let mut parts = Vec::new();
        for _ in 0..700 {
            lines.push(&[b'x'; 1024]);
            parts.extend(all(&mut lines));
        }
        lines.push(b"\n1970-01-01T00:00:02Z next\n");
        parts.extend(all(&mut lines));
        let shape: Vec<_> = parts
            .iter()
            .map(|(time, text, partial)| (*time / 1_000_000_000, text.len(), *partial))
            .collect();
        let rest = 700 * 1024 - 2 * MAX_CONTENT;
        assert_eq!(
            shape,
            [
                (1, MAX_CONTENT, true),
                (1, MAX_CONTENT, true),
                (1, rest, false),
                (2, 4, false)
            ]
        );
    }

    #[test]
    fn a_line_without_a_time_gets_that_of_the_one_before() {
        let mut lines = Lines::default();
        lines.push(b"1970-01-01T00:00:01Z a\nunable to retrieve container logs\n");
        assert_eq!(
            all(&mut lines)[1],
            (1_000_000_000, "unable to retrieve container logs".to_owned(), false)
        );
    }
}
