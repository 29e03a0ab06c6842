//! Blocks: checksummed runs of log records, the unit of live files, of the ring and of the archive.
//!
//! A block is a header of 80 bytes and a payload of records. The checksum covers both, so that a torn tail is found after a crash.

use std::sync::OnceLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A block is closed when its payload has reached this size.
pub(crate) const BLOCK_BYTES: usize = 32 * 1024;
/// Longer lines are kept in pieces of this size, the last of which ends the line.
pub(crate) const PIECE_BYTES: usize = 128 * 1024;
/// Size of a block's header.
pub(crate) const HEADER_BYTES: usize = 80;

const MAGIC: u32 = 0x31_42_4C_57; // "WLB1"
/// A length beyond this is no block of ours.
const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

const PARTIAL: u8 = 1;
const MASKED: u8 = 2;
const MARK: u8 = 4;
const END: u8 = 8;
const SPLIT: u8 = 16;

/// Place in a container's log: of the next record, or of a record itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Number of the line, from 0.
    pub(crate) line: u64,
    /// Marks before it.
    pub(crate) mark: u64,
    /// Byte offset, counted before masking, newlines included.
    pub(crate) offset: u64,
}

impl Place {
    /// Lines and marks before it: the order in which a reader gets them.
    pub(crate) fn record(self) -> u64 {
        self.line + self.mark
    }

    fn after(self, record: &Record) -> Self {
        match record {
            Record::Line(line) => Self {
                line: self.line + 1,
                offset: self.offset + line.length(),
                ..self
            },
            Record::Mark(_) => Self {
                mark: self.mark + 1,
                ..self
            },
            Record::End { .. } => self,
        }
    }
}

/// What a log consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A line, or a piece of one.
    Line(LineRecord),
    /// Something that readers are told in its place.
    Mark(MarkRecord),
    /// The container's log is over. Readers are not given it.
    End {
        /// Whether it was read to its end.
        complete: bool,
    },
}

/// A line, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineRecord {
    /// Nanoseconds since 1970.
    pub(crate) time: i64,
    /// Whether the line goes on in the next record.
    pub(crate) partial: bool,
    /// Whether it goes on because the relay cut it: the executor sent both pieces as one.
    pub(crate) split: bool,
    /// Length before masking, when something was masked.
    pub(crate) unmasked: Option<u32>,
    /// Without newline, masked.
    pub(crate) content: Bytes,
}

impl LineRecord {
    /// Bytes that it takes in the container's own output.
    pub(crate) fn length(&self) -> u64 {
        let content = self.unmasked.map_or(self.content.len() as u64, u64::from);
        content + u64::from(!self.partial)
    }
}

/// Kinds of marks that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredMark {
    /// Lines are missing here.
    Lost,
    /// From here on secret values were masked.
    Masked,
}

/// Something that readers are told in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkRecord {
    pub(crate) time: i64,
    pub(crate) kind: StoredMark,
    /// Lost lines, when known.
    pub(crate) lost: Option<u64>,
    /// For people.
    pub(crate) message: String,
}

/// A checksummed run of records.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Of its first record.
    pub(crate) start: Place,
    /// After its last record.
    pub(crate) end: Place,
    /// Least time of its lines; the greatest value without lines.
    pub(crate) min_time: i64,
    /// Greatest time of its lines; the least value without lines.
    pub(crate) max_time: i64,
    payload: Bytes,
    /// Its lines as the first reader's messages carry them, with that reader's number of the source.
    encoded: OnceLock<(u32, Bytes)>,
}

/// A file that does not hold what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// It ends within a block.
    #[error("the block is cut off")]
    Torn,
    /// It is something else, or damaged.
    #[error("the block is damaged")]
    Damaged,
}

impl Block {
    /// Bytes that it takes in a file.
    pub(crate) fn file_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Appends header and payload.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(MAGIC);
        out.put_u32_le(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.put_u32_le(0);
        out.put_u32_le(0);
        for place in [self.start, self.end] {
            out.put_u64_le(place.line);
            out.put_u64_le(place.mark);
            out.put_u64_le(place.offset);
        }
        out.put_i64_le(self.min_time);
        out.put_i64_le(self.max_time);
        out.put_slice(&self.payload);
        let sum = crc32fast::hash(&out[start + 12..]);
        out[start + 8..start + 12].copy_from_slice(&sum.to_le_bytes());
    }

    /// Takes the block at the front of `bytes`; none when `bytes` is empty.
    pub(crate) fn take(bytes: &mut Bytes) -> Result<Option<Self>, BlockError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let total = HEADER_BYTES + payload_length(bytes)?;
        if bytes.len() < total {
            return Err(BlockError::Torn);
        }
        let mut block = bytes.slice(..total);
        let sum = u32::from_le_bytes([block[8], block[9], block[10], block[11]]);
        if crc32fast::hash(&block[12..]) != sum {
            return Err(BlockError::Damaged);
        }
        block.advance(16);
        let mut place = || Place {
            line: block.get_u64_le(),
            mark: block.get_u64_le(),
            offset: block.get_u64_le(),
        };
        let (start, end) = (place(), place());
        let (min_time, max_time) = (block.get_i64_le(), block.get_i64_le());
        bytes.advance(total);
        Ok(Some(Self {
            start,
            end,
            min_time,
            max_time,
            payload: block,
            encoded: OnceLock::new(),
        }))
    }

    /// Its lines as a reader's messages carry them, made once for all readers that give the source the same number.
    pub(crate) fn encoded(&self, source: u32, encode: impl Fn(&Self) -> Bytes) -> Bytes {
        let (number, bytes) = self.encoded.get_or_init(|| (source, encode(self)));
        if *number == source { bytes.clone() } else { encode(self) }
    }

    /// Whether it holds lines only.
    pub(crate) fn is_plain(&self) -> bool {
        self.start.mark == self.end.mark
    }

    /// Its records, each with its place.
    pub(crate) fn records(&self) -> Records {
        Records {
            place: self.start,
            rest: self.payload.clone(),
        }
    }
}

/// Length of the payload of the block at the front of `bytes`.
pub(crate) fn payload_length(bytes: &[u8]) -> Result<usize, BlockError> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(BlockError::Torn);
    };
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if header[..4] != MAGIC.to_le_bytes() || length > MAX_PAYLOAD {
        return Err(BlockError::Damaged);
    }
    Ok(length)
}

/// See [`Block::records`].
#[derive(Debug)]
pub(crate) struct Records {
    place: Place,
    rest: Bytes,
}

impl Iterator for Records {
    type Item = (Place, Record);

    fn next(&mut self) -> Option<(Place, Record)> {
        let record = take_record(&mut self.rest)?;
        let place = self.place;
        self.place = place.after(&record);
        Some((place, record))
    }
}

fn take_record(rest: &mut Bytes) -> Option<Record> {
    if rest.len() < 13 {
        return None;
    }
    let flags = rest.get_u8();
    let time = rest.get_i64_le();
    let length = rest.get_u32_le() as usize;
    let unmasked = (flags & MASKED != 0 && rest.len() >= 4).then(|| rest.get_u32_le());
    if rest.len() < length {
        return None;
    }
    let mut content = rest.split_to(length);
    if flags & END != 0 {
        let complete = content.first() == Some(&1);
        return Some(Record::End { complete });
    }
    if flags & MARK == 0 {
        return Some(Record::Line(LineRecord {
            time,
            partial: flags & PARTIAL != 0,
            split: flags & SPLIT != 0,
            unmasked,
            content,
        }));
    }
    if content.len() < 10 {
        return None;
    }
    let kind = match content.get_u8() {
        1 => StoredMark::Masked,
        _ => StoredMark::Lost,
    };
    let known = content.get_u8() == 1;
    let lost = content.get_u64_le();
    Some(Record::Mark(MarkRecord {
        time,
        kind,
        lost: known.then_some(lost),
        message: String::from_utf8_lossy(&content).into_owned(),
    }))
}

/// Collects records into blocks.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    start: Place,
    end: Place,
    min_time: i64,
    max_time: i64,
    payload: BytesMut,
}

impl BlockBuilder {
    /// Begins at `start`.
    pub(crate) fn new(start: Place) -> Self {
        Self {
            start,
            end: start,
            min_time: i64::MAX,
            max_time: i64::MIN,
            payload: BytesMut::new(),
        }
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Whether it should be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.payload.len() >= BLOCK_BYTES
    }

    /// After its last record.
    pub(crate) fn end(&self) -> Place {
        self.end
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &Record) {
        match record {
            Record::Line(line) => self.push_line(line),
            Record::Mark(mark) => {
                let mut content = Vec::with_capacity(10 + mark.message.len());
                content.put_u8(u8::from(mark.kind == StoredMark::Masked));
                content.put_u8(u8::from(mark.lost.is_some()));
                content.put_u64_le(mark.lost.unwrap_or_default());
                content.put_slice(mark.message.as_bytes());
                self.put(MARK, mark.time, None, &content);
            }
            Record::End { complete } => self.put(END, 0, None, &[u8::from(*complete)]),
        }
        self.end = self.end.after(record);
    }

    fn push_line(&mut self, line: &LineRecord) {
        let mut flags = 0;
        for (set, flag) in [
            (line.partial, PARTIAL),
            (line.split, SPLIT),
            (line.unmasked.is_some(), MASKED),
        ] {
            flags |= if set { flag } else { 0 };
        }
        self.put(flags, line.time, line.unmasked, &line.content);
        self.min_time = self.min_time.min(line.time);
        self.max_time = self.max_time.max(line.time);
    }

    fn put(&mut self, flags: u8, time: i64, unmasked: Option<u32>, content: &[u8]) {
        self.payload.put_u8(flags);
        self.payload.put_i64_le(time);
        self.payload
            .put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
        if let Some(unmasked) = unmasked {
            self.payload.put_u32_le(unmasked);
        }
        self.payload.put_slice(content);
    }

    /// The block; the builder goes on after it.
    pub(crate) fn finish(&mut self) -> Block {
        let next = Self::new(self.end);
        let done = std::mem::replace(self, next);
        Block {
            start: done.start,
            end: done.end,
            min_time: done.min_time,
            max_time: done.max_time,
            payload: done.payload.freeze(),
            encoded: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let content = proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            8 => (any::<i64>(), any::<bool>(), proptest::option::of(0_u32..100), content).prop_map(
                |(time, partial, unmasked, content)| Record::Line(LineRecord {
                    time,
                    partial,
                    split: partial,
                    unmasked,
                    content: content.into(),
                })
            ),
            1 => (any::<i64>(), proptest::option::of(any::<u64>()), "[a-zß ]{0,20}").prop_map(|(time, lost, message)| {
                Record::Mark(MarkRecord { time, kind: StoredMark::Lost, lost, message })
            }),
            1 => any::<bool>().prop_map(|complete| Record::End { complete }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(records in proptest::collection::vec(any_record(), 1..50)) {
            let mut builder = BlockBuilder::new(Place { line: 3, mark: 1, offset: 70 });
            records.iter().for_each(|record| builder.push(record));
            let block = builder.finish();
            let mut file = Vec::new();
            block.write_to(&mut file);
            prop_assert_eq!(file.len(), block.file_bytes());
            let mut bytes = Bytes::from(file);
            let read = Block::take(&mut bytes).expect("whole").expect("one");
            prop_assert!(bytes.is_empty());
            prop_assert_eq!((read.start, read.end), (block.start, block.end));
            let back: Vec<Record> = read.records().map(|(_, record)| record).collect();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn a_torn_or_damaged_block_is_never_taken(cut in 0_usize..200, flip in 0_usize..200, bit in 0_u8..8) {
            let mut builder = BlockBuilder::new(Place::default());
            let line = |text: &'static str| Record::Line(LineRecord {
                time: 5, partial: false, split: false, unmasked: None, content: Bytes::from_static(text.as_bytes()),
            });
            builder.push(&line("hello"));
            builder.push(&line("world"));
            let mut file = Vec::new();
            builder.finish().write_to(&mut file);
            let torn = Bytes::copy_from_slice(&file[..(1 + cut) % file.len()]);
            prop_assert!(torn.is_empty() || Block::take(&mut torn.clone()).is_err());
            let at = flip % file.len();
            // The four bytes after the checksum are reserved, but summed as well.
            file[at] ^= 1 << bit;
            prop_assert!(Block::take(&mut Bytes::from(file)).is_err());
        }
    }
}
