//! The archive: sealed logs in an object store, read segment by segment.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use windlass_ids::RunId;

use super::block::{Block, BlockError};
use super::cache::Cache;
use super::manifest::{Manifest, SealedContainer, Segment};
use crate::key::AttemptKey;
use crate::metrics;

/// Memory for decompressed segments, shared by all readers.
const SEGMENT_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Memory for manifests.
const MANIFEST_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// A segment that claims to be longer is not ours.
const MAX_SEGMENT_BYTES: usize = 32 * 1024 * 1024;

/// An archive that does not give or take what it should.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The URL is of a kind that this build cannot use.
    #[error("the archive {url:?} cannot be used; give a folder as file:///path")]
    Url {
        /// The URL.
        url: String,
    },
    /// The store refused.
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
    /// Where the store keeps it.
    folder: PathBuf,
    manifests: Cache<AttemptKey, Arc<Manifest>>,
    segments: Cache<(String, u64), SegmentBlocks>,
}

impl Archive {
    /// Opens the archive at a URL `file:///folder`, or in `folder` without one.
    pub(crate) fn open(url: Option<&str>, folder: &FilePath) -> Result<Self, ArchiveError> {
        let folder = match url {
            None => folder,
            Some(url) => url
                .strip_prefix("file://")
                .filter(|path| path.starts_with('/'))
                .map(FilePath::new)
                .ok_or_else(|| ArchiveError::Url { url: url.to_owned() })?,
        };
        std::fs::create_dir_all(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder)?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Self {
            store: Arc::new(store),
            folder: folder.to_owned(),
            manifests: Cache::new(MANIFEST_CACHE_BYTES),
            segments: Cache::new(SEGMENT_CACHE_BYTES),
        })
    }

    /// The manifest of an attempt, when it is sealed. Of several (two relays sealed it) a complete one, else the newest grant's.
    pub(crate) async fn find(&self, key: &AttemptKey) -> Result<Option<Arc<Manifest>>, ArchiveError> {
        if let Some(manifest) = self.manifests.get(key) {
            return Ok(Some(manifest));
        }
        let folder = Path::from(key.folder());
        let mut found: Option<Manifest> = None;
        let mut objects = self.store.list(Some(&folder));
        while let Some(object) = objects.try_next().await? {
            if object.location.extension() != Some("json") {
                continue;
            }
            let manifest = self.read_manifest(&object.location).await?;
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
        let bytes = self.store.get(location).await?.bytes().await?;
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
        match self
            .store
            .put_opts(&location, bytes.into(), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(self.remember(manifest)),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let held = self.read_manifest(&location).await?;
                Ok(self.remember(held))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The blocks of the segment that holds a record; none after the last.
    pub(crate) async fn read(
        &self,
        container: &SealedContainer,
        record: u64,
    ) -> Result<Option<SegmentBlocks>, ArchiveError> {
        let Some(segment) = container.segment_of(record) else {
            return Ok(None);
        };
        let segment = container.segments[segment];
        let key = (container.object.clone(), segment.at);
        if let Some(blocks) = self.segments.get(&key) {
            return Ok(Some(blocks));
        }
        let range = segment.at..segment.at + segment.length;
        let bytes = self
            .store
            .get_range(&Path::from(container.object.as_str()), range)
            .await?;
        let blocks = decompress(&bytes).ok_or_else(|| ArchiveError::Damaged {
            object: container.object.clone(),
        })?;
        metrics::archive_segment_read();
        let weight = blocks.iter().map(|block| block.file_bytes()).sum();
        let blocks = Arc::new(blocks);
        self.segments.put(key, Arc::clone(&blocks), weight);
        Ok(Some(blocks))
    }

    /// The runs of which something is kept.
    pub(crate) async fn runs(&self) -> Result<Vec<RunId>, ArchiveError> {
        let listed = self.store.list_with_delimiter(None).await?;
        let folders = listed.common_prefixes.iter();
        Ok(folders.filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    /// Deletes what is kept of a run.
    pub(crate) async fn forget(&self, run: RunId) -> Result<(), ArchiveError> {
        let prefix = format!("{run}");
        let objects = self.store.list(Some(&Path::from(prefix.as_str())));
        let locations: Vec<Path> = objects.map_ok(|object| object.location).try_collect().await?;
        for location in locations {
            match self.store.delete(&location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.manifests.forget(|key| key.run == run);
        self.segments.forget(|(object, _)| object.starts_with(&prefix));
        // What a killed relay had begun to put is no object yet, and not listed.
        match tokio::fs::remove_dir_all(self.folder.join(&prefix)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
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
