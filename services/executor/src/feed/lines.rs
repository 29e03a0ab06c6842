//! From the bytes of a log to lines: framed on newlines, with their times, long ones split.

use bytes::{Buf, Bytes, BytesMut};
use windlass_api::feed::v1::FeedLine;

/// Longest content of one line; a longer one is split into parts.
pub(crate) const MAX_CONTENT: usize = 256 * 1024;
/// Longest timestamp with the space after it.
const MAX_STAMP: usize = 48;
/// Longest text of a complaint.
const MAX_COMPLAINT: usize = 1024;

/// Frames lines; a half-written one is held back.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    searched: usize,
    /// Time of the line that is being split.
    splitting: Option<i64>,
    /// What the kubelet wrote in place of a log, without a time.
    complaint: Option<String>,
}

impl Lines {
    /// More bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line, or part of a long one.
    pub(crate) fn next(&mut self) -> Option<FeedLine> {
        loop {
            let line = self.next_frame()?;
            if line.is_some() {
                return line;
            }
        }
    }

    /// What the kubelet said in place of the log, if anything: it answers with success when it cannot read one.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        // What begins with a digit is a time that was cut off.
        let begins_otherwise = self.buffer.first().is_some_and(|byte| !byte.is_ascii_digit());
        if begins_otherwise && self.splitting.is_none() && stamp(&self.buffer).is_none() {
            let rest = self.buffer.split().freeze();
            self.searched = 0;
            self.line(rest, false);
        }
        self.complaint.take()
    }

    /// Takes out what is framed; nothing inside for a complaint.
    fn next_frame(&mut self) -> Option<Option<FeedLine>> {
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
        self.line(rest, false)
    }

    /// Forgets an unfinished line: it is read again.
    pub(crate) fn reset(&mut self) {
        self.buffer.clear();
        self.searched = 0;
        self.splitting = None;
        self.complaint = None;
    }

    fn part(&mut self) -> Option<FeedLine> {
        let stamp = match self.splitting {
            Some(_) => 0,
            None => stamp(&self.buffer).map_or(0, |(_, length)| length),
        };
        let bytes = self.buffer.split_to(stamp + MAX_CONTENT).freeze();
        self.searched = 0;
        self.line(bytes, true)
    }

    fn line(&mut self, line: Bytes, partial: bool) -> Option<FeedLine> {
        let (time, content) = match (self.splitting, stamp(&line)) {
            (Some(time), _) => (time, line),
            (None, Some((time, length))) => (time, line.slice(length..)),
            // The kubelet's own words have no time, those of containers always do.
            (None, None) => {
                let text = String::from_utf8_lossy(&line[..line.len().min(MAX_COMPLAINT)]).into_owned();
                self.complaint.get_or_insert(text);
                return None;
            }
        };
        self.splitting = partial.then_some(time);
        // Values of secrets are masked here, between reading and counting, once executors know them.
        Some(FeedLine {
            time_nanos: time,
            content,
            partial,
            unmasked_length: 0,
        })
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
    fn what_the_kubelet_says_is_no_line_of_the_log() {
        let mut lines = Lines::default();
        lines.push(b"1970-01-01T00:00:01Z a\nfailed to watch file\n1970-01-01T00:00:02Z b\n");
        assert_eq!(all(&mut lines).len(), 2);
        assert_eq!(lines.complaint().as_deref(), Some("failed to watch file"));
        assert_eq!(lines.complaint(), None);
        lines.push(b"unable to retrieve container logs for containerd://1");
        assert_eq!(all(&mut lines), []);
        assert_eq!(
            lines.complaint().as_deref(),
            Some("unable to retrieve container logs for containerd://1")
        );
        assert!(lines.rest().is_none());
        lines.push(b"1970-01-01T00:00:03Z unfinished");
        assert_eq!(lines.complaint(), None);
        assert!(lines.rest().is_some());
    }
}
