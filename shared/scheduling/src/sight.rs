//! Whether the executor that answers for a shard sees its cluster: clocks of deadlines stand still while it does not (I3).

use windlass_ids::Timestamp;

/// Sight of one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    visible: bool,
    blind_since: Timestamp,
    blind_before: i64,
}

impl Sight {
    /// Nobody sees it yet.
    pub(crate) fn none(now: Timestamp) -> Self {
        Self {
            visible: false,
            blind_since: now,
            blind_before: 0,
        }
    }

    pub(crate) fn is_visible(&self) -> bool {
        self.visible
    }

    /// For how long (ms) nobody has seen it, in all.
    pub(crate) fn blind(&self, now: Timestamp) -> i64 {
        if self.visible {
            self.blind_before
        } else {
            self.blind_before + (now.as_millis() - self.blind_since.as_millis()).max(0)
        }
    }

    /// Returns whether sight was regained.
    pub(crate) fn set_visible(&mut self, visible: bool, now: Timestamp) -> bool {
        if visible == self.visible {
            return false;
        }
        self.blind_before = self.blind(now);
        self.blind_since = now;
        self.visible = visible;
        visible
    }
}
