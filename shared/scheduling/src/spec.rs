//! What a run is, fixed at its submission: limits, policies and the graph.

use std::num::NonZeroU32;
use std::time::Duration;

use windlass_ids::{Namespace, RunId, StepIndex};

use crate::graph::{Graph, GraphBuilder, GraphError};
use crate::policy::{FailureMode, StepPolicy};

/// The part of a run's spec that is not its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct RunParameters {
    /// Id of the run.
    pub run: RunId,
    /// Namespace, for the limit by namespace.
    pub namespace: Namespace,
    /// Runs of a higher priority are dispatched first.
    pub priority: i32,
    /// What a failed step means for the rest.
    pub failure_mode: FailureMode,
    /// The most steps at a time whose pods may live: starting, running, out of contact, or failed without proof of death.
    pub max_parallelism: Option<NonZeroU32>,
    /// Least time between two starts.
    pub start_interval: Duration,
    /// Bound on the whole run, from its acceptance.
    pub timeout: Option<Duration>,
    /// Seed of the jitter of retries, from outside.
    pub seed: u64,
}

impl RunParameters {
    /// Parameters without limits.
    pub fn new(run: RunId, namespace: Namespace) -> Self {
        Self {
            run,
            namespace,
            priority: 0,
            failure_mode: FailureMode::default(),
            max_parallelism: None,
            start_interval: Duration::ZERO,
            timeout: None,
            seed: 0,
        }
    }
}

/// A step of a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSpec {
    /// Index of its policy.
    pub policy: u32,
    /// What must end before it.
    pub upstream: Vec<StepIndex>,
}

/// Why a spec cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// No step.
    #[error("a run has at least one step")]
    NoSteps,
    /// The graph is none.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A step names a policy that is not there.
    #[error("step {step} has policy {policy} of {policies}")]
    UnknownPolicy {
        /// The step.
        step: StepIndex,
        /// What it names.
        policy: u32,
        /// How many there are.
        policies: usize,
    },
    /// A budget without an attempt.
    #[error("policy {policy} allows no attempt; the least is 1")]
    NoAttempts {
        /// The policy.
        policy: usize,
    },
    /// A backoff below 1, or none at all.
    #[error("policy {policy} has backoff {backoff}; the least is 1")]
    Backoff {
        /// The policy.
        policy: usize,
        /// What it says.
        backoff: f64,
    },
}

/// A run as the core sees it: validated, immutable, shared.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSpec {
    parameters: RunParameters,
    policies: Vec<StepPolicy>,
    step_policies: Vec<u32>,
    graph: Graph,
}

impl RunSpec {
    /// Builds and checks a spec; costs O(steps + edges), so it is done off the core's task.
    pub fn new(
        parameters: RunParameters,
        policies: Vec<StepPolicy>,
        steps: impl IntoIterator<Item = StepSpec>,
    ) -> Result<Self, SpecError> {
        check_policies(&policies)?;
        let mut builder = GraphBuilder::default();
        let mut step_policies = Vec::new();
        for (index, step) in (0_u32..).zip(steps) {
            if step.policy as usize >= policies.len() {
                return Err(SpecError::UnknownPolicy {
                    step: StepIndex(index),
                    policy: step.policy,
                    policies: policies.len(),
                });
            }
            step_policies.push(step.policy);
            builder.push(&step.upstream)?;
        }
        if step_policies.is_empty() {
            return Err(SpecError::NoSteps);
        }
        step_policies.shrink_to_fit();
        Ok(Self {
            parameters,
            policies,
            step_policies,
            graph: builder.build()?,
        })
    }

    /// Id of the run.
    pub fn run(&self) -> RunId {
        self.parameters.run
    }

    /// Everything that is not steps.
    pub fn parameters(&self) -> &RunParameters {
        &self.parameters
    }

    /// The policies.
    pub fn policies(&self) -> &[StepPolicy] {
        &self.policies
    }

    /// The policy of a step.
    pub fn policy(&self, step: StepIndex) -> &StepPolicy {
        &self.policies[self.step_policies[step.as_usize()] as usize]
    }

    /// Index of the policy of a step.
    pub fn policy_index(&self, step: StepIndex) -> usize {
        self.step_policies[step.as_usize()] as usize
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.step_policies.len()
    }

    /// Bytes on the heap that grow with the number of steps.
    pub fn memory_usage(&self) -> usize {
        self.step_policies.capacity() * size_of::<u32>() + self.graph.memory_usage()
    }
}

fn check_policies(policies: &[StepPolicy]) -> Result<(), SpecError> {
    for (policy, definition) in policies.iter().enumerate() {
        for budget in [&definition.user, &definition.infrastructure] {
            if budget.attempts == 0 {
                return Err(SpecError::NoAttempts { policy });
            }
            if !(budget.backoff >= 1.0 && budget.backoff.is_finite()) {
                return Err(SpecError::Backoff {
                    policy,
                    backoff: budget.backoff,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> RunParameters {
        RunParameters::new(RunId::from_bytes([1; 16]), "team".into())
    }

    /// behaviours D3, E6
    #[test]
    fn impossible_specs_are_refused() {
        // behaviours E41: validated at submission, with typed errors.
        let build = |policies, steps| RunSpec::new(parameters(), policies, steps).map(|_| ());
        assert_eq!(build(vec![StepPolicy::default()], vec![]), Err(SpecError::NoSteps));
        assert!(matches!(
            build(vec![], vec![StepSpec::default()]),
            Err(SpecError::UnknownPolicy { policies: 0, .. })
        ));
        let mut policy = StepPolicy::default();
        policy.user.attempts = 0;
        assert_eq!(
            build(vec![policy], vec![StepSpec::default()]),
            Err(SpecError::NoAttempts { policy: 0 })
        );
        let mut policy = StepPolicy::default();
        policy.infrastructure.backoff = f64::NAN;
        assert!(matches!(
            build(vec![policy], vec![StepSpec::default()]),
            Err(SpecError::Backoff { .. })
        ));
    }
}
