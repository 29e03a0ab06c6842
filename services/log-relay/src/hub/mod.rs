//! What the relay owns: assigned attempts, their containers, and the executors that feed them.

pub(crate) mod container;
mod feeding;
pub(crate) mod runs;
mod sealing;
pub(crate) mod session;
pub(crate) mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::follow::v1::{Abandon, Assign, LogSource, Revoke, Sealed};
use windlass_ids::{RelayId, RunId};
use windlass_service::{Backoff, BackoffSettings};

use self::container::{Container, FeedRef};
use self::runs::Runs;
use self::sealing::SealQueue;
use self::session::Session;
use self::wake::Listener;
use crate::key::{AttemptKey, ContainerKey};
use crate::metrics;
use crate::outbox::Outbox;
use crate::store::archive::{Archive, ArchiveError};
use crate::store::manifest::Manifest;
use crate::store::seal::{SealOrder, Sealable};
use crate::writer::{Detached, Job, WriterHandle};

/// How often a container is asked for again that an executor could not read.
const FEED_BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(500),
    factor: 2.0,
    max: Duration::from_secs(30),
};

/// Pause after an assignment that could not be taken over.
const ASSIGN_PAUSE: Duration = Duration::from_secs(2);

/// What the relay owns, shared by all its parts. Locks are held for short and never over an await.
#[derive(Debug)]
pub(crate) struct Hub {
    /// This process.
    pub(crate) relay: RelayId,
    /// Where clients and executors dial it.
    pub(crate) advertised: String,
    /// Folder of live logs.
    pub(crate) live: PathBuf,
    pub(crate) archive: Archive,
    pub(crate) writer: WriterHandle,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) runs: Runs,
    pub(crate) tasks: TaskTracker,
    /// For tasks that the writer's thread starts.
    runtime: tokio::runtime::Handle,
    pub(crate) shutdown: CancellationToken,
    /// Containers that somebody reads.
    watched: Arc<AtomicUsize>,
    readers: AtomicUsize,
    next_session: AtomicU64,
    owned: Mutex<Owned>,
    sealable: Mutex<SealQueue>,
    seal_notify: Notify,
    started: Instant,
}

/// How long after its start a relay may still be given attempts that ended before: executors list their pods first.
const SETTLING: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Owned {
    attempts: BTreeMap<AttemptKey, Attempt>,
    sessions: BTreeMap<u64, Arc<Session>>,
    /// Readers that wait until an attempt is assigned.
    waiting: BTreeMap<AttemptKey, Vec<Listener>>,
}

/// One assigned attempt.
#[derive(Debug)]
struct Attempt {
    grant: u64,
    source: Arc<LogSource>,
    containers: BTreeMap<String, Arc<Container>>,
}

impl Hub {
    /// The rest of the time after the start in which attempts that ended before may still be assigned.
    pub(crate) fn settles_in(&self) -> Option<Duration> {
        SETTLING
            .checked_sub(self.started.elapsed())
            .filter(|rest| !rest.is_zero())
    }

    /// Owns nothing yet. Must be called inside a runtime.
    pub(crate) fn new(parts: HubParts) -> Self {
        Self {
            relay: parts.relay,
            advertised: parts.advertised,
            live: parts.live,
            archive: parts.archive,
            writer: parts.writer,
            runs: Runs::new(Arc::clone(&parts.outbox)),
            outbox: parts.outbox,
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            shutdown: parts.shutdown,
            watched: Arc::new(AtomicUsize::new(0)),
            readers: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
            owned: Mutex::default(),
            sealable: Mutex::default(),
            seal_notify: Notify::new(),
            started: Instant::now(),
        }
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clients that read at present.
    pub(crate) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// A client reads.
    pub(crate) fn reader_came(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
        metrics::readers(1.0);
    }

    /// A client no longer reads.
    pub(crate) fn reader_left(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
        metrics::readers(-1.0);
    }

    /// Takes an assignment over: what is sealed is said so again; everything else is read.
    pub(crate) async fn assign(self: &Arc<Self>, assign: Assign) -> Result<(), AssignError> {
        let source = Arc::new(assign.source.unwrap_or_default());
        let key = attempt_key(&source).ok_or(AssignError::NoRun)?;
        if let Some(manifest) = self.archive.find(&key).await? {
            self.remove_live(&key, &source.containers).await;
            self.say_sealed(assign.grant, &manifest);
            self.release_waiting(&key);
            return Ok(());
        }
        let missing = self.missing_containers(&key, &source);
        let loaded = self.load(&key, missing).await?;
        {
            let mut owned = self.owned();
            // It may have been sealed since it was looked for: then it must not come back.
            if !owned.attempts.contains_key(&key)
                && let Some(manifest) = self.archive.recent(&key)
            {
                drop(owned);
                self.say_sealed(assign.grant, &manifest);
                self.release_waiting(&key);
                return Ok(());
            }
            let attempt = owned.attempts.entry(key.clone()).or_insert_with(|| Attempt {
                grant: assign.grant,
                source: Arc::clone(&source),
                containers: BTreeMap::new(),
            });
            attempt.grant = attempt.grant.max(assign.grant);
            attempt.source = source;
            for container in loaded {
                attempt
                    .containers
                    .entry(container.key.container.clone())
                    .or_insert(container);
            }
            metrics::assigned_attempts(owned.attempts.len());
        }
        self.release_waiting(&key);
        self.want_attempt(&key);
        self.consider_sealing(&key);
        Ok(())
    }

    /// Tries an assignment again until it is taken over, without holding up others.
    pub(crate) fn assign_later(self: &Arc<Self>, assign: Assign) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(ASSIGN_PAUSE) => {}
                    () = hub.shutdown.cancelled() => return,
                }
                match hub.assign(assign.clone()).await {
                    Ok(()) | Err(AssignError::NoRun) => return,
                    Err(error) => {
                        let error = crate::error::chain(&error);
                        tracing::error!(grant = assign.grant, error, "assignment cannot be taken over yet");
                    }
                }
            }
        });
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

    fn say_sealed(&self, grant: u64, manifest: &Manifest) {
        self.outbox.sealed(Sealed {
            grant,
            run_id: manifest.run.as_bytes().to_vec(),
            step: manifest.step,
            attempt: manifest.attempt,
            pod_uid: manifest.pod_uid.clone(),
            lines: manifest.lines,
            bytes: manifest.bytes,
            digest: hex::decode(&manifest.digest).unwrap_or_default(),
            complete: manifest.complete,
        });
    }

    /// Gives an attempt up. What was read of it stays on the disk, in case that it comes back.
    pub(crate) async fn revoke(&self, revoke: &Revoke) {
        let gone: Vec<Attempt> = {
            let mut owned = self.owned();
            let keys: Vec<AttemptKey> = owned
                .attempts
                .iter()
                .filter(|(key, attempt)| {
                    key.run.as_bytes()[..] == revoke.run_id[..]
                        && (key.step, key.attempt) == (revoke.step, revoke.attempt)
                        && attempt.grant <= revoke.grant
                })
                .map(|(key, _)| key.clone())
                .collect();
            let gone = keys.iter().filter_map(|key| owned.attempts.remove(key)).collect();
            metrics::assigned_attempts(owned.attempts.len());
            gone
        };
        self.give_up(gone).await;
    }

    /// Gives up everything: it may have gone to other relays. What was read stays on the disk and is gone on with when it comes back.
    pub(crate) async fn revoke_all(&self) {
        let gone = std::mem::take(&mut self.owned().attempts);
        metrics::assigned_attempts(0);
        self.give_up(gone.into_values()).await;
    }

    async fn give_up(&self, attempts: impl IntoIterator<Item = Attempt>) {
        let containers: Vec<Arc<Container>> = attempts
            .into_iter()
            .flat_map(|attempt| attempt.containers.into_values())
            .collect();
        for container in &containers {
            let container = Arc::clone(container);
            self.writer.send(Job::Revoke { container }).await;
        }
        // When it comes back the file is read, so nothing may be under way any more.
        self.writer.settle().await;
        containers.iter().for_each(|container| container.moved_away());
    }

    /// The pod of an attempt is let go: nothing more will come of its log, so that it is over as it is.
    pub(crate) async fn abandon(&self, abandon: &Abandon) {
        let mut open = Vec::new();
        let mut keys = Vec::new();
        for (key, attempt) in &mut self.owned().attempts {
            let is_meant = key.run.as_bytes()[..] == abandon.run_id[..]
                && (key.step, key.attempt) == (abandon.step, abandon.attempt)
                && attempt.grant <= abandon.grant;
            if is_meant {
                let mut source = LogSource::clone(&attempt.source);
                source.ended = true;
                attempt.source = Arc::new(source);
                open.extend(attempt.open_containers());
                keys.push(key.clone());
            }
        }
        for container in open {
            self.writer.send(Job::Abandon { container }).await;
        }
        keys.iter().for_each(|key| self.consider_sealing(key));
    }

    /// The runs of which there are logs, sealed or not.
    pub(crate) async fn kept(&self) -> Result<BTreeSet<RunId>, ArchiveError> {
        let mut runs: BTreeSet<RunId> = self.archive.runs().await?.into_iter().collect();
        let mut folders = tokio::fs::read_dir(&self.live).await?;
        while let Some(folder) = folders.next_entry().await? {
            runs.extend(folder.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()));
        }
        Ok(runs)
    }

    /// Deletes everything of a run.
    pub(crate) async fn forget(&self, run: RunId) -> Result<(), ArchiveError> {
        let gone: Vec<Attempt> = {
            let mut owned = self.owned();
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

    /// What was assigned of an attempt.
    pub(crate) fn source_of(&self, key: &AttemptKey) -> Option<Arc<LogSource>> {
        self.owned()
            .attempts
            .get(key)
            .map(|attempt| Arc::clone(&attempt.source))
    }

    /// A container, when its attempt is assigned to this relay.
    pub(crate) fn container(&self, key: &ContainerKey) -> Option<Arc<Container>> {
        let owned = self.owned();
        owned
            .attempts
            .get(&key.attempt)?
            .containers
            .get(&key.container)
            .cloned()
    }

    /// Tells a reader when an attempt has been assigned or found to be sealed.
    pub(crate) fn wait_for(&self, key: &AttemptKey, listener: Listener) {
        let mut owned = self.owned();
        let waiting = owned.waiting.entry(key.clone()).or_default();
        if !waiting.iter().any(|other| other.is_same(&listener)) {
            waiting.push(listener);
        }
    }

    /// A reader no longer waits.
    pub(crate) fn stop_waiting(&self, key: &AttemptKey, listener: &Listener) {
        let mut owned = self.owned();
        if let Some(waiting) = owned.waiting.get_mut(key) {
            waiting.retain(|other| !other.is_same(listener));
            if waiting.is_empty() {
                owned.waiting.remove(key);
            }
        }
    }

    fn release_waiting(&self, key: &AttemptKey) {
        let waiting = self.owned().waiting.remove(key).unwrap_or_default();
        waiting.iter().for_each(Listener::raise);
    }
}

/// What a hub is made of.
#[derive(Debug)]
pub(crate) struct HubParts {
    pub(crate) relay: RelayId,
    pub(crate) advertised: String,
    pub(crate) live: PathBuf,
    pub(crate) archive: Archive,
    pub(crate) writer: WriterHandle,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) shutdown: CancellationToken,
}

/// An assignment that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssignError {
    /// It names no run.
    #[error("the assignment names no run")]
    NoRun,
    /// The archive cannot be asked.
    #[error("the archive cannot be read")]
    Archive(#[from] ArchiveError),
    /// The live log cannot be read.
    #[error("the live log cannot be read")]
    Live(#[from] std::io::Error),
}

/// How long to wait after so many failures in a row.
fn backoff_after(settings: BackoffSettings, failures: u32) -> Duration {
    let mut random = rand::rngs::StdRng::from_os_rng();
    let mut backoff = Backoff::new(settings);
    let delays = (0..failures.clamp(1, 16)).map(|_| backoff.next_delay(&mut random));
    delays.last().unwrap_or_default()
}

/// Identity of a source; none without a run.
pub(crate) fn attempt_key(source: &LogSource) -> Option<AttemptKey> {
    Some(AttemptKey {
        run: RunId::from_slice(&source.run_id)?,
        step: source.step,
        attempt: source.attempt,
        pod_uid: source.pod_uid.clone(),
    })
}
