//! Feeds log relays: each is dialled, asks for containers, and gets their lines.

mod container;
mod lines;
mod masking;
mod seam;
mod session;
mod skips;
mod standing;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::dispatch::v1::Relay;

pub(crate) use container::Sources;
pub(crate) use masking::{Known, Masks};
pub(crate) use session::Dialer;

/// Dials every relay that the scheduler names, until `stop`.
pub(crate) async fn run(dialer: Dialer, mut relays: watch::Receiver<Vec<Relay>>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let mut dialled: HashMap<String, (String, CancellationToken)> = HashMap::new();
    loop {
        let wanted = relays.borrow_and_update().clone();
        dialled.retain(|relay, (address, token)| {
            let stays = wanted.iter().any(|one| one.relay == *relay && one.address == *address);
            if !stays {
                token.cancel();
            }
            stays
        });
        for relay in wanted {
            if dialled.contains_key(&relay.relay) {
                continue;
            }
            let token = stop.child_token();
            dialled.insert(relay.relay, (relay.address.clone(), token.clone()));
            tasks.spawn(dialer.clone().run(relay.address, token));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = relays.changed() => if changed.is_err() { break },
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
