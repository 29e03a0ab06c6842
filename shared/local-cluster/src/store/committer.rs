//! The one thread that writes to disk.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use super::Shared;
use super::disk::{Disk, Write};

const LARGEST_GROUP: usize = 4_096;
const RETRY: Duration = Duration::from_millis(500);
/// How often an idle committer looks whether its store is still in use.
const IDLE_CHECK: Duration = Duration::from_millis(500);

pub(super) fn spawn(shared: Weak<Shared>, mut disk: Disk) {
    let run = move || {
        while let Some((writes, version)) = take_group(&shared) {
            commit(&shared, &mut disk, &writes, version);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("cluster-commit".into()).spawn(run) {
        tracing::error!(%error, "committer thread does not start");
    }
}

/// The next group, and the version that it reaches. `None` once the store is gone.
fn take_group(shared: &Weak<Shared>) -> Option<(Vec<Write>, u64)> {
    loop {
        let shared = shared.upgrade()?;
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pending.is_empty() {
            let (woken, _) = shared
                .work
                .wait_timeout(state, IDLE_CHECK)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
        }
        let count = state.pending.len();
        if count > 0 {
            // One write per version: what stays behind has the versions up to the newest.
            let taken = count.min(LARGEST_GROUP);
            let version = state.version - (count - taken) as u64;
            return Some((state.pending.drain(..taken).collect(), version));
        }
    }
}

/// Tries until it works; meanwhile the store refuses new writes, so that nothing piles up.
fn commit(shared: &Weak<Shared>, disk: &mut Disk, writes: &[Write], version: u64) {
    loop {
        let result = disk.commit(writes, version);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                state.broken = None;
                drop(state);
                shared.committed.send_replace(version);
                return;
            }
            Err(error) => {
                tracing::error!(%error, "objects cannot be stored");
                state.broken = Some(error.to_string());
            }
        }
        drop(state);
        drop(shared);
        std::thread::sleep(RETRY);
    }
}
