//! Who may use the cluster when.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::real_cluster::RealCluster;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static CLUSTER: RwLock<()> = RwLock::const_new(());
/// Parts of it may be dead; at the begin nobody knows.
static BROKEN: AtomicBool = AtomicBool::new(true);

/// Nodes of the cluster.
const NODES: u32 = 2;

/// The right to use the cluster.
#[derive(Debug)]
pub enum Turn {
    /// Beside others, who disturb it as little.
    Shared {
        /// Until it ends.
        _guard: RwLockReadGuard<'static, ()>,
    },
    /// Alone: parts of it may be killed. Whoever comes next repairs it.
    Alone {
        /// Until it ends.
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Turn {
    /// Beside others.
    pub async fn shared() -> Self {
        if BROKEN.load(Ordering::SeqCst) {
            let alone = CLUSTER.write().await;
            repair();
            return Self::Shared {
                _guard: RwLockWriteGuard::downgrade(alone),
            };
        }
        Self::Shared {
            _guard: CLUSTER.read().await,
        }
    }

    /// Alone.
    pub async fn alone() -> Self {
        let guard = CLUSTER.write().await;
        repair();
        BROKEN.store(true, Ordering::SeqCst);
        Self::Alone { _guard: guard }
    }
}

/// Starts what is dead.
pub fn repair() {
    if BROKEN.load(Ordering::SeqCst) {
        RealCluster::of_environment().up(NODES);
        BROKEN.store(false, Ordering::SeqCst);
    }
}
