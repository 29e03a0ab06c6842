//! One executor process as long as the scheduler remembers it: it outlives its streams.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use windlass_api::cluster::v1 as cluster;
use windlass_api::convert::timestamp_to_proto;
use windlass_api::dispatch::v1::{ClusterSight, ConnectResponse};
use windlass_api::refusal::shorten;
use windlass_ids::{ClusterAlias, ClusterUid, Incarnation, Timestamp};

use super::calls::{AllCalls, Answer, Call};
use super::hello::Hello;
use super::inventory::{InventoryChunk, InventoryChunks, WholeInventory};
use super::outbox::Outbox;
use crate::errors::CallError;

/// Most bytes of what an executor says of its cluster that are told.
const MAX_SIGHT: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    pub(crate) cluster: ClusterUid,
    pub(crate) alias: ClusterAlias,
    pub(crate) epoch: u64,
    /// Whether its cluster is the embedded local one.
    pub(crate) local: bool,
    /// Whether it carries out SecretCalls.
    pub(crate) secrets: bool,
    /// Whether it carries out RunSecretCalls.
    pub(crate) run_secrets: bool,
    /// Whether it carries out ScheduleSecretCalls.
    pub(crate) schedule_secrets: bool,
    /// Whether it carries out ClusterCalls.
    pub(crate) checks: bool,
    /// Version of its program.
    version: String,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    calls: AllCalls,
    /// Launches that it takes, as it said last.
    credit: u32,
    /// How it sees its cluster, once it has said so.
    sight: Option<ClusterSight>,
    /// When the last stream was attached.
    connected: Timestamp,
    /// The last numbered message that the core has taken in.
    taken: u64,
    /// When the newest frame that the core has taken in was sent, on the executor's clock.
    heard_ms: u64,
    inventory: InventoryChunks,
    stream: Option<CancellationToken>,
    /// Number of the stream that may take messages; older ones get none any more.
    generation: u64,
    /// The core has given the executor up: no stream may go on with this session.
    retired: bool,
}

impl Session {
    pub(crate) fn new(hello: &Hello, epoch: u64) -> Self {
        Self {
            incarnation: hello.incarnation,
            name: hello.name.clone(),
            cluster: hello.cluster.clone(),
            alias: hello.alias.clone(),
            epoch,
            local: hello.local,
            secrets: hello.secrets,
            run_secrets: hello.run_secrets,
            schedule_secrets: hello.schedule_secrets,
            checks: hello.checks,
            version: hello.version.clone(),
            state: Mutex::new(State {
                outbox: Outbox::new(),
                calls: AllCalls::default(),
                credit: hello.credit,
                sight: None,
                connected: Timestamp::default(),
                taken: 0,
                heard_ms: 0,
                inventory: InventoryChunks::default(),
                stream: None,
                generation: 0,
                retired: false,
            }),
            wake: Notify::new(),
        }
    }

    /// Changes what is to be said, and wakes the stream's writer.
    pub(crate) fn tell<T>(&self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let told = change(&mut self.lock().outbox);
        self.wake.notify_one();
        told
    }

    /// Sends a call on the open stream.
    ///
    /// # Errors
    /// When there is no stream, or too many calls wait.
    pub(crate) fn ask<C: Call>(&self, call: C) -> Result<Answer<C>, CallError> {
        let mut state = self.lock();
        if state.stream.as_ref().is_none_or(CancellationToken::is_cancelled) {
            return Err(CallError::NoExecutor {
                cluster: self.alias.0.clone(),
            });
        }
        let answer = C::among(&mut state.calls).ask(call).ok_or(CallError::TooMany)?;
        drop(state);
        self.wake.notify_one();
        Ok(answer)
    }

    /// A stream has ended: no answer comes on it any more.
    pub(crate) fn stream_ended(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.calls.abandon();
        }
    }

    /// How many calls wait for their answers.
    pub(crate) fn waiting_calls(&self) -> usize {
        self.lock().calls.len()
    }

    /// An answer to a call came.
    pub(crate) fn answered<C: Call>(&self, answer: C::Answer) {
        C::among(&mut self.lock().calls).answered(answer);
    }

    /// What the executor says of its room for launches, for people: the core hears it in its own order.
    pub(crate) fn note_credit(&self, credit: u32) {
        self.lock().credit = credit;
    }

    /// What it says of its cluster, likewise.
    pub(crate) fn note_sight(&self, sight: ClusterSight) {
        self.lock().sight = Some(sight);
    }

    /// The executor for people; which shards it leases is not known here.
    pub(crate) fn described(&self) -> cluster::ConnectedExecutor {
        let state = self.lock();
        cluster::ConnectedExecutor {
            name: self.name.clone(),
            version: self.version.clone(),
            incarnation: self.incarnation.to_string(),
            leased_shards: 0,
            credit: state.credit,
            connect_time: Some(timestamp_to_proto(state.connected)),
            sight: state.sight.as_ref().map(|sight| cluster::ApiServerSight {
                visible: sight.visible,
                since_time: sight.since,
                message: shorten(&sight.message, MAX_SIGHT),
            }),
        }
    }

    /// Prepares the session for a stream that goes on after `sequence`, and takes it away from an older one; false when it cannot go on.
    pub(crate) fn resume(&self, sequence: u64) -> bool {
        self.detach();
        let mut state = self.lock();
        !state.retired && state.outbox.resume(sequence)
    }

    /// Ends the session: the core has given its executor up, which has to connect anew and list its pods.
    pub(crate) fn retire(&self) {
        self.lock().retired = true;
        self.detach();
    }

    /// Whether it was ended for good.
    pub(crate) fn is_retired(&self) -> bool {
        self.lock().retired
    }

    /// Attaches a stream that begins now and returns its number; an older one is sent away.
    pub(crate) fn attach(&self, now: Timestamp) -> (u64, CancellationToken) {
        self.detach();
        let token = CancellationToken::new();
        let mut state = self.lock();
        if state.retired {
            // Another session took its place while this stream was being opened.
            token.cancel();
        }
        state.stream = Some(token.clone());
        state.connected = now;
        (state.generation, token)
    }

    /// Whether a stream is attached that was not sent away.
    pub(crate) fn is_attached(&self) -> bool {
        self.lock().stream.as_ref().is_some_and(|stream| !stream.is_cancelled())
    }

    /// Sends the stream away: the executor connects again.
    pub(crate) fn detach(&self) {
        let mut state = self.lock();
        state.generation += 1;
        // Whatever the executor still does, its answer would come on another stream.
        state.calls.abandon();
        if let Some(stream) = state.stream.take() {
            stream.cancel();
        }
    }

    /// Whether a stream was not sent away, and no other one took its place.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        let state = self.lock();
        !state.retired && state.generation == generation
    }

    /// The core has heard a frame: the executor's lease counts from when it was sent.
    pub(crate) fn hear(&self, sent_ms: u64) {
        let mut state = self.lock();
        state.heard_ms = state.heard_ms.max(sent_ms);
    }

    /// Whether a numbered message is new. Asked where it is applied and nowhere before: what is taken is what is acknowledged (I1).
    pub(crate) fn take(&self, sequence: u64) -> bool {
        let mut state = self.lock();
        let new = sequence > state.taken;
        state.taken = state.taken.max(sequence);
        new
    }

    /// Adds a chunk of an inventory that was taken; returns the inventory with the last one.
    pub(crate) fn join(&self, chunk: InventoryChunk) -> Option<WholeInventory> {
        let mut state = self.lock();
        let last = chunk.is_last();
        let Some(mut whole) = state.inventory.add(chunk) else {
            // One of which a chunk did not come says nothing: another one is asked for.
            if last {
                state.outbox.request_inventory();
            }
            return None;
        };
        whole.inventory.reflects = state.outbox.order_at(whole.reflects_sequence);
        Some(whole)
    }

    /// The next message for a stream, when there is something to say and the stream is still the session's.
    pub(crate) fn next(&self, generation: u64) -> Option<ConnectResponse> {
        let mut state = self.lock();
        if state.generation != generation {
            return None;
        }
        if let Some(call) = state.calls.next() {
            return Some(ConnectResponse {
                heard_ms: state.heard_ms,
                ..call
            });
        }
        state.outbox.has_work().then(|| state.next())
    }

    /// A message that keeps the stream alive, and acknowledges; `None` when another stream took over.
    pub(crate) fn heartbeat(&self, generation: u64) -> Option<ConnectResponse> {
        let mut state = self.lock();
        (state.generation == generation).then(|| state.next())
    }

    /// Waits until there may be something to say.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> ConnectResponse {
        ConnectResponse {
            heard_ms: self.heard_ms,
            ..self.outbox.next()
        }
    }
}
