//! What readers of the core get: copies of its state, and what a run or step waits for.

use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, PodUid, RunId, StepIndex, Timestamp};

use crate::event::ShardSet;
use crate::state::{AttemptPhase, FailureClass, LostCause, RunReason, RunState, StepState, StopCause};

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// Its id.
    pub run: RunId,
    /// State.
    pub state: RunState,
    /// Why it ended, once it has.
    pub reason: Option<RunReason>,
    /// Steps by state: index is `StepState::code`.
    pub counts: [u32; StepState::SLOTS],
    /// Number of its newest change.
    pub last_sequence: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When its first step was launched.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When its timeout passes.
    pub deadline: Option<Timestamp>,
}

impl RunView {
    /// Number of steps in a state.
    pub fn count(&self, state: StepState) -> u32 {
        self.counts[usize::from(state.code())]
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// State.
    pub state: StepState,
    /// When it was entered.
    pub since: Timestamp,
    /// Number of its newest attempt; 0 when there is none.
    pub number: u32,
    /// Failures charged to the user budget.
    pub charged_user: u32,
    /// Failures charged to the infrastructure budget.
    pub charged_infrastructure: u32,
    /// Its newest attempt, while it lives, waits for proof of death or for its retry.
    pub attempt: Option<AttemptView>,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptView {
    /// Which.
    pub attempt: AttemptId,
    /// How far it is.
    pub phase: AttemptPhase,
    /// Current grant.
    pub grant: u32,
    /// Executor of the current grant.
    pub executor: Incarnation,
    /// Uid of its cluster.
    pub cluster: ClusterUid,
    /// Alias of its cluster.
    pub alias: ClusterAlias,
    /// Uid of its pod, once created.
    pub pod: Option<PodUid>,
    /// When it was launched.
    pub launched_at: Timestamp,
    /// When its main container started.
    pub started_at: Option<Timestamp>,
    /// Why it is being stopped.
    pub stopping: Option<StopCause>,
}

/// An executor's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorView {
    /// Its process.
    pub incarnation: Incarnation,
    /// Uid of its cluster.
    pub cluster: ClusterUid,
    /// Alias of its cluster.
    pub alias: ClusterAlias,
    /// Whether its stream is open.
    pub connected: bool,
    /// Whether it gives up its shards.
    pub draining: bool,
    /// Whether it sees its cluster.
    pub visible: bool,
    /// Launches that it takes before they are acknowledged.
    pub credit: u32,
    /// Launches not acknowledged.
    pub outstanding: u64,
    /// Its shards.
    pub shards: ShardSet,
    /// When its lease ends unless it is heard.
    pub lease_ends: Timestamp,
}

/// What a run or step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The step; absent for the run.
    pub step: Option<StepIndex>,
    /// State of the step; absent for the run.
    pub step_state: Option<StepState>,
    /// State of the run.
    pub run_state: RunState,
    /// What it waits for; absent when it has ended or simply runs without a bound.
    pub blocker: Option<Blocker>,
    /// Since when it is in this state (or, for a live attempt, phase).
    pub since: Timestamp,
    /// Until when at most. For clocks that stand still while nobody sees the cluster: when nothing interrupts sight.
    pub until: Option<Timestamp>,
    /// What follows then.
    pub then: Option<Consequence>,
}

/// What something waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// Upstream steps have not ended.
    Upstream {
        /// The first of them, at most 10.
        steps: Vec<StepIndex>,
        /// How many there are.
        count: u32,
    },
    /// `maxParallelism` of the run is reached.
    Parallelism {
        /// The limit.
        limit: u32,
        /// Live steps of the run.
        running: u32,
    },
    /// The limit of the namespace is reached.
    NamespaceLimit {
        /// The limit.
        limit: u32,
        /// Live steps of the namespace.
        running: u32,
    },
    /// `startInterval` of the run has not passed.
    Pacing {
        /// When it has.
        until: Timestamp,
    },
    /// No executor of the cluster is connected.
    NoExecutor {
        /// The alias that the step names; absent for any cluster.
        alias: Option<ClusterAlias>,
    },
    /// The executor's stream is broken; its lease has not ended.
    ExecutorDisconnected {
        /// The executor.
        executor: Incarnation,
        /// When its lease ends and another executor may take over.
        until: Timestamp,
    },
    /// The executor has not acknowledged earlier launches.
    NoCredit {
        /// The executor.
        executor: Incarnation,
        /// Launches that it has not acknowledged.
        outstanding: u64,
    },
    /// Other steps are before it.
    Queue {
        /// Ready steps of the same run.
        ready: u32,
    },
    /// Its launch was given to an executor, the pod is not seen yet.
    NotCreated {
        /// The executor.
        executor: Incarnation,
    },
    /// The API server refuses the pod for the time being.
    Refused {
        /// Kubernetes' word.
        reason: Box<str>,
        /// For people.
        message: Box<str>,
    },
    /// The pod has no node.
    Unschedulable {
        /// Kubernetes' word.
        reason: Box<str>,
        /// For people.
        message: Box<str>,
    },
    /// The node prepares the pod: volumes, network.
    Preparing {
        /// The node.
        node: Option<Box<str>>,
        /// Kubernetes' word.
        reason: Box<str>,
        /// For people.
        message: Box<str>,
    },
    /// An image is being pulled, or cannot be.
    Image {
        /// Kubernetes' word.
        reason: Box<str>,
        /// For people.
        message: Box<str>,
    },
    /// Init containers run.
    Initialising {
        /// Kubernetes' word.
        reason: Box<str>,
        /// For people.
        message: Box<str>,
    },
    /// The main container runs.
    Running {
        /// The node.
        node: Option<Box<str>>,
    },
    /// The next attempt waits for its delay.
    RetryDelay {
        /// Number of the attempt that failed.
        failed: u32,
        /// Class of its failure.
        class: Option<FailureClass>,
    },
    /// The next attempt waits for proof that the last one is dead.
    ProofOfDeath {
        /// The attempt without proof.
        attempt: AttemptId,
    },
    /// The attempt is being stopped.
    Terminating {
        /// Why.
        cause: StopCause,
    },
    /// Nobody can say whether the pod lives.
    LostContact {
        /// The attempt, for `confirm-dead`.
        attempt: AttemptId,
        /// Why.
        cause: LostCause,
        /// The node.
        node: Option<Box<str>>,
        /// Whether the clock of the deadline runs now: an executor sees the cluster.
        clock_runs: bool,
    },
    /// No executor sees the cluster: clocks stand still, nothing fails.
    OutOfSight {
        /// The cluster.
        alias: ClusterAlias,
    },
    /// The secrets of the run are being made.
    RunSecrets,
    /// The run waits for these steps.
    Steps {
        /// Steps by state: index is `StepState::code`.
        counts: [u32; StepState::SLOTS],
        /// The step that has waited longest among those that do not run.
        longest: Option<StepIndex>,
    },
}

/// What follows when a wait reaches its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The step may start.
    Starts,
    /// The attempt is stopped and fails with this class.
    AttemptFails(FailureClass),
    /// The attempt counts as out of contact.
    ContactLost,
    /// The step fails with `NODE_LOST`.
    StepFails,
    /// The step fails with `NOT_ADMITTED`.
    NotAdmitted,
    /// A person has to confirm that the pod is dead.
    WaitsForConfirmation,
    /// The run is stopped and fails.
    RunFails,
    /// The run fails with `NOT_PREPARED`, without having begun.
    NotPrepared,
    /// Another executor takes over.
    TakenOver,
}
