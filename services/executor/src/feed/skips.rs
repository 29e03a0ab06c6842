//! What a kubelet may leave out of a followed log without a word.
//!
//! Its follow goes on with the newest file when it has read one to its end. Two rotations in the time of one file, or one before it has
//! come to an end for the first time, and the file between is left out. Such a file takes as long as the kubelet's interval of rotation,
//! three seconds at least, so that the times of the lines beside it show a leap; mostly a leap is silence.

use std::time::Duration;

use windlass_api::feed::v1::FeedLine;
use windlass_ids::Timestamp;

use super::seam::Position;
use super::window::cost;

/// A smaller leap is none.
pub(super) const LEAP: i64 = 1_000_000_000;
/// The clock of a node may be ahead or behind by so much.
const SKEW: i64 = 10_000_000_000;
/// A kubelet that waits for the log is silent for so long.
const QUIET: Duration = Duration::from_millis(200);
/// Files that rotate are not smaller.
const FILE: usize = 16 * 1024;

/// What is known of one follow.
#[derive(Debug)]
pub(super) struct Skips {
    /// When it began.
    begin: i64,
    /// Bytes since something was last found out about the file, those of before among them.
    bytes: usize,
    /// What was waited for the kubelet since the last line, and whether it had waited for the log before that.
    waited: Duration,
    waits: bool,
    waited_before: bool,
}

impl Skips {
    /// Of a follow that begins now, from the begin of the log or not.
    pub(super) fn new(now: Timestamp, resumed: bool) -> Self {
        Self {
            begin: now.as_millis().saturating_mul(1_000_000),
            bytes: if resumed { FILE } else { 0 },
            waited: Duration::ZERO,
            waits: false,
            waited_before: false,
        }
    }

    /// Something came after this time of waiting for it.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
        self.waits |= time >= QUIET;
    }

    /// Whether lines may be missing before this one, which comes after `last`.
    pub(super) fn suspect(&mut self, last: Option<&Position>, line: &FeedLine) -> bool {
        let waited = std::mem::take(&mut self.waited);
        let live = std::mem::replace(&mut self.waited_before, self.waits);
        self.bytes += cost(line);
        let leap = last.map_or(0, |last| line.time_nanos.saturating_sub(last.time()));
        // Who waits for the log hears of each new file in time.
        let silence = live && waited.as_nanos() * 2 >= u128::try_from(leap).unwrap_or(0);
        let suspicious =
            leap >= LEAP && line.time_nanos >= self.begin.saturating_sub(SKEW) && self.bytes >= FILE && !silence;
        if suspicious {
            self.bytes = 0;
        }
        suspicious
    }
}

#[cfg(test)]
mod tests {
    use super::super::seam::advance;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn begun() -> Skips {
        Skips::new(NOW, false)
    }

    fn line(time: i64) -> FeedLine {
        FeedLine {
            time_nanos: time,
            content: vec![b'x'; FILE].into(),
            ..FeedLine::default()
        }
    }

    /// Whether the last of these lines (milliseconds from the begin, after milliseconds of waiting) is suspected.
    fn suspected(lines: &[(i64, u64)]) -> bool {
        let (mut skips, mut last, mut suspected) = (begun(), None, false);
        for (time, waited) in lines {
            let line = line(NOW.as_millis() * 1_000_000 + time * 1_000_000);
            skips.waited(Duration::from_millis(*waited));
            suspected = skips.suspect(last.as_ref(), &line);
            last = Some(advance(last, &line));
        }
        suspected
    }

    #[test]
    fn e10_a_leap_is_suspicious_unless_it_was_waited_for() {
        assert!(suspected(&[(0, 0), (100, 300), (3_200, 10)]), "a slow reader's");
        assert!(!suspected(&[(0, 0), (100, 300), (3_200, 3_100)]), "silence");
        assert!(
            suspected(&[(0, 0), (100, 0), (3_200, 3_100)]),
            "before it waits for the log"
        );
        assert!(!suspected(&[(0, 0), (100, 0), (900, 0)]), "no leap");
        assert!(!suspected(&[(-60_000, 0), (-30_000, 0)]), "of the time before");
    }

    #[test]
    fn e8_small_logs_are_never_suspicious() {
        let now = NOW.as_millis() * 1_000_000;
        let mut skips = begun();
        let small = |time| FeedLine {
            time_nanos: time,
            ..FeedLine::default()
        };
        let last = advance(None, &small(now));
        assert!(!skips.suspect(Some(&last), &small(now + 10 * LEAP)));
    }
}
