//! Logs go when their run was deleted.

use super::*;

/// Pauses after failures to delete the logs of a run.
const FORGET_BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_secs(1),
    factor: 2.0,
    max: Duration::from_secs(60),
};

impl Hub {
    /// The runs of which there are logs, sealed or not.
    pub(crate) async fn kept(&self) -> Result<BTreeSet<RunId>, ArchiveError> {
        let mut runs: BTreeSet<RunId> = self.archive.runs().await?.into_iter().collect();
        let mut folders = tokio::fs::read_dir(&self.live).await?;
        while let Some(folder) = folders.next_entry().await? {
            runs.extend(folder.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()));
        }
        Ok(runs)
    }

    /// Deletes everything of a run, and tries again until that is done. A relay that ends before says when it starts that it has logs
    /// of the run, and is told again.
    pub(crate) fn forget(self: &Arc<Self>, run: RunId) {
        if !self.owned().forgotten.insert(run) {
            return;
        }
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut failures = 0;
            while let Err(error) = hub.delete(run).await {
                failures += 1;
                let error = crate::error::chain(&error);
                tracing::error!(%run, failures, error, "logs cannot be deleted; it is tried again");
                tokio::select! {
                    () = tokio::time::sleep(backoff_after(FORGET_BACKOFF, failures)) => {}
                    () = hub.shutdown.cancelled() => return,
                }
            }
            hub.owned().forgotten.remove(&run);
        });
    }

    async fn delete(&self, run: RunId) -> Result<(), ArchiveError> {
        let gone: Vec<Attempt> = {
            let mut owned = self.owned();
            owned.pending.retain(|key, _| key.run != run);
            let keys: Vec<AttemptKey> = owned.attempts.keys().filter(|key| key.run == run).cloned().collect();
            keys.iter().filter_map(|key| owned.attempts.remove(key)).collect()
        };
        for container in gone.into_iter().flat_map(|attempt| attempt.containers.into_values()) {
            self.writer.send(Job::Remove { container }).await;
        }
        self.archive.forget(run).await?;
        match tokio::fs::remove_dir_all(self.live.join(run.to_string())).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
