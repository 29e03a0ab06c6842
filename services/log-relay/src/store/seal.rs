//! Sealing: the live logs of an ended attempt become compressed segments and a manifest in the archive.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::path::Path;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use windlass_api::follow::v1::LogSource;
use windlass_ids::RelayId;

use super::archive::{Archive, ArchiveError};
use super::block::{Block, BlockBuilder, Place, Record, StoredMark};
use super::live::{Extent, read_block};
use super::manifest::{Manifest, SealedContainer, Segment};
use super::upload::Upload;
use crate::key::{AttemptKey, component};

/// A segment is closed when it has reached this size before compression.
const SEGMENT_BYTES: usize = 256 * 1024;
const LEVEL: i32 = 3;

/// One container that is to be sealed.
#[derive(Clone, Debug)]
pub(crate) struct Sealable {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) extent: Extent,
}

/// Whose logs they are.
#[derive(Clone, Debug)]
pub(crate) struct SealOrder {
    /// Who seals: what one relay has begun no other one writes over.
    pub(crate) relay: RelayId,
    pub(crate) key: AttemptKey,
    pub(crate) grant: u64,
    pub(crate) source: Arc<LogSource>,
    pub(crate) containers: Vec<Sealable>,
}

impl Archive {
    /// Seals an attempt: segments first, the manifest last, each durable before the next. What is sealed already stays as it is.
    pub(crate) async fn seal(&self, order: &SealOrder) -> Result<Arc<Manifest>, ArchiveError> {
        if let Some(manifest) = self.find(&order.key).await? {
            return Ok(manifest);
        }
        let mut containers = Vec::new();
        let mut digest = Sha256::new();
        for container in &order.containers {
            let (sealed, hash) = self.seal_container(order, container).await?;
            digest.update(hash);
            containers.push(sealed);
        }
        let source = &order.source;
        self.put_manifest(Manifest {
            version: 1,
            run: order.key.run,
            step: order.key.step,
            step_name: source.step_name.clone(),
            source_step: source.source_step.clone(),
            attempt: order.key.attempt,
            namespace: source.namespace.clone(),
            pod_name: source.pod_name.clone(),
            pod_uid: order.key.pod_uid.clone(),
            cluster_uid: source.cluster_uid.clone(),
            grant: order.grant,
            complete: containers.iter().all(|container| container.complete),
            lines: containers.iter().map(|container| container.lines).sum(),
            bytes: containers.iter().map(|container| container.bytes).sum(),
            digest: hex::encode(digest.finalize()),
            containers,
        })
        .await
    }

    async fn seal_container(
        &self,
        order: &SealOrder,
        container: &Sealable,
    ) -> Result<(SealedContainer, [u8; 32]), ArchiveError> {
        let object = format!(
            "{}/{}-{:020}-{:.8}.wlb.zst",
            order.key.folder(),
            component(&container.name),
            order.grant,
            order.relay.to_string(),
        );
        let end = container.extent.end;
        let mut sealed = SealedContainer {
            name: container.name.clone(),
            object: object.clone(),
            lines: end.line,
            marks: end.mark,
            bytes: end.offset,
            compressed_bytes: 0,
            first_time: None,
            last_time: None,
            complete: container.extent.finished == Some(true),
            lost_lines: 0,
            digest: String::new(),
            segments: Vec::new(),
        };
        let mut upload = Upload::new(Arc::clone(&self.store), Path::from(object.as_str()));
        let mut hasher = Sha256::new();
        if let Err(error) = self.fill(container, &mut sealed, &mut upload, &mut hasher).await {
            upload.abort().await;
            return Err(error);
        }
        self.asked("put", upload.finish().await)?;
        let hash: [u8; 32] = hasher.finalize().into();
        sealed.digest = hex::encode(hash);
        Ok((sealed, hash))
    }

    async fn fill(
        &self,
        container: &Sealable,
        sealed: &mut SealedContainer,
        upload: &mut Upload,
        hasher: &mut Sha256,
    ) -> Result<(), ArchiveError> {
        let (frames, mut compressed) = mpsc::channel(2);
        let (path, bytes) = (container.path.clone(), container.extent.bytes);
        let work = tokio::task::spawn_blocking(move || compress(&path, bytes, &frames));
        let mut read = Place::default();
        while let Some(frame) = compressed.recv().await {
            self.asked("put", upload.push(&frame.bytes).await)?;
            hasher.update(&frame.bytes);
            read = frame.end;
            sealed.take(&frame);
        }
        work.await.map_err(|_| ArchiveError::CutOff)??;
        if read.record() != container.extent.end.record() {
            return Err(ArchiveError::Damaged {
                object: container.path.display().to_string(),
            });
        }
        Ok(())
    }
}

impl SealedContainer {
    fn take(&mut self, frame: &Frame) {
        let length = frame.bytes.len() as u64;
        self.segments.push(Segment {
            at: self.compressed_bytes,
            length,
            line: frame.start.line,
            mark: frame.start.mark,
            offset: frame.start.offset,
            last_time: frame.times.map_or(i64::MIN, |(_, last)| last),
        });
        self.compressed_bytes += length;
        self.lost_lines += frame.lost;
        if let Some((first, last)) = frame.times {
            self.first_time = Some(self.first_time.map_or(first, |time| time.min(first)));
            self.last_time = Some(self.last_time.map_or(last, |time| time.max(last)));
        }
    }
}

/// One compressed segment.
#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    start: Place,
    end: Place,
    times: Option<(i64, i64)>,
    lost: u64,
}

/// Reads a live file and hands on compressed segments. Small blocks, as live tailing makes them, become large ones.
fn compress(path: &FilePath, length: u64, frames: &mpsc::Sender<Frame>) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let mut reader = io::BufReader::with_capacity(SEGMENT_BYTES, File::open(path)?.take(length));
    let mut packer = Packer::default();
    while let Some(block) = read_block(&mut reader)? {
        for (_, record) in block.records() {
            if let Some(frame) = packer.push(&record)?
                && frames.blocking_send(frame).is_err()
            {
                return Ok(());
            }
        }
    }
    if let Some(frame) = packer.finish()? {
        // A receiver that is gone has given up on sealing.
        drop(frames.blocking_send(frame));
    }
    Ok(())
}

/// Collects records into segments.
#[derive(Debug)]
struct Packer {
    builder: BlockBuilder,
    raw: Vec<u8>,
    start: Place,
    times: Option<(i64, i64)>,
    lost: u64,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            builder: BlockBuilder::new(Place::default()),
            raw: Vec::new(),
            start: Place::default(),
            times: None,
            lost: 0,
        }
    }
}

impl Packer {
    fn push(&mut self, record: &Record) -> io::Result<Option<Frame>> {
        match record {
            Record::Line(_) => {}
            Record::Mark(mark) if mark.kind == StoredMark::Lost => self.lost += mark.lost.unwrap_or_default(),
            Record::Mark(_) => {}
            Record::End { .. } => return Ok(None),
        }
        self.builder.push(record);
        if self.builder.is_full() {
            self.close();
        }
        if self.raw.len() >= SEGMENT_BYTES {
            return self.finish();
        }
        Ok(None)
    }

    fn close(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let block: Block = self.builder.finish();
        if block.min_time <= block.max_time {
            let (first, last) = self.times.unwrap_or((block.min_time, block.max_time));
            self.times = Some((first.min(block.min_time), last.max(block.max_time)));
        }
        block.write_to(&mut self.raw);
    }

    fn finish(&mut self) -> io::Result<Option<Frame>> {
        self.close();
        if self.raw.is_empty() {
            return Ok(None);
        }
        let end = self.builder.end();
        let frame = Frame {
            bytes: zstd::bulk::compress(&self.raw, LEVEL)?,
            start: self.start,
            end,
            times: self.times.take(),
            lost: std::mem::take(&mut self.lost),
        };
        self.raw.clear();
        self.start = end;
        Ok(Some(frame))
    }
}
