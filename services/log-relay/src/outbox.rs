//! What is to be said to the scheduler, as state: a lost connection loses none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use windlass_api::follow::v1::follow_request::Message;
use windlass_api::follow::v1::{FollowHeartbeat, FollowRequest, Sealed, SubscribeRun, UnsubscribeRun};

/// What is to be said to the scheduler.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Numbers go on over reconnects, so that a repeated one is recognised.
    last_sequence: u64,
    /// Said until acknowledged.
    sealed: BTreeMap<u64, Sealed>,
    /// The numbers of sealed logs that were not said on this connection.
    unsent: BTreeSet<u64>,
    subscribed: BTreeMap<u64, SubscribeRun>,
    subscribe: BTreeSet<u64>,
    unsubscribe: BTreeSet<u64>,
    /// Highest number taken over from the scheduler on this connection.
    taken: u64,
    acknowledge: bool,
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection: everything that is open is said again.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.unsent = state.sealed.keys().copied().collect();
        state.subscribe = state.subscribed.keys().copied().collect();
        state.unsubscribe.clear();
        state.taken = 0;
        state.acknowledge = false;
        self.notify.notify_one();
    }

    /// A log is sealed. What was said before of the same attempt is replaced.
    pub(crate) fn sealed(&self, sealed: Sealed) {
        let mut state = self.state();
        let same = |other: &Sealed| {
            (&other.run_id, other.step, other.attempt, &other.pod_uid)
                == (&sealed.run_id, sealed.step, sealed.attempt, &sealed.pod_uid)
        };
        let before: Vec<u64> = state
            .sealed
            .iter()
            .rev()
            .take(256)
            .filter(|(_, other)| same(other))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in before {
            state.sealed.remove(&sequence);
            state.unsent.remove(&sequence);
        }
        state.last_sequence += 1;
        let sequence = state.last_sequence;
        state.sealed.insert(sequence, sealed);
        state.unsent.insert(sequence);
        self.notify.notify_one();
    }

    /// The scheduler has taken over everything up to a number.
    pub(crate) fn acknowledged(&self, sequence: u64) {
        let mut state = self.state();
        let open = state.sealed.split_off(&(sequence + 1));
        let done = std::mem::replace(&mut state.sealed, open);
        done.keys().for_each(|sequence| {
            state.unsent.remove(sequence);
        });
    }

    /// A message of the scheduler was taken over.
    pub(crate) fn taken(&self, sequence: u64) {
        if sequence == 0 {
            return;
        }
        let mut state = self.state();
        state.taken = state.taken.max(sequence);
        state.acknowledge = true;
        self.notify.notify_one();
    }

    /// Asks for news of a run.
    pub(crate) fn subscribe(&self, request: SubscribeRun) {
        let mut state = self.state();
        state.subscribe.insert(request.subscription);
        state.subscribed.insert(request.subscription, request);
        self.notify.notify_one();
    }

    /// No longer asks for them.
    pub(crate) fn unsubscribe(&self, subscription: u64) {
        let mut state = self.state();
        state.subscribed.remove(&subscription);
        if !state.subscribe.remove(&subscription) {
            state.unsubscribe.insert(subscription);
        }
        self.notify.notify_one();
    }

    /// The next message to the scheduler.
    pub(crate) async fn next(&self) -> FollowRequest {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.notify.notified().await;
        }
    }

    /// Says only that the relay lives, and what it took over.
    pub(crate) fn heartbeat(&self) -> FollowRequest {
        let mut state = self.state();
        state.acknowledge = false;
        state.message(0, Message::Heartbeat(FollowHeartbeat {}))
    }

    fn take(&self) -> Option<FollowRequest> {
        let mut state = self.state();
        if let Some(subscription) = state.unsubscribe.pop_first() {
            let message = Message::Unsubscribe(UnsubscribeRun { subscription });
            return Some(state.message(0, message));
        }
        if let Some(subscription) = state.subscribe.pop_first()
            && let Some(request) = state.subscribed.get(&subscription).cloned()
        {
            return Some(state.message(0, Message::Subscribe(request)));
        }
        if let Some(sequence) = state.unsent.pop_first()
            && let Some(sealed) = state.sealed.get(&sequence).cloned()
        {
            return Some(state.message(sequence, Message::Sealed(sealed)));
        }
        state
            .acknowledge
            .then(|| state.message(0, Message::Heartbeat(FollowHeartbeat {})))
    }
}

impl State {
    fn message(&mut self, sequence: u64, message: Message) -> FollowRequest {
        self.acknowledge = false;
        FollowRequest {
            sequence,
            acknowledged: self.taken,
            message: Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(step: u32, grant: u64) -> Sealed {
        Sealed {
            grant,
            step,
            ..Sealed::default()
        }
    }

    #[tokio::test]
    async fn what_is_sealed_is_said_until_it_is_acknowledged() {
        let outbox = Outbox::default();
        outbox.sealed(sealed(1, 7));
        outbox.sealed(sealed(2, 8));
        assert_eq!((outbox.next().await.sequence, outbox.next().await.sequence), (1, 2));
        outbox.acknowledged(1);
        outbox.restart();
        let again = outbox.next().await;
        assert_eq!(
            (again.sequence, again.message),
            (2, Some(Message::Sealed(sealed(2, 8))))
        );
        assert!(outbox.take().is_none());
        outbox.sealed(sealed(2, 9));
        outbox.restart();
        assert_eq!(outbox.next().await.message, Some(Message::Sealed(sealed(2, 9))));
        assert!(outbox.take().is_none(), "an older one of the same attempt is replaced");
    }

    #[test]
    fn messages_are_acknowledged_and_subscriptions_survive_a_reconnect() {
        let outbox = Outbox::default();
        let request = SubscribeRun {
            subscription: 4,
            ..SubscribeRun::default()
        };
        outbox.subscribe(request.clone());
        outbox.taken(9);
        let first = outbox.take().expect("one");
        assert_eq!(
            (first.acknowledged, first.message),
            (9, Some(Message::Subscribe(request.clone())))
        );
        assert!(outbox.take().is_none(), "the acknowledgement travelled with it");
        outbox.restart();
        assert_eq!(outbox.take().expect("again").message, Some(Message::Subscribe(request)));
        outbox.unsubscribe(4);
        assert!(matches!(
            outbox.take().expect("one").message,
            Some(Message::Unsubscribe(_))
        ));
        outbox.restart();
        assert!(outbox.take().is_none());
    }
}
