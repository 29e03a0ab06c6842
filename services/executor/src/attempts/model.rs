//! What is said about an attempt.

use windlass_ids::{AttemptId, Timestamp};

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The API server refuses its pod for the time being.
    Refused,
    /// The pod exists, without a node.
    Created,
    /// It has a node.
    Scheduled,
    /// Its image is being pulled.
    Pulling,
    /// Its init containers run.
    Initialising,
    /// Its main container runs.
    Running,
    /// Nobody can say: its node does not answer.
    Unreachable,
    /// Its main container ended, or there is proof of death.
    Ended,
    /// There is no pod.
    Absent,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Exit code of the main container, or of an init container.
    UserError,
    /// Killed for its memory limit.
    OomKilled,
    /// Evicted, or turned away by a kubelet.
    Evicted,
    /// Preempted by a pod of higher priority.
    Preempted,
    /// Its node is gone.
    NodeLost,
    /// Its image cannot be had.
    Image,
    /// Its configuration cannot work.
    Config,
    /// `activeDeadlineSeconds` passed.
    Deadline,
    /// Somebody deleted its pod.
    PodDeleted,
    /// The API server refused its pod.
    Rejected,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Why it failed; `None` when it succeeded.
    pub class: Option<FailureClass>,
    /// Exit code of the main container.
    pub exit_code: Option<i32>,
    /// Machine-readable reason.
    pub reason: String,
    /// For people.
    pub message: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// Termination message of the main container.
    pub termination_message: String,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// Whether nothing of it lives (I2).
    pub proof_of_death: bool,
}

/// What was seen of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The attempt.
    pub attempt: AttemptId,
    /// Grant under which this executor acts, 0 for none.
    pub grant: u64,
    /// Uid of the pod, empty when there is none.
    pub pod_uid: String,
    /// Its name.
    pub pod_name: String,
    /// How far it is.
    pub phase: Phase,
    /// Its node.
    pub node: String,
    /// When it was created.
    pub create_time: Option<Timestamp>,
    /// When the main container started.
    pub start_time: Option<Timestamp>,
    /// Why it waits.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How it ended.
    pub end: Option<End>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Containers whose logs can be read, the main one first.
    pub containers: Vec<String>,
}

impl Sight {
    /// A sight without a pod.
    pub fn without_pod(attempt: AttemptId, grant: u64, pod_name: &str, phase: Phase) -> Self {
        Self {
            attempt,
            grant,
            pod_uid: String::new(),
            pod_name: pod_name.to_owned(),
            phase,
            node: String::new(),
            create_time: None,
            start_time: None,
            reason: String::new(),
            message: String::new(),
            end: None,
            terminating: false,
            containers: Vec::new(),
        }
    }
}

/// What is known of a pod's node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeHealth {
    /// It answers, or nothing is known.
    #[default]
    Answers,
    /// Its kubelet does not answer.
    Unreachable,
    /// Somebody stated that it is powered off (`node.kubernetes.io/out-of-service`).
    OutOfService,
    /// It came back with another boot id, after a container of the pod had started.
    Rebooted,
    /// There is no such node any more.
    Gone,
}

/// What the operator decides about failures.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether a node that is gone is powered off: true only where the machine's deletion deletes the node (cloud providers).
    pub gone_node_is_dead: bool,
    /// How long an image that certainly cannot be had is waited for (behaviours X11). Other pull failures wait for the deadline of
    /// the pulling state.
    pub image_tolerance: std::time::Duration,
    /// How long a container configuration that cannot work is waited for, such as a missing Secret.
    pub config_tolerance: std::time::Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            gone_node_is_dead: false,
            image_tolerance: std::time::Duration::from_secs(30),
            config_tolerance: std::time::Duration::from_secs(30),
        }
    }
}
