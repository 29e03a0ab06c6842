//! A run's definition: its resolved pipeline, and the spec that the core makes of it. Immutable and shared.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{ClusterAlias, Namespace, RunId, StepIndex};
use windlass_pipeline::{
    LogFollow, LostContactAction as PipelineLostContact, Millis, Policy, ResolvedPipeline, RetryPolicy,
};
use windlass_scheduling::{
    Deadlines, FailureMode, LostContact, LostContactAction, RetryBudget, RunIf, RunParameters, RunSpec, SpecError,
    StepPolicy, StepSpec,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct RunDefinition {
    resolved: ResolvedPipeline,
    spec: Arc<RunSpec>,
}

/// Bounds on a step's states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) created: Duration,
    pub(crate) scheduled: Duration,
    pub(crate) pulling: Duration,
    pub(crate) initialising: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) lost_contact: Option<Duration>,
}

impl RunDefinition {
    /// Builds the graph of a resolved pipeline; costs O(steps + edges).
    ///
    /// # Errors
    /// When the resolved pipeline is no graph; resolving has refused that before.
    pub(crate) fn build(run: RunId, namespace: &Namespace, resolved: ResolvedPipeline) -> Result<Self, SpecError> {
        let mut policies = Policies::default();
        let mut steps = Vec::with_capacity(resolved.step_count() as usize);
        for source in &resolved.sources {
            let upstream: Vec<StepIndex> = source.upstream.iter().copied().map(StepIndex).collect();
            for index in source.first..source.first + source.count {
                steps.push(StepSpec {
                    policy: policies.of(&resolved, source.template, index),
                    upstream: upstream.clone(),
                });
            }
        }
        let spec = RunSpec::new(parameters(run, namespace, &resolved), policies.made, steps)?;
        Ok(Self {
            resolved,
            spec: Arc::new(spec),
        })
    }

    /// What the core sees.
    pub(crate) fn spec(&self) -> &Arc<RunSpec> {
        &self.spec
    }

    /// The resolved pipeline.
    pub(crate) fn resolved(&self) -> &ResolvedPipeline {
        &self.resolved
    }

    /// Number of steps.
    pub(crate) fn len(&self) -> usize {
        self.spec.steps()
    }

    /// Name of a step after expansion; empty when there is no such step.
    pub(crate) fn step_name(&self, step: StepIndex) -> String {
        self.resolved.step_name(step.0).unwrap_or_default()
    }

    /// Name of a step in the file.
    pub(crate) fn source_step(&self, step: StepIndex) -> &str {
        self.resolved.source(step.0).map_or("", |source| &source.name)
    }

    /// The step with this name after expansion.
    pub(crate) fn find_step(&self, name: &str) -> Option<StepIndex> {
        self.resolved.find_step(name).map(StepIndex)
    }

    /// The steps with this name: one after expansion, or all instances of one in the file.
    pub(crate) fn find_steps(&self, name: &str) -> Option<std::ops::Range<u32>> {
        if let Some(step) = self.resolved.find_step(name) {
            return Some(step..step + 1);
        }
        let source = self.resolved.sources.iter().find(|source| source.name == name)?;
        Some(source.first..source.first + source.count)
    }

    /// What must end before a step.
    pub(crate) fn upstream(&self, step: StepIndex) -> impl Iterator<Item = StepIndex> + '_ {
        self.spec.graph().upstream(step).iter().copied()
    }

    /// Names of what must end before a step, at most `most`: of instances when there are so few, else as they may stand in the file,
    /// where the name of a matrix step means all of its instances.
    pub(crate) fn upstream_names(&self, step: StepIndex, most: usize) -> Vec<String> {
        let upstream = self.spec.graph().upstream(step);
        if upstream.len() <= most {
            return upstream.iter().map(|step| self.step_name(*step)).collect();
        }
        self.source_names(upstream, most)
    }

    /// Names of ascending steps as they may stand in the file, at most `most`: the name of a matrix step means all of its instances.
    pub(crate) fn source_names(&self, steps: &[StepIndex], most: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut position = 0;
        while position < steps.len() && names.len() < most {
            let first = steps[position];
            let whole = self.resolved.source(first.0).filter(|source| {
                // Ascending and without duplicates: its last instance tells whether all of them are there.
                let last = steps.get(position + source.count as usize - 1);
                source.first == first.0 && last.is_some_and(|last| last.0 == first.0 + source.count - 1)
            });
            names.push(whole.map_or_else(|| self.step_name(first), |source| source.name.clone()));
            position += whole.map_or(1, |source| source.count as usize);
        }
        names
    }

    /// Number of steps that must end before a step.
    pub(crate) fn upstream_count(&self, step: StepIndex) -> usize {
        self.spec.graph().upstream(step).len()
    }

    /// Attempts that the user budget of a step allows.
    pub(crate) fn max_attempts(&self, step: StepIndex) -> u32 {
        self.spec.policy(step).user.attempts
    }

    /// Whether a step's logs are followed only while somebody reads.
    pub(crate) fn logs_on_demand(&self, step: StepIndex) -> bool {
        let template = self.resolved.template(step.0);
        template.is_some_and(|template| template.policy().log_follow == LogFollow::OnDemand)
    }

    /// Bounds on a step's states.
    pub(crate) fn bounds(&self, step: StepIndex) -> Bounds {
        let policy = self.spec.policy(step);
        let fails = policy.lost_contact.then == LostContactAction::Fail;
        Bounds {
            created: policy.deadlines.created,
            scheduled: policy.deadlines.scheduled,
            pulling: policy.deadlines.pulling,
            initialising: policy.deadlines.initialising,
            timeout: policy.timeout,
            lost_contact: fails.then_some(policy.lost_contact.deadline),
        }
    }
}

fn parameters(run: RunId, namespace: &Namespace, resolved: &ResolvedPipeline) -> RunParameters {
    let seed = run
        .as_bytes()
        .iter()
        .fold(0_u64, |seed, byte| seed.rotate_left(9) ^ u64::from(*byte));
    RunParameters {
        priority: resolved.priority,
        failure_mode: match resolved.failure_mode {
            windlass_pipeline::FailureMode::ContinueOnFailure => FailureMode::ContinueOnFailure,
            windlass_pipeline::FailureMode::StopOnFailure => FailureMode::StopOnFailure,
            windlass_pipeline::FailureMode::FailFast => FailureMode::FailFast,
        },
        max_parallelism: resolved.max_parallelism.and_then(NonZeroU32::new),
        start_interval: resolved.start_interval.map_or(Duration::ZERO, duration),
        timeout: resolved.timeout.map(duration),
        // Random enough for jitter, and the same after a recovery.
        seed,
        ..RunParameters::new(run, namespace.clone())
    }
}

/// Policies of a run: one for each template and cluster.
#[derive(Default)]
struct Policies {
    made: Vec<StepPolicy>,
    known: BTreeMap<(u32, Option<String>), u32>,
}

impl Policies {
    fn of(&mut self, resolved: &ResolvedPipeline, template: u32, step: u32) -> u32 {
        let cluster = cluster(resolved, template, step);
        let key = (template, cluster);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let index = u32::try_from(self.made.len()).unwrap_or(u32::MAX);
        let policy = resolved
            .templates
            .get(template as usize)
            .map(|template| template.policy());
        self.made
            .push(policy.map_or_else(StepPolicy::default, |policy| StepPolicy {
                cluster: key.1.clone().map(ClusterAlias),
                template,
                ..step_policy(&policy)
            }));
        self.known.insert(key, index);
        index
    }
}

/// The cluster of a step: only with a parameter in its name does it depend on the step.
pub(crate) fn cluster(resolved: &ResolvedPipeline, template: u32, step: u32) -> Option<String> {
    let written = resolved.templates.get(template as usize)?.merged.cluster.as_deref();
    match written {
        Some(name) if name.contains("$(") => resolved.step_spec(step).and_then(|spec| spec.cluster),
        Some(name) => Some(name.to_owned()),
        None => resolved.cluster.clone(),
    }
}

fn step_policy(policy: &Policy) -> StepPolicy {
    StepPolicy {
        run_if: match policy.run_if {
            windlass_pipeline::RunIf::Succeeded => RunIf::Succeeded,
            windlass_pipeline::RunIf::Failed => RunIf::Failed,
            windlass_pipeline::RunIf::Always => RunIf::Always,
        },
        user: budget(&policy.user_retries),
        infrastructure: budget(&policy.infrastructure_retries),
        timeout: policy.timeout.map(duration),
        deadlines: Deadlines {
            admitted: duration(policy.admitted_deadline),
            created: duration(policy.created_deadline),
            scheduled: duration(policy.scheduled_deadline),
            pulling: duration(policy.pulling_deadline),
            initialising: duration(policy.initialising_deadline),
            terminating: duration(policy.terminating_deadline),
        },
        lost_contact: LostContact {
            deadline: duration(policy.lost_contact_deadline),
            then: match policy.lost_contact_then {
                PipelineLostContact::Fail => LostContactAction::Fail,
                PipelineLostContact::Wait => LostContactAction::Wait,
            },
        },
        termination_grace: duration(policy.termination_grace),
        accept_exit_zero_when_terminated: policy.accept_exit_zero_when_terminated,
        ..StepPolicy::default()
    }
}

fn budget(policy: &RetryPolicy) -> RetryBudget {
    RetryBudget {
        attempts: policy.attempts,
        delay: duration(policy.delay),
        backoff: policy.backoff,
        max_delay: duration(policy.max_delay),
        exit_codes: policy.exit_codes.clone(),
    }
}

fn duration(millis: Millis) -> Duration {
    Duration::from_millis(millis.0)
}
