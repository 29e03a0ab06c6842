//! Pods that no active attempt explains: they belong to runs that have ended, or to none.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_api::dispatch::v1 as dispatch;
use windlass_ids::{AttemptId, Incarnation, PodUid};

use super::Relays;
use crate::executors::key;
use crate::lookup;
use crate::shared::Shared;

/// Most pods that wait to be looked up; more are reported again by the next inventory.
const MAX_WAITING: usize = 100_000;

/// A pod that was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unexplained {
    by: Incarnation,
    pod: PodUid,
    ended: bool,
}

impl Relays {
    /// A pod was seen that the core does not know; it is looked up soon.
    pub(crate) fn unexplained(&self, by: Incarnation, attempt: AttemptId, pod: PodUid, ended: bool) {
        let mut state = self.lock();
        if !state.sources.contains_key(&attempt) && state.unexplained.len() < MAX_WAITING {
            state.unexplained.insert(attempt, Unexplained { by, pod, ended });
        }
    }

    /// Looks the pods up, away from the driver.
    pub(crate) fn explain_pods(&self, shared: &Arc<Shared>) {
        let mut state = self.lock();
        if state.unexplained.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut state.unexplained);
        state.looking_up += 1;
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            shared.relays.look_up(waiting, &shared).await;
            shared.relays.lock().looking_up -= 1;
        });
    }

    async fn look_up(&self, waiting: BTreeMap<AttemptId, Unexplained>, shared: &Arc<Shared>) {
        for (attempt, seen) in waiting {
            let Some(session) = shared.executors.get(seen.by) else {
                continue;
            };
            if !seen.ended {
                shared.executors.stop_unexplained(seen.by, attempt, seen.pod);
                continue;
            }
            let Ok(store) = shared.store() else {
                return;
            };
            match store.run(attempt.run).await {
                Ok(Some(header)) => match lookup::entry_of(shared, &header).await {
                    Ok(entry) => {
                        self.let_go(entry, attempt, seen.pod, &session.cluster, None, shared);
                        if header.progress.state.is_terminal() {
                            self.run_ended(attempt.run, shared);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(attempt_id = %attempt, %error, "ended pod waits: its run cannot be read")
                    }
                },
                // Nobody knows the run any more, so nobody will read its log. The executor knows the pod's name by its uid.
                Ok(None) => {
                    let release = dispatch::Release {
                        attempt: Some(key(attempt)),
                        pod_uid: seen.pod.to_string(),
                        ..dispatch::Release::default()
                    };
                    session.tell(|outbox| outbox.release(attempt, release));
                }
                Err(error) => {
                    tracing::error!(%error, "store could not be read");
                    return;
                }
            }
        }
    }
}
