//! What is remembered of the newest pods, after their records are gone.

use std::collections::{HashMap, VecDeque};

/// Pods that are remembered. Whatever is on its way when a pod is forgotten arrives long before so many others are.
const MOST: usize = 65_536;

/// Something about each of the newest pods, by the hashes of their uids.
#[derive(Debug)]
pub(super) struct Recent<V> {
    order: VecDeque<u64>,
    known: HashMap<u64, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            known: HashMap::new(),
        }
    }
}

impl<V> Recent<V> {
    /// Remembers it, or puts it in place of what was known.
    pub(super) fn insert(&mut self, uid_hash: u64, value: V) {
        if self.known.insert(uid_hash, value).is_some() {
            return;
        }
        self.order.push_back(uid_hash);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Forgets it; rare, and as slow as many are known.
    pub(super) fn remove(&mut self, uid_hash: u64) {
        if self.known.remove(&uid_hash).is_some() {
            self.order.retain(|known| *known != uid_hash);
        }
    }

    /// What is known.
    pub(super) fn get(&self, uid_hash: u64) -> Option<&V> {
        self.known.get(&uid_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_only_the_last_ones_are_remembered() {
        let mut recent = Recent::default();
        for uid in 0..=MOST as u64 {
            recent.insert(uid, 7);
            recent.insert(uid, 8);
        }
        assert_eq!((recent.get(0), recent.get(1)), (None, Some(&8)));
        assert_eq!(recent.get(MOST as u64), Some(&8));
        assert_eq!((recent.order.len(), recent.known.len()), (MOST, MOST));
        recent.remove(1);
        recent.remove(1);
        assert_eq!(recent.get(1), None);
        assert_eq!((recent.order.len(), recent.known.len()), (MOST - 1, MOST - 1));
    }
}
