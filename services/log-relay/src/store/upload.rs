//! An object on its way to the archive: one request when it is small, parts when it is large.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};

/// What goes in one request. No store takes smaller parts, but for the last.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts that are under way at once.
const PARTS_AT_ONCE: usize = 2;

/// An object on its way. It is there as a whole after [`Self::finish`], or not at all.
#[derive(Debug)]
pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    location: Path,
    held: Vec<u8>,
    parts: Option<WriteMultipart>,
}

impl Upload {
    /// Nothing is asked of the store yet.
    pub(super) fn new(store: Arc<dyn ObjectStore>, location: Path) -> Self {
        Self {
            store,
            location,
            held: Vec::new(),
            parts: None,
        }
    }

    /// Takes more of the object.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> object_store::Result<()> {
        if let Some(parts) = &mut self.parts {
            parts.wait_for_capacity(PARTS_AT_ONCE).await?;
            parts.write(bytes);
            return Ok(());
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PART_BYTES {
            let upload = self.store.put_multipart(&self.location).await?;
            let parts = self
                .parts
                .insert(WriteMultipart::new_with_chunk_size(upload, PART_BYTES));
            parts.write(&std::mem::take(&mut self.held));
        }
        Ok(())
    }

    /// The object is whole. One of nothing is not kept.
    pub(super) async fn finish(self) -> object_store::Result<()> {
        match self.parts {
            Some(parts) => parts.finish().await.map(drop),
            None if self.held.is_empty() => Ok(()),
            None => self.store.put(&self.location, self.held.into()).await.map(drop),
        }
    }

    /// The object will never be whole: the store need not keep its parts.
    pub(super) async fn abort(self) {
        if let Some(parts) = self.parts
            && let Err(error) = parts.abort().await
        {
            let error = crate::error::chain(&error);
            tracing::warn!(object = %self.location, error, "begun upload stays until the bucket's own rules remove it");
        }
    }
}
