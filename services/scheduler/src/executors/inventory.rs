//! Inventories: lists of an executor's shards that arrive in chunks.

use std::collections::BTreeMap;

use windlass_api::dispatch::v1 as wire;
use windlass_ids::AttemptId;
use windlass_scheduling::{Inventory, ShardSet};

use super::convert::{Fault, attempt, observation};

/// Most observations and creates in flight of one inventory (I11).
const MAX_INVENTORY: usize = 4_000_000;

/// A chunk, understood and not taken over yet.
#[derive(Debug)]
pub(crate) struct InventoryChunk {
    list: u64,
    number: u32,
    last: bool,
    part: WholeInventory,
}

/// A whole inventory.
#[derive(Debug, Default)]
pub(crate) struct WholeInventory {
    pub(crate) inventory: Inventory,
    /// Containers of the pods, for the log relays.
    pub(crate) containers: BTreeMap<AttemptId, Vec<String>>,
    /// The last numbered message of the scheduler that it reflects.
    pub(crate) reflects_sequence: u64,
}

impl InventoryChunk {
    /// Whether its list ends with it.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// Understands a message.
    ///
    /// # Errors
    /// When a part cannot be understood.
    pub(crate) fn read(message: wire::Inventory) -> Result<Self, Fault> {
        let shards: [u8; 32] = message.shards[..]
            .try_into()
            .map_err(|_| "inventory.shards must have 32 bytes")?;
        let mut part = WholeInventory {
            reflects_sequence: message.reflects_sequence,
            ..WholeInventory::default()
        };
        part.inventory.shards = ShardSet::from_bytes(&shards);
        for mut message in message.observations {
            let containers = std::mem::take(&mut message.containers);
            let observation = observation(message)?;
            if !containers.is_empty() {
                part.containers.insert(observation.attempt, containers);
            }
            part.inventory.observations.push(observation);
        }
        for key in &message.in_flight {
            part.inventory.in_flight.push(attempt(Some(key))?);
        }
        Ok(Self {
            list: message.list,
            number: message.chunk,
            last: message.last,
            part,
        })
    }
}

/// Joins the chunks of a session, which may come over several streams.
#[derive(Debug, Default)]
pub(super) struct InventoryChunks {
    list: u64,
    /// The chunk that comes next; `None` when the list is not taken in.
    next: Option<u32>,
    whole: WholeInventory,
}

impl InventoryChunks {
    /// Adds a chunk; returns the inventory with the last one. A list of which a chunk is missing says nothing about what is not in it, and
    /// neither does one that is too large: it is passed over.
    pub(super) fn add(&mut self, chunk: InventoryChunk) -> Option<WholeInventory> {
        if chunk.number == 0 {
            *self = Self {
                list: chunk.list,
                next: Some(0),
                whole: WholeInventory::default(),
            };
        }
        if self.list != chunk.list || self.next != Some(chunk.number) {
            *self = Self::default();
            return None;
        }
        self.next = chunk.number.checked_add(1);
        let (whole, part) = (&mut self.whole, chunk.part);
        whole.reflects_sequence = part.reflects_sequence;
        whole.containers.extend(part.containers);
        whole.inventory.shards = part.inventory.shards;
        whole.inventory.observations.extend(part.inventory.observations);
        whole.inventory.in_flight.extend(part.inventory.in_flight);
        let listed = whole.inventory.observations.len() + whole.inventory.in_flight.len();
        if listed > MAX_INVENTORY {
            tracing::error!(listed, most = MAX_INVENTORY, "inventory is too large");
            *self = Self::default();
            return None;
        }
        chunk.last.then(|| std::mem::take(self).whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(list: u64, number: u32, last: bool) -> InventoryChunk {
        let key = wire::AttemptKey {
            run_id: vec![7; 16].into(),
            step: number,
            attempt: 1,
        };
        let message = wire::Inventory {
            shards: vec![0xff; 32],
            reflects_sequence: 9,
            observations: vec![wire::Observation {
                attempt: Some(key),
                phase: wire::AttemptPhase::Running.into(),
                ..wire::Observation::default()
            }],
            last,
            list,
            chunk: number,
            ..wire::Inventory::default()
        };
        InventoryChunk::read(message).expect("understood")
    }

    fn listed(whole: Option<WholeInventory>) -> Option<usize> {
        whole.map(|whole| whole.inventory.observations.len())
    }

    #[test]
    fn an_inventory_is_whole_with_its_last_chunk() {
        let mut chunks = InventoryChunks::default();
        assert_eq!(listed(chunks.add(chunk(1, 0, false))), None);
        let whole = chunks.add(chunk(1, 1, true)).expect("whole");
        assert_eq!(whole.inventory.observations.len(), 2);
        assert_eq!(whole.inventory.shards, ShardSet::ALL);
        assert_eq!(whole.reflects_sequence, 9);
        assert_eq!(listed(chunks.add(chunk(2, 0, true))), Some(1));
    }

    #[test]
    fn i3_a_list_without_its_beginning_or_with_a_gap_says_nothing() {
        let mut chunks = InventoryChunks::default();
        assert_eq!(listed(chunks.add(chunk(1, 1, true))), None, "no beginning");
        assert_eq!(listed(chunks.add(chunk(1, 0, false))), None);
        assert_eq!(listed(chunks.add(chunk(1, 2, false))), None, "a gap");
        assert_eq!(listed(chunks.add(chunk(1, 3, true))), None, "and its end");
        assert_eq!(listed(chunks.add(chunk(2, 0, false))), None);
        assert_eq!(
            listed(chunks.add(chunk(3, 0, true))),
            Some(1),
            "a list that was given up is no part of the next"
        );
    }
}
