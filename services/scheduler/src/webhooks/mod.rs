//! Signed messages to other systems when a run ends, as the Standard Webhooks specification has them, at least once.
//!
//! What is to be delivered is recorded in the commit that ends the run, with the very bytes that are sent, and stays until it was
//! taken, refused for good, or given up: a crash at any point repeats a message with the same id, and loses none.

mod deliver;
mod payload;
mod send;
mod settings;
mod signature;

use windlass_ids::Timestamp;
use windlass_scheduling::RunState;

pub(crate) use deliver::Deliverer;

use self::send::Endpoint;
use self::signature::Secret;
use crate::store::{Delivery, RunHeader};

/// All that is configured.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    targets: Vec<Target>,
    /// A delivery became durable.
    wake: Vec<tokio::sync::Notify>,
}

/// Somebody who is told of ends.
#[derive(Debug)]
pub(crate) struct Target {
    /// What the store, logs and metrics call it; the URL may be a secret.
    name: String,
    endpoint: Endpoint,
    secret: Secret,
    /// Only of runs in these namespaces; of all when `None`.
    namespaces: Option<Vec<String>>,
    /// Only of these ends.
    states: Vec<RunState>,
}

impl Webhooks {
    fn new(targets: Vec<Target>) -> Self {
        let wake = targets.iter().map(|_| tokio::sync::Notify::new()).collect();
        Self { targets, wake }
    }

    /// Whether somebody is told of runs in a namespace.
    pub(crate) fn concern(&self, namespace: &str) -> bool {
        self.targets.iter().any(|target| target.concerns(namespace))
    }

    /// What is to be delivered of a run that has ended; its header says how.
    pub(crate) fn of_end(&self, header: &RunHeader, now: Timestamp) -> Vec<Delivery> {
        let state = header.progress.state;
        let told = |target: &&Target| target.concerns(header.namespace.as_str()) && target.states.contains(&state);
        let mut deliveries = Vec::from_iter(self.targets.iter().filter(told).map(|target| Delivery {
            // The same for each repetition, and another one for each receiver.
            id: format!("run-ended.{}.{}", header.id, target.name),
            run: header.id,
            target: target.name.clone(),
            body: Vec::new(),
            created: now,
            attempts: 0,
            due: now,
        }));
        if !deliveries.is_empty() {
            let body = payload::run_ended(header);
            deliveries
                .iter_mut()
                .for_each(|delivery| delivery.body.clone_from(&body));
        }
        deliveries
    }

    /// Deliveries are durable.
    pub(crate) fn wake(&self) {
        self.wake.iter().for_each(tokio::sync::Notify::notify_one);
    }
}

impl Target {
    fn concerns(&self, namespace: &str) -> bool {
        let among = |names: &Vec<String>| names.iter().any(|name| name == namespace);
        self.namespaces.as_ref().is_none_or(among)
    }
}
