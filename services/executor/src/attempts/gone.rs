//! Pods that are over for this executor: what a slow list, watch or reply says of them later is old news, not a new pod.

use std::collections::{HashMap, VecDeque};

/// Pods that are remembered. Whatever is on its way when a pod is forgotten arrives long before so many others are.
const MOST: usize = 65_536;

/// The hashes of the uids of the pods that were forgotten last, with the resource versions that were known of them.
#[derive(Debug, Default)]
pub(super) struct Gone {
    order: VecDeque<u64>,
    known: HashMap<u64, u64>,
}

impl Gone {
    /// A pod is over.
    pub(super) fn insert(&mut self, uid_hash: u64, version: u64) {
        if self.known.insert(uid_hash, version).is_some() {
            return;
        }
        self.order.push_back(uid_hash);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// A pod is not over after all.
    pub(super) fn remove(&mut self, uid_hash: u64) {
        if self.known.remove(&uid_hash).is_some() {
            self.order.retain(|known| *known != uid_hash);
        }
    }

    /// Whether a pod is over.
    pub(super) fn contains(&self, uid_hash: u64) -> bool {
        self.known.contains_key(&uid_hash)
    }

    /// Whether a pod is over, and a resource version of it is news.
    pub(super) fn is_news(&self, uid_hash: u64, version: u64) -> bool {
        self.known.get(&uid_hash).is_some_and(|known| version > *known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_only_the_last_ones_are_remembered() {
        let mut gone = Gone::default();
        for uid in 0..=MOST as u64 {
            gone.insert(uid, 7);
            gone.insert(uid, 7);
        }
        assert!(!gone.contains(0) && gone.contains(1) && gone.contains(MOST as u64));
        assert_eq!((gone.order.len(), gone.known.len()), (MOST, MOST));
        assert!(gone.is_news(1, 8) && !gone.is_news(1, 7) && !gone.is_news(0, 8));
        gone.remove(1);
        gone.remove(1);
        assert!(!gone.contains(1));
        assert_eq!((gone.order.len(), gone.known.len()), (MOST - 1, MOST - 1));
    }
}
