//! Whose turn it is to write: SQLite has one writer, and waiting for its lock means polling with sleeps.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets the committer and the fold write in turn; the committer goes first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    committer_waits: bool,
}

/// The turn to write, until dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
}

impl Gate {
    /// Waits for at most one transaction of the fold.
    pub(crate) fn enter_committer(&self) -> Turn<'_> {
        let mut state = self.lock();
        state.committer_waits = true;
        let mut state = self
            .changed
            .wait_while(state, |state| state.held)
            .unwrap_or_else(PoisonError::into_inner);
        state.committer_waits = false;
        state.held = true;
        Turn { gate: self }
    }

    /// Waits until nobody writes and the committer does not want to.
    pub(crate) fn enter_background(&self) -> Turn<'_> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.held || state.committer_waits)
            .unwrap_or_else(PoisonError::into_inner);
        state.held = true;
        Turn { gate: self }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.lock().held = false;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_committer_goes_before_the_fold() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter_background();
        let (order, came) = mpsc::channel();
        let committer = std::thread::spawn({
            let (gate, order) = (Arc::clone(&gate), order.clone());
            move || {
                let _turn = gate.enter_committer();
                order.send("committer").expect("received");
            }
        });
        let waits = || gate.changed.wait_timeout(gate.lock(), Duration::from_millis(1));
        let waits = || waits().is_ok_and(|(state, _)| state.committer_waits);
        assert!((0..10_000).any(|_| waits()), "the committer never waited");
        let fold = std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                let _turn = gate.enter_background();
                order.send("fold").expect("received");
            }
        });
        drop(first);
        committer.join().expect("ends");
        fold.join().expect("ends");
        assert_eq!(came.iter().collect::<Vec<_>>(), ["committer", "fold"]);
    }
}
