//! Cursors: where a merged log stream stopped, compact and readable by every relay.
//!
//! A cursor names the run, a position for every open source that is not at its start, and the finished sources as ranges of
//! consecutive steps. The relay makes them; a client may roll one forward with the lines that it received since ([`Tracker`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{Mark, MarkKind, Source, TailLogsResponse};
use windlass_ids::RunId;

/// Bound on a cursor that is accepted or made, in bytes.
pub const MAX_CURSOR_BYTES: usize = 256 * 1024;
/// Bound on the sources that a cursor names.
const MAX_SOURCES: u64 = 1_000_000;
const VERSION: u8 = 1;

/// One container of one attempt of a step of the cursor's run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    /// Index of the step.
    pub step: u32,
    /// Number of the attempt.
    pub attempt: u32,
    /// Name of the container.
    pub container: String,
}

/// The next record of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourcePosition {
    /// Number of the next line, from 0.
    pub line: u64,
    /// Stored marks before it.
    pub mark: u64,
    /// Byte offset of the next line; a hint when the client computed it, since masking changes lengths.
    pub offset: u64,
}

/// Where a merged stream stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The run.
    pub run: RunId,
    /// Sources that were begun and are not finished.
    pub open: BTreeMap<SourceId, SourcePosition>,
    /// Sources of which everything was sent.
    pub finished: std::collections::BTreeSet<SourceId>,
}

/// Bytes that are no cursor of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// They are damaged, cut, or something else.
    #[error("the cursor is malformed; use the bytes of a checkpoint as they are")]
    Malformed,
    /// A newer relay made them.
    #[error("the cursor has version {version}; this relay reads version {VERSION}")]
    Version {
        /// Its version.
        version: u8,
    },
    /// They are longer than any cursor.
    #[error("the cursor has {bytes} bytes; at most {MAX_CURSOR_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Cursor {
    /// At the start of a run.
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            open: BTreeMap::new(),
            finished: std::collections::BTreeSet::new(),
        }
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        let mut names: Vec<&str> = self
            .finished
            .iter()
            .chain(self.open.keys())
            .map(|id| id.container.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let name = |id: &SourceId| names.binary_search(&id.container.as_str()).unwrap_or_default() as u64;
        let mut out = vec![VERSION];
        out.extend_from_slice(self.run.as_bytes());
        put(&mut out, names.len() as u64);
        for name in &names {
            put(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
        let ranges = self.ranges(name);
        put(&mut out, ranges.len() as u64);
        for (container, attempt, first, count) in ranges {
            [container, u64::from(attempt), u64::from(first), u64::from(count)]
                .into_iter()
                .for_each(|value| put(&mut out, value));
        }
        put(&mut out, self.open.len() as u64);
        let mut step = 0;
        for (id, position) in &self.open {
            put(&mut out, u64::from(id.step - step));
            step = id.step;
            [
                u64::from(id.attempt),
                name(id),
                position.line,
                position.mark,
                position.offset,
            ]
            .into_iter()
            .for_each(|value| put(&mut out, value));
        }
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.into()
    }

    /// Finished sources as (container, attempt, first step, number of steps).
    fn ranges(&self, name: impl Fn(&SourceId) -> u64) -> Vec<(u64, u32, u32, u32)> {
        let mut all: Vec<_> = self.finished.iter().map(|id| (name(id), id.attempt, id.step)).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u64, u32, u32, u32)> = Vec::new();
        for (container, attempt, step) in all {
            match ranges.last_mut() {
                Some((c, a, first, count)) if (*c, *a, *first + *count) == (container, attempt, step) => *count += 1,
                _ => ranges.push((container, attempt, step, 1)),
            }
        }
        ranges
    }

    /// Reads the bytes of a checkpoint.
    ///
    /// # Errors
    /// When they are no cursor of this version; see [`CursorError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CursorError> {
        if bytes.len() > MAX_CURSOR_BYTES {
            return Err(CursorError::TooLong { bytes: bytes.len() });
        }
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(CursorError::Malformed)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(CursorError::Malformed);
        }
        match body.first() {
            Some(&VERSION) => decode_body(&body[1..]).ok_or(CursorError::Malformed),
            Some(&version) => Err(CursorError::Version { version }),
            None => Err(CursorError::Malformed),
        }
    }

    /// Counts a received line: the stream goes on after it.
    pub fn take_line(&mut self, id: &SourceId, line: u64, offset: u64, length: u64) {
        if self.finished.contains(id) {
            return;
        }
        let open = self.open.entry(id.clone()).or_default();
        open.line = open.line.max(line + 1);
        open.offset = open.offset.max(offset + length);
    }
}

fn decode_body(mut rest: &[u8]) -> Option<Cursor> {
    let rest = &mut rest;
    let run = RunId::from_slice(split(rest, 16)?)?;
    let mut cursor = Cursor::new(run);
    let names = (0..bounded(rest)?)
        .map(|_| {
            let length = usize::try_from(get(rest)?).ok()?;
            String::from_utf8(split(rest, length)?.to_vec()).ok()
        })
        .collect::<Option<Vec<_>>>()?;
    let container = |index: u64| names.get(usize::try_from(index).ok()?).cloned();
    for _ in 0..bounded(rest)? {
        let (name, attempt, first, count) = (get(rest)?, get_u32(rest)?, get_u32(rest)?, get_u32(rest)?);
        let last = first.checked_add(count)?;
        if (cursor.finished.len() as u64).saturating_add(u64::from(count)) > MAX_SOURCES {
            return None;
        }
        for step in first..last {
            cursor.finished.insert(SourceId {
                step,
                attempt,
                container: container(name)?,
            });
        }
    }
    let mut step = 0_u32;
    for _ in 0..bounded(rest)? {
        step = step.checked_add(get_u32(rest)?)?;
        let id = SourceId {
            step,
            attempt: get_u32(rest)?,
            container: container(get(rest)?)?,
        };
        let position = SourcePosition {
            line: get(rest)?,
            mark: get(rest)?,
            offset: get(rest)?,
        };
        position.line.checked_add(position.mark)?;
        cursor.open.insert(id, position);
    }
    rest.is_empty().then_some(cursor)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn get(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn get_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(get(rest)?).ok()
}

fn bounded(rest: &mut &[u8]) -> Option<u64> {
    // Every counted item takes a byte at least.
    get(rest).filter(|count| *count <= rest.len() as u64)
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// Follows a stream on the client's side, so that it can be resumed after its last line, not only after its last checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    cursor: Option<Cursor>,
    sources: BTreeMap<u32, SourceId>,
}

impl Tracker {
    /// Before the first message of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a message into account. Sources are forgotten with [`Tracker::restart`] when a new stream begins.
    ///
    /// # Errors
    /// When the message carries a cursor that this version cannot read.
    pub fn observe(&mut self, response: &TailLogsResponse) -> Result<(), CursorError> {
        match &response.message {
            Some(Message::Lines(lines)) => {
                lines.sources.iter().for_each(|source| self.describe(source));
                for line in &lines.lines {
                    let (Some(cursor), Some(id)) = (&mut self.cursor, self.sources.get(&line.source)) else {
                        continue;
                    };
                    let position = line.position.unwrap_or_default();
                    let length = line.content.len() as u64 + u64::from(!line.partial);
                    cursor.take_line(id, position.line, position.offset, length);
                }
            }
            Some(Message::Mark(mark)) => self.take_mark(mark),
            Some(Message::Checkpoint(checkpoint)) => self.cursor = Some(Cursor::decode(&checkpoint.cursor)?),
            Some(Message::KeepAlive(keep_alive)) => self.cursor = Some(Cursor::decode(&keep_alive.cursor)?),
            Some(Message::End(end)) => self.cursor = Some(Cursor::decode(&end.cursor)?),
            None => {}
        }
        Ok(())
    }

    fn describe(&mut self, source: &Source) {
        let id = SourceId {
            step: source.step_index,
            attempt: source.attempt,
            container: source.container.clone(),
        };
        self.sources.insert(source.id, id);
    }

    fn take_mark(&mut self, mark: &Mark) {
        if let Some(source) = &mark.source_description {
            self.describe(source);
        }
        let (Some(cursor), Some(id)) = (&mut self.cursor, self.sources.get(&mark.source)) else {
            return;
        };
        match mark.kind() {
            MarkKind::Lost | MarkKind::Masked => cursor.open.entry(id.clone()).or_default().mark += 1,
            MarkKind::SourceEnded => {
                cursor.open.remove(id);
                cursor.finished.insert(id.clone());
            }
            MarkKind::Unspecified
            | MarkKind::AttemptStarted
            | MarkKind::ContainerRestarted
            | MarkKind::Rotated
            | MarkKind::Switched => {}
        }
    }

    /// A new stream begins: its source numbers are its own.
    pub fn restart(&mut self) {
        self.sources.clear();
    }

    /// Where to resume; none before the first checkpoint, which is a stream's first message.
    pub fn cursor(&self) -> Option<Bytes> {
        self.cursor.as_ref().map(Cursor::encode)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_id() -> impl Strategy<Value = SourceId> {
        let container = prop_oneof![8 => Just("main".to_owned()), 1 => "[a-z]{1,12}"];
        (0_u32..400, 1_u32..4, container).prop_map(|(step, attempt, container)| SourceId {
            step,
            attempt,
            container,
        })
    }

    fn any_cursor() -> impl Strategy<Value = Cursor> {
        let position = (any::<u32>(), 0_u64..9, any::<u64>()).prop_map(|(line, mark, offset)| SourcePosition {
            line: u64::from(line),
            mark,
            offset,
        });
        let open = proptest::collection::btree_map(any_id(), position, 0..60);
        let finished = proptest::collection::btree_set(any_id(), 0..200);
        (any::<[u8; 16]>(), open, finished).prop_map(|(run, open, finished)| Cursor {
            run: RunId::from_bytes(run),
            open: open.into_iter().filter(|(id, _)| !finished.contains(id)).collect(),
            finished,
        })
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(cursor in any_cursor()) {
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn damaged_bytes_are_refused_and_never_panic(cursor in any_cursor(), at in any::<usize>(), flip in 1_u8..) {
            let mut bytes = cursor.encode().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(Cursor::decode(&bytes).is_err());
            prop_assert!(Cursor::decode(&bytes[..at]).is_err());
        }

        #[test]
        fn well_summed_nonsense_is_refused_or_read_but_never_panics(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = vec![VERSION];
            bytes.extend(body);
            let sum = crc32fast::hash(&bytes);
            bytes.extend(sum.to_le_bytes());
            if let Ok(cursor) = Cursor::decode(&bytes) {
                prop_assert!(Cursor::decode(&cursor.encode()).is_ok());
            }
        }
    }

    #[test]
    fn i11_ten_thousand_sources_fit_into_256_kib() {
        let mut cursor = Cursor::new(RunId::from_bytes([1; 16]));
        for step in 0..10_000 {
            let id = SourceId {
                step,
                attempt: 3,
                container: "main".to_owned(),
            };
            let position = SourcePosition {
                line: 1 << 48,
                mark: 1_000,
                offset: 1 << 55,
            };
            cursor.open.insert(id, position);
        }
        assert!(cursor.encode().len() <= MAX_CURSOR_BYTES, "{}", cursor.encode().len());
        let ids: Vec<_> = cursor.open.keys().cloned().collect();
        cursor.open.clear();
        cursor.finished.extend(ids);
        assert!(cursor.encode().len() < 64, "finished sources are ranges");
    }
}
