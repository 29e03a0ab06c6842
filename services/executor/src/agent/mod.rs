//! The executor's one task that decides: it hears the scheduler and the cluster, and starts every call to the API server.
//!
//! It never waits for anything but its next event, so that a slow API server or a blocked stream delays nothing else.

mod commands;
mod follow;
mod last_words;
mod late;
mod launcher;
mod launching;
mod letting_go;
mod nodes;
mod post;
mod searching;
mod shards;
mod stuck;
mod sweeps;
mod watching;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::connect_request::Message as Request;
use windlass_api::dispatch::v1::connect_response::Message as Response;
use windlass_ids::{AttemptId, InstallationId, RunId};
use windlass_manifest::Settings;
use windlass_pipeline::ResolvedTemplate;
use windlass_service::Clock;

use crate::attempts::fleet::PodKey;
use crate::attempts::{Fleet, Policy, Sight};
use crate::config::NamespacePolicy;
use crate::connect::{Lease, Outbox, Welcome, convert};
use crate::feed::{Known, Masks};
use crate::kubernetes::reflector::Delivery;
use crate::kubernetes::{Api, ApiError};
use crate::metrics;
pub(crate) use follow::{ContainerPhase, Containers, FollowRequest, containers_of};
use launcher::{Launcher, Queued};
use launching::RunEntry;
use post::Outcome;
use shards::Shards;
use sweeps::{Sweep, Sweeps};

/// Calls that stop, release or confirm at a time, beside the creates.
const OTHER_CALLS: usize = 16;
/// Calls about Secrets that are carried out at a time, apart from all others.
const SECRET_CALLS: usize = 4;
/// Looks at the cluster at a time, apart from all others.
const CHECKS: usize = 2;
/// Events that are handled before anything is started because of them.
const BATCH: usize = 256;
const TICK: Duration = Duration::from_secs(5);

/// What the agent is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A session began. It says nothing before this is answered: what it would say of an earlier one is dropped.
    Up(Welcome, oneshot::Sender<()>),
    /// It ended.
    Down,
    /// The scheduler says something.
    Command {
        /// Its number.
        sequence: u64,
        /// What it says.
        message: Box<Response>,
    },
    /// The scheduler asks something about the Secret of a run.
    RunSecretCall {
        /// The stream that it came on.
        stream: u64,
        /// The call.
        call: Box<dispatch::RunSecretCall>,
    },
    /// The scheduler asks something about a Secret of a schedule.
    ScheduleSecretCall {
        /// The stream that it came on.
        stream: u64,
        /// The call.
        call: Box<dispatch::ScheduleSecretCall>,
    },
    /// The scheduler asks something about a Secret.
    SecretCall {
        /// Number of the stream on which it is answered.
        stream: u64,
        /// What it asks.
        call: Box<dispatch::SecretCall>,
    },
    /// The scheduler wants the cluster looked at.
    ClusterCall {
        /// Number of the stream on which it is answered.
        stream: u64,
        /// What it asks.
        call: dispatch::ClusterCall,
    },
    /// News of pods, from a watch or list.
    Pods {
        /// Number of the watch or list.
        source: u64,
        /// The news.
        delivery: Delivery,
    },
    /// News of nodes.
    Nodes(Delivery),
    /// A read of a node of which nothing was known.
    NodeRead {
        /// The node.
        name: Arc<str>,
        /// What is there.
        found: Option<Bytes>,
    },
    /// A create is done.
    Posted {
        /// Namespace.
        namespace: String,
        /// The launch.
        launch: Queued,
        /// What came of it.
        outcome: Outcome,
    },
    /// The owner object of a run was made, or not.
    OwnerMade {
        /// The run.
        run: RunId,
        /// Its uid.
        result: Result<String, ApiError>,
    },
    /// A quorum read of a pod that was said to be gone.
    Confirmed {
        /// The pod.
        key: PodKey,
        /// What is there.
        found: Option<Bytes>,
    },
    /// A quorum read of an attempt's pod, found or not.
    Searched {
        /// The attempt.
        attempt: AttemptId,
        /// What is there.
        found: Option<Bytes>,
    },
    /// A pod was let go.
    Released {
        /// The attempt.
        attempt: AttemptId,
        /// Its namespace.
        namespace: String,
        /// Uid of its pod.
        uid: String,
        /// Resource version of the write that let it go; none when it was gone.
        version: Option<u64>,
    },
    /// A sweep is over.
    Swept {
        /// What was swept.
        sweep: Sweep,
        /// Whether it succeeded.
        succeeded: bool,
    },
    /// Released pods that nobody has deleted, by namespace.
    Leftovers(BTreeMap<String, usize>),
    /// A finalizer was removed without a scheduler.
    Stripped(PodKey),
    /// The newest warning about a stuck pod.
    Warned {
        /// The pod.
        key: PodKey,
        /// Its reason and message.
        warning: (String, String),
    },
    /// What must not be seen of an attempt's last words.
    Masks {
        /// The attempt.
        attempt: AttemptId,
        /// The values.
        masks: Option<Arc<Masks>>,
    },
    /// Somebody wants to know about a pod's containers.
    Follow(FollowRequest),
}

/// Why an attempt's pod is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To stop it, with this grace in seconds.
    Stop(Option<i64>),
    /// To say what is there.
    Probe,
}

/// What the agent is given.
#[derive(Clone, Debug)]
pub(crate) struct AgentSettings {
    /// What manifests need.
    pub(crate) manifest: Arc<Settings>,
    /// What failures mean.
    pub(crate) policy: Policy,
    /// Creates in flight at most.
    pub(crate) creates: usize,
    /// Bound on a create, kept free at the end of the lease.
    pub(crate) create_timeout: Duration,
    /// How long the API server may work on a request whose client has given up.
    pub(crate) api_timeout: Duration,
    /// The namespace that this executor lives in.
    pub(crate) own_namespace: Option<String>,
    /// What becomes of a run in a namespace that is not there.
    pub(crate) namespace_policy: NamespacePolicy,
    /// Time between inventories.
    pub(crate) inventory_interval: Duration,
    /// How long without a scheduler before finalizers of deleted pods are removed.
    pub(crate) strip_after: Duration,
    /// The only installation that this executor serves, if there is one.
    pub(crate) installation: Option<InstallationId>,
    /// How long a drain may take.
    pub(crate) drain: Duration,
    /// How long a pod may be starting without a reason before its events are read.
    pub(crate) stuck_after: Duration,
}

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent {
    settings: AgentSettings,
    api: Api,
    outbox: Arc<Outbox>,
    lease: Arc<Lease>,
    clock: Clock,
    events: mpsc::Sender<Event>,
    relays: tokio::sync::watch::Sender<Vec<dispatch::Relay>>,
    tasks: TaskTracker,
    /// Ends the tasks of this agent.
    stop: CancellationToken,
    calls: Arc<Semaphore>,
    secret_calls: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    installation: Option<InstallationId>,
    fleet: Option<Fleet>,
    shards: Shards,
    /// The last command that was taken over.
    processed: u64,
    connected: bool,
    disconnected_since: Instant,
    runs: HashMap<RunId, RunEntry>,
    templates: HashMap<u64, Arc<ResolvedTemplate>>,
    launcher: Launcher,
    late: late::LateCreates,
    sweeps: Sweeps,
    sweep_retry: Option<Instant>,
    /// When released pods that nobody has deleted are looked for again.
    next_leftovers: Option<Instant>,
    /// Stops that were sent, with their grace.
    stopping: HashMap<AttemptId, Option<i64>>,
    searches: searching::Searches,
    followed: HashMap<Box<str>, tokio::sync::watch::Sender<Containers>>,
    last_words: last_words::LastWords,
    stuck: stuck::Stuck,
    watching: watching::Watching,
    nodes: nodes::WatchedNodes,
    next_tick: Instant,
    draining: Option<Instant>,
}

/// What an agent works with.
#[derive(Debug)]
pub(crate) struct AgentParts {
    /// The API server.
    pub(crate) api: Api,
    /// To the scheduler.
    pub(crate) outbox: Arc<Outbox>,
    /// Under which it acts.
    pub(crate) lease: Arc<Lease>,
    /// The time.
    pub(crate) clock: Clock,
    /// Into its own queue.
    pub(crate) events: mpsc::Sender<Event>,
    /// Relays to feed.
    pub(crate) relays: tokio::sync::watch::Sender<Vec<dispatch::Relay>>,
    /// What output must not show.
    pub(crate) known: Arc<Known>,
}

impl Agent {
    /// Before the first session.
    pub(crate) fn new(settings: AgentSettings, parts: AgentParts) -> Self {
        let now = Instant::now();
        Self {
            launcher: Launcher::new(settings.creates),
            settings,
            api: parts.api,
            outbox: parts.outbox,
            lease: parts.lease,
            clock: parts.clock,
            events: parts.events,
            relays: parts.relays,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            calls: Arc::new(Semaphore::new(OTHER_CALLS)),
            secret_calls: Arc::new(Semaphore::new(SECRET_CALLS)),
            checks: Arc::new(Semaphore::new(CHECKS)),
            installation: None,
            fleet: None,
            shards: Shards::default(),
            processed: 0,
            connected: false,
            disconnected_since: now,
            runs: HashMap::new(),
            templates: HashMap::new(),
            late: late::LateCreates::default(),
            sweeps: Sweeps::default(),
            sweep_retry: None,
            next_leftovers: None,
            stopping: HashMap::new(),
            searches: searching::Searches::default(),
            followed: HashMap::new(),
            last_words: last_words::LastWords::new(parts.known),
            stuck: stuck::Stuck::default(),
            watching: watching::Watching::default(),
            nodes: nodes::WatchedNodes::default(),
            next_tick: now + TICK,
            draining: None,
        }
    }

    /// Works until `stop`, and then until it is drained.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        loop {
            let timeout = self.poll_timeout();
            tokio::select! {
                () = stop.cancelled(), if self.draining.is_none() => self.drain(),
                event = events.recv() => {
                    let Some(event) = event else { break };
                    self.handle(event);
                    for _ in 1..BATCH {
                        let Ok(event) = events.try_recv() else { break };
                        self.handle(event);
                    }
                }
                () = tokio::time::sleep_until(timeout) => {}
            }
            let now = Instant::now();
            self.handle_timeouts(now);
            self.launch(now);
            self.sweep(now);
            if self.is_drained(now) {
                break;
            }
        }
        self.stop.cancel();
        self.tasks.close();
        // Calls under way end by their own timeouts; what they do is repeatable.
        drop(tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Up(welcome, taken) => {
                self.up(&welcome);
                // Nobody there: the session has ended.
                taken.send(()).ok();
            }
            Event::Down => self.down(),
            Event::Command { sequence, message } => {
                self.command(*message);
                self.processed = sequence;
            }
            Event::RunSecretCall { stream, call } => self.run_secret_call(stream, *call),
            Event::ScheduleSecretCall { stream, call } => self.schedule_secret_call(stream, *call),
            Event::SecretCall { stream, call } => self.secret_call(stream, *call),
            Event::ClusterCall { stream, call } => self.cluster_call(stream, call),
            Event::Pods { source, delivery } => self.pods(source, delivery),
            Event::Nodes(delivery) => self.heard_of_nodes(delivery),
            Event::NodeRead { name, found } => self.node_read(&name, found.as_ref()),
            Event::Posted {
                namespace,
                launch,
                outcome,
            } => self.posted(&namespace, launch, outcome),
            Event::OwnerMade { run, result } => self.owner_made(run, result),
            Event::Confirmed { key, found } => self.confirmed(key, found),
            Event::Searched { attempt, found } => self.searched(attempt, found),
            Event::Released {
                attempt,
                namespace,
                uid,
                version,
            } => self.released(attempt, &namespace, &uid, version),
            Event::Swept { sweep, succeeded } => self.swept(sweep, succeeded),
            Event::Leftovers(found) => self.sweeps.found(found, Instant::now()),
            Event::Stripped(key) => self.stripped(&key),
            Event::Warned { key, warning } => self.warned(&key, warning),
            Event::Masks { attempt, masks } => self.masks(attempt, masks.as_ref()),
            Event::Follow(request) => self.follow(request),
        }
    }

    fn poll_timeout(&self) -> Instant {
        let now = Instant::now();
        let fleet = self.fleet.as_ref().and_then(Fleet::poll_timeout);
        let fleet = fleet.map(|time| now + time.since(self.clock.now()));
        let all = [
            fleet,
            self.launcher.poll_timeout(),
            // While it is put off, nothing else of it is due.
            self.sweep_retry.or_else(|| self.sweeps.poll_timeout()),
            self.draining,
        ];
        all.into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_tick)
            .min(self.next_tick)
    }

    fn handle_timeouts(&mut self, now: Instant) {
        let time = self.clock.now();
        if let Some(fleet) = &mut self.fleet {
            let ended = fleet.handle_timeout(time);
            self.report(ended);
        }
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.read_events_of_stuck_pods(now);
        self.strip_finalizers(now);
        self.look_again(now);
        self.take_inventory(now);
        self.forget_followers();
        metrics::set(metrics::LIVE, self.fleet.as_ref().map_or(0, Fleet::len));
        metrics::set(metrics::QUEUED, self.launcher.queued());
        metrics::set(metrics::IN_FLIGHT, self.launcher.in_flight());
    }

    fn report(&mut self, sights: impl IntoIterator<Item = Sight>) {
        for sight in sights {
            self.observe(sight);
        }
    }

    fn drain(&mut self) {
        tracing::info!(
            in_flight = self.launcher.in_flight(),
            queued = self.launcher.queued(),
            "drain began"
        );
        self.draining = Some(Instant::now() + self.settings.drain);
        self.launcher.retain(|_| false);
        self.outbox.push(Request::Draining(dispatch::Draining {}));
    }

    fn is_drained(&self, now: Instant) -> bool {
        let Some(deadline) = self.draining else { return false };
        let calls =
            self.calls.available_permits() < OTHER_CALLS || self.secret_calls.available_permits() < SECRET_CALLS;
        let quiet = self.launcher.in_flight() == 0 && !calls && (self.outbox.is_empty() || !self.connected);
        quiet || now >= deadline
    }

    /// Starts a task that ends with the agent.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// A sight without a pod, such as of a refused launch.
    fn without_pod(&self, launch: &Queued, phase: crate::attempts::Phase, reason: &str, message: String) -> Sight {
        let run = self.runs.get(&launch.attempt.run);
        let name = run.map(|entry| windlass_manifest::pod_name(&entry.run.name, &launch.step_name, launch.attempt));
        let mut sight = Sight::without_pod(launch.attempt, launch.grant, &name.unwrap_or_default(), phase);
        sight.reason = reason.to_owned();
        sight.message = message;
        sight
    }

    fn attempt_keys(attempts: impl IntoIterator<Item = AttemptId>) -> Vec<dispatch::AttemptKey> {
        attempts.into_iter().map(convert::attempt_key).collect()
    }
}
