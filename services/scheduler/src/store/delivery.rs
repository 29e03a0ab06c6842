//! Messages to other systems.

use windlass_ids::{RunId, Timestamp};

/// A message that is not delivered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same for each try.
    pub id: String,
    /// The run that it is about, which may be gone by now.
    pub run: RunId,
    /// Whom it is for.
    pub target: String,
    /// What is sent.
    pub body: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
    /// Tries that failed.
    pub attempts: u32,
    /// When it is tried next.
    pub due: Timestamp,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryWrite {
    /// It is new; nothing happens when there is one with its id.
    Put(Delivery),
    /// It is tried again.
    Again {
        /// The message.
        id: String,
        /// Tries that failed.
        attempts: u32,
        /// When.
        due: Timestamp,
    },
    /// It was delivered or given up.
    Done {
        /// The message.
        id: String,
    },
    /// Nobody is told any more of what waits for a target.
    DropTarget {
        /// The target.
        target: String,
    },
}
