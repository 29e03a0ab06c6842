//! Steps, attempts and the shard that an attempt belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::RunId;

/// Position of a step in the expanded pipeline, dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepIndex(pub u32);

impl StepIndex {
    /// As an index into a slice.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for StepIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Identity of an attempt: everything about its pod is a function of it (I2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepIndex,
    /// Number, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.run, self.step, self.number)
    }
}

/// One of 256 parts into which the attempts of a cluster are divided between its executors; the label `windlass.dev/shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(pub u8);

impl Shard {
    /// Number of shards of a cluster.
    pub const COUNT: usize = 256;

    /// The shard of an attempt: FNV-1a (64 bit) over run id, step and number, folded to 8 bits.
    ///
    /// It must never change, since live pods carry it as a label.
    pub fn of(attempt: AttemptId) -> Self {
        let step = attempt.step.0.to_le_bytes();
        let number = attempt.number.to_le_bytes();
        let bytes = attempt.run.as_bytes().iter().chain(&step).chain(&number);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash.to_le_bytes().into_iter().fold(0, |folded, byte| folded ^ byte))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_stable_and_spread() {
        let attempt = |step| AttemptId {
            run: RunId::from_bytes([7; 16]),
            step: StepIndex(step),
            number: 1,
        };
        assert_eq!(Shard::of(attempt(0)), Shard::of(attempt(0)));
        let mut hits = [0_u32; Shard::COUNT];
        for step in 0..25_600 {
            hits[usize::from(Shard::of(attempt(step)).0)] += 1;
        }
        assert!(hits.iter().all(|hits| (50..200).contains(hits)), "{hits:?}");
    }

    #[test]
    fn a_shard_never_changes() {
        let attempt = AttemptId {
            run: RunId::from_bytes([7; 16]),
            step: StepIndex(3),
            number: 2,
        };
        assert_eq!(Shard::of(attempt), Shard(SHARD_OF_THE_FIXTURE));
    }

    const SHARD_OF_THE_FIXTURE: u8 = 200;
}
