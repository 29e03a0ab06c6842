//! The stored encoding: decisions and headers as messages of `windlass.journal.v1`.

mod change;
mod group;
mod header;
mod schedule;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use group::{CommitEncoder, Group, Span, decode_commit, decode_part, encode_part};
pub(crate) use header::{decode_fixed, decode_progress, encode_fixed, encode_progress};
pub(crate) use schedule::{decode_schedule, encode_schedule};
pub(crate) use snapshot::{decode_snapshot, encode_snapshot};

/// Bytes that this program cannot have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Not a message.
    #[error("a stored message cannot be decoded: {0}")]
    Message(#[from] prost::DecodeError),
    /// The first byte is of another framing.
    #[error("a stored value has framing {0:?}")]
    Framing(Option<u8>),
    /// A code that no variant has.
    #[error("{what} has no code {code}")]
    Code {
        /// Type.
        what: &'static str,
        /// Code found.
        code: u32,
    },
    /// Something that is always written is not there, or not of its length.
    #[error("{0} is missing or malformed")]
    Missing(&'static str),
    /// A compressed value cannot be unpacked.
    #[error("a stored value cannot be unpacked: {0}")]
    Packed(String),
}
