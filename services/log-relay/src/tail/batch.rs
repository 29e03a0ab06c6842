//! Lines on their way to a client, encoded, collected until the client can take them or they fill a message.

use bytes::{Bytes, BytesMut};
use prost::encoding::message;
use windlass_api::log::v1::{Line, Position, Source};

use super::wire::Outgoing;
use crate::store::block::{Block, LineRecord, Place, Record};

/// A message of lines is sent at this size.
const BATCH_BYTES: usize = 48 * 1024;
/// Numbers of the fields of `Lines`.
const SOURCES_FIELD: u32 = 1;
const LINES_FIELD: u32 = 2;

/// Lines on their way to a client.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    parts: Vec<Bytes>,
    last: BytesMut,
    bytes: usize,
    /// Lines in it.
    pub(crate) lines: u64,
}

impl Batch {
    /// Describes a source, once in a stream, before its first line.
    pub(crate) fn describe(&mut self, source: &Source) {
        let before = self.last.len();
        message::encode(SOURCES_FIELD, source, &mut self.last);
        self.bytes += self.last.len() - before;
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, source: u32, place: Place, line: LineRecord) {
        let before = self.last.len();
        encode(source, place, line, &mut self.last);
        self.bytes += self.last.len() - before;
        self.lines += 1;
    }

    /// Adds all lines of a block, as they were encoded for another reader if there was one.
    pub(crate) fn push_block(&mut self, source: u32, block: &Block) {
        let encoded = block.encoded(source, |block| {
            let mut out = BytesMut::new();
            for (place, record) in block.records() {
                if let Record::Line(line) = record {
                    encode(source, place, line, &mut out);
                }
            }
            out.freeze()
        });
        self.bytes += encoded.len();
        self.lines += block.end.line - block.start.line;
        // A small copy is cheaper than one more part.
        if encoded.len() < 512 {
            self.last.extend_from_slice(&encoded);
            return;
        }
        self.close();
        self.parts.push(encoded);
    }

    fn close(&mut self) {
        if !self.last.is_empty() {
            self.parts.push(self.last.split().freeze());
        }
    }

    /// Whether it should be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    /// The message; none when there is nothing to say.
    pub(crate) fn take(&mut self) -> Option<Outgoing> {
        self.close();
        (self.bytes, self.lines) = (0, 0);
        let parts = std::mem::take(&mut self.parts);
        (!parts.is_empty()).then_some(Outgoing::Lines(parts))
    }
}

fn encode(source: u32, place: Place, line: LineRecord, out: &mut BytesMut) {
    let line = Line {
        source,
        position: Some(Position {
            line: place.line,
            offset: place.offset,
        }),
        time: Some(prost_types::Timestamp {
            seconds: line.time.div_euclid(1_000_000_000),
            nanos: i32::try_from(line.time.rem_euclid(1_000_000_000)).unwrap_or_default(),
        }),
        partial: line.partial,
        content: line.content,
    };
    message::encode(LINES_FIELD, &line, out);
}
