//! When an attempt's logs are over they are sealed, and the scheduler is told.

use std::collections::VecDeque;
use std::sync::Arc;

use super::*;

/// Attempts that are sealed at once: each waits for the disk or the network several times.
pub(crate) const SEALERS: usize = 16;
/// Pauses after failures to seal the same attempt.
const SEAL_BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_secs(2),
    factor: 2.0,
    max: Duration::from_secs(60),
};

/// Attempts that are to be sealed, in the order of their coming. Each is with one sealer at a time.
#[derive(Debug, Default)]
pub(super) struct SealQueue {
    ready: VecDeque<AttemptKey>,
    queued: BTreeSet<AttemptKey>,
    /// With a sealer, or left alone after a failure; with the number of failures, and whether it was put up again meanwhile.
    busy: BTreeMap<AttemptKey, (u32, bool)>,
}

impl SealQueue {
    /// Puts an attempt up; false when a sealer has it, which looks again when it is done.
    fn put(&mut self, key: &AttemptKey) -> bool {
        if let Some((_, again)) = self.busy.get_mut(key) {
            *again = true;
            return false;
        }
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key.clone());
        }
        true
    }

    fn take(&mut self) -> Option<AttemptKey> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.busy.insert(key.clone(), (0, false));
        Some(key)
    }

    /// A sealer failed: how often by now. The attempt stays with it until [`Self::done`].
    fn failed(&mut self, key: &AttemptKey) -> u32 {
        let (failures, _) = self.busy.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        *failures
    }

    /// A sealer is done with an attempt; true when it was put up again meanwhile.
    fn done(&mut self, key: &AttemptKey) -> bool {
        self.busy.remove(key).is_some_and(|(_, again)| again)
    }
}

impl Hub {
    /// A container's log is over.
    pub(crate) fn container_ended(&self, container: &Container) {
        self.consider_sealing(&container.key.attempt);
    }

    /// Puts an attempt up for sealing when all its logs are over, or when it ended and nobody wanted them.
    pub(crate) fn consider_sealing(&self, key: &AttemptKey) {
        let ready = {
            let owned = self.owned();
            let Some(attempt) = owned.attempts.get(key) else { return };
            attempt.is_over()
        };
        if ready && self.sealable().put(key) {
            self.seal_notify.notify_one();
        }
    }

    fn sealable(&self) -> MutexGuard<'_, SealQueue> {
        self.sealable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals attempts until shutdown. What was not sealed then is sealed after the next start.
    pub(crate) async fn run_sealer(self: Arc<Self>) {
        loop {
            let next = self.sealable().take();
            let Some(key) = next else {
                tokio::select! {
                    () = self.seal_notify.notified() => continue,
                    () = self.shutdown.cancelled() => return,
                }
            };
            match self.seal(&key).await {
                Ok(()) => {
                    if self.sealable().done(&key) {
                        self.consider_sealing(&key);
                    }
                }
                Err(error) => {
                    metrics::seal_failed();
                    let failures = self.sealable().failed(&key);
                    let error = crate::error::chain(&error);
                    tracing::error!(attempt = %key, failures, error, "log cannot be sealed; it is tried again");
                    self.seal_later(key, failures);
                }
            }
        }
    }

    /// Tries an attempt again after a while, without holding up others.
    fn seal_later(self: &Arc<Self>, key: AttemptKey, failures: u32) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut failures = failures;
            loop {
                let delay = backoff_after(SEAL_BACKOFF, failures);
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = hub.shutdown.cancelled() => return,
                }
                match hub.seal(&key).await {
                    Ok(()) => break,
                    Err(error) => {
                        metrics::seal_failed();
                        failures = hub.sealable().failed(&key);
                        let error = crate::error::chain(&error);
                        tracing::error!(attempt = %key, failures, error, "log cannot be sealed; it is tried again");
                    }
                }
            }
            if hub.sealable().done(&key) {
                hub.consider_sealing(&key);
            }
        });
    }

    /// Asks for the archive again until its store answers. What it answers is said; the relay has live logs to care for.
    pub(crate) async fn wait_for_archive(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(backoff_after(SEAL_BACKOFF, failures)) => {}
                () = self.shutdown.cancelled() => return,
            }
            match self.archive.is_usable().await {
                Ok(true) => return tracing::info!(failures, "archive reached"),
                Ok(false) => {}
                Err(error) => {
                    let error = crate::error::chain(&error);
                    tracing::error!(
                        error,
                        "archive cannot be used; logs stay in the data folder until it can"
                    );
                }
            }
        }
    }

    async fn seal(&self, key: &AttemptKey) -> Result<(), ArchiveError> {
        // When the archive comes back, not all that waited for it is sent at once.
        let _place = self.sealing.acquire().await.map_err(|_| ArchiveError::CutOff)?;
        let Some((order, containers)) = self.seal_order(key) else {
            return Ok(());
        };
        let manifest = self.archive.seal(&order).await?;
        let grant = self.owned().attempts.get(key).map(|attempt| attempt.grant);
        for container in &containers {
            let index = manifest
                .containers
                .iter()
                .position(|sealed| sealed.name == container.key.container);
            if let Some(index) = index {
                container.set_sealed(Arc::clone(&manifest), index);
            }
        }
        self.owned().attempts.remove(key);
        for container in containers {
            self.writer.send(Job::Remove { container }).await;
        }
        metrics::sealed();
        tracing::debug!(attempt = %key, lines = manifest.lines, complete = manifest.complete, "log sealed");
        self.say_sealed(grant.unwrap_or(order.grant), &manifest);
        Ok(())
    }

    fn seal_order(&self, key: &AttemptKey) -> Option<(SealOrder, Vec<Arc<Container>>)> {
        let owned = self.owned();
        let attempt = owned.attempts.get(key).filter(|attempt| attempt.is_over())?;
        let containers: Vec<Arc<Container>> = attempt.containers.values().cloned().collect();
        let order = SealOrder {
            relay: self.relay,
            key: key.clone(),
            grant: attempt.grant,
            source: Arc::clone(&attempt.source),
            containers: containers
                .iter()
                .map(|container| Sealable {
                    name: container.key.container.clone(),
                    path: container.path.clone(),
                    extent: container.extent(),
                })
                .collect(),
        };
        Some((order, containers))
    }
}

impl Attempt {
    /// Whether all is there that ever will be. As long as the attempt has not ended not all of its containers may be known.
    fn is_over(&self) -> bool {
        self.source.ended && self.open_containers().next().is_none()
    }

    /// Containers whose logs are wanted and not over.
    pub(super) fn open_containers(&self) -> impl Iterator<Item = Arc<Container>> + '_ {
        let unwanted = |container: &Container| self.source.on_demand && !container.is_watched();
        let open = move |container: &&Arc<Container>| container.finished().is_none() && !unwanted(container);
        self.containers.values().filter(open).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(step: u32) -> AttemptKey {
        AttemptKey {
            run: RunId::from_bytes([1; 16]),
            step,
            attempt: 1,
            pod_uid: "uid".to_owned(),
        }
    }

    #[test]
    fn an_attempt_is_with_one_sealer_at_a_time() {
        let mut queue = SealQueue::default();
        assert!(queue.put(&key(1)) && queue.put(&key(1)) && queue.put(&key(0)));
        assert_eq!(queue.take(), Some(key(1)), "in the order of their coming");
        assert!(!queue.put(&key(1)), "its sealer looks again");
        assert_eq!((queue.take(), queue.take()), (Some(key(0)), None));
        assert_eq!((queue.failed(&key(0)), queue.failed(&key(0))), (1, 2));
        assert!(queue.done(&key(1)) && !queue.done(&key(0)));
        assert!(queue.put(&key(0)));
        assert_eq!(queue.take(), Some(key(0)));
        assert_eq!(queue.failed(&key(0)), 1, "counted anew");
    }
}
