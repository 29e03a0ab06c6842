//! Container logs in the format that kubelets read: `TIME STREAM TAG CONTENT`, one entry a line, tag `P` for a part of
//! a line and `F` for its end.

use std::io::{self, Write};

use jiff::Timestamp;

use crate::clock;

/// Longer lines are split into parts of this many bytes.
pub(crate) const LARGEST_PART: usize = 16 * 1024;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Turns the bytes of one stream into entries; keeps what has no end yet.
#[derive(Debug)]
pub(crate) struct Framer {
    stream: Stream,
    held: Vec<u8>,
}

impl Framer {
    /// A framer with nothing held.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            held: Vec::new(),
        }
    }

    /// Appends entries for every complete line and every full part in `bytes`.
    pub(crate) fn push(&mut self, at: Timestamp, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LARGEST_PART - self.held.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                self.held.extend_from_slice(&window[..end]);
                self.emit(at, b'F', out);
                bytes = &bytes[end + 1..];
            } else {
                self.held.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                if self.held.len() == LARGEST_PART {
                    self.emit(at, b'P', out);
                }
            }
        }
    }

    /// At the end of the stream: a last line without newline is a whole line.
    pub(crate) fn finish(&mut self, at: Timestamp, out: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.emit(at, b'F', out);
        }
    }

    fn emit(&mut self, at: Timestamp, tag: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(clock::nanoseconds(at).as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.name().as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.append(&mut self.held);
        out.push(b'\n');
    }
}

/// One entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Time as written.
    pub time: &'a str,
    /// Whether the line goes on in the next entry.
    pub partial: bool,
    /// The text, without newline.
    pub content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a line of the file, without its newline.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let _stream = parts.next()?;
        let tag = parts.next()?;
        Some(Self {
            time,
            partial: tag == b"P",
            content: parts.next().unwrap_or_default(),
        })
    }

    /// Writes it as a log request shows it.
    pub(crate) fn show(&self, timestamps: bool, at_line_start: bool, out: &mut impl Write) -> io::Result<()> {
        if timestamps && at_line_start {
            out.write_all(self.time.as_bytes())?;
            out.write_all(b" ")?;
        }
        out.write_all(self.content)?;
        if self.partial { Ok(()) } else { out.write_all(b"\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(chunks: &[&[u8]]) -> String {
        let at: Timestamp = "2026-11-23T10:00:00Z".parse().expect("a time");
        let mut framer = Framer::new(Stream::Stdout);
        let mut out = Vec::new();
        for chunk in chunks {
            framer.push(at, chunk, &mut out);
        }
        framer.finish(at, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_are_framed_on_newlines_only() {
        assert_eq!(
            frame(&[b"step 1 of ", b"10\nab", b"\n\nrest"]),
            "2026-11-23T10:00:00.000000000Z stdout F step 1 of 10\n\
             2026-11-23T10:00:00.000000000Z stdout F ab\n\
             2026-11-23T10:00:00.000000000Z stdout F \n\
             2026-11-23T10:00:00.000000000Z stdout F rest\n"
        );
    }

    #[test]
    fn long_lines_come_in_parts_and_join_again() {
        let long = vec![b'x'; LARGEST_PART * 2 + 5];
        let mut input = long.clone();
        input.push(b'\n');
        let text = frame(&[&input]);
        let tags: Vec<_> = text.lines().map(|l| &l[38..39]).collect();
        assert_eq!(tags, ["P", "P", "F"]);
        let mut shown = Vec::new();
        let mut start = true;
        for line in text.lines() {
            let entry = Entry::parse(line.as_bytes()).expect("an entry");
            entry.show(true, start, &mut shown).expect("shown");
            start = !entry.partial;
        }
        let prefix = "2026-11-23T10:00:00.000000000Z ".len();
        assert_eq!(&shown[prefix..shown.len() - 1], &long[..]);
    }
}
