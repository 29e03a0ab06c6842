//! Taking assignments over. What may be sealed already is looked up in the archive first, which holds up nothing else.

use windlass_api::follow::v1::Assign;

use super::*;

/// Pause after an assignment that could not be taken over.
const ASSIGN_PAUSE: Duration = Duration::from_secs(2);
/// Assignments that are looked up in the archive at once.
pub(super) const LOOKED_UP_AT_ONCE: usize = 32;

/// An assignment that is not taken over yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) assign: Assign,
    /// The pod was let go meanwhile.
    pub(super) abandoned: bool,
}

/// An assignment that cannot be taken over.
#[derive(Debug, thiserror::Error)]
enum AssignError {
    /// The archive cannot be asked.
    #[error("the archive cannot be read")]
    Archive(#[from] ArchiveError),
    /// The live log cannot be read.
    #[error("the live log cannot be read")]
    Live(#[from] std::io::Error),
}

impl Hub {
    /// Takes an assignment over: what is sealed is said so again; everything else is read.
    pub(crate) async fn assign(self: &Arc<Self>, assign: Assign) {
        let source = assign.source.clone().unwrap_or_default();
        let Some(key) = attempt_key(&source) else {
            return tracing::error!(grant = assign.grant, "assignment names no run");
        };
        // Only what has ended can be sealed, and not what is still owned: the archive has no say in the rest.
        let may_be_sealed = source.ended && !self.owned().attempts.contains_key(&key);
        if !may_be_sealed {
            self.owned().pending.remove(&key);
            match self.take_over(&key, assign.grant, source, false).await {
                Ok(()) => return,
                Err(error) => say_failed(&assign, &error),
            }
        }
        let pending = Pending {
            assign,
            abandoned: false,
        };
        if self.owned().pending.insert(key.clone(), pending).is_none() {
            let hub = Arc::clone(self);
            self.tasks.spawn(async move { hub.assign_pending(&key).await });
        }
    }

    /// Tries an assignment until it is taken over, without holding up others. It may change and go meanwhile.
    async fn assign_pending(self: &Arc<Self>, key: &AttemptKey) {
        loop {
            let Some(assign) = self.owned().pending.get(key).map(|pending| pending.assign.clone()) else {
                return;
            };
            let taken = tokio::select! {
                taken = self.look_up(key, &assign) => taken,
                () = self.shutdown.cancelled() => return,
            };
            match taken {
                Ok(()) => {
                    if let Some(abandoned) = self.no_longer_pending(key, &assign) {
                        if abandoned {
                            self.abandon(&abandon(key, assign.grant)).await;
                        }
                        return;
                    }
                }
                Err(error) => {
                    say_failed(&assign, &error);
                    tokio::select! {
                        () = tokio::time::sleep(ASSIGN_PAUSE) => {}
                        () = self.shutdown.cancelled() => return,
                    }
                }
            }
        }
    }

    /// An assignment was taken over: whether its pod was let go meanwhile; none when it has changed meanwhile.
    fn no_longer_pending(&self, key: &AttemptKey, assign: &Assign) -> Option<bool> {
        let mut owned = self.owned();
        let pending = owned.pending.remove(key)?;
        if pending.assign != *assign {
            owned.pending.insert(key.clone(), pending);
            return None;
        }
        Some(pending.abandoned)
    }

    async fn look_up(self: &Arc<Self>, key: &AttemptKey, assign: &Assign) -> Result<(), AssignError> {
        let place = self.looking.acquire().await.map_err(|_| ArchiveError::CutOff)?;
        let source = assign.source.clone().unwrap_or_default();
        if let Some(manifest) = self.archive.find(key).await? {
            self.remove_live(key, &source.containers).await;
            self.say_sealed(assign.grant, &manifest);
            self.release_waiting(key);
            return Ok(());
        }
        drop(place);
        self.take_over(key, assign.grant, source, true).await
    }

    async fn take_over(
        self: &Arc<Self>,
        key: &AttemptKey,
        grant: u64,
        source: LogSource,
        was_pending: bool,
    ) -> Result<(), AssignError> {
        let source = Arc::new(source);
        let missing = self.missing_containers(key, &source);
        let loaded = self.load(key, missing).await?;
        {
            let mut owned = self.owned();
            // It may have been taken back while the archive was asked.
            if was_pending && !owned.pending.contains_key(key) {
                return Ok(());
            }
            // It may have been sealed since it was looked for: then it must not come back.
            if !owned.attempts.contains_key(key)
                && let Some(manifest) = self.archive.recent(key)
            {
                drop(owned);
                self.say_sealed(grant, &manifest);
                self.release_waiting(key);
                return Ok(());
            }
            let attempt = owned.attempts.entry(key.clone()).or_insert_with(|| Attempt {
                grant,
                source: Arc::clone(&source),
                containers: BTreeMap::new(),
            });
            attempt.grant = attempt.grant.max(grant);
            attempt.source = source;
            for container in loaded {
                attempt
                    .containers
                    .entry(container.key.container.clone())
                    .or_insert(container);
            }
            metrics::assigned_attempts(owned.attempts.len());
        }
        self.release_waiting(key);
        self.want_attempt(key);
        self.consider_sealing(key);
        Ok(())
    }

    fn missing_containers(&self, key: &AttemptKey, source: &LogSource) -> Vec<String> {
        let owned = self.owned();
        let held = owned.attempts.get(key);
        let known = |name: &String| held.is_some_and(|attempt| attempt.containers.contains_key(name));
        source.containers.iter().filter(|name| !known(name)).cloned().collect()
    }

    async fn load(&self, key: &AttemptKey, names: Vec<String>) -> Result<Vec<Arc<Container>>, AssignError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let (attempt, live, watched) = (key.clone(), self.live.clone(), Arc::clone(&self.watched));
        let load = move || {
            names
                .into_iter()
                .map(|container| {
                    let key = ContainerKey {
                        attempt: attempt.clone(),
                        container,
                    };
                    Container::load(key, &live, Arc::clone(&watched)).map(Arc::new)
                })
                .collect::<std::io::Result<Vec<_>>>()
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        Ok(loaded.map_err(|_| ArchiveError::CutOff)??)
    }

    /// Deletes live files that a crash between sealing and deleting left behind.
    async fn remove_live(&self, key: &AttemptKey, containers: &[String]) {
        if self.owned().attempts.contains_key(key) {
            return;
        }
        let paths: Vec<PathBuf> = containers
            .iter()
            .map(|container| {
                let key = ContainerKey {
                    attempt: key.clone(),
                    container: container.clone(),
                };
                self.live.join(key.live_path())
            })
            .collect();
        let live = self.live.clone();
        let work = move || paths.iter().for_each(|path| crate::writer::remove_live(path, &live));
        if tokio::task::spawn_blocking(work).await.is_err() {
            tracing::error!("deleting live logs was cut off");
        }
    }
}

fn say_failed(assign: &Assign, error: &AssignError) {
    let error = crate::error::chain(error);
    tracing::error!(grant = assign.grant, error, "assignment cannot be taken over yet");
}

fn abandon(key: &AttemptKey, grant: u64) -> Abandon {
    Abandon {
        grant,
        run_id: key.run.as_bytes().to_vec(),
        step: key.step,
        attempt: key.attempt,
    }
}
