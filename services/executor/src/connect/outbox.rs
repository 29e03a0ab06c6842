//! What is to be told to the scheduler, until it acknowledges it.
//!
//! Observations are the latest of each attempt; a message that was sent keeps its number and content, and is sent again on the next
//! stream unless the scheduler has committed it. Putting something in never waits, so that reading never does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::connect_request::Message;
use windlass_ids::AttemptId;

use super::convert;
use crate::attempts::Sight;
use crate::metrics;

/// Most observations in one message.
const BATCH: usize = 512;
/// Most messages that are sent and not acknowledged; what comes meanwhile is coalesced.
const WINDOW: usize = 64;

/// The outgoing side of the session.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    /// Where the clock of frames begins.
    origin: Instant,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            origin: Instant::now(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    last_sequence: u64,
    /// The newest of each attempt, and in which order they came.
    observations: HashMap<AttemptId, Sight>,
    order: VecDeque<AttemptId>,
    /// Answers that somebody waits for on this stream; they are said once, without a number.
    answers: VecDeque<Message>,
    /// Number of the stream.
    stream: u64,
    /// Other messages; few.
    messages: VecDeque<Message>,
    /// Sent, not acknowledged; with their numbers.
    sent: VecDeque<(u64, Message)>,
    /// How many of `sent` went out on this stream.
    resent: usize,
    /// The last message of the scheduler that was taken over, and what of that was told.
    taken: u64,
    told: u64,
}

impl Outbox {
    /// Reports an observation, in place of an older one of that attempt.
    pub(crate) fn observe(&self, sight: Sight) {
        let attempt = sight.attempt;
        let mut state = self.lock();
        if state.observations.insert(attempt, sight).is_none() {
            state.order.push_back(attempt);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Sends a message.
    pub(crate) fn push(&self, message: Message) {
        self.lock().messages.push_back(message);
        self.changed.notify_one();
    }

    /// Answers a call of the stream with this number; on another one nobody waits for it.
    pub(crate) fn answer(&self, stream: u64, answer: Message) {
        let mut state = self.lock();
        if state.stream != stream {
            return;
        }
        state.answers.push_back(answer);
        drop(state);
        self.changed.notify_one();
    }

    /// Number of the stream.
    pub(crate) fn stream(&self) -> u64 {
        self.lock().stream
    }

    /// A message of the scheduler was taken over.
    pub(crate) fn took(&self, sequence: u64) {
        self.lock().taken = sequence;
        self.changed.notify_one();
    }

    /// The last message of the scheduler that was taken over.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// The scheduler has committed everything up to `sequence`.
    pub(crate) fn acknowledged(&self, sequence: u64) {
        let mut state = self.lock();
        while state.sent.front().is_some_and(|(number, _)| *number <= sequence) {
            state.sent.pop_front();
            state.resent = state.resent.saturating_sub(1);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A stream began: what the scheduler has not committed is sent again.
    pub(crate) fn begin_stream(&self, committed: u64, resumed: bool) {
        self.acknowledged(committed);
        let mut state = self.lock();
        state.stream += 1;
        state.answers.clear();
        state.resent = 0;
        if !resumed {
            state.taken = 0;
            // Lists refer to orders of the session that has ended; a new one is wanted. The scheduler passes a list with a gap over.
            state.messages.retain(|message| !is_inventory(message));
            state.sent.retain(|(_, message)| !is_inventory(message));
        }
        state.told = 0;
        drop(state);
        self.changed.notify_one();
    }

    /// A session began anew: inventories and sights of earlier ones are not told to it, since they speak of commands that it never said.
    pub(crate) fn forget_session(&self) {
        let mut state = self.lock();
        state.messages.retain(outlives_session);
        state.sent.retain(|(_, message)| outlives_session(message));
        state.resent = 0;
    }

    /// Whether everything was acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.answers.is_empty() && state.observations.is_empty() && state.messages.is_empty() && state.sent.is_empty()
    }

    /// The next message of this stream; a heartbeat when there is none for `idle`.
    pub(crate) async fn next(&self, idle: Duration) -> dispatch::ConnectRequest {
        let deadline = Instant::now() + idle;
        loop {
            let next = self.lock().next();
            if let Some(message) = next {
                return self.stamp(message);
            }
            if tokio::time::timeout_at(deadline, self.changed.notified())
                .await
                .is_err()
            {
                let heartbeat = self.lock().heartbeat();
                return self.stamp(heartbeat);
            }
        }
    }

    /// Writes the time of sending into a frame.
    fn stamp(&self, frame: dispatch::ConnectRequest) -> dispatch::ConnectRequest {
        let millis = self.origin.elapsed().as_millis();
        dispatch::ConnectRequest {
            sent_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            ..frame
        }
    }

    /// When a frame with this stamp was sent; `None` for a stamp that was never written.
    pub(crate) fn instant_of(&self, sent_ms: u64) -> Option<Instant> {
        let sent = self.origin.checked_add(Duration::from_millis(sent_ms))?;
        (sent_ms > 0 && sent <= Instant::now()).then_some(sent)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a message means the same in another session.
fn outlives_session(message: &Message) -> bool {
    !matches!(message, Message::Inventory(_) | Message::Sight(_))
}

impl State {
    fn next(&mut self) -> Option<dispatch::ConnectRequest> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(self.frame(0, answer));
        }
        if let Some((sequence, message)) = self.sent.get(self.resent) {
            let (sequence, message) = (*sequence, message.clone());
            self.resent += 1;
            return Some(self.frame(sequence, message));
        }
        if self.sent.len() < WINDOW
            && let Some(message) = self.fresh()
        {
            self.last_sequence += 1;
            self.sent.push_back((self.last_sequence, message.clone()));
            self.resent = self.sent.len();
            let sequence = self.last_sequence;
            return Some(self.frame(sequence, message));
        }
        (self.taken > self.told).then(|| self.heartbeat())
    }

    fn fresh(&mut self) -> Option<Message> {
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }
        let count = self.order.len().min(BATCH);
        let attempts: Vec<AttemptId> = self.order.drain(..count).collect();
        let sights = attempts.iter().filter_map(|attempt| self.observations.remove(attempt));
        let observations: Vec<_> = sights.map(convert::observation).collect();
        metrics::set(metrics::UNACKNOWLEDGED, self.order.len());
        (!observations.is_empty()).then_some(Message::Observations(dispatch::Observations { observations }))
    }

    fn heartbeat(&mut self) -> dispatch::ConnectRequest {
        self.frame(0, Message::Heartbeat(dispatch::Heartbeat {}))
    }

    fn frame(&mut self, sequence: u64, message: Message) -> dispatch::ConnectRequest {
        self.told = self.taken;
        dispatch::ConnectRequest {
            sequence,
            acknowledged: self.taken,
            message: Some(message),
            ..dispatch::ConnectRequest::default()
        }
    }
}

fn is_inventory(message: &Message) -> bool {
    matches!(message, Message::Inventory(_))
}

#[cfg(test)]
mod tests {
    use windlass_ids::{RunId, StepIndex};

    use super::*;
    use crate::attempts::Phase;

    fn sight(step: u32, phase: Phase) -> Sight {
        let attempt = AttemptId {
            run: RunId::from_bytes([1; 16]),
            step: StepIndex(step),
            number: 1,
        };
        Sight::without_pod(attempt, 0, "p", phase)
    }

    #[tokio::test]
    async fn an_answer_is_said_once_on_the_stream_that_asked_and_on_no_other() {
        let outbox = Outbox::default();
        outbox.begin_stream(0, false);
        let answer = |call| Message::SecretAnswer(dispatch::SecretAnswer { call, outcome: None });
        let old = outbox.stream();
        outbox.answer(old, answer(1));
        let frame = outbox.next(Duration::from_secs(1)).await;
        assert_eq!((frame.sequence, frame.message), (0, Some(answer(1))));
        outbox.answer(old, answer(2));
        outbox.begin_stream(0, true);
        outbox.answer(old, answer(3));
        assert!(outbox.is_empty(), "nobody waits any more");
    }

    fn observed(request: &dispatch::ConnectRequest) -> Vec<(u32, dispatch::AttemptPhase)> {
        let Some(Message::Observations(observations)) = &request.message else {
            panic!("no observations: {request:?}");
        };
        let all = observations.observations.iter();
        all.map(|one| (one.attempt.as_ref().expect("a key").step, one.phase()))
            .collect()
    }

    const IDLE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn observations_are_the_latest_of_each_attempt() {
        let outbox = Outbox::default();
        outbox.observe(sight(1, Phase::Created));
        outbox.observe(sight(2, Phase::Created));
        outbox.observe(sight(1, Phase::Running));
        let request = outbox.next(IDLE).await;
        assert_eq!(request.sequence, 1);
        let expected = [
            (1, dispatch::AttemptPhase::Running),
            (2, dispatch::AttemptPhase::Created),
        ];
        assert_eq!(observed(&request), expected);
        let idle = outbox.next(IDLE).await;
        assert!(matches!(idle.message, Some(Message::Heartbeat(_))) && idle.sequence == 0);
    }

    #[tokio::test]
    async fn i1_what_was_not_committed_is_sent_again_with_its_number() {
        let outbox = Outbox::default();
        for step in 1..=3 {
            outbox.observe(sight(step, Phase::Created));
            outbox.next(IDLE).await;
        }
        outbox.begin_stream(1, true);
        assert_eq!(outbox.next(IDLE).await.sequence, 2);
        let third = outbox.next(IDLE).await;
        assert_eq!(
            (third.sequence, observed(&third)),
            (3, vec![(3, dispatch::AttemptPhase::Created)])
        );
        assert!(!outbox.is_empty());
        outbox.acknowledged(3);
        assert!(outbox.is_empty());
    }

    #[tokio::test]
    async fn i11_without_acknowledgements_the_window_fills_and_the_rest_is_coalesced() {
        let outbox = Outbox::default();
        for step in 0..WINDOW {
            outbox.observe(sight(u32::try_from(step).expect("small"), Phase::Created));
            outbox.next(IDLE).await;
        }
        outbox.observe(sight(0, Phase::Running));
        outbox.observe(sight(0, Phase::Ended));
        let held = outbox.next(IDLE).await;
        assert!(matches!(held.message, Some(Message::Heartbeat(_))));
        outbox.acknowledged(1);
        assert_eq!(observed(&outbox.next(IDLE).await), [(0, dispatch::AttemptPhase::Ended)]);
    }

    #[tokio::test]
    async fn an_inventory_of_another_session_is_not_told() {
        let outbox = Outbox::default();
        let inventory = |reflects_sequence| {
            Message::Inventory(dispatch::Inventory {
                reflects_sequence,
                ..dispatch::Inventory::default()
            })
        };
        outbox.push(inventory(7));
        outbox.next(IDLE).await;
        outbox.observe(sight(1, Phase::Running));
        outbox.next(IDLE).await;
        outbox.push(inventory(8));
        outbox.begin_stream(0, true);
        assert!(
            matches!(outbox.next(IDLE).await.message, Some(Message::Inventory(_))),
            "it is the same session"
        );
        outbox.begin_stream(0, false);
        outbox.forget_session();
        let again = outbox.next(IDLE).await;
        assert_eq!(
            (again.sequence, observed(&again)),
            (2, vec![(1, dispatch::AttemptPhase::Running)])
        );
        assert!(matches!(outbox.next(IDLE).await.message, Some(Message::Heartbeat(_))));
        outbox.push(inventory(1));
        assert_eq!(outbox.next(IDLE).await.sequence, 3);
    }

    #[tokio::test]
    async fn what_was_taken_over_is_told_at_once() {
        let outbox = Outbox::default();
        outbox.took(7);
        let request = outbox.next(IDLE).await;
        assert_eq!((request.sequence, request.acknowledged), (0, 7));
    }
}
