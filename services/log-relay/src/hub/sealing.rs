//! When an attempt's logs are over they are sealed, and the scheduler is told.

use std::sync::Arc;

use super::*;

/// Pause after a failure to seal.
const SEAL_PAUSE: Duration = Duration::from_secs(2);

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
        if ready {
            let mut sealable = self.sealable.lock().unwrap_or_else(PoisonError::into_inner);
            sealable.insert(key.clone());
            self.seal_notify.notify_one();
        }
    }

    /// Seals attempts until shutdown. What was not sealed then is sealed after the next start.
    pub(crate) async fn run_sealer(self: Arc<Self>) {
        loop {
            let next = self.sealable.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            let Some(key) = next else {
                tokio::select! {
                    () = self.seal_notify.notified() => continue,
                    () = self.shutdown.cancelled() => return,
                }
            };
            if let Err(error) = self.seal(&key).await {
                metrics::seal_failed();
                let error = crate::error::chain(&error);
                tracing::error!(attempt = %key, error, "log cannot be sealed; it is tried again");
                tokio::select! {
                    () = tokio::time::sleep(SEAL_PAUSE) => self.consider_sealing(&key),
                    () = self.shutdown.cancelled() => return,
                }
            }
        }
    }

    async fn seal(&self, key: &AttemptKey) -> Result<(), ArchiveError> {
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
    fn is_over(&self) -> bool {
        let unwanted = |container: &Container| self.source.on_demand && self.source.ended && !container.is_watched();
        self.containers
            .values()
            .all(|container| container.finished().is_some() || unwanted(container))
    }
}
