//! Pods that were let go: what is repeated about them costs no request.

use std::collections::{HashSet, VecDeque};

use windlass_ids::{AttemptId, PodUid};

/// Most pods that are remembered, the newest ones. A scheduler repeats a release when an inventory that was made before it has shown
/// the pod, so the pods of some seconds are enough.
const MOST: usize = 16_384;

/// The newest pods that this process let go.
#[derive(Debug, Default)]
pub(crate) struct LetGo {
    known: HashSet<(AttemptId, PodUid)>,
    order: VecDeque<(AttemptId, PodUid)>,
}

impl LetGo {
    /// The patch of a release was answered.
    pub(crate) fn note(&mut self, attempt: AttemptId, uid: PodUid) {
        if !self.known.insert((attempt, uid)) {
            return;
        }
        self.order.push_back((attempt, uid));
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether that is known.
    pub(crate) fn knows(&self, attempt: AttemptId, uid: PodUid) -> bool {
        self.known.contains(&(attempt, uid))
    }
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

    #[test]
    fn i11_the_newest_are_known_and_the_oldest_forgotten() {
        let uid = PodUid::from_bytes([2; 16]);
        let mut let_go = LetGo::default();
        for step in 0..=u32::try_from(MOST).expect("small") {
            let_go.note(attempt(step), uid);
            let_go.note(attempt(step), uid);
        }
        assert!(!let_go.knows(attempt(0), uid));
        assert!(let_go.knows(attempt(1), uid));
        assert!(!let_go.knows(attempt(1), PodUid::from_bytes([3; 16])), "another pod");
        assert_eq!((let_go.known.len(), let_go.order.len()), (MOST, MOST));
    }
}
