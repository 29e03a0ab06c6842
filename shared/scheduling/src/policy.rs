//! What a step's author decided about retries, bounds and conditions; shared by many steps.

use std::time::Duration;

use windlass_ids::ClusterAlias;

/// When a step runs, seen from its upstream steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunIf {
    /// All upstream steps succeeded (or were cached).
    #[default]
    Succeeded,
    /// All upstream steps ended and one of them failed.
    Failed,
    /// All upstream steps ended.
    Always,
}

/// What a failed step means for the rest of its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureMode {
    /// Siblings go on, descendants are skipped.
    #[default]
    ContinueOnFailure,
    /// No step starts that has not started; what has started goes on to its end, its retries included.
    StopOnFailure,
    /// What runs is stopped.
    FailFast,
}

/// How often and how fast a kind of failure is retried.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// The nth charged failure is final; at least 1.
    pub attempts: u32,
    /// First delay.
    pub delay: Duration,
    /// Factor of each further delay, at least 1.
    pub backoff: f64,
    /// Bound on the delay.
    pub max_delay: Duration,
    /// Exit codes that are retried; all when empty. Only looked at in the user budget.
    pub exit_codes: Vec<i32>,
}

impl RetryBudget {
    /// The default of the user budget: the first failure is final.
    pub fn user() -> Self {
        Self {
            attempts: 1,
            ..Self::infrastructure()
        }
    }

    /// The default of the infrastructure budget: 5 attempts, 10 s to 5 min apart.
    pub fn infrastructure() -> Self {
        Self {
            attempts: 5,
            delay: Duration::from_secs(10),
            backoff: 2.0,
            max_delay: Duration::from_secs(300),
            exit_codes: Vec::new(),
        }
    }
}

/// Bounds on waiting states, by cause. Their clocks stand still while no executor sees the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How long a step may be `READY` while no executor serves its cluster. Begins anew when one comes and goes.
    pub admitted: Duration,
    /// From the launch until the pod exists.
    pub created: Duration,
    /// Until the pod has a node.
    pub scheduled: Duration,
    /// Until its images are there.
    pub pulling: Duration,
    /// Until its main container starts, once the images are there.
    pub initialising: Duration,
    /// From a stop (grace not included) until the end is seen.
    pub terminating: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            admitted: Duration::from_secs(24 * 3600),
            created: Duration::from_secs(30 * 60),
            scheduled: Duration::from_secs(60 * 60),
            pulling: Duration::from_secs(10 * 60),
            initialising: Duration::from_secs(10 * 60),
            terminating: Duration::from_secs(5 * 60),
        }
    }
}

/// What follows when contact to a pod stays lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostContactAction {
    /// The step fails with `NODE_LOST`; it is never replaced without proof of death.
    #[default]
    Fail,
    /// The step waits, visibly, until a person confirms the death.
    Wait,
}

/// How long lost contact is borne. The clock runs only while an executor sees the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostContact {
    /// How long.
    pub deadline: Duration,
    /// What follows.
    pub then: LostContactAction,
}

impl Default for LostContact {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15 * 60),
            then: LostContactAction::Fail,
        }
    }
}

/// Everything that the core has to know about a kind of step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPolicy {
    /// When it runs.
    pub run_if: RunIf,
    /// Spent by `USER_ERROR`, `OOM_KILLED` and `DEADLINE`.
    pub user: RetryBudget,
    /// Spent by `EVICTED`, `PREEMPTED`, `NODE_LOST`, `POD_DELETED` and `STARTUP_TIMEOUT`.
    pub infrastructure: RetryBudget,
    /// Bound on each attempt, from the start of its main container.
    pub timeout: Option<Duration>,
    /// Bounds on waiting.
    pub deadlines: Deadlines,
    /// What happens when contact is lost.
    pub lost_contact: LostContact,
    /// Time between SIGTERM and SIGKILL.
    pub termination_grace: Duration,
    /// Cluster that runs it; any (with one cluster: the one) when absent.
    pub cluster: Option<ClusterAlias>,
    /// Whether exit code 0 after a deletion or eviction is success.
    pub accept_exit_zero_when_terminated: bool,
    /// The driver's id of the template of its pods, handed back in `Launch`.
    pub template: u32,
}

impl Default for StepPolicy {
    fn default() -> Self {
        Self {
            run_if: RunIf::default(),
            user: RetryBudget::user(),
            infrastructure: RetryBudget::infrastructure(),
            timeout: None,
            deadlines: Deadlines::default(),
            lost_contact: LostContact::default(),
            termination_grace: Duration::from_secs(30),
            cluster: None,
            accept_exit_zero_when_terminated: false,
            template: 0,
        }
    }
}
