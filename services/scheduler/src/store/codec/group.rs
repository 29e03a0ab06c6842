//! Changes of one run, packed; commits and history parts, which hold such groups.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use windlass_api::journal::v1 as stored;
use windlass_ids::{ClusterAlias, ClusterUid, Incarnation, RunId, Timestamp};
use windlass_scheduling::{Change, ExecutorIdentity};

use super::CodecError;
use super::change::{self, Executors};
use crate::store::pack;

/// First byte of a stored value.
const PLAIN: u8 = 1;
const ZSTD: u8 = 2;

/// Most bytes of an unpacked value.
const MAX_UNPACKED: usize = 256 * 1024 * 1024;

/// Bytes after which a run's next change begins a new group, so that groups fit the parts of a history.
const MAX_GROUP: usize = 256 * 1024;

/// Consecutive changes of one run, still encoded.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) run: RunId,
    stored: stored::RunChanges,
}

impl Group {
    pub(crate) fn first_sequence(&self) -> u64 {
        self.stored.first_sequence
    }

    /// Groups are never empty.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.stored.first_sequence + u64::from(self.stored.count) - 1
    }

    pub(crate) fn span(&self) -> Span {
        Span {
            run: self.run,
            first_sequence: self.first_sequence(),
            last_sequence: self.last_sequence(),
        }
    }

    /// How many changes it has, as far as anything says so before they are decoded.
    pub(crate) fn count(&self) -> usize {
        // The least that a change takes is its length and its kind.
        (self.stored.count as usize).min(self.stored.changes.len())
    }

    /// About its size when stored.
    pub(crate) fn weight(&self) -> usize {
        self.stored.changes.len() + 96 * self.stored.executors.len() + 32
    }

    /// Appends those of its changes whose sequence number is in `from..=to`.
    pub(crate) fn decode_into(&self, from: u64, to: u64, changes: &mut Vec<Change>) -> Result<(), CodecError> {
        let executors = decode_executors(&self.stored.executors)?;
        let base_time = Timestamp::from_millis(self.stored.base_time);
        let mut rest = self.stored.changes.clone();
        for sequence in self.first_sequence()..=self.last_sequence() {
            let stored = stored::Change::decode_length_delimited(&mut rest)?;
            if sequence < from || sequence > to {
                continue;
            }
            let (at, kind) = change::decode(stored, base_time, &executors)?;
            changes.push(Change {
                run: self.run,
                sequence,
                at,
                kind,
            });
        }
        Ok(())
    }
}

pub(super) fn decode_executors(stored: &[stored::Executor]) -> Result<Vec<Arc<ExecutorIdentity>>, CodecError> {
    let decode = |executor: &stored::Executor| {
        Ok(Arc::new(ExecutorIdentity {
            incarnation: Incarnation::from_slice(&executor.incarnation).ok_or(CodecError::Missing("incarnation"))?,
            cluster: ClusterUid(executor.cluster_uid.clone()),
            alias: ClusterAlias(executor.cluster_alias.clone()),
        }))
    };
    stored.iter().map(decode).collect()
}

/// Packs the changes of one commit.
#[derive(Debug, Default)]
pub(crate) struct CommitEncoder {
    groups: Vec<GroupEncoder>,
    /// The group that a run's next change goes to.
    open: HashMap<RunId, usize>,
}

#[derive(Debug)]
struct GroupEncoder {
    run: RunId,
    first_sequence: u64,
    count: u32,
    base_time: Timestamp,
    executors: ExecutorTable,
    changes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct ExecutorTable(Vec<Arc<ExecutorIdentity>>);

impl ExecutorTable {
    pub(super) fn into_stored(self) -> Vec<stored::Executor> {
        let executor = |executor: Arc<ExecutorIdentity>| stored::Executor {
            incarnation: executor.incarnation.as_bytes().to_vec(),
            cluster_uid: executor.cluster.0.clone(),
            cluster_alias: executor.alias.0.clone(),
        };
        self.0.into_iter().map(executor).collect()
    }
}

impl Executors for ExecutorTable {
    fn position(&mut self, executor: &Arc<ExecutorIdentity>) -> u32 {
        let same = |known: &Arc<ExecutorIdentity>| Arc::ptr_eq(known, executor) || known == executor;
        let position = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(Arc::clone(executor));
            self.0.len() - 1
        });
        u32::try_from(position).unwrap_or(u32::MAX)
    }
}

/// Where a commit has changes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) run: RunId,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
}

impl CommitEncoder {
    pub(crate) fn push(&mut self, change: &Change) {
        let index = match self.open.get(&change.run) {
            Some(index) if self.groups[*index].takes(change) => *index,
            _ => {
                self.groups.push(GroupEncoder::new(change));
                self.open.insert(change.run, self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        self.groups[index].push(change);
    }

    /// The journal row, and which changes are in it.
    pub(crate) fn finish(self) -> (Vec<u8>, Vec<Span>) {
        let spans = self.groups.iter().map(GroupEncoder::span).collect();
        let commit = stored::Commit {
            runs: self.groups.into_iter().map(GroupEncoder::finish).collect(),
        };
        (frame_plain(&commit), spans)
    }
}

impl GroupEncoder {
    fn new(first: &Change) -> Self {
        Self {
            run: first.run,
            first_sequence: first.sequence,
            count: 0,
            base_time: first.at,
            executors: ExecutorTable::default(),
            changes: Vec::new(),
        }
    }

    fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.count)
    }

    fn takes(&self, change: &Change) -> bool {
        change.sequence == self.next_sequence() && self.changes.len() < MAX_GROUP
    }

    fn push(&mut self, change: &Change) {
        let stored = change::encode(change, self.base_time, &mut self.executors);
        let length = stored.encoded_len();
        prost::encoding::encode_varint(length as u64, &mut self.changes);
        append(&stored, &mut self.changes);
        self.count += 1;
    }

    fn span(&self) -> Span {
        Span {
            run: self.run,
            first_sequence: self.first_sequence,
            last_sequence: self.next_sequence() - 1,
        }
    }

    fn finish(self) -> stored::RunChanges {
        stored::RunChanges {
            run_id: self.run.as_bytes().to_vec(),
            first_sequence: self.first_sequence,
            count: self.count,
            base_time: self.base_time.as_millis(),
            executors: self.executors.into_stored(),
            changes: self.changes.into(),
        }
    }
}

/// The groups of a journal row.
pub(crate) fn decode_commit(bytes: impl Into<Bytes>) -> Result<Vec<Group>, CodecError> {
    let commit = stored::Commit::decode(unframe(bytes.into())?)?;
    let group = |stored: stored::RunChanges| {
        let run = RunId::from_slice(&stored.run_id).ok_or(CodecError::Missing("run of a group"))?;
        checked(run, stored)
    };
    commit.runs.into_iter().map(group).collect()
}

/// A part of a run's history.
pub(crate) fn encode_part(groups: &[Group]) -> Vec<u8> {
    let changes = groups.iter().map(|group| stored::RunChanges {
        run_id: Vec::new(),
        ..group.stored.clone()
    });
    frame_packed(&stored::HistoryPart {
        changes: changes.collect(),
    })
}

/// The groups of a part of a run's history.
pub(crate) fn decode_part(run: RunId, bytes: impl Into<Bytes>) -> Result<Vec<Group>, CodecError> {
    let part = stored::HistoryPart::decode(unframe(bytes.into())?)?;
    part.changes.into_iter().map(|stored| checked(run, stored)).collect()
}

fn checked(run: RunId, stored: stored::RunChanges) -> Result<Group, CodecError> {
    let plausible = stored.count > 0 && stored.first_sequence.checked_add(stored.count.into()).is_some();
    plausible
        .then_some(Group { run, stored })
        .ok_or(CodecError::Missing("count of a group"))
}

fn frame_plain(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 1);
    bytes.push(PLAIN);
    append(message, &mut bytes);
    bytes
}

/// Encoding fails only for want of room, and a `Vec` grows.
fn append(message: &impl Message, bytes: &mut Vec<u8>) {
    if message.encode(bytes).is_err() {
        unreachable!("a Vec grows");
    }
}

pub(super) fn frame_packed(message: &impl Message) -> Vec<u8> {
    let plain = message.encode_to_vec();
    let (framing, content) = match pack::pack(&plain, MAX_UNPACKED) {
        Some(packed) => (ZSTD, packed),
        None => (PLAIN, plain),
    };
    let mut bytes = Vec::with_capacity(content.len() + 1);
    bytes.push(framing);
    bytes.extend_from_slice(&content);
    bytes
}

pub(super) fn unframe(bytes: Bytes) -> Result<Bytes, CodecError> {
    match bytes.first().copied() {
        Some(PLAIN) => Ok(bytes.slice(1..)),
        Some(ZSTD) => {
            let plain = pack::unpack(&bytes[1..], MAX_UNPACKED);
            plain
                .map(Bytes::from)
                .map_err(|error| CodecError::Packed(error.to_string()))
        }
        framing => Err(CodecError::Framing(framing)),
    }
}
