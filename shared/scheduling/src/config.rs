//! Settings of the core, the same for all runs.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_ids::Namespace;

/// Settings of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long an executor's lease lasts after the last that was heard from it.
    pub lease: Duration,
    /// T: how long an executor may take for one create, its lease having been checked before.
    pub create_timeout: Duration,
    /// How long the API server may work on a request after its client has given up.
    pub api_timeout: Duration,
    /// Least time between the repetitions of desired state (stops), and how long a launch may stay unseen before an inventory is asked for.
    pub repair_interval: Duration,
    /// Least time between inventories that nothing else asks for.
    pub inventory_interval: Duration,
    /// How long the secrets of a run may take to be made.
    pub preparing: Duration,
    /// The most live steps in a namespace, unless it is named below.
    pub namespace_limit: Option<u32>,
    /// The most live steps by namespace.
    pub namespace_limits: BTreeMap<Namespace, u32>,
}

impl Config {
    /// How long after the end of an executor's lease its last create may still appear.
    pub fn fence(&self) -> Duration {
        self.create_timeout.saturating_add(self.api_timeout)
    }

    /// The limit of a namespace.
    pub fn limit_of(&self, namespace: &Namespace) -> Option<u32> {
        self.namespace_limits.get(namespace).copied().or(self.namespace_limit)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            create_timeout: Duration::from_secs(10),
            api_timeout: Duration::from_secs(60),
            repair_interval: Duration::from_secs(30),
            inventory_interval: Duration::from_secs(600),
            preparing: Duration::from_secs(300),
            namespace_limit: None,
            namespace_limits: BTreeMap::new(),
        }
    }
}
