//! The live log of one container: an append-only file of blocks.
//!
//! Everything is handed to the operating system at once, so that nothing written is lost when the process is killed; what had not
//! been written is asked for again from the executor, after the last line that the file holds (I7).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use windlass_api::feed::v1::FeedLine;

use super::block::{
    Block, BlockBuilder, BlockError, HEADER_BYTES, LineRecord, MarkRecord, PIECE_BYTES, Place, Record, StoredMark,
    payload_length,
};

/// Distance of index entries in a file.
const INDEX_STRIDE: u64 = 64 * 1024;
/// How much of the held log is searched for repeated lines.
const OVERLAP_BYTES: u64 = 4 * 1024 * 1024;

/// Where a block begins in a live file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Number of the first record.
    pub(crate) record: u64,
    /// Offset in the file.
    pub(crate) at: u64,
}

/// Where the log goes on: what an executor is told so that no line is lost and none comes twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seam {
    /// Time of the last held line, nanoseconds since 1970.
    pub(crate) time: Option<i64>,
    /// How many lines with exactly that time are held.
    pub(crate) ordinal: u64,
    /// The last held line as the executor sent it.
    last: Vec<u8>,
    /// Whether the last record is a piece that the relay cut.
    within: bool,
}

impl Seam {
    /// SHA-256 of the last held line; empty when none is held.
    pub(crate) fn digest(&self) -> Vec<u8> {
        match self.time {
            Some(_) => Sha256::digest(&self.last).to_vec(),
            None => Vec::new(),
        }
    }

    fn take(&mut self, line: &LineRecord) {
        if !self.within {
            self.ordinal = if self.time == Some(line.time) {
                self.ordinal + 1
            } else {
                1
            };
            self.time = Some(line.time);
            self.last.clear();
        }
        self.last.extend_from_slice(&line.content);
        self.within = line.split;
    }
}

/// What a live file holds, as far as its readers need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extent {
    /// After the last record.
    pub(crate) end: Place,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Set when the log is over: whether it is complete.
    pub(crate) finished: Option<bool>,
}

/// The writing side of a live file.
#[derive(Debug, Default)]
pub(crate) struct Appender {
    pub(crate) seam: Seam,
    pub(crate) extent: Extent,
    pub(crate) index: Vec<IndexEntry>,
    masked: bool,
    overlap: Option<HashMap<(i64, u32), u32>>,
}

impl Appender {
    /// Reads a file from its start and cuts off what a crash left half-written. A missing file is an empty one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut appender = Self::default();
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(appender),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut reader = io::BufReader::with_capacity(256 * 1024, &mut file);
        while let Some(block) = read_block(&mut reader)? {
            if block.start != appender.extent.end {
                break;
            }
            appender.admit(&block);
            for (_, record) in block.records() {
                appender.observe(&record);
            }
        }
        if appender.extent.bytes < length {
            let cut = length - appender.extent.bytes;
            tracing::warn!(path = %path.display(), bytes = cut, "torn tail of a live log cut off");
            file.set_len(appender.extent.bytes)?;
        }
        Ok(appender)
    }

    fn observe(&mut self, record: &Record) {
        match record {
            Record::Line(line) => self.seam.take(line),
            Record::Mark(mark) => self.masked |= mark.kind == StoredMark::Masked,
            Record::End { complete } => self.extent.finished = Some(*complete),
        }
    }

    fn admit(&mut self, block: &Block) {
        let far = self
            .index
            .last()
            .is_none_or(|last| self.extent.bytes >= last.at + INDEX_STRIDE);
        if far {
            self.index.push(IndexEntry {
                record: block.start.record(),
                at: self.extent.bytes,
            });
        }
        self.extent.end = block.end;
        self.extent.bytes += block.file_bytes() as u64;
    }

    /// Turns lines of an executor into blocks, without those that are held already. Nothing is written yet.
    pub(crate) fn prepare(&mut self, path: &Path, batch: &Batch) -> Prepared {
        let mut prepared = Prepared::new(self);
        if let Some(lost) = batch.gap {
            let message = "lines are missing: the cluster no longer had them";
            prepared.mark(StoredMark::Lost, self.seam.time.unwrap_or_default(), lost, message);
        }
        for line in &batch.lines {
            if self.is_held(path, &prepared, line) {
                prepared.repeated += 1;
                continue;
            }
            prepared.line(line);
        }
        if let Some(end) = &batch.end {
            if !end.complete {
                prepared.mark(
                    StoredMark::Lost,
                    prepared.seam.time.unwrap_or_default(),
                    None,
                    &end.message,
                );
            }
            prepared.push(&Record::End { complete: end.complete });
        }
        prepared.close();
        prepared
    }

    /// A line older than the last one is a repetition when the same line with the same time is held; otherwise a clock went back.
    fn is_held(&mut self, path: &Path, prepared: &Prepared, line: &FeedLine) -> bool {
        let Some(last) = prepared.seam.time else {
            return false;
        };
        if line.time_nanos > last {
            self.overlap = None;
            return false;
        }
        if line.time_nanos == last && self.overlap.is_none() {
            return false;
        }
        let extent = &self.extent;
        let held = self.overlap.get_or_insert_with(|| {
            held_lines(path, &self.index, extent.bytes, prepared).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "held lines cannot be compared");
                HashMap::new()
            })
        });
        match held.get_mut(&fingerprint(line.time_nanos, &line.content)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    /// Writes what was prepared. After an error the file is as before, and the same may be tried again.
    pub(crate) fn write(&mut self, file: &mut File, prepared: &Prepared) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(prepared.blocks.iter().map(|block| block.file_bytes()).sum());
        prepared.blocks.iter().for_each(|block| block.write_to(&mut bytes));
        file.seek(SeekFrom::Start(self.extent.bytes))?;
        if let Err(error) = file.write_all(&bytes) {
            file.set_len(self.extent.bytes)?;
            return Err(error);
        }
        prepared.blocks.iter().for_each(|block| self.admit(block));
        self.seam.clone_from(&prepared.seam);
        self.masked = prepared.masked;
        self.extent.finished = self.extent.finished.or(prepared.finished);
        Ok(())
    }
}

/// What came from an executor for one container.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Set when lines before these are lost: how many, when known.
    pub(crate) gap: Option<Option<u64>>,
    /// The lines.
    pub(crate) lines: Vec<FeedLine>,
    /// Set when the log is over.
    pub(crate) end: Option<BatchEnd>,
}

/// How a container's log ended.
#[derive(Clone, Debug)]
pub(crate) struct BatchEnd {
    /// Whether it was read to its end.
    pub(crate) complete: bool,
    /// For people, when it was not.
    pub(crate) message: String,
}

/// Blocks that are to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The blocks.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Lines that were held already.
    pub(crate) repeated: u64,
    seam: Seam,
    masked: bool,
    finished: Option<bool>,
    builder: BlockBuilder,
}

impl Prepared {
    fn new(appender: &Appender) -> Self {
        Self {
            blocks: Vec::new(),
            repeated: 0,
            seam: appender.seam.clone(),
            masked: appender.masked,
            finished: None,
            builder: BlockBuilder::new(appender.extent.end),
        }
    }

    fn push(&mut self, record: &Record) {
        match record {
            Record::Line(line) => self.seam.take(line),
            Record::Mark(_) => {}
            Record::End { complete } => self.finished = Some(*complete),
        }
        self.builder.push(record);
        if self.builder.is_full() {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.builder.is_empty() {
            self.blocks.push(Arc::new(self.builder.finish()));
        }
    }

    fn mark(&mut self, kind: StoredMark, time: i64, lost: Option<u64>, message: &str) {
        self.push(&Record::Mark(MarkRecord {
            time,
            kind,
            lost,
            message: message.to_owned(),
        }));
    }

    fn line(&mut self, line: &FeedLine) {
        if line.unmasked_length > 0 && !self.masked {
            self.masked = true;
            self.mark(
                StoredMark::Masked,
                line.time_nanos,
                None,
                "secret values are masked from here on",
            );
        }
        let mut rest = line.content.clone();
        let mut unmasked = (line.unmasked_length > 0).then_some(line.unmasked_length);
        while rest.len() > PIECE_BYTES {
            let piece = rest.split_to(PIECE_BYTES);
            // Every piece counts as long as it is; the last one makes up for the difference.
            if let Some(length) = &mut unmasked {
                *length = length.saturating_sub(PIECE_BYTES as u32);
            }
            self.push(&Record::Line(LineRecord {
                time: line.time_nanos,
                partial: true,
                split: true,
                unmasked: None,
                content: piece,
            }));
        }
        self.push(&Record::Line(LineRecord {
            time: line.time_nanos,
            partial: line.partial,
            split: false,
            unmasked,
            content: rest,
        }));
    }
}

fn fingerprint(time: i64, content: &[u8]) -> (i64, u32) {
    (time, crc32fast::hash(content))
}

fn held_lines(
    path: &Path,
    index: &[IndexEntry],
    bytes: u64,
    prepared: &Prepared,
) -> io::Result<HashMap<(i64, u32), u32>> {
    let from = bytes.saturating_sub(OVERLAP_BYTES);
    let first = index.partition_point(|entry| entry.at < from);
    let at = index.get(first).map_or(bytes, |entry| entry.at);
    let span = Span {
        at,
        end: bytes,
        record: 0,
        wanted: u64::MAX,
    };
    let mut blocks = read_blocks(path, span)?;
    blocks.extend(prepared.blocks.iter().cloned());
    let mut held = HashMap::new();
    let mut pending: Vec<u8> = Vec::new();
    for (_, record) in blocks.iter().flat_map(|block| block.records()) {
        let Record::Line(line) = record else { continue };
        pending.extend_from_slice(&line.content);
        if !line.split {
            *held.entry(fingerprint(line.time, &pending)).or_default() += 1;
            pending.clear();
        }
    }
    Ok(held)
}

/// Which blocks of a live file are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Offset in the file at which a block begins.
    pub(crate) at: u64,
    /// Offset at which the file ends for this reader.
    pub(crate) end: u64,
    /// Blocks before the one with this record are passed over.
    pub(crate) record: u64,
    /// Bytes after which enough is read.
    pub(crate) wanted: u64,
}

/// Reads whole blocks of a live file.
pub(crate) fn read_blocks(path: &Path, span: Span) -> io::Result<Vec<Arc<Block>>> {
    let Span {
        at,
        end,
        record,
        wanted,
    } = span;
    let mut blocks = Vec::new();
    if at >= end {
        return Ok(blocks);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut reader = io::BufReader::with_capacity(64 * 1024, file.take(end - at));
    let mut read = 0;
    while read < wanted {
        let Some(block) = read_block(&mut reader)? else { break };
        if block.end.record() <= record && record > 0 {
            continue;
        }
        read += block.file_bytes() as u64;
        blocks.push(Arc::new(block));
    }
    Ok(blocks)
}

/// The next block; none at the end, and at a torn or damaged block.
pub(crate) fn read_block(reader: &mut impl io::Read) -> io::Result<Option<Block>> {
    let mut bytes = vec![0; HEADER_BYTES];
    if !fill(reader, &mut bytes)? {
        return Ok(None);
    }
    let Ok(length) = payload_length(&bytes) else {
        return Ok(None);
    };
    bytes.resize(HEADER_BYTES + length, 0);
    if !fill(reader, &mut bytes[HEADER_BYTES..])? {
        return Ok(None);
    }
    match Block::take(&mut Bytes::from(bytes)) {
        Ok(block) => Ok(block),
        Err(BlockError::Torn | BlockError::Damaged) => Ok(None),
    }
}

fn fill(reader: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: i64, text: &str) -> FeedLine {
        FeedLine {
            time_nanos: time,
            content: Bytes::copy_from_slice(text.as_bytes()),
            ..FeedLine::default()
        }
    }

    fn batch(lines: &[(i64, &str)]) -> Batch {
        Batch {
            lines: lines.iter().map(|(time, text)| line(*time, text)).collect(),
            ..Batch::default()
        }
    }

    fn append(appender: &mut Appender, path: &Path, batch: &Batch) -> u64 {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .expect("opened");
        let prepared = appender.prepare(path, batch);
        appender.write(&mut file, &prepared).expect("written");
        prepared.repeated
    }

    fn texts(path: &Path, appender: &Appender) -> Vec<String> {
        let span = Span {
            at: 0,
            end: appender.extent.bytes,
            record: 0,
            wanted: u64::MAX,
        };
        read_blocks(path, span)
            .expect("read")
            .iter()
            .flat_map(|block| block.records())
            .map(|(_, record)| match record {
                Record::Line(line) => String::from_utf8_lossy(&line.content).into_owned(),
                Record::Mark(mark) => format!("<{:?} {:?}>", mark.kind, mark.lost),
                Record::End { complete } => format!("<end {complete}>"),
            })
            .collect()
    }

    #[test]
    fn i7_a_torn_tail_is_cut_wherever_it_is_torn() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("main.log");
        let mut appender = Appender::default();
        append(&mut appender, &path, &batch(&[(1, "one"), (2, "two")]));
        let whole = appender.extent.bytes;
        append(&mut appender, &path, &batch(&[(3, "three")]));
        let bytes = std::fs::read(&path).expect("read");
        for length in whole..bytes.len() as u64 {
            std::fs::write(&path, &bytes[..usize::try_from(length).expect("small")]).expect("written");
            let mut again = Appender::open(&path).expect("opened");
            assert_eq!(
                std::fs::metadata(&path).expect("there").len(),
                whole,
                "torn at {length}"
            );
            assert_eq!((again.seam.time, again.seam.ordinal), (Some(2), 1));
            append(&mut again, &path, &batch(&[(3, "three")]));
            assert_eq!(texts(&path, &again), ["one", "two", "three"]);
        }
    }

    #[test]
    fn i7_repeated_lines_are_dropped_and_a_clock_that_went_back_loses_none() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("main.log");
        let mut appender = Appender::default();
        append(&mut appender, &path, &batch(&[(1, "a"), (2, "b"), (2, "b"), (3, "c")]));
        let mut again = Appender::open(&path).expect("opened");
        let repeated = append(
            &mut again,
            &path,
            &batch(&[(2, "b"), (2, "b"), (3, "c"), (4, "d"), (2, "back")]),
        );
        assert_eq!(repeated, 3);
        append(&mut again, &path, &batch(&[(2, "back again"), (5, "e")]));
        assert_eq!(
            texts(&path, &again),
            ["a", "b", "b", "c", "d", "back", "back again", "e"]
        );
    }

    #[test]
    fn equal_lines_of_one_time_are_kept_and_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("main.log");
        let mut appender = Appender::default();
        append(&mut appender, &path, &batch(&[(7, "x"), (7, "x")]));
        append(&mut appender, &path, &batch(&[(7, "x")]));
        assert_eq!(texts(&path, &appender), ["x", "x", "x"]);
        let again = Appender::open(&path).expect("opened");
        assert_eq!(again.seam, appender.seam);
        assert_eq!(again.seam.ordinal, 3);
        assert_eq!(again.seam.digest(), Sha256::digest(b"x").to_vec());
    }

    #[test]
    fn a_long_line_is_kept_in_pieces_and_counts_as_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("main.log");
        let long = "y".repeat(2 * PIECE_BYTES + 10);
        let mut appender = Appender::default();
        let mut masked = line(9, &long);
        masked.unmasked_length = u32::try_from(long.len() + 5).expect("small");
        let lines = vec![masked, line(9, "z")];
        append(
            &mut appender,
            &path,
            &Batch {
                lines,
                ..Batch::default()
            },
        );
        let expected = (long.len() + 5 + 1 + 2) as u64;
        assert_eq!(
            appender.extent.end,
            Place {
                line: 4,
                mark: 1,
                offset: expected
            }
        );
        assert_eq!(appender.seam.ordinal, 2);
        assert_eq!(texts(&path, &appender)[1..].concat(), long + "z");
    }

    #[test]
    fn losses_and_ends_are_stored_in_place() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("main.log");
        let mut appender = Appender::default();
        append(&mut appender, &path, &batch(&[(1, "a")]));
        let gap = Batch {
            gap: Some(Some(4)),
            lines: vec![line(6, "f")],
            end: Some(BatchEnd {
                complete: false,
                message: "the pod is gone".to_owned(),
            }),
        };
        append(&mut appender, &path, &gap);
        assert_eq!(
            texts(&path, &appender),
            ["a", "<Lost Some(4)>", "f", "<Lost None>", "<end false>"]
        );
        assert_eq!(Appender::open(&path).expect("opened").extent.finished, Some(false));
    }
}
