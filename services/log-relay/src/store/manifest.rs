//! The manifest of a sealed attempt: what the archive holds of it.

use serde::{Deserialize, Serialize};

use super::block::Place;
use crate::key::AttemptKey;

/// What the archive holds of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) run: windlass_ids::RunId,
    pub(crate) step: u32,
    pub(crate) step_name: String,
    pub(crate) source_step: String,
    pub(crate) attempt: u32,
    pub(crate) namespace: String,
    pub(crate) pod_name: String,
    pub(crate) pod_uid: String,
    pub(crate) cluster_uid: String,
    pub(crate) grant: u64,
    /// False when something is known to be missing.
    pub(crate) complete: bool,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    /// SHA-256 over the digests of the containers' segments, in order; hexadecimal.
    pub(crate) digest: String,
    pub(crate) containers: Vec<SealedContainer>,
}

impl Manifest {
    /// Whose log it is.
    pub(crate) fn key(&self) -> AttemptKey {
        AttemptKey {
            run: self.run,
            step: self.step,
            attempt: self.attempt,
            pod_uid: self.pod_uid.clone(),
        }
    }
}

/// What the archive holds of one container: one object of zstd frames that can be read one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedContainer {
    pub(crate) name: String,
    /// Name of the object below the archive's root.
    pub(crate) object: String,
    pub(crate) lines: u64,
    pub(crate) marks: u64,
    /// Length of the container's output.
    pub(crate) bytes: u64,
    /// Length of the object.
    pub(crate) compressed_bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) first_time: Option<i64>,
    /// Nanoseconds since 1970.
    pub(crate) last_time: Option<i64>,
    pub(crate) complete: bool,
    /// Lines that are known to be lost; marks without a number count as none.
    pub(crate) lost_lines: u64,
    /// SHA-256 of the object; hexadecimal.
    pub(crate) digest: String,
    pub(crate) segments: Vec<Segment>,
}

/// One zstd frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Offset in the object.
    pub(crate) at: u64,
    /// Length in the object.
    pub(crate) length: u64,
    /// Number of its first line.
    pub(crate) line: u64,
    /// Marks before it.
    pub(crate) mark: u64,
    /// Offset of its first line in the container's output.
    pub(crate) offset: u64,
    /// Greatest time in it, nanoseconds since 1970.
    pub(crate) last_time: i64,
}

impl SealedContainer {
    /// Number of the segment that holds a record.
    pub(crate) fn segment_of(&self, record: u64) -> Option<usize> {
        if record >= self.lines + self.marks {
            return None;
        }
        self.segments
            .partition_point(|segment| segment.line + segment.mark <= record)
            .checked_sub(1)
    }

    /// After its last record.
    pub(crate) fn end(&self) -> Place {
        Place {
            line: self.lines,
            mark: self.marks,
            offset: self.bytes,
        }
    }
}
