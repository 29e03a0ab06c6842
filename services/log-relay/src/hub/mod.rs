//! What the relay owns: assigned attempts, their containers, and the executors that feed them.

mod assigning;
pub(crate) mod container;
mod feeding;
mod forgetting;
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
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::follow::v1::{Abandon, LogSource, Revoke, Sealed};
use windlass_ids::{RelayId, RunId};
use windlass_service::{AuthenticatedChannel, Backoff, BackoffSettings, ChannelError, ChannelSettings, connect_lazy};

use self::assigning::Pending;
use self::container::{Container, FeedRef};
use self::runs::Runs;
pub(crate) use self::sealing::SEALERS;
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
    /// How other relays are dialled, but for the address.
    peers: ChannelSettings,
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
    sealing: Semaphore,
    /// Bounds the assignments that are looked up in the archive at once.
    looking: Semaphore,
    started: Instant,
}

/// How long after its start a relay may still be given attempts that ended before: executors list their pods first.
const SETTLING: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Owned {
    attempts: BTreeMap<AttemptKey, Attempt>,
    /// Assignments that are looked up in the archive before they are taken over.
    pending: BTreeMap<AttemptKey, Pending>,
    /// Runs whose logs are being deleted.
    forgotten: BTreeSet<RunId>,
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
            peers: parts.peers,
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            shutdown: parts.shutdown,
            watched: Arc::new(AtomicUsize::new(0)),
            readers: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
            owned: Mutex::default(),
            sealable: Mutex::default(),
            seal_notify: Notify::new(),
            sealing: Semaphore::new(SEALERS),
            looking: Semaphore::new(assigning::LOOKED_UP_AT_ONCE),
            started: Instant::now(),
        }
    }

    /// A connection to another relay, which is dialled with the first request.
    pub(crate) fn peer(&self, address: &str) -> Result<AuthenticatedChannel, ChannelError> {
        let mut settings = self.peers.clone();
        address.clone_into(&mut settings.address);
        connect_lazy(&settings)
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
            let is_meant = |key: &AttemptKey| {
                key.run.as_bytes()[..] == revoke.run_id[..] && (key.step, key.attempt) == (revoke.step, revoke.attempt)
            };
            owned
                .pending
                .retain(|key, pending| !is_meant(key) || pending.assign.grant > revoke.grant);
            let keys: Vec<AttemptKey> = owned
                .attempts
                .iter()
                .filter(|(key, attempt)| is_meant(key) && attempt.grant <= revoke.grant)
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
        let gone = {
            let mut owned = self.owned();
            owned.pending.clear();
            std::mem::take(&mut owned.attempts)
        };
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
        let is_meant = |key: &AttemptKey| {
            key.run.as_bytes()[..] == abandon.run_id[..] && (key.step, key.attempt) == (abandon.step, abandon.attempt)
        };
        {
            let mut owned = self.owned();
            for (key, pending) in &mut owned.pending {
                pending.abandoned |= is_meant(key) && pending.assign.grant <= abandon.grant;
            }
            for (key, attempt) in &mut owned.attempts {
                if is_meant(key) && attempt.grant <= abandon.grant {
                    let mut source = LogSource::clone(&attempt.source);
                    source.ended = true;
                    attempt.source = Arc::new(source);
                    open.extend(attempt.open_containers());
                    keys.push(key.clone());
                }
            }
        }
        for container in open {
            self.writer.send(Job::Abandon { container }).await;
        }
        keys.iter().for_each(|key| self.consider_sealing(key));
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
    /// How other relays are dialled, but for the address.
    pub(crate) peers: ChannelSettings,
    pub(crate) shutdown: CancellationToken,
}

/// How long to wait after so many failures in a row.
pub(crate) fn backoff_after(settings: BackoffSettings, failures: u32) -> Duration {
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
