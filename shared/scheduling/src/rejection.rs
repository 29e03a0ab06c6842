//! Why an event was refused. A refused event changes nothing.

use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, RunId, StepIndex};

use crate::state::RunState;

/// Why an event was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The core does not hold the run: it was never submitted, or it has ended and left.
    #[error("run {run} is not active")]
    UnknownRun {
        /// The run.
        run: RunId,
    },
    /// The run is there already.
    #[error("run {run} was submitted before")]
    RunExists {
        /// The run.
        run: RunId,
    },
    /// A step cannot be reused.
    #[error("step {step} of run {run} cannot be reused: {problem}")]
    BadReuse {
        /// The run.
        run: RunId,
        /// The step.
        step: StepIndex,
        /// What is wrong.
        problem: &'static str,
    },
    /// The run has ended.
    #[error("run {run} has ended: {state}")]
    RunEnded {
        /// The run.
        run: RunId,
        /// How.
        state: RunState,
    },
    /// The executor has no session: it has to connect first.
    #[error("executor {incarnation} has no session")]
    UnknownExecutor {
        /// Its process.
        incarnation: Incarnation,
    },
    /// Another cluster uses the alias.
    #[error("the alias {alias} belongs to cluster {owner}")]
    AliasTaken {
        /// The alias.
        alias: ClusterAlias,
        /// Uid of the cluster that has it.
        owner: ClusterUid,
    },
    /// The cluster is known by another alias.
    #[error("the cluster {cluster} is known as {alias}")]
    AliasDiffers {
        /// The cluster.
        cluster: ClusterUid,
        /// The alias that it has.
        alias: ClusterAlias,
    },
    /// An attempt that is not the newest one of its step, or no attempt at all.
    #[error("{attempt} is not the newest attempt of its step")]
    NotCurrent {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Death can be confirmed only for an attempt that lost contact.
    #[error("{attempt} has not lost contact")]
    NotLost {
        /// The attempt.
        attempt: AttemptId,
    },
    /// An observation that contradicts itself, such as an end without phase `ENDED`.
    #[error("an observation of {attempt} contradicts itself: {problem}")]
    Malformed {
        /// The attempt.
        attempt: AttemptId,
        /// What is wrong.
        problem: &'static str,
    },
}
