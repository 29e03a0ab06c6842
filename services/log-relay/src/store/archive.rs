//! The archive: sealed logs in an object store, read segment by segment.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use windlass_ids::RunId;

use super::block::{Block, BlockError};
use super::cache::Cache;
use super::manifest::{Manifest, SealedContainer, Segment};
use super::remote::{ArchiveUrlError, Location, is_refusal, locate};
use crate::key::AttemptKey;
use crate::metrics;

/// Memory for decompressed segments, shared by all readers.
const SEGMENT_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Memory for manifests.
const MANIFEST_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// A segment that claims to be longer is not ours.
const MAX_SEGMENT_BYTES: usize = 32 * 1024 * 1024;
/// Segments that are asked for at once where a request costs more than what it brings.
const SEGMENTS_AHEAD: usize = 8;
/// From so many attempts of a run on, their manifests are listed together.
const LISTED_TOGETHER: usize = 4;
/// Manifests that are asked for at once.
const MANIFESTS_AT_ONCE: usize = 32;

/// An archive that does not give or take what it should.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] ArchiveUrlError),
    /// The store has answered at the start, and will not do.
    #[error("the archive {place} cannot be used: {problem}{said}")]
    Refused {
        /// Where it is.
        place: String,
        /// What the store does not do.
        problem: &'static str,
        /// What it said, in one line.
        said: String,
    },
    /// The store refused, or cannot be reached.
    #[error("the archive's store failed")]
    Store(#[from] object_store::Error),
    /// The folder cannot be made, or the live file cannot be read.
    #[error("the file system failed")]
    Io(#[from] std::io::Error),
    /// An object is not what was put.
    #[error("the object {object} is damaged")]
    Damaged {
        /// Its name.
        object: String,
    },
    /// The thread that compresses is gone.
    #[error("the work was cut off")]
    CutOff,
}

/// The blocks of one decompressed segment.
pub(crate) type SegmentBlocks = Arc<Vec<Arc<Block>>>;

/// Sealed logs.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The folder where the store keeps it, when it does so on this machine.
    folder: Option<PathBuf>,
    /// Where it is, for people.
    pub(super) place: String,
    manifests: Cache<AttemptKey, Arc<Manifest>>,
    segments: Cache<(String, u64), SegmentBlocks>,
}

impl Archive {
    /// Opens the archive at a URL, or in `folder` without one. No store is asked for anything; see [`Self::is_usable`].
    pub(crate) fn open(url: Option<&str>, folder: &FilePath) -> Result<Self, ArchiveError> {
        let location = url.map_or_else(|| Ok(Location::Folder(folder.to_owned())), locate)?;
        let (store, folder): (Arc<dyn ObjectStore>, _) = match location {
            Location::Folder(folder) => {
                std::fs::create_dir_all(&folder)?;
                let store = LocalFileSystem::new_with_prefix(&folder)?
                    .with_fsync(true)
                    .with_automatic_cleanup(true);
                (Arc::new(store), Some(folder))
            }
            Location::Store(store) => (store, None),
        };
        let place = match (&folder, url) {
            (None, Some(url)) => url.to_owned(),
            (Some(folder), _) => folder.display().to_string(),
            (None, None) => String::new(),
        };
        Ok(Self {
            store,
            folder,
            place,
            manifests: Cache::new(MANIFEST_CACHE_BYTES),
            segments: Cache::new(SEGMENT_CACHE_BYTES),
        })
    }

    /// Whether it is reached over a network.
    pub(super) fn is_remote(&self) -> bool {
        self.folder.is_none()
    }

    /// Counts how a request went.
    pub(super) fn asked<T>(&self, operation: &'static str, answer: object_store::Result<T>) -> Result<T, ArchiveError> {
        match answer {
            Ok(answer) => {
                metrics::archive_reached(true);
                Ok(answer)
            }
            Err(error) => {
                let is_answer = matches!(
                    error,
                    object_store::Error::NotFound { .. } | object_store::Error::AlreadyExists { .. }
                );
                metrics::archive_reached(is_answer);
                if !is_answer {
                    metrics::archive_failed(operation, is_refusal(&error));
                }
                Err(error.into())
            }
        }
    }

    /// The manifest of an attempt, when it is sealed. Of several (two relays sealed it) a complete one, else the newest grant's.
    pub(crate) async fn find(&self, key: &AttemptKey) -> Result<Option<Arc<Manifest>>, ArchiveError> {
        if let Some(manifest) = self.manifests.get(key) {
            return Ok(Some(manifest));
        }
        let manifests = self.listed(&key.folder()).await?;
        self.best(key, manifests).await
    }

    /// Looks up the manifests of many attempts of a run with few requests, so that [`Self::find`] has them.
    pub(crate) async fn look_up(&self, run: RunId, mut wanted: Vec<AttemptKey>) -> Result<(), ArchiveError> {
        wanted.retain(|key| self.manifests.get(key).is_none());
        if wanted.len() < LISTED_TOGETHER {
            return Ok(());
        }
        let mut by_folder: BTreeMap<String, Vec<Path>> = BTreeMap::new();
        for manifest in self.listed(&run.to_string()).await? {
            let folder = manifest.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
            by_folder.entry(folder.to_owned()).or_default().push(manifest);
        }
        let mut looking = Vec::new();
        for key in wanted {
            if let Some(manifests) = by_folder.remove(&key.folder()) {
                looking.push(async move { self.best(&key, manifests).await });
            }
        }
        let mut looking = futures::stream::iter(looking).buffer_unordered(MANIFESTS_AT_ONCE);
        while looking.try_next().await?.is_some() {}
        Ok(())
    }

    /// The manifests below a folder.
    async fn listed(&self, folder: &str) -> Result<Vec<Path>, ArchiveError> {
        let objects = self.store.list(Some(&Path::from(folder)));
        let objects: Vec<_> = self.asked("list", objects.try_collect().await)?;
        let locations = objects.into_iter().map(|object| object.location);
        Ok(locations
            .filter(|location| location.extension() == Some("json"))
            .collect())
    }

    async fn best(&self, key: &AttemptKey, manifests: Vec<Path>) -> Result<Option<Arc<Manifest>>, ArchiveError> {
        let mut found: Option<Manifest> = None;
        for location in manifests {
            let manifest = self.read_manifest(&location).await?;
            let better = found
                .as_ref()
                .is_none_or(|held| (manifest.complete, manifest.grant) > (held.complete, held.grant));
            if better && manifest.key() == *key {
                found = Some(manifest);
            }
        }
        Ok(found.map(|manifest| self.remember(manifest)))
    }

    /// The manifest of an attempt that was sealed or looked up lately.
    pub(crate) fn recent(&self, key: &AttemptKey) -> Option<Arc<Manifest>> {
        self.manifests.get(key)
    }

    async fn read_manifest(&self, location: &Path) -> Result<Manifest, ArchiveError> {
        let read = async { self.store.get(location).await?.bytes().await };
        let bytes = self.asked("get", read.await)?;
        serde_json::from_slice(&bytes).map_err(|_| ArchiveError::Damaged {
            object: location.to_string(),
        })
    }

    fn remember(&self, manifest: Manifest) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        let segments: usize = manifest
            .containers
            .iter()
            .map(|container| container.segments.len())
            .sum();
        let weight = 1024 + segments * size_of::<Segment>();
        self.manifests.put(manifest.key(), Arc::clone(&manifest), weight);
        manifest
    }

    /// Keeps a manifest, unless there is one for that grant; returns the one that holds.
    pub(super) async fn put_manifest(&self, manifest: Manifest) -> Result<Arc<Manifest>, ArchiveError> {
        let location = Path::from(format!(
            "{}/manifest-{:020}.json",
            manifest.key().folder(),
            manifest.grant
        ));
        let bytes = serde_json::to_vec(&manifest).map_err(|_| ArchiveError::Damaged {
            object: location.to_string(),
        })?;
        let put = self.store.put_opts(&location, bytes.into(), PutMode::Create.into());
        match self.asked("put", put.await) {
            Ok(_) => Ok(self.remember(manifest)),
            Err(ArchiveError::Store(object_store::Error::AlreadyExists { .. })) => {
                let held = self.read_manifest(&location).await?;
                Ok(self.remember(held))
            }
            Err(error) => Err(error),
        }
    }

    /// The blocks of the segment that holds a record; none after the last.
    pub(crate) async fn read(
        &self,
        container: &SealedContainer,
        record: u64,
    ) -> Result<Option<SegmentBlocks>, ArchiveError> {
        let Some(first) = container.segment_of(record) else {
            return Ok(None);
        };
        let key = |segment: &Segment| (container.object.clone(), segment.at);
        if let Some(blocks) = self.segments.get(&key(&container.segments[first])) {
            return Ok(Some(blocks));
        }
        let ahead = if self.is_remote() { SEGMENTS_AHEAD } else { 1 };
        let last = (first + ahead).min(container.segments.len());
        let wanted = &container.segments[first..last];
        let start = wanted[0].at;
        let end = wanted.iter().map(|segment| segment.at + segment.length).max();
        let location = Path::from(container.object.as_str());
        let range = self.store.get_range(&location, start..end.unwrap_or(start)).await;
        let bytes = self.asked("get", range)?;
        let mut read = None;
        for segment in wanted {
            let blocks = cut(&bytes, segment.at - start, segment.length).and_then(decompress);
            let blocks = Arc::new(blocks.ok_or_else(|| ArchiveError::Damaged {
                object: container.object.clone(),
            })?);
            metrics::archive_segment_read();
            let weight = blocks.iter().map(|block| block.file_bytes()).sum();
            self.segments.put(key(segment), Arc::clone(&blocks), weight);
            read.get_or_insert(blocks);
        }
        Ok(read)
    }

    /// The runs of which something is kept.
    pub(crate) async fn runs(&self) -> Result<Vec<RunId>, ArchiveError> {
        let listed = self.asked("list", self.store.list_with_delimiter(None).await)?;
        let folders = listed.common_prefixes.iter();
        Ok(folders.filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    /// Deletes what is kept of a run.
    pub(crate) async fn forget(&self, run: RunId) -> Result<(), ArchiveError> {
        let prefix = format!("{run}");
        let objects = self.store.list(Some(&Path::from(prefix.as_str())));
        let locations: Vec<Path> = self.asked("list", objects.map_ok(|object| object.location).try_collect().await)?;
        let locations = futures::stream::iter(locations.into_iter().map(Ok)).boxed();
        let mut deleted = self.store.delete_stream(locations);
        while let Some(answer) = deleted.next().await {
            match self.asked("delete", answer) {
                Ok(_) | Err(ArchiveError::Store(object_store::Error::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        self.manifests.forget(|key| key.run == run);
        self.segments.forget(|(object, _)| object.starts_with(&prefix));
        let Some(folder) = &self.folder else { return Ok(()) };
        // What a killed relay had begun to put is no object yet, and not listed.
        match tokio::fs::remove_dir_all(folder.join(&prefix)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn cut(bytes: &Bytes, at: u64, length: u64) -> Option<&[u8]> {
    let at = usize::try_from(at).ok()?;
    bytes.get(at..at.checked_add(usize::try_from(length).ok()?)?)
}

fn decompress(bytes: &[u8]) -> Option<Vec<Arc<Block>>> {
    let length = zstd::zstd_safe::get_frame_content_size(bytes).ok()??;
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_SEGMENT_BYTES)?;
    let mut raw = Bytes::from(zstd::bulk::decompress(bytes, length).ok()?);
    let mut blocks = Vec::new();
    loop {
        match Block::take(&mut raw) {
            Ok(Some(block)) => blocks.push(Arc::new(block)),
            Ok(None) => return Some(blocks),
            Err(BlockError::Torn | BlockError::Damaged) => return None,
        }
    }
}
