//! The lease under which pods may be created.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long this executor may act without being heard by the scheduler.
///
/// It counts from when the newest frame that the scheduler has taken in was sent, as the scheduler's frames say. So it ends no later than
/// the scheduler's own count, however long frames lay in buffers and however long either process stood still.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    length: Duration,
    heard: Option<Instant>,
}

impl Lease {
    /// A session began: the lease has this length, and counts from when the Hello was sent.
    pub(crate) fn granted(&self, length: Duration, hello_sent: Instant) {
        let mut state = self.lock();
        state.length = length;
        state.heard = Some(hello_sent);
    }

    /// The scheduler has heard a frame that was sent then.
    pub(crate) fn renew(&self, sent: Instant) {
        let mut state = self.lock();
        if let Some(heard) = &mut state.heard {
            *heard = sent.max(*heard);
        }
    }

    /// Whether it still holds when something that begins now and takes at most `duration` is over.
    pub(crate) fn holds_for(&self, duration: Duration, now: Instant) -> bool {
        let state = self.lock();
        state.heard.is_some_and(|heard| now + duration <= heard + state.length)
    }

    /// How long something begun under it may take: `most`, and at most a third of its length, so that it can be begun at all.
    pub(crate) fn bound(&self, most: Duration) -> Duration {
        let length = self.lock().length;
        if length.is_zero() { most } else { most.min(length / 3) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_a_lease_must_outlast_what_is_begun_under_it() {
        let lease = Lease::default();
        let start = Instant::now();
        let seconds = Duration::from_secs;
        assert!(!lease.holds_for(seconds(1), start), "without a session there is none");
        lease.granted(seconds(30), start);
        assert!(lease.holds_for(seconds(10), start + seconds(20)));
        assert!(!lease.holds_for(seconds(10), start + seconds(21)));
        assert_eq!(
            (lease.bound(seconds(8)), lease.bound(seconds(20))),
            (seconds(8), seconds(10))
        );
        lease.renew(start + seconds(15));
        assert!(lease.holds_for(seconds(10), start + seconds(35)));
        lease.renew(start);
        assert!(
            lease.holds_for(seconds(10), start + seconds(35)),
            "an old frame takes nothing back"
        );
    }
}
