//! A scripted scheduler: it assigns, answers subscriptions, and takes over what is sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use windlass_api::follow::v1::follow_request::Message as Said;
use windlass_api::follow::v1::follow_response::Message;
use windlass_api::follow::v1::follow_service_server::{FollowService, FollowServiceServer};
use windlass_api::follow::v1::*;

use super::{RUN, until};

#[derive(Clone)]
pub struct Scheduler {
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
    pub address: String,
}

#[derive(Default)]
pub struct State {
    pub assigned: BTreeMap<(u32, u32), Assign>,
    /// Sources that are told, but not assigned.
    pub elsewhere: Vec<LogSource>,
    pub steps: Vec<StepName>,
    pub ended_state: String,
    pub sealed: Vec<Sealed>,
    pub forget: bool,
    pub forgotten: bool,
    pub hellos: Vec<RelayHello>,
    /// Whether what is sealed is acknowledged.
    pub deaf: bool,
    /// Ends every connection once.
    pub cut: u64,
    /// Whether relays are welcomed as known.
    pub known: bool,
    /// Attempts whose pods were let go.
    pub abandoned: Vec<(u32, u32)>,
    grants: u64,
    /// Runs of which the relay has logs, as it said.
    pub kept: BTreeSet<Vec<u8>>,
    /// What is told to those who read the run, with NOT_FOUND.
    pub refuse: Option<String>,
}

/// A source as the scheduler tells it.
pub fn source(step: u32, attempt: u32, executor: &str) -> LogSource {
    LogSource {
        run_id: RUN.to_vec(),
        step,
        step_name: format!("step[{step}]"),
        source_step: "step".to_owned(),
        attempt,
        namespace: "default".to_owned(),
        pod_name: format!("pod-{step}-{attempt}"),
        pod_uid: format!("uid-{step}-{attempt}"),
        cluster_uid: "cluster".to_owned(),
        executor: executor.to_owned(),
        containers: vec!["main".to_owned()],
        ..LogSource::default()
    }
}

impl Scheduler {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = format!("http://{}", listener.local_addr().expect("address"));
        let scheduler = Self {
            state: Arc::new(Mutex::new(State {
                known: true,
                ..State::default()
            })),
            version: Arc::new(watch::Sender::new(0)),
            address,
        };
        let service = FollowServiceServer::new(scheduler.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        scheduler
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Changes the script; the relay is told.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.version.send_modify(|version| *version += 1);
        result
    }

    pub fn assign(&self, source: LogSource) -> u64 {
        self.change(|state| {
            state.grants += 1;
            let grant = state.grants;
            let name = StepName {
                index: source.step,
                name: source.step_name.clone(),
                source_step: source.source_step.clone(),
                ended: false,
            };
            state.steps.retain(|step| step.index != source.step);
            state.steps.push(name);
            let key = (source.step, source.attempt);
            let source = Some(source);
            state.assigned.insert(key, Assign { grant, source });
            grant
        })
    }

    /// Says again to whom an attempt belongs, or that it has ended.
    pub fn reassign(&self, step: u32, attempt: u32, change: impl FnOnce(&mut LogSource)) {
        self.change(|state| {
            let assign = state.assigned.get_mut(&(step, attempt)).expect("assigned");
            change(assign.source.as_mut().expect("source"));
        });
    }

    /// The attempt has ended.
    pub fn end_attempt(&self, step: u32, attempt: u32) {
        self.reassign(step, attempt, |source| source.ended = true);
    }

    pub fn end_run(&self) {
        self.change(|state| {
            "SUCCEEDED".clone_into(&mut state.ended_state);
            state.steps.iter_mut().for_each(|step| step.ended = true);
            for assign in state.assigned.values_mut() {
                assign.source.as_mut().expect("source").ended = true;
            }
        });
    }

    /// Waits until so many attempts were sealed.
    pub async fn sealed(&self, count: usize) -> Vec<Sealed> {
        let distinct = |state: &State| {
            let keys: BTreeSet<_> = state
                .sealed
                .iter()
                .map(|sealed| (sealed.step, sealed.attempt))
                .collect();
            keys.len()
        };
        until("sealed", || distinct(&self.state()) >= count).await;
        self.state().sealed.clone()
    }

    async fn serve(
        self,
        mut requests: Streaming<FollowRequest>,
        out: mpsc::Sender<Result<FollowResponse, Status>>,
    ) -> Option<()> {
        let Some(Said::Hello(hello)) = requests.next().await?.ok()?.message else {
            return None;
        };
        let mut version = self.version.subscribe();
        let cut = {
            let mut state = self.state();
            state.hellos.push(hello);
            state.cut
        };
        let mut session = Session::default();
        let welcome = Message::Welcome(FollowWelcome {
            protocol: 1,
            epoch: 1,
            installation: String::new(),
            known: self.state().known,
            wants_kept: true,
        });
        out.send(Ok(session.message(0, welcome))).await.ok()?;
        loop {
            let messages = session.news(&mut self.state());
            for message in messages {
                out.send(Ok(message)).await.ok()?;
            }
            if self.state().cut > cut {
                return None;
            }
            tokio::select! {
                request = requests.next() => session.take(&mut self.state(), request?.ok()?),
                changed = version.changed() => changed.ok()?,
            }
        }
    }
}

#[derive(Default)]
struct Session {
    sequence: u64,
    acknowledged: u64,
    assigned: BTreeMap<(u32, u32), Assign>,
    subscriptions: BTreeMap<u64, Vec<LogSource>>,
    told_end: BTreeSet<u64>,
    fresh: Vec<SubscribeRun>,
    forgot: bool,
    acknowledge: bool,
}

impl Session {
    fn message(&self, sequence: u64, message: Message) -> FollowResponse {
        FollowResponse {
            sequence,
            acknowledged: self.acknowledged,
            message: Some(message),
        }
    }

    fn numbered(&mut self, message: Message) -> FollowResponse {
        self.sequence += 1;
        self.message(self.sequence, message)
    }

    fn take(&mut self, state: &mut State, request: FollowRequest) {
        match request.message {
            Some(Said::Sealed(sealed)) => {
                state.sealed.push(sealed);
                if !state.deaf {
                    self.acknowledged = self.acknowledged.max(request.sequence);
                    self.acknowledge = true;
                }
            }
            Some(Said::Subscribe(subscribe)) => self.fresh.push(subscribe),
            Some(Said::Kept(kept)) => state.kept.extend(kept.run_ids),
            Some(Said::Unsubscribe(gone)) => drop(self.subscriptions.remove(&gone.subscription)),
            _ => {}
        }
    }

    fn news(&mut self, state: &mut State) -> Vec<FollowResponse> {
        let mut messages = Vec::new();
        let sealed: BTreeSet<_> = state.sealed.iter().map(|sealed| sealed.grant).collect();
        for (key, assign) in &state.assigned {
            let done = sealed.contains(&assign.grant) && !state.deaf;
            if !done && self.assigned.get(key) != Some(assign) {
                self.assigned.insert(*key, assign.clone());
                messages.push(self.numbered(Message::Assign(assign.clone())));
            }
        }
        for key in state.abandoned.drain(..) {
            let assign = state.assigned.remove(&key).expect("assigned");
            messages.push(self.numbered(Message::Abandon(Abandon {
                grant: assign.grant,
                run_id: RUN.to_vec(),
                step: key.0,
                attempt: key.1,
            })));
        }
        if state.forget && !self.forgot {
            self.forgot = true;
            messages.push(self.numbered(Message::Forget(ForgetRun { run_id: RUN.to_vec() })));
        }
        for subscribe in std::mem::take(&mut self.fresh) {
            let refused = RunUpdate {
                subscription: subscribe.subscription,
                code: 5,
                message: format!("there is no run {:?}", subscribe.run),
                ..RunUpdate::default()
            };
            if subscribe.run == "unknown" {
                messages.push(self.message(0, Message::Run(refused)));
            } else {
                self.subscriptions.insert(subscribe.subscription, Vec::new());
            }
        }
        let mut sources: Vec<LogSource> = state
            .assigned
            .values()
            .filter_map(|assign| assign.source.clone())
            .collect();
        sources.extend(state.elsewhere.clone());
        if let Some(message) = &state.refuse {
            for subscription in std::mem::take(&mut self.subscriptions).into_keys() {
                let refused = RunUpdate {
                    subscription,
                    code: 5,
                    message: message.clone(),
                    ..RunUpdate::default()
                };
                messages.push(self.message(0, Message::Run(refused)));
            }
        }
        let numbers: Vec<u64> = self.subscriptions.keys().copied().collect();
        for subscription in numbers {
            let told = self.subscriptions.get_mut(&subscription).expect("there");
            let ended = !state.ended_state.is_empty() && self.told_end.insert(subscription);
            if *told == sources && !ended && !sources.is_empty() {
                continue;
            }
            told.clone_from(&sources);
            let update = RunUpdate {
                subscription,
                run_id: RUN.to_vec(),
                run_name: "run-1".to_owned(),
                sources: sources.clone(),
                synced: true,
                ended_state: state.ended_state.clone(),
                steps: state.steps.clone(),
                ..RunUpdate::default()
            };
            messages.push(self.message(0, Message::Run(update)));
        }
        if std::mem::take(&mut self.acknowledge) {
            messages.push(self.message(0, Message::Heartbeat(FollowHeartbeat {})));
        }
        messages
    }
}

#[tonic::async_trait]
impl FollowService for Scheduler {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let (out, stream) = mpsc::channel(16);
        let scheduler = self.clone();
        tokio::spawn(async move {
            scheduler.serve(request.into_inner(), out).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
