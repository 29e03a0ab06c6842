//! The lease under which pods may be created.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long this executor may act without hearing from the scheduler. Every frame renews it.
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
    /// A session began: the lease has this length, and begins now.
    pub(crate) fn granted(&self, length: Duration, now: Instant) {
        let mut state = self.lock();
        state.length = length;
        state.heard = Some(now);
    }

    /// A frame of the scheduler arrived.
    pub(crate) fn renew(&self, now: Instant) {
        let mut state = self.lock();
        if state.heard.is_some() {
            state.heard = Some(now);
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
    }
}
