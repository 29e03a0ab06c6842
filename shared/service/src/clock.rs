//! The clock of a service: wall clock at its start, monotonic from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use windlass_ids::Timestamp;

/// Tells the time as the wall clock at the start plus the monotonic time since: a jump of the wall clock fires nothing.
///
/// It follows tokio's time, so that paused and simulated time work in tests.
#[derive(Clone, Debug)]
pub struct Clock {
    epoch: Arc<AtomicI64>,
    origin: Instant,
}

impl Clock {
    /// A clock that begins at the wall clock's present time.
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn system() -> Self {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self::starting_at(Timestamp::from_millis(
            i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
        ))
    }

    /// A clock that begins at `start`.
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            epoch: Arc::new(AtomicI64::new(start.as_millis())),
            origin: Instant::now(),
        }
    }

    /// Never tells a time before `floor` from now on: a recovered service continues after its last committed time.
    pub fn advance_to(&self, floor: Timestamp) {
        let elapsed = self.elapsed_millis();
        self.epoch
            .fetch_max(floor.as_millis().saturating_sub(elapsed), Ordering::Relaxed);
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.epoch.load(Ordering::Relaxed).saturating_add(self.elapsed_millis()))
    }

    /// Sleeps until `deadline`; for ever without one.
    pub async fn sleep_until(&self, deadline: Option<Timestamp>) {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline.since(self.now())).await,
            None => std::future::pending().await,
        }
    }

    fn elapsed_millis(&self) -> i64 {
        let elapsed: Duration = self.origin.elapsed();
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_monotonic_time_and_never_goes_below_its_floor() {
        let clock = Clock::starting_at(Timestamp::from_millis(1_000));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_500));
        clock.advance_to(Timestamp::from_millis(9_000));
        assert_eq!(clock.now(), Timestamp::from_millis(9_000));
        clock.advance_to(Timestamp::from_millis(2_000));
        assert_eq!(clock.now(), Timestamp::from_millis(9_000));
        clock.sleep_until(Some(Timestamp::from_millis(9_250))).await;
        assert!(clock.now() >= Timestamp::from_millis(9_250));
    }
}
