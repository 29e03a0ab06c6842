//! A cache bounded by weight, shared by all readers of the archive.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Keeps the values used last, up to a total weight.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    limit: usize,
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    entries: HashMap<K, Entry<V>>,
    by_use: BTreeMap<u64, K>,
    weight: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// Holds values up to the weight `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                by_use: BTreeMap::new(),
                weight: 0,
                uses: 0,
            }),
        }
    }

    /// The value, when it is held.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let entry = inner.entries.get_mut(key)?;
        inner.by_use.remove(&entry.used);
        inner.uses += 1;
        entry.used = inner.uses;
        inner.by_use.insert(inner.uses, key.clone());
        Some(entry.value.clone())
    }

    /// Holds a value, and lets those go that were not used for longest.
    pub(crate) fn put(&self, key: K, value: V, weight: usize) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.remove(&key);
        inner.uses += 1;
        let used = inner.uses;
        inner.weight += weight;
        inner.by_use.insert(used, key.clone());
        inner.entries.insert(key, Entry { value, weight, used });
        while inner.weight > self.limit {
            let Some((_, oldest)) = inner.by_use.first_key_value() else {
                break;
            };
            let oldest = oldest.clone();
            inner.remove(&oldest);
        }
    }

    /// Lets go what `gone` says.
    pub(crate) fn forget(&self, gone: impl Fn(&K) -> bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<K> = inner.entries.keys().filter(|key| gone(key)).cloned().collect();
        keys.iter().for_each(|key| inner.remove(key));
    }
}

impl<K: Eq + Hash, V> Inner<K, V> {
    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.weight -= entry.weight;
            self.by_use.remove(&entry.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_the_cache_keeps_what_was_used_last_within_its_limit() {
        let cache = Cache::new(10);
        cache.put("a", 1, 5);
        cache.put("b", 2, 5);
        assert_eq!(cache.get(&"a"), Some(1));
        cache.put("c", 3, 5);
        assert_eq!(
            (cache.get(&"a"), cache.get(&"b"), cache.get(&"c")),
            (Some(1), None, Some(3))
        );
        cache.put("d", 4, 11);
        assert_eq!(cache.get(&"d"), None, "what is over the limit is not held");
        cache.put("a", 7, 1);
        cache.forget(|key| *key == "a");
        assert_eq!(cache.get(&"a"), None);
    }
}
