//! Exponential back-off with jitter.

use std::time::Duration;

use rand::Rng;

/// How fast a repeated action slows down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffSettings {
    /// First delay.
    pub initial: Duration,
    /// Factor of each further delay.
    pub factor: f64,
    /// Bound on the delay.
    pub max: Duration,
}

impl Default for BackoffSettings {
    /// 100 ms, doubled up to 10 s.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(10),
        }
    }
}

/// The delays of one repeated action.
#[derive(Clone, Debug)]
pub struct Backoff {
    settings: BackoffSettings,
    next: Duration,
}

impl Backoff {
    /// Before the first failure.
    pub fn new(settings: BackoffSettings) -> Self {
        Self {
            settings,
            next: settings.initial,
        }
    }

    /// The delay after one more failure: between half of the computed delay and all of it, so that many clients spread out.
    pub fn next_delay(&mut self, random: &mut impl Rng) -> Duration {
        let delay = self.next.min(self.settings.max);
        self.next = delay.mul_f64(self.settings.factor).min(self.settings.max);
        delay.mul_f64(random.random_range(0.5..=1.0))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.settings.initial;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_start_over() {
        let mut random = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new(BackoffSettings::default());
        let delays: Vec<_> = (0..12).map(|_| backoff.next_delay(&mut random)).collect();
        assert!(
            delays[0] <= Duration::from_millis(100) && delays[0] >= Duration::from_millis(50),
            "{delays:?}"
        );
        assert!(
            delays[11] >= Duration::from_secs(5) && delays[11] <= Duration::from_secs(10),
            "{delays:?}"
        );
        backoff.reset();
        assert!(backoff.next_delay(&mut random) <= Duration::from_millis(100));
    }
}
