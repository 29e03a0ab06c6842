//! Who leases which shard: at most one executor for each, whatever the order in which leases are told.

use std::collections::BTreeMap;

use windlass_ids::{ClusterUid, Incarnation, Shard};
use windlass_scheduling::ShardSet;

/// The leases of all clusters; see the module.
#[derive(Debug, Default)]
pub(super) struct Leases {
    clusters: BTreeMap<ClusterUid, Vec<Option<Incarnation>>>,
}

impl Leases {
    /// An executor of a cluster leases exactly these shards from now on.
    pub(super) fn lease(&mut self, cluster: &ClusterUid, to: Incarnation, shards: ShardSet) {
        let owners = self.clusters.entry(cluster.clone());
        let owners = owners.or_insert_with(|| vec![None; Shard::COUNT]);
        for (shard, owner) in (0..=u8::MAX).map(Shard).zip(owners) {
            if shards.contains(shard) {
                *owner = Some(to);
            } else if *owner == Some(to) {
                *owner = None;
            }
        }
    }

    /// An executor leases nothing any more.
    pub(super) fn end(&mut self, of: Incarnation) {
        for owner in self.clusters.values_mut().flatten() {
            *owner = owner.filter(|owner| *owner != of);
        }
        self.clusters.retain(|_, owners| owners.iter().any(Option::is_some));
    }

    /// Who leases a shard.
    pub(super) fn holder(&self, cluster: &ClusterUid, shard: Shard) -> Option<Incarnation> {
        *self.clusters.get(cluster)?.get(usize::from(shard.0))?
    }

    /// How many shards of a cluster an executor leases.
    pub(super) fn count(&self, cluster: &ClusterUid, of: Incarnation) -> usize {
        let owners = self.clusters.get(cluster).into_iter().flatten();
        owners.filter(|owner| **owner == Some(of)).count()
    }

    /// The clusters all of whose shards are leased to executors that `wanted` accepts.
    pub(super) fn whole(&self, wanted: impl Fn(Incarnation) -> bool) -> impl Iterator<Item = &ClusterUid> {
        let all = move |owners: &[Option<Incarnation>]| owners.iter().all(|owner| owner.is_some_and(&wanted));
        let clusters = self.clusters.iter();
        clusters.filter_map(move |(cluster, owners)| all(owners).then_some(cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation::from_bytes([1; 16]);
    const B: Incarnation = Incarnation::from_bytes([2; 16]);

    fn shards(range: std::ops::RangeInclusive<u8>) -> ShardSet {
        range.map(Shard).collect()
    }

    #[test]
    fn a_shard_has_one_holder_in_whatever_order_leases_are_told() {
        let cluster = ClusterUid::from("uid");
        for order in [[A, B], [B, A]] {
            let mut leases = Leases::default();
            leases.lease(&cluster, A, ShardSet::ALL);
            for executor in order {
                let half = if executor == A {
                    shards(0..=127)
                } else {
                    shards(128..=255)
                };
                leases.lease(&cluster, executor, half);
            }
            assert_eq!(leases.holder(&cluster, Shard(127)), Some(A));
            assert_eq!(leases.holder(&cluster, Shard(128)), Some(B));
            assert_eq!((leases.count(&cluster, A), leases.count(&cluster, B)), (128, 128));
            assert_eq!(leases.whole(|owner| owner == A).count(), 0);
            assert_eq!(leases.whole(|_| true).count(), 1);
        }
    }

    #[test]
    fn i11_nothing_is_left_of_an_executor_that_has_ended() {
        let cluster = ClusterUid::from("uid");
        let mut leases = Leases::default();
        leases.lease(&cluster, A, shards(0..=127));
        leases.lease(&cluster, B, shards(128..=255));
        leases.end(A);
        assert_eq!(leases.holder(&cluster, Shard(0)), None);
        assert_eq!(leases.holder(&cluster, Shard(128)), Some(B));
        leases.end(B);
        assert!(leases.clusters.is_empty());
    }
}
