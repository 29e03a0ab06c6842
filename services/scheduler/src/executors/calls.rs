//! Calls that clients wait for: sent to an executor once, answered once, and kept nowhere. With the stream they end, too.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use windlass_api::convert::duration_to_proto;
use windlass_api::dispatch::v1 as wire;
use windlass_api::dispatch::v1::connect_response::Message;

use super::Session;

/// How long an executor may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long its answer is waited for: what it may take, and the way.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Most calls of a kind that wait for answers in a session; each about a Secret has up to 1 MiB of values (I11).
pub(crate) const MAX_CALLS: usize = 32;

/// A kind of call, with its answer.
pub(crate) trait Call: Sized {
    /// Answers it.
    type Answer;

    /// Those of its kind.
    fn among(calls: &mut AllCalls) -> &mut Calls<Self>;
    /// Whether an executor carries it out.
    fn is_known_to(session: &Session) -> bool;
    /// With this number, and with how long it may take.
    fn numbered(self, number: u64) -> Self;
    fn number(&self) -> u64;
    fn number_of(answer: &Self::Answer) -> u64;
    /// As it is sent.
    fn message(self) -> Message;
}

/// The calls of a session, by kind.
#[derive(Debug, Default)]
pub(crate) struct AllCalls {
    secrets: Calls<wire::SecretCall>,
    run_secrets: Calls<wire::RunSecretCall>,
    schedule_secrets: Calls<wire::ScheduleSecretCall>,
    checks: Calls<wire::ClusterCall>,
}

impl AllCalls {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        let secrets = self.secrets.waiting.len() + self.run_secrets.waiting.len() + self.schedule_secrets.waiting.len();
        secrets + self.checks.waiting.len()
    }

    /// The next call to send.
    pub(crate) fn next(&mut self) -> Option<wire::ConnectResponse> {
        let secrets = self.secrets.next().or_else(|| self.run_secrets.next());
        let secrets = secrets.or_else(|| self.schedule_secrets.next());
        secrets.or_else(|| self.checks.next())
    }

    /// No answer can come any more.
    pub(crate) fn abandon(&mut self) {
        self.secrets.abandon();
        self.run_secrets.abandon();
        self.schedule_secrets.abandon();
        self.checks.abandon();
    }
}

macro_rules! kinds_of_calls {
    ($($call:ident => $answer:ident, $field:ident;)*) => {
        $(
        impl Call for wire::$call {
            type Answer = wire::$answer;

            fn among(calls: &mut AllCalls) -> &mut Calls<Self> {
                &mut calls.$field
            }

            fn is_known_to(session: &Session) -> bool {
                session.$field
            }

            fn numbered(self, call: u64) -> Self {
                Self {
                    call,
                    timeout: Some(duration_to_proto(TIMEOUT)),
                    ..self
                }
            }

            fn number(&self) -> u64 {
                self.call
            }

            fn number_of(answer: &Self::Answer) -> u64 {
                answer.call
            }

            fn message(self) -> Message {
                Message::$call(self)
            }
        }
        )*
    };
}

kinds_of_calls! {
    SecretCall => SecretAnswer, secrets;
    RunSecretCall => RunSecretAnswer, run_secrets;
    ScheduleSecretCall => ScheduleSecretAnswer, schedule_secrets;
    ClusterCall => ClusterAnswer, checks;
}

/// Who waits for an answer; the sender is dropped when none can come any more.
pub(crate) type Answer<C> = oneshot::Receiver<<C as Call>::Answer>;

/// The calls of one kind of a session; see the module.
#[derive(Debug)]
pub(crate) struct Calls<C: Call> {
    last: u64,
    /// Not sent yet.
    queued: VecDeque<C>,
    /// Not answered yet.
    waiting: BTreeMap<u64, oneshot::Sender<C::Answer>>,
}

impl<C: Call> Default for Calls<C> {
    fn default() -> Self {
        Self {
            last: 0,
            queued: VecDeque::new(),
            waiting: BTreeMap::new(),
        }
    }
}

impl<C: Call> Calls<C> {
    /// Queues a call; `None` when too many wait already.
    pub(crate) fn ask(&mut self, call: C) -> Option<Answer<C>> {
        self.waiting.retain(|_, answer| !answer.is_closed());
        self.queued.retain(|call| self.waiting.contains_key(&call.number()));
        if self.waiting.len() >= MAX_CALLS {
            return None;
        }
        self.last += 1;
        let (sender, answer) = oneshot::channel();
        self.waiting.insert(self.last, sender);
        self.queued.push_back(call.numbered(self.last));
        Some(answer)
    }

    /// The next call to send; one that nobody waits for any more is not sent.
    fn next(&mut self) -> Option<wire::ConnectResponse> {
        loop {
            let call = self.queued.pop_front()?;
            let waiting = self.waiting.get(&call.number());
            if waiting.is_some_and(|answer| !answer.is_closed()) {
                return Some(wire::ConnectResponse {
                    message: Some(call.message()),
                    ..wire::ConnectResponse::default()
                });
            }
        }
    }

    /// Hands an answer to who waits for it, if anybody still does.
    pub(crate) fn answered(&mut self, answer: C::Answer) {
        if let Some(waiting) = self.waiting.remove(&C::number_of(&answer)) {
            waiting.send(answer).ok();
        }
    }

    /// No answer can come any more.
    fn abandon(&mut self) {
        self.queued.clear();
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(sent: Option<wire::ConnectResponse>) -> Option<u64> {
        match sent?.message? {
            Message::SecretCall(call) => Some(call.call),
            other => panic!("a call: {other:?}"),
        }
    }

    #[test]
    fn an_answer_reaches_its_call_and_no_other() {
        let mut calls = Calls::<wire::SecretCall>::default();
        let mut first = calls.ask(wire::SecretCall::default()).expect("room");
        let mut second = calls.ask(wire::SecretCall::default()).expect("room");
        assert_eq!((number(calls.next()), number(calls.next())), (Some(1), Some(2)));
        assert!(calls.next().is_none(), "what was sent is not sent again");
        calls.answered(wire::SecretAnswer { call: 2, outcome: None });
        calls.answered(wire::SecretAnswer { call: 9, outcome: None });
        assert_eq!(second.try_recv().expect("answered").call, 2);
        first.try_recv().expect_err("not answered");
        calls.abandon();
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn i11_calls_are_bounded_and_those_of_nobody_are_not_sent() {
        let mut calls = Calls::<wire::SecretCall>::default();
        let answers: Vec<_> = (0..MAX_CALLS)
            .map(|_| calls.ask(wire::SecretCall::default()).expect("room"))
            .collect();
        assert!(calls.ask(wire::SecretCall::default()).is_none());
        drop(answers);
        let kept = calls.ask(wire::SecretCall::default()).expect("room again");
        assert_eq!(number(calls.next()), Some(MAX_CALLS as u64 + 1));
        assert_eq!(calls.waiting.len(), 1);
        drop(kept);
    }
}
