//! The shards that this executor leases.

use windlass_ids::{AttemptId, Shard};

/// A set of shards, a bit for each, lowest bit first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shards([u8; Shard::COUNT / 8]);

impl Shards {
    /// From a message; missing bytes are zero.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut set = [0; Shard::COUNT / 8];
        for (into, from) in set.iter_mut().zip(bytes) {
            *into = *from;
        }
        Self(set)
    }

    /// As a message has it.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Whether it is empty.
    pub(crate) fn is_empty(self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the attempt's shard is in it.
    pub(crate) fn holds(self, attempt: AttemptId) -> bool {
        self.contains(Shard::of(attempt))
    }

    fn contains(self, shard: Shard) -> bool {
        self.0[usize::from(shard.0) / 8] >> (shard.0 % 8) & 1 == 1
    }

    /// What a label selector says about the shard label.
    pub(crate) fn selector(self, label: &str) -> String {
        if self.0.iter().all(|byte| *byte == u8::MAX) {
            return label.to_owned();
        }
        let held = (0..=u8::MAX).filter(|shard| self.contains(Shard(*shard)));
        let held: Vec<String> = held.map(|shard| shard.to_string()).collect();
        format!("{label} in ({})", held.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_names_the_shards_unless_all_are_held() {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (0b101, 0b1000_0000);
        assert_eq!(Shards::from_bytes(&bytes).selector("s"), "s in (0,2,255)");
        assert_eq!(Shards::from_bytes(&[u8::MAX; 32]).selector("s"), "s");
        assert!(Shards::from_bytes(&[]).is_empty());
    }
}
