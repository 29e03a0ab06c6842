//! What a container says at its end, its termination message, is output as its log is: values of Secrets are masked in it before it
//! is told.

use std::collections::HashMap;
use std::sync::Arc;

use windlass_ids::AttemptId;

use super::letting_go::until_done;
use super::{Agent, Event};
use crate::attempts::{Phase, SecretUse, Sight};
use crate::feed::{Known, Masks};

/// What is looked through before it is told.
#[derive(Debug)]
pub(super) struct LastWords {
    known: Arc<Known>,
    /// What was seen of attempts since their last words are looked through, in order.
    waiting: HashMap<AttemptId, Vec<Sight>>,
}

impl LastWords {
    pub(super) fn new(known: Arc<Known>) -> Self {
        Self {
            known,
            waiting: HashMap::new(),
        }
    }

    /// Forgets what was seen for a session that is over: the next one begins with an inventory.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

impl Agent {
    /// Tells the scheduler what was seen of an attempt, last words once they are masked.
    pub(super) fn observe(&mut self, sight: Sight) {
        let attempt = sight.attempt;
        if let Some(waiting) = self.last_words.waiting.get_mut(&attempt) {
            return waiting.push(sight);
        }
        let Some((namespace, secrets)) = self.secrets_behind(&sight) else {
            return self.outbox.observe(sight);
        };
        self.last_words.waiting.insert(attempt, vec![sight]);
        let (api, calls, events) = (self.api.clone(), Arc::clone(&self.calls), self.events.clone());
        let known = Arc::clone(&self.last_words.known);
        self.spawn(async move {
            let masks = until_done("secrets", &calls, || known.masks(&api, &namespace, &secrets)).await;
            drop(events.send(Event::Masks { attempt, masks }).await);
        });
    }

    /// Of what is said at once, in an inventory: an attempt whose last words are not masked yet is there, and its end comes behind.
    pub(super) fn without_last_words(&mut self, sight: Sight) -> Sight {
        if self.secrets_behind(&sight).is_none() {
            return sight;
        }
        let there = Sight {
            phase: Phase::Created,
            end: None,
            ..sight.clone()
        };
        self.observe(sight);
        there
    }

    /// The Secrets whose values may be in an attempt's last words, with their namespace.
    fn secrets_behind(&self, sight: &Sight) -> Option<(Arc<str>, Arc<[SecretUse]>)> {
        let end = sight.end.as_ref()?;
        if end.termination_message.is_empty() {
            return None;
        }
        self.fleet.as_ref()?.secrets_of(sight.attempt)
    }

    pub(super) fn masks(&mut self, attempt: AttemptId, masks: Option<&Arc<Masks>>) {
        for mut sight in self.last_words.waiting.remove(&attempt).into_iter().flatten() {
            if let (Some(masks), Some(end)) = (masks, &mut sight.end) {
                end.termination_message = masks.text(&end.termination_message);
            }
            self.outbox.observe(sight);
        }
    }
}
