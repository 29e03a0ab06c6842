//! Creates that got no answer: the API server may carry them out for a while, and until then nobody may conclude that there is no pod (I2).

use std::collections::HashMap;

use tokio::time::Instant;
use windlass_ids::AttemptId;

use super::Purpose;

/// Creates that may still be carried out. An entry lives as long as the API server may work on a request, so there are few.
#[derive(Debug, Default)]
pub(super) struct LateCreates(HashMap<AttemptId, Late>);

#[derive(Debug)]
struct Late {
    until: Instant,
    /// What was asked about the pod meanwhile, and under which grant.
    asked: Option<(u64, Purpose)>,
}

impl LateCreates {
    /// A create got no answer that says what became of it.
    pub(super) fn unanswered(&mut self, attempt: AttemptId, until: Instant) {
        let late = self.0.entry(attempt).or_insert(Late { until, asked: None });
        late.until = late.until.max(until);
    }

    /// Whether it is too early to answer that there is no pod; what was asked is remembered, and a stop outranks a probe.
    pub(super) fn defers(&mut self, attempt: AttemptId, grant: u64, purpose: Purpose, now: Instant) -> bool {
        let Some(late) = self.0.get_mut(&attempt).filter(|late| now < late.until) else {
            return false;
        };
        late.asked = match (late.asked, purpose) {
            (Some((known, stop @ Purpose::Stop(_))), Purpose::Probe) => Some((known.max(grant), stop)),
            _ => Some((grant, purpose)),
        };
        true
    }

    /// What is to be looked for again, because now the answer is final.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(AttemptId, u64, Purpose)> {
        let due = self.0.extract_if(|_, late| late.until <= now);
        due.filter_map(|(attempt, late)| late.asked.map(|(grant, purpose)| (attempt, grant, purpose)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windlass_ids::{RunId, StepIndex};

    use super::*;

    fn attempt(step: u32) -> AttemptId {
        AttemptId {
            run: RunId::from_bytes([1; 16]),
            step: StepIndex(step),
            number: 1,
        }
    }

    #[test]
    fn i2_absence_waits_for_a_create_without_an_answer() {
        let mut late = LateCreates::default();
        let start = Instant::now();
        let end = start + Duration::from_secs(60);
        assert!(!late.defers(attempt(0), 1, Purpose::Probe, start), "nothing was posted");
        late.unanswered(attempt(0), end);
        late.unanswered(attempt(1), end);
        assert!(late.defers(attempt(0), 1, Purpose::Stop(Some(5)), start));
        assert!(late.defers(attempt(0), 2, Purpose::Probe, start));
        assert_eq!(late.due(start), []);
        assert!(!late.defers(attempt(0), 2, Purpose::Probe, end));
        assert_eq!(late.due(end), [(attempt(0), 2, Purpose::Stop(Some(5)))]);
        assert_eq!(late.due(end), []);
    }
}
