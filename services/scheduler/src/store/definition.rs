//! Definitions of runs, packed where the request is handled, so that the committer only writes them.

use bytes::Bytes;

use super::pack;

/// Most bytes of one stored part.
pub const MAX_PART: usize = 1024 * 1024;

/// Most bytes of a definition once unpacked: what a submission may have, several times over.
const MAX_UNPACKED: usize = 512 * 1024 * 1024;

/// Which definition of a run. The numbers are stored: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DefinitionKind {
    /// As submitted: canonical YAML.
    Submitted = 1,
    /// As resolved, from which recovery makes the run again.
    Resolved = 2,
    /// What a schedule runs, a `windlass.journal.v1.ScheduledPipeline`; kept under the id of the schedule, which no run has.
    Scheduled = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain = 0,
    Zstd = 1,
}

impl Encoding {
    pub(crate) fn from_stored(number: i64) -> Option<Self> {
        [Self::Plain, Self::Zstd]
            .into_iter()
            .find(|encoding| *encoding as i64 == number)
    }
}

/// A definition ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedDefinition {
    pub(crate) kind: DefinitionKind,
    pub(crate) encoding: Encoding,
    pub(crate) bytes: Bytes,
}

impl PackedDefinition {
    /// Packs a definition: small ones as they are, others with zstd.
    pub fn pack(kind: DefinitionKind, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        match pack::pack(&content, MAX_UNPACKED) {
            Some(packed) => Self {
                kind,
                encoding: Encoding::Zstd,
                bytes: packed.into(),
            },
            None => Self {
                kind,
                encoding: Encoding::Plain,
                bytes: content,
            },
        }
    }

    /// The stored parts, in order; at least one.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let empty = self.bytes.is_empty().then_some(&[][..]);
        self.bytes.chunks(MAX_PART).chain(empty)
    }
}

/// Unpacks the joined parts of a definition.
pub(crate) fn unpack(encoding: Encoding, bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    match encoding {
        Encoding::Plain => Ok(bytes),
        Encoding::Zstd => pack::unpack(&bytes, MAX_UNPACKED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(content: &[u8]) -> (usize, Encoding) {
        let packed = PackedDefinition::pack(DefinitionKind::Submitted, content.to_vec());
        let parts: Vec<&[u8]> = packed.parts().collect();
        assert!(parts.iter().all(|part| part.len() <= MAX_PART));
        let unpacked = unpack(packed.encoding, parts.concat()).expect("unpacks");
        assert!(unpacked == content);
        (parts.len(), packed.encoding)
    }

    #[test]
    fn a_definition_of_any_size_comes_back() {
        assert_eq!(round_trip(b""), (1, Encoding::Plain));
        assert_eq!(round_trip(b"name: churn"), (1, Encoding::Plain));
        assert_eq!(round_trip(&b"name: churn\n".repeat(500)), (1, Encoding::Zstd));
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(2 * MAX_PART + 5)
        .collect();
        assert_eq!(round_trip(&noise), (3, Encoding::Plain));
    }

    #[test]
    fn a_damaged_definition_is_an_error() {
        assert!(unpack(Encoding::Zstd, b"no frame".to_vec()).is_err());
    }
}
