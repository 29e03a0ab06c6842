//! The thread that appends to live logs. It alone decides which upstream stream feeds a container, so that what is written and
//! what is asked for next always fit together (I7).

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use windlass_api::feed::v1::FeedOpen;

use crate::hub::Hub;
use crate::hub::container::{Container, FeedRef};
use crate::hub::session::Session;
use crate::metrics;
use crate::store::live::{Appender, Batch, BatchEnd};

/// Jobs that may wait.
const QUEUE: usize = 1024;
/// Files that are kept open.
const OPEN_FILES: usize = 256;
/// Room that a container's stream is given.
const WINDOW: u64 = 1024 * 1024;
/// Jobs that are taken at once.
const BATCH: usize = 256;
/// Pause between attempts while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// What the writer is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Ask an executor for a container.
    Open {
        container: Arc<Container>,
        session: Arc<Session>,
    },
    /// Append what came.
    Append {
        container: Arc<Container>,
        session: Arc<Session>,
        stream: u64,
        batch: Batch,
        /// Memory that the batch takes.
        permit: OwnedSemaphorePermit,
    },
    /// The upstream is over without an end of the log.
    Detach {
        container: Arc<Container>,
        feed: FeedRef,
        then: Detached,
    },
    /// The container is no longer ours: ask nobody for it.
    Revoke { container: Arc<Container> },
    /// Nothing more will come of a container's log: it is over as it is.
    Abandon { container: Arc<Container> },
    /// The files of a container may go.
    Remove { container: Arc<Container> },
    /// Say when everything before this is done.
    Settle(oneshot::Sender<()>),
    /// Stop.
    Stop,
}

/// Why an upstream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// The executor cannot read it for the time being.
    Unavailable,
    /// The session is over.
    SessionClosed,
}

/// Hands jobs to the writer.
#[derive(Clone, Debug)]
pub(crate) struct WriterHandle {
    jobs: mpsc::Sender<Job>,
    budget: Arc<Semaphore>,
    limit: u32,
}

impl WriterHandle {
    /// The handle, and the queue that [`Writer::start`] takes. `bytes` bounds what waits to be written.
    pub(crate) fn new(bytes: usize) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let limit = u32::try_from(bytes).unwrap_or(u32::MAX);
        let budget = Arc::new(Semaphore::new(limit as usize));
        (Self { jobs, budget, limit }, queue)
    }

    /// Waits for room and hands a job over. False when the writer is gone.
    pub(crate) async fn send(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }

    /// Waits until everything that was handed over before is done.
    pub(crate) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.send(Job::Settle(done)).await {
            // Without the writer nothing is under way, either.
            settled.await.ok();
        }
    }

    /// Waits until so many bytes may wait to be written.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.limit);
        Arc::clone(&self.budget).acquire_many_owned(bytes).await.ok()
    }
}

/// Ends the writer when it is dropped, and waits for it.
#[derive(Debug)]
pub(crate) struct WriterGuard {
    stop: Arc<AtomicBool>,
    jobs: mpsc::Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A full queue needs no waking: the flag is looked at after every job.
        drop(self.jobs.try_send(Job::Stop));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("log writer panicked");
        }
    }
}

/// The writer's own state.
#[derive(Debug)]
pub(crate) struct Writer {
    hub: Arc<Hub>,
    stop: Arc<AtomicBool>,
    files: Files,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(crate) fn start(hub: Arc<Hub>, mut queue: mpsc::Receiver<Job>) -> io::Result<WriterGuard> {
        let stop = Arc::new(AtomicBool::new(false));
        let jobs = hub.writer.jobs.clone();
        let mut writer = Self {
            hub,
            stop: Arc::clone(&stop),
            files: Files::default(),
        };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                // Without the writer nothing can be kept: whatever ends it ends the relay.
                let _end = writer.hub.shutdown.clone().drop_guard();
                let mut jobs = Vec::with_capacity(BATCH);
                while queue.blocking_recv_many(&mut jobs, BATCH) > 0 && writer.work(&mut jobs) {}
            })?;
        Ok(WriterGuard {
            stop,
            jobs,
            thread: Some(thread),
        })
    }

    /// Does what is queued; false when it is to stop.
    fn work(&mut self, jobs: &mut Vec<Job>) -> bool {
        for job in merge(jobs) {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            match job {
                Job::Open { container, session } => self.open(&container, &session),
                Job::Append {
                    container,
                    session,
                    stream,
                    batch,
                    permit,
                } => {
                    self.append(&container, &session, stream, &batch);
                    drop(permit);
                }
                Job::Detach { container, feed, then } => self.detach(&container, feed, then),
                Job::Revoke { container } => {
                    let feed = std::mem::take(&mut *container.link()).feed;
                    self.hub.close_feed(feed);
                    self.files.forget(&container.path);
                }
                Job::Abandon { container } => self.abandon(&container),
                Job::Remove { container } => {
                    let feed = std::mem::take(&mut *container.link()).feed;
                    self.hub.close_feed(feed);
                    self.files.forget(&container.path);
                    remove_live(&container.path, &self.hub.live);
                }
                // Nobody waits any more.
                Job::Settle(done) => drop(done.send(())),
                Job::Stop => return false,
            }
        }
        true
    }

    /// Asks an executor for what comes after the last line that is held.
    fn open(&self, container: &Arc<Container>, session: &Arc<Session>) {
        let mut link = container.link();
        let stale = link.asked != Some(session.id) || session.closed.is_cancelled();
        if stale || container.finished().is_some() {
            return;
        }
        let seam = container
            .appender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .seam
            .clone();
        let Some(source) = self.hub.source_of(&container.key.attempt) else {
            return;
        };
        let before = link.feed.take();
        tracing::debug!(container = %container.key, session = session.id, "log is asked for");
        let stream = session.open(
            container,
            FeedOpen {
                stream: 0,
                namespace: source.namespace.clone(),
                pod_name: source.pod_name.clone(),
                pod_uid: source.pod_uid.clone(),
                container: container.key.container.clone(),
                after_time: seam.time.map(timestamp),
                after_ordinal: if seam.time.is_some() { seam.ordinal } else { 0 },
                window: WINDOW,
                last_line_digest: seam.digest(),
            },
        );
        link.feed = Some(FeedRef {
            session: session.id,
            stream,
        });
        drop(link);
        metrics::feed_opened();
        self.hub.close_feed(before);
    }

    fn append(&mut self, container: &Arc<Container>, session: &Arc<Session>, stream: u64, batch: &Batch) {
        let feed = FeedRef {
            session: session.id,
            stream,
        };
        if container.link().feed != Some(feed) {
            return;
        }
        let mut appender = container.appender.lock().unwrap_or_else(PoisonError::into_inner);
        let room: u64 = batch.lines.iter().map(|line| line.content.len() as u64 + 1).sum();
        if let Err(error) = self.store(container, &mut appender, batch) {
            drop(appender);
            tracing::warn!(container = %container.key, %error, "log cannot be written; it is asked for again");
            session.close(stream);
            self.detach(container, feed, Detached::Unavailable);
            return;
        }
        drop(appender);
        container.link().failures = 0;
        if batch.end.is_some() {
            session.forget(stream);
            container.link().feed = None;
            self.files.forget(&container.path);
            self.hub.container_ended(container);
        } else {
            session.credit(stream, room);
        }
    }

    /// Ends a log that nobody will go on with, with a mark.
    fn abandon(&mut self, container: &Arc<Container>) {
        let feed = std::mem::take(&mut *container.link()).feed;
        self.hub.close_feed(feed);
        if container.finished().is_none() {
            let message = "the pod was let go before its log was read to its end; what is missing is unknown";
            let batch = Batch {
                end: Some(BatchEnd {
                    complete: false,
                    message: message.to_owned(),
                }),
                ..Batch::default()
            };
            let mut appender = container.appender.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.store(container, &mut appender, &batch) {
                // It stays unfinished; a restart finds it like this, and its readers are told when it is asked for again.
                tracing::error!(container = %container.key, %error, "the end of a log cannot be written");
            }
        }
        self.files.forget(&container.path);
        self.hub.container_ended(container);
    }

    /// Writes a batch. While the disk is full it waits here: executors run out of room and stop reading, and nothing is lost.
    fn store(&mut self, container: &Arc<Container>, appender: &mut Appender, batch: &Batch) -> io::Result<()> {
        let prepared = appender.prepare(&container.path, batch);
        let before = appender.extent.clone();
        if !prepared.blocks.is_empty() {
            while let Err(error) = self.files.write(&container.path, appender, &prepared) {
                metrics::write_failed();
                self.files.forget(&container.path);
                if !is_full(&error) || self.stop.load(Ordering::Relaxed) {
                    return Err(error);
                }
                metrics::storage_full(true);
                tracing::error!(%error, "storage is full; logs wait");
                std::thread::sleep(FULL_PAUSE);
            }
            metrics::storage_full(false);
        }
        let lines = appender.extent.end.line - before.end.line;
        let bytes = appender.extent.end.offset - before.end.offset;
        metrics::stored(lines, bytes, prepared.repeated);
        if batch.gap.is_some() || batch.end.as_ref().is_some_and(|end| !end.complete) {
            metrics::lost_mark();
        }
        container.publish(&prepared.blocks, &appender.extent, &appender.index);
        Ok(())
    }

    fn detach(&self, container: &Arc<Container>, feed: FeedRef, then: Detached) {
        let mut link = container.link();
        if link.feed != Some(feed) {
            return;
        }
        link.feed = None;
        if link.asked == Some(feed.session) {
            link.asked = None;
        }
        match then {
            Detached::Unavailable => {
                link.failures = link.failures.saturating_add(1);
                link.backing_off = Some(feed.session);
                let failures = link.failures;
                drop(link);
                self.hub.retry_later(Arc::clone(container), failures);
            }
            Detached::SessionClosed => {
                drop(link);
                self.hub.want(container);
            }
        }
    }
}

/// Joins neighbouring batches of one stream, so that many small chunks make one block and one write.
fn merge(jobs: &mut Vec<Job>) -> Vec<Job> {
    let mut merged: Vec<Job> = Vec::with_capacity(jobs.len());
    let mut last: HashMap<(u64, u64), usize> = HashMap::new();
    for mut job in jobs.drain(..) {
        let Job::Append {
            session,
            stream,
            batch,
            permit,
            ..
        } = &mut job
        else {
            // Whatever else is queued may change who feeds what.
            last.clear();
            merged.push(job);
            continue;
        };
        let key = (session.id, *stream);
        let earlier = last.get(&key).and_then(|index| merged.get_mut(*index));
        if let Some(Job::Append {
            batch: first,
            permit: held,
            ..
        }) = earlier
            && first.end.is_none()
            && batch.gap.is_none()
            && let Some(more) = permit.split(permit.num_permits())
        {
            held.merge(more);
            first.lines.append(&mut batch.lines);
            first.end = batch.end.take();
            continue;
        }
        last.insert(key, merged.len());
        merged.push(job);
    }
    merged
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn timestamp(nanos: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// Deletes a live log and the folders above it that are empty then.
pub(crate) fn remove_live(path: &Path, live: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "live log cannot be deleted"),
    }
    let mut folder = path.parent();
    while let Some(path) = folder.filter(|path| *path != live) {
        if std::fs::remove_dir(path).is_err() {
            break;
        }
        folder = path.parent();
    }
}

/// The files that were written last stay open, a bounded number of them.
#[derive(Debug, Default)]
struct Files {
    open: HashMap<PathBuf, (u64, File)>,
    by_use: BTreeMap<u64, PathBuf>,
    uses: u64,
}

impl Files {
    fn write(
        &mut self,
        path: &Path,
        appender: &mut Appender,
        prepared: &crate::store::live::Prepared,
    ) -> io::Result<()> {
        self.uses += 1;
        let used = self.uses;
        if let Some((before, file)) = self.open.get_mut(path) {
            self.by_use.remove(before);
            *before = used;
            self.by_use.insert(used, path.to_owned());
            return appender.write(file, prepared);
        }
        let mut file = open_live(path)?;
        appender.write(&mut file, prepared)?;
        if self.open.len() >= OPEN_FILES
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.open.remove(&oldest);
        }
        self.by_use.insert(used, path.to_owned());
        self.open.insert(path.to_owned(), (used, file));
        Ok(())
    }

    fn forget(&mut self, path: &Path) {
        if let Some((used, _)) = self.open.remove(path) {
            self.by_use.remove(&used);
        }
    }
}

fn open_live(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            options.open(path)
        }
        result => result,
    }
}
