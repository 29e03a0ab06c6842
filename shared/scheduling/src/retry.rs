//! How long a retry waits.

use std::time::Duration;

use windlass_ids::AttemptId;

use crate::policy::RetryBudget;

/// Jitter on each side, in parts of a thousand: a delay is between 85 % and 115 % of its nominal value.
const JITTER_PER_MILLE: u64 = 150;

/// `delay · backoff^(charged − 1)`, at most `max_delay`, with a jitter of ±15 % that follows from the run's seed and the attempt: the same failure
/// waits equally long after a replay, and steps that fail together do not come back together. The cap holds for the nominal delay.
pub(crate) fn delay(budget: &RetryBudget, charged: u32, seed: u64, attempt: AttemptId) -> Duration {
    let exponent = i32::try_from(charged.saturating_sub(1)).unwrap_or(i32::MAX);
    let cap = budget.max_delay.max(budget.delay).as_secs_f64();
    let nominal = (budget.delay.as_secs_f64() * budget.backoff.powi(exponent)).min(cap);
    let nominal = if nominal.is_finite() { nominal } else { cap };
    let per_mille = 1000 - JITTER_PER_MILLE + hash(seed, attempt) % (2 * JITTER_PER_MILLE + 1);
    Duration::try_from_secs_f64(nominal * per_mille as f64 / 1000.0).unwrap_or(budget.max_delay)
}

/// FNV-1a over the seed and the attempt, finished as in SplitMix64 so that all bits count.
fn hash(seed: u64, attempt: AttemptId) -> u64 {
    let bytes = seed
        .to_le_bytes()
        .into_iter()
        .chain(*attempt.run.as_bytes())
        .chain(attempt.step.0.to_le_bytes())
        .chain(attempt.number.to_le_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use windlass_ids::{RunId, StepIndex};

    use super::*;

    fn attempt(step: u32) -> AttemptId {
        AttemptId {
            run: RunId::from_bytes([1; 16]),
            step: StepIndex(step),
            number: 1,
        }
    }

    /// behaviours S11
    #[test]
    fn delays_grow_to_the_cap() {
        let budget = RetryBudget::infrastructure();
        let around = |charged, seconds: f64| {
            let delay = delay(&budget, charged, 7, attempt(3)).as_secs_f64();
            assert!((seconds * 0.85..=seconds * 1.15).contains(&delay), "{charged}: {delay}");
        };
        around(1, 10.0);
        around(2, 20.0);
        around(5, 160.0);
        around(6, 300.0);
        around(u32::MAX, 300.0);
    }

    #[test]
    fn delays_are_repeatable_and_spread() {
        let budget = RetryBudget::infrastructure();
        let of = |step| delay(&budget, 1, 7, attempt(step));
        assert_eq!(of(1), of(1));
        let distinct: std::collections::BTreeSet<_> = (0..100).map(of).collect();
        assert!(distinct.len() > 50, "{}", distinct.len());
    }
}
