//! An executor that plays a script over the real protocol: it acknowledges, keeps pods in memory and lists them when asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use windlass_api::cluster::v1::ClusterCheck;
use windlass_api::dispatch::v1 as wire;
use windlass_api::dispatch::v1::dispatch_service_client::DispatchServiceClient;
use windlass_api::dispatch::v1::{connect_request, connect_response};
use windlass_api::run::v1::FailureClass;
use windlass_service::AuthenticatedChannel;

use crate::support::Scheduler;

/// What becomes of a launched pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Play {
    /// It runs and succeeds.
    Succeed,
    /// It runs and fails with an exit code.
    Fail(i32),
    /// It runs until it is stopped.
    Hold,
    /// It gets no node.
    Unschedulable,
    /// Its node does not answer.
    Unreachable,
    /// Nothing is heard of it.
    Silent,
}

/// Decides on the play of a step's attempt.
pub(crate) type Script = Arc<dyn Fn(&str, u32) -> Play + Send + Sync>;

/// Answers a call about a Secret; with nothing, it is not answered.
pub(crate) type SecretScript = Arc<dyn Fn(&wire::SecretCall) -> Option<wire::secret_answer::Outcome> + Send + Sync>;

/// What becomes of a call about the Secret of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is done and answered.
    Done,
    /// It is done, and the answer is lost.
    Lost,
    /// It is not done.
    Refused(wire::SecretFault),
}

/// Decides on a call about the Secret of a run.
pub(crate) type RunSecretScript = Arc<dyn Fn(&wire::RunSecretCall) -> Reply + Send + Sync>;

/// What is done with a call about a Secret of a schedule.
pub(crate) type ScheduleSecretScript = Arc<dyn Fn(&wire::ScheduleSecretCall) -> Reply + Send + Sync>;

impl Reply {
    fn refusal(self) -> Option<wire::SecretRefusal> {
        let Self::Refused(fault) = self else { return None };
        Some(wire::SecretRefusal {
            fault: fault.into(),
            ..wire::SecretRefusal::default()
        })
    }

    fn sends<T>(self, answer: impl FnOnce() -> T) -> Vec<T> {
        match self {
            Self::Lost => Vec::new(),
            Self::Done | Self::Refused(_) => vec![answer()],
        }
    }
}

/// Answers a look at the cluster; with nothing, it is not answered.
pub(crate) type CheckScript = Arc<dyn Fn(&wire::ClusterCall) -> Option<ClusterCheck> + Send + Sync>;

/// Identity of an attempt, for maps.
pub(crate) type Key = (Vec<u8>, u32, u32);

/// What the executor was told and has.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) welcomes: Vec<wire::SchedulerWelcome>,
    pub(crate) contexts: usize,
    /// Their JSON by the run's id.
    pub(crate) context_json: BTreeMap<String, Vec<u8>>,
    pub(crate) templates: usize,
    /// Their JSON.
    pub(crate) template_texts: Vec<String>,
    pub(crate) launches: Vec<(Key, String, u64)>,
    pub(crate) stops: Vec<Key>,
    pub(crate) probes: Vec<Key>,
    pub(crate) releases: Vec<wire::Release>,
    pub(crate) finished: Vec<Vec<u8>>,
    pub(crate) relays: Vec<wire::Relay>,
    pub(crate) shards: Vec<u8>,
    pub(crate) inventories: usize,
    /// The last numbered message of the scheduler.
    pub(crate) last: u64,
    /// The last of ours that is committed.
    pub(crate) acknowledged: u64,
    /// The last of ours.
    pub(crate) sent: u64,
    /// Pods that were not released.
    pub(crate) pods: BTreeMap<Key, wire::Observation>,
    /// Whether nothing is answered.
    pub(crate) muted: bool,
    /// Frames that came.
    pub(crate) frames: usize,
    /// When the last frame of ours was sent, and the newest one that the scheduler has heard: a clock that counts frames.
    pub(crate) clock: u64,
    pub(crate) heard: u64,
    /// Calls about Secrets.
    pub(crate) secret_calls: Vec<wire::SecretCall>,
    /// Calls about Secrets of runs.
    pub(crate) run_secret_calls: Vec<wire::RunSecretCall>,
    /// Secrets of runs that are there.
    pub(crate) run_secrets: BTreeMap<Vec<u8>, BTreeMap<String, Vec<u8>>>,
    /// Calls about Secrets of schedules.
    pub(crate) schedule_secret_calls: Vec<wire::ScheduleSecretCall>,
    /// Secrets of schedules that are there, by name.
    pub(crate) schedule_secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Looks at the cluster.
    pub(crate) cluster_calls: Vec<wire::ClusterCall>,
    /// Launch messages in the order of the frames.
    pub(crate) launch_frames: usize,
}

/// Who an executor is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) incarnation: String,
    pub(crate) cluster_uid: String,
    pub(crate) alias: String,
    pub(crate) credit: u32,
}

impl Identity {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            incarnation: format!("00000000-0000-4000-8000-0000000000{number:02x}"),
            cluster_uid: "cluster-uid".to_owned(),
            alias: "prod".to_owned(),
            credit: 1_000,
        }
    }
}

/// See the module. The pods outlive streams, as in a cluster.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) identity: Identity,
    pub(crate) seen: Arc<Mutex<Seen>>,
    script: Script,
    secrets: SecretScript,
    run_secrets: RunSecretScript,
    schedule_secrets: ScheduleSecretScript,
    checks: CheckScript,
    /// Capabilities that it announces.
    pub(crate) capabilities: Vec<String>,
    /// Where messages of the open stream go in.
    outgoing: Arc<Mutex<Option<mpsc::Sender<wire::ConnectRequest>>>>,
}

impl Executor {
    /// One of the cluster with this name; its pods succeed.
    pub(crate) fn of(number: u8, cluster: &str) -> Self {
        let identity = Identity {
            cluster_uid: format!("uid-of-{cluster}"),
            alias: cluster.to_owned(),
            ..Identity::new(number)
        };
        Self::new(identity, |_, _| Play::Succeed)
    }

    pub(crate) fn new(identity: Identity, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Self {
        Self {
            identity,
            seen: Arc::default(),
            outgoing: Arc::default(),
            script: Arc::new(script),
            secrets: Arc::new(|_| None),
            run_secrets: Arc::new(|_| Reply::Done),
            schedule_secrets: Arc::new(|_| Reply::Done),
            checks: Arc::new(|_| None),
            capabilities: windlass_api::DISPATCH_CAPABILITIES.map(str::to_owned).to_vec(),
        }
    }

    /// Answers calls about Secrets like this.
    pub(crate) fn with_secrets(
        self,
        secrets: impl Fn(&wire::SecretCall) -> Option<wire::secret_answer::Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self {
            secrets: Arc::new(secrets),
            ..self
        }
    }

    /// Does this with calls about Secrets of runs.
    pub(crate) fn with_run_secrets(
        self,
        run_secrets: impl Fn(&wire::RunSecretCall) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self {
            run_secrets: Arc::new(run_secrets),
            ..self
        }
    }

    /// Does this with calls about Secrets of schedules.
    pub(crate) fn with_schedule_secrets(
        self,
        schedule_secrets: impl Fn(&wire::ScheduleSecretCall) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self {
            schedule_secrets: Arc::new(schedule_secrets),
            ..self
        }
    }

    /// Answers looks at the cluster like this.
    pub(crate) fn with_checks(
        self,
        checks: impl Fn(&wire::ClusterCall) -> Option<ClusterCheck> + Send + Sync + 'static,
    ) -> Self {
        Self {
            checks: Arc::new(checks),
            ..self
        }
    }

    /// Says something of itself on the open stream, with the next number.
    pub(crate) async fn say(&self, message: connect_request::Message) {
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let frame = {
            let mut seen = self.seen();
            seen.sent += 1;
            let sequence = seen.sent;
            frame(&mut seen, sequence, message)
        };
        outgoing.expect("a stream").send(frame).await.expect("it is open");
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hello(&self) -> wire::ExecutorHello {
        let (epoch, last) = {
            let seen = self.seen();
            (seen.welcomes.last().map_or(0, |welcome| welcome.epoch), seen.last)
        };
        wire::ExecutorHello {
            incarnation: self.identity.incarnation.clone(),
            name: "exec-1".to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            cluster_uid: self.identity.cluster_uid.clone(),
            cluster_alias: self.identity.alias.clone(),
            credit: self.identity.credit,
            capabilities: self.capabilities.clone(),
            resume_epoch: epoch,
            resume_sequence: last,
            ..wire::ExecutorHello::default()
        }
    }

    /// Plays in a task of its own.
    pub(crate) fn spawn(&self, scheduler: &Scheduler) -> JoinHandle<Result<(), tonic::Status>> {
        let (executor, channel) = (self.clone(), scheduler.channel());
        tokio::spawn(async move { executor.run(channel).await })
    }

    /// Opens a stream and plays until it ends; the status with which it ended.
    pub(crate) async fn run(&self, channel: AuthenticatedChannel) -> Result<(), tonic::Status> {
        let mut client = DispatchServiceClient::new(channel).max_decoding_message_size(16 * 1024 * 1024);
        let (outgoing, receiver) = mpsc::channel(64);
        let hello = wire::ConnectRequest {
            message: Some(connect_request::Message::Hello(self.hello())),
            ..wire::ConnectRequest::default()
        };
        outgoing.send(hello).await.expect("the receiver is here");
        *self.outgoing.lock().unwrap_or_else(PoisonError::into_inner) = Some(outgoing.clone());
        let mut incoming = client.connect(ReceiverStream::new(receiver)).await?.into_inner();
        while let Some(message) = incoming.message().await? {
            {
                let mut seen = self.seen();
                seen.frames += 1;
                seen.heard = message.heard_ms;
                if seen.muted {
                    continue;
                }
            }
            for reply in self.play(message) {
                if outgoing.send(reply).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// With the end of its task, ends the open stream, as a process that dies does.
    pub(crate) fn hang_up(&self) {
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(outgoing);
    }

    /// From now on nothing is answered, heartbeats included.
    pub(crate) fn mute(&self) {
        self.seen().muted = true;
    }

    /// Answers again.
    pub(crate) fn unmute(&self) {
        self.seen().muted = false;
    }

    /// Lets a pod that runs end well. Without a stream the next inventory shows it.
    pub(crate) async fn finish(&self, pod: &Key) {
        self.finish_all(std::slice::from_ref(pod)).await;
    }

    /// As [`Self::finish`], with all pods in one message.
    pub(crate) async fn finish_all(&self, pods: &[Key]) {
        let message = {
            let mut seen = self.seen();
            let mut observations = Vec::new();
            for pod in pods {
                let running = seen.pods.get(pod).expect("the pod is there");
                let ended = success(running.attempt.as_ref().expect("an attempt"), running.grant);
                seen.pods.insert(pod.clone(), ended.clone());
                observations.push(ended);
            }
            numbered(
                &mut seen,
                connect_request::Message::Observations(wire::Observations { observations }),
            )
        };
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(outgoing) = outgoing {
            outgoing.send(message).await.ok();
        }
    }

    fn play(&self, message: wire::ConnectResponse) -> Vec<wire::ConnectRequest> {
        use connect_response::Message;
        let mut seen = self.seen();
        seen.acknowledged = seen.acknowledged.max(message.acknowledged);
        if message.sequence > 0 {
            seen.last = message.sequence;
        }
        let mut observations = Vec::new();
        let mut replies = Vec::new();
        match message.message.expect("a message") {
            Message::Welcome(welcome) => {
                if !welcome.resumed {
                    seen.last = 0;
                }
                seen.welcomes.push(welcome);
                let visible = wire::ClusterSight {
                    visible: true,
                    ..wire::ClusterSight::default()
                };
                replies.push(connect_request::Message::Sight(visible));
            }
            Message::Lease(lease) => seen.shards = lease.shards,
            Message::Run(context) => {
                seen.contexts += 1;
                seen.context_json.insert(context.run_id, context.context_json);
            }
            Message::Template(template) => {
                seen.templates += 1;
                seen.template_texts
                    .push(String::from_utf8_lossy(&template.template_json).into_owned());
            }
            Message::Launches(launches) => {
                seen.launch_frames += 1;
                for launch in launches.launches {
                    let attempt = launch.attempt.clone().expect("an attempt");
                    seen.launches
                        .push((key(&attempt), launch.step_name.clone(), launch.grant));
                    let play = (self.script)(&launch.step_name, attempt.attempt);
                    observations.extend(script(play, &attempt, launch.grant));
                }
            }
            Message::Stops(stops) => {
                for stop in stops.stops {
                    let attempt = stop.attempt.expect("an attempt");
                    seen.stops.push(key(&attempt));
                    observations.push(stopped(&attempt, stop.grant, seen.pods.contains_key(&key(&attempt))));
                }
            }
            Message::Probes(probes) => {
                for probe in probes.probes {
                    let attempt = probe.attempt.expect("an attempt");
                    seen.probes.push(key(&attempt));
                    let known = seen.pods.get(&key(&attempt)).cloned();
                    observations.push(known.unwrap_or_else(|| absent(&attempt, probe.grant)));
                }
            }
            Message::Releases(releases) => {
                for release in releases.releases {
                    seen.pods.remove(&key(release.attempt.as_ref().expect("an attempt")));
                    seen.releases.push(release);
                }
            }
            Message::RunsFinished(finished) => seen.finished.extend(finished.runs.into_iter().map(|run| run.run_id)),
            Message::Relays(relays) => seen.relays = relays.relays,
            Message::Heartbeat(_) => {}
            Message::SecretCall(call) => {
                seen.secret_calls.push(call.clone());
                if let Some(outcome) = (self.secrets)(&call) {
                    let answer = wire::SecretAnswer {
                        call: call.call,
                        outcome: Some(outcome),
                    };
                    let answer = frame(&mut seen, 0, connect_request::Message::SecretAnswer(answer));
                    return vec![answer];
                }
            }
            Message::RunSecretCall(call) => {
                let reply = (self.run_secrets)(&call);
                let answer = wire::RunSecretAnswer {
                    call: call.call,
                    refusal: reply.refusal(),
                };
                match answer.refusal {
                    None => seen.take_run_secret(call),
                    Some(_) => seen.run_secret_calls.push(call),
                }
                let answer = connect_request::Message::RunSecretAnswer(answer);
                return reply.sends(|| frame(&mut seen, 0, answer));
            }
            Message::ScheduleSecretCall(call) => {
                let reply = (self.schedule_secrets)(&call);
                let answer = wire::ScheduleSecretAnswer {
                    call: call.call,
                    refusal: reply.refusal(),
                };
                seen.take_schedule_secret(call, answer.refusal.is_none());
                let answer = connect_request::Message::ScheduleSecretAnswer(answer);
                return reply.sends(|| frame(&mut seen, 0, answer));
            }
            Message::ClusterCall(call) => {
                seen.cluster_calls.push(call.clone());
                if let Some(check) = (self.checks)(&call) {
                    let answer = wire::ClusterAnswer {
                        call: call.call,
                        check: Some(check),
                    };
                    let answer = frame(&mut seen, 0, connect_request::Message::ClusterAnswer(answer));
                    return vec![answer];
                }
            }
            Message::InventoryRequest(_) => {
                seen.inventories += 1;
                replies.push(connect_request::Message::Inventory(wire::Inventory {
                    shards: seen.shards.clone(),
                    resource_version: "1".to_owned(),
                    reflects_sequence: seen.last,
                    observations: seen.pods.values().cloned().collect(),
                    last: true,
                    list: seen.inventories as u64,
                    ..wire::Inventory::default()
                }));
            }
        }
        for observation in &observations {
            let pod = key(observation.attempt.as_ref().expect("an attempt"));
            if observation.phase() != wire::AttemptPhase::Absent {
                seen.pods.insert(pod, observation.clone());
            }
        }
        if !observations.is_empty() {
            replies.push(connect_request::Message::Observations(wire::Observations {
                observations,
            }));
        }
        let mut out: Vec<_> = replies.into_iter().map(|reply| numbered(&mut seen, reply)).collect();
        if out.is_empty() {
            let heartbeat = connect_request::Message::Heartbeat(wire::Heartbeat {});
            out.push(frame(&mut seen, 0, heartbeat));
        }
        out
    }
}

impl Seen {
    /// Does what a call about the Secret of a run asks for.
    fn take_run_secret(&mut self, call: wire::RunSecretCall) {
        use wire::run_secret_call::Action;
        let run = call.run_id.clone();
        match call.action.as_ref().expect("an action") {
            Action::Make(make) => drop(self.run_secrets.entry(run).or_insert_with(|| make.data.clone())),
            Action::Delete(_) => drop(self.run_secrets.remove(&run)),
        }
        self.run_secret_calls.push(call);
    }

    fn take_schedule_secret(&mut self, call: wire::ScheduleSecretCall, is_done: bool) {
        use wire::schedule_secret_call::Action;
        let id = windlass_ids::ScheduleSecretId::from_slice(&call.secret_id).expect("an id");
        let name = windlass_manifest::schedule_secret_name(&call.schedule, id);
        match call.action.as_ref().expect("an action") {
            Action::Make(make) if is_done => {
                self.schedule_secrets.entry(name).or_insert_with(|| make.data.clone());
            }
            Action::Delete(_) if is_done => drop(self.schedule_secrets.remove(&name)),
            Action::Make(_) | Action::Delete(_) => {}
        }
        self.schedule_secret_calls.push(call);
    }
}

fn numbered(seen: &mut Seen, message: connect_request::Message) -> wire::ConnectRequest {
    seen.sent += 1;
    let sequence = seen.sent;
    frame(seen, sequence, message)
}

fn frame(seen: &mut Seen, sequence: u64, message: connect_request::Message) -> wire::ConnectRequest {
    seen.clock += 1;
    wire::ConnectRequest {
        sequence,
        acknowledged: seen.last,
        message: Some(message),
        sent_ms: seen.clock,
    }
}

pub(crate) fn key(attempt: &wire::AttemptKey) -> Key {
    (attempt.run_id.to_vec(), attempt.step, attempt.attempt)
}

fn seen_as(attempt: &wire::AttemptKey, grant: u64, phase: wire::AttemptPhase) -> wire::Observation {
    // A uid that is a function of the attempt.
    let uid = format!("00000000-{:04x}-4000-8000-{:012x}", attempt.attempt, attempt.step);
    wire::Observation {
        attempt: Some(attempt.clone()),
        grant,
        pod_uid: uid,
        pod_name: format!("pod-{}-{}", attempt.step, attempt.attempt),
        phase: phase.into(),
        containers: vec!["main".to_owned()],
        ..wire::Observation::default()
    }
}

fn time() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 0,
    })
}

fn end(attempt: &wire::AttemptKey, grant: u64, end: wire::AttemptEnd) -> wire::Observation {
    wire::Observation {
        node: "node-1".to_owned(),
        start_time: time(),
        end: Some(wire::AttemptEnd {
            end_time: time(),
            proof_of_death: true,
            ..end
        }),
        ..seen_as(attempt, grant, wire::AttemptPhase::Ended)
    }
}

fn success(attempt: &wire::AttemptKey, grant: u64) -> wire::Observation {
    let success = wire::AttemptEnd {
        succeeded: true,
        exit_code: Some(0),
        ..wire::AttemptEnd::default()
    };
    end(attempt, grant, success)
}

fn stopped(attempt: &wire::AttemptKey, grant: u64, there: bool) -> wire::Observation {
    if !there {
        return absent(attempt, grant);
    }
    let killed = wire::AttemptEnd {
        exit_code: Some(143),
        failure_class: FailureClass::PodDeleted.into(),
        ..wire::AttemptEnd::default()
    };
    end(attempt, grant, killed)
}

fn absent(attempt: &wire::AttemptKey, grant: u64) -> wire::Observation {
    wire::Observation {
        pod_uid: String::new(),
        containers: Vec::new(),
        ..seen_as(attempt, grant, wire::AttemptPhase::Absent)
    }
}

fn script(play: Play, attempt: &wire::AttemptKey, grant: u64) -> Vec<wire::Observation> {
    let phase = |phase| seen_as(attempt, grant, phase);
    let running = wire::Observation {
        node: "node-1".to_owned(),
        start_time: time(),
        ..phase(wire::AttemptPhase::Running)
    };
    let waiting = |phase, reason: &str, message: &str| wire::Observation {
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..seen_as(attempt, grant, phase)
    };
    match play {
        Play::Succeed => vec![success(attempt, grant)],
        Play::Fail(code) => {
            let failure = wire::AttemptEnd {
                exit_code: Some(code),
                failure_class: FailureClass::UserError.into(),
                ..wire::AttemptEnd::default()
            };
            vec![running, end(attempt, grant, failure)]
        }
        Play::Hold => vec![phase(wire::AttemptPhase::Created), running],
        Play::Unschedulable => vec![waiting(
            wire::AttemptPhase::Created,
            "Unschedulable",
            "0/9 nodes have a free GPU",
        )],
        Play::Unreachable => vec![running, phase(wire::AttemptPhase::Unreachable)],
        Play::Silent => Vec::new(),
    }
}
