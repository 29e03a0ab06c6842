//! Delivering what the store holds: one task for each target, a few messages at a time, each until it is taken or given up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rand::Rng as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windlass_ids::Timestamp;

use super::Target;
use super::send::Message;
use crate::driver::{Command, DeliveredOrder};
use crate::metric;
use crate::shared::Shared;
use crate::store::{Delivery, DeliveryWrite};

/// Messages to one target at a time.
const AT_ONCE: usize = 4;
/// After which time a message is given up.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The pause after the first failure, which doubles with each further one, and its bound.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// The pause while the store cannot be read.
const NO_STORE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Deliverer {
    pub(crate) shared: Arc<Shared>,
}

/// What became of a try.
enum Outcome {
    Taken,
    /// The receiver wants no more of it.
    Refused,
    Failed(String),
}

impl Deliverer {
    /// Until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut targets = JoinSet::new();
        for index in 0..self.shared.webhooks.targets.len() {
            targets.spawn(self.clone().serve(index));
        }
        tokio::select! {
            () = self.drop_unknown() => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
    }

    /// What waits for targets that are configured no longer goes.
    async fn drop_unknown(&self) {
        let targets = loop {
            if let Ok(store) = self.shared.store() {
                match store.delivery_targets().await {
                    Ok(targets) => break targets,
                    Err(error) => tracing::error!(%error, "store could not be read"),
                }
            }
            tokio::time::sleep(NO_STORE).await;
        };
        for target in targets {
            if !self.shared.webhooks.targets.iter().any(|known| known.name == target) {
                tracing::warn!(
                    webhook = target,
                    "messages are dropped: the webhook is configured no longer"
                );
                self.write(DeliveryWrite::DropTarget { target }).await;
            }
        }
    }

    async fn serve(self, index: usize) {
        let webhooks = Arc::clone(&self.shared.webhooks);
        let (target, wake) = (&webhooks.targets[index], &webhooks.wake[index]);
        let mut open = BTreeSet::new();
        let mut sending = JoinSet::new();
        loop {
            let until = self.begin(index, target, &mut open, &mut sending).await;
            tokio::select! {
                () = wake.notified() => {}
                Some(done) = sending.join_next() => {
                    // A panic of a try leaves its message to the next start.
                    if let Ok(id) = done {
                        open.remove(&id);
                    }
                }
                () = self.shared.clock.sleep_until(until) => {}
            }
        }
    }

    /// Begins what is due, as far as there is room; when to look again.
    async fn begin(
        &self,
        index: usize,
        target: &Target,
        open: &mut BTreeSet<String>,
        sending: &mut JoinSet<String>,
    ) -> Option<Timestamp> {
        let now = self.shared.clock.now();
        let Ok(store) = self.shared.store() else {
            return Some(now.saturating_add(NO_STORE));
        };
        let waiting = match store.deliveries(&target.name, 2 * AT_ONCE).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(%error, "store could not be read");
                return Some(now.saturating_add(NO_STORE));
            }
        };
        for delivery in waiting {
            if open.contains(&delivery.id) {
                continue;
            }
            if delivery.due > now {
                return Some(delivery.due);
            }
            if open.len() >= AT_ONCE {
                return None;
            }
            open.insert(delivery.id.clone());
            let this = self.clone();
            sending.spawn(async move {
                let webhooks = Arc::clone(&this.shared.webhooks);
                this.deliver(&webhooks.targets[index], delivery).await
            });
        }
        None
    }

    /// One try; the id, once the store knows what became of it.
    async fn deliver(&self, target: &Target, delivery: Delivery) -> String {
        let id = delivery.id.clone();
        let outcome = self.attempt(target, &delivery).await;
        let now = self.shared.clock.now();
        let (write, said) = match outcome {
            Outcome::Taken => (DeliveryWrite::Done { id: id.clone() }, "taken"),
            Outcome::Refused => {
                tracing::warn!(webhook = target.name, run_id = %delivery.run, "message is refused for good (410)");
                (DeliveryWrite::Done { id: id.clone() }, "refused")
            }
            Outcome::Failed(error) if now.since(delivery.created) >= PATIENCE => {
                let attempts = delivery.attempts + 1;
                tracing::warn!(webhook = target.name, run_id = %delivery.run, attempts, error, "message is given up");
                (DeliveryWrite::Done { id: id.clone() }, "given_up")
            }
            Outcome::Failed(error) => {
                let attempts = delivery.attempts + 1;
                let due = next_try(&delivery, now);
                tracing::info!(webhook = target.name, run_id = %delivery.run, attempts, error, "message is sent again later");
                let id = id.clone();
                (DeliveryWrite::Again { id, attempts, due }, "failed")
            }
        };
        metrics::counter!(metric::WEBHOOK_MESSAGES, "webhook" => target.name.clone(), "outcome" => said).increment(1);
        self.write(write).await;
        id
    }

    async fn attempt(&self, target: &Target, delivery: &Delivery) -> Outcome {
        let key = match target.secret.read() {
            Ok(key) => key,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let seconds = self.shared.clock.now().as_millis().div_euclid(1_000);
        let message = Message {
            id: delivery.id.clone(),
            seconds,
            signature: key.sign(&delivery.id, seconds, &delivery.body),
            body: delivery.body.clone(),
        };
        match target.endpoint.send(message).await {
            Ok(status) if status.is_success() => Outcome::Taken,
            Ok(StatusCode::GONE) => Outcome::Refused,
            Ok(status) => Outcome::Failed(format!("answered with {}", status.as_u16())),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// Until it is durable; when it is not, the message is sent once more.
    async fn write(&self, write: DeliveryWrite) {
        let (reply, done) = oneshot::channel();
        let order = Command::Delivered(DeliveredOrder { write, reply });
        if self.shared.inbox.send(order).await.is_ok() {
            done.await.ok();
        }
    }
}

/// When a message that failed is sent again: not after it would be given up.
fn next_try(delivery: &Delivery, now: Timestamp) -> Timestamp {
    let doubled = FIRST_PAUSE.saturating_mul(1 << delivery.attempts.min(16));
    let pause = doubled.min(MOST_PAUSE).mul_f64(rand::rng().random_range(0.8..=1.2));
    now.saturating_add(pause).min(delivery.created.saturating_add(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_pauses_grow_to_an_hour_and_the_last_try_is_a_day_after_the_first() {
        let mut delivery = Delivery {
            id: "a".to_owned(),
            run: windlass_ids::RunId::from_bytes([1; 16]),
            target: "chat".to_owned(),
            body: Vec::new(),
            created: Timestamp::from_millis(0),
            attempts: 0,
            due: Timestamp::from_millis(0),
        };
        let mut now = delivery.created;
        let mut pauses = Vec::new();
        while now.since(delivery.created) < PATIENCE {
            let next = next_try(&delivery, now);
            pauses.push(next.since(now).as_secs_f64());
            now = next;
            delivery.attempts += 1;
        }
        assert_eq!(now, delivery.created.saturating_add(PATIENCE));
        assert!((0.8..=1.2).contains(&pauses[0]), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= 4_320.0), "{pauses:?}");
        assert!((30..=50).contains(&pauses.len()), "{} tries", pauses.len());
    }
}
