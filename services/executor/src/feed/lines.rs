//! From the bytes of a log to lines: framed on newlines, with their times, long ones split, values of Secrets masked.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use windlass_api::feed::v1::FeedLine;

use super::masking::{Masks, mask};

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
    /// Bytes at the begin of the next part that are the end of a value.
    carried: usize,
    /// What the kubelet wrote in place of a log, without a time.
    complaint: Option<String>,
    /// Values that must not be seen, those of before among them.
    masks: Vec<Arc<Masks>>,
}

impl Lines {
    /// Values that must not be seen from now on. Those of before still must not: a container keeps what it was started with.
    pub(crate) fn hide(&mut self, masks: Arc<Masks>) {
        if !self.masks.contains(&masks) {
            self.masks.push(masks);
        }
    }

    /// Of another reading of the same log.
    pub(crate) fn alike(&self) -> Self {
        Self {
            masks: self.masks.clone(),
            ..Self::default()
        }
    }

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
            self.line(rest);
        }
        self.complaint.take()
    }

    /// Takes out what is framed; nothing inside for a complaint.
    fn next_frame(&mut self) -> Option<Option<FeedLine>> {
        let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = newline.map(|position| self.searched + position);
        let held = end.unwrap_or(self.buffer.len());
        let stamp = if self.splitting.is_some() { 0 } else { MAX_STAMP };
        // A value may begin at the end of a part.
        let ahead = match end {
            Some(_) => 0,
            None => self.masks.iter().map(|masks| masks.longest()).max().unwrap_or(0),
        };
        if held > MAX_CONTENT + stamp + ahead {
            return Some(self.part(held));
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(self.line(line))
    }

    /// The unfinished line at the end of a log that is over.
    pub(crate) fn rest(&mut self) -> Option<FeedLine> {
        if self.buffer.is_empty() {
            return None;
        }
        let rest = self.buffer.split().freeze();
        self.searched = 0;
        self.line(rest)
    }

    /// Forgets an unfinished line: it is read again.
    pub(crate) fn reset(&mut self) {
        self.buffer.clear();
        self.searched = 0;
        self.splitting = None;
        self.carried = 0;
        self.complaint = None;
    }

    /// The first part of the bytes that are held of a line.
    fn part(&mut self, held: usize) -> Option<FeedLine> {
        let stamp = match self.splitting {
            Some(_) => 0,
            None => stamp(&self.buffer).map_or(0, |(_, length)| length),
        };
        let text = &self.buffer[stamp..held];
        let (masked, carried) = mask(text, MAX_CONTENT, self.carried, &self.masks);
        let bytes = self.buffer.split_to(stamp + MAX_CONTENT).freeze();
        self.searched = 0;
        let line = self.framed(bytes, true);
        self.carried = carried;
        line.map(|line| with(line, masked))
    }

    /// A line, or the last part of one.
    fn line(&mut self, line: Bytes) -> Option<FeedLine> {
        let line = self.framed(line, false)?;
        let carried = std::mem::take(&mut self.carried);
        let (masked, _) = mask(&line.content, line.content.len(), carried, &self.masks);
        Some(with(line, masked))
    }

    fn framed(&mut self, line: Bytes, partial: bool) -> Option<FeedLine> {
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
        Some(FeedLine {
            time_nanos: time,
            content,
            partial,
            unmasked_length: 0,
        })
    }
}

fn with(line: FeedLine, masked: Option<Bytes>) -> FeedLine {
    let Some(content) = masked else { return line };
    FeedLine {
        unmasked_length: u32::try_from(line.content.len()).unwrap_or(u32::MAX),
        content,
        ..line
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

    const CANARY: &str = "canary-7b1f";

    fn hiding() -> Lines {
        let mut lines = Lines::default();
        let masks = Masks::of(std::iter::once(CANARY.as_bytes())).expect("it is short");
        lines.hide(Arc::new(masks.expect("it is long enough")));
        lines
    }

    #[test]
    fn i8_a_value_is_masked_wherever_the_bytes_that_come_are_cut() {
        let log = format!("1970-01-01T00:00:01Z a {CANARY} b\n1970-01-01T00:00:02Z {CANARY}");
        for cut in 0..=log.len() {
            let mut lines = hiding();
            lines.push(&log.as_bytes()[..cut]);
            let mut found: Vec<_> = std::iter::from_fn(|| lines.next()).collect();
            lines.push(&log.as_bytes()[cut..]);
            found.extend(std::iter::from_fn(|| lines.next()));
            found.extend(lines.rest());
            let found: Vec<_> = found
                .iter()
                .map(|line| (&line.content[..], line.unmasked_length))
                .collect();
            assert_eq!(found, [(&b"a *** b"[..], 15), (&b"***"[..], 11)], "cut at {cut}");
        }
    }

    #[test]
    fn i8_a_value_is_masked_wherever_a_long_line_is_split() {
        for begin in (MAX_CONTENT - CANARY.len() - 1)..=(MAX_CONTENT + 1) {
            let line = format!("{}{CANARY}{}", "x".repeat(begin), "y".repeat(1000));
            let log = format!("1970-01-01T00:00:01Z {line}\n");
            for chunk in [1_000, log.len()] {
                let mut lines = hiding();
                let mut found = Vec::new();
                for bytes in log.as_bytes().chunks(chunk) {
                    lines.push(bytes);
                    found.extend(std::iter::from_fn(|| lines.next()));
                }
                let lengths = found.iter().map(|line| match line.unmasked_length {
                    0 => line.content.len(),
                    length => length as usize,
                });
                assert_eq!(
                    lengths.collect::<Vec<_>>(),
                    [MAX_CONTENT, line.len() - MAX_CONTENT],
                    "{begin}"
                );
                let text: Vec<u8> = found.iter().flat_map(|line| line.content.iter().copied()).collect();
                let text = String::from_utf8(text).expect("UTF-8").replace("******", "***");
                assert_eq!(text, line.replace(CANARY, "***"), "value at {begin}");
            }
        }
    }
}
