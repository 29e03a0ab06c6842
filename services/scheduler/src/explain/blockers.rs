//! Words for each blocker.

use windlass_ids::{Incarnation, StepIndex};
use windlass_scheduling::{Blocker, LostCause, StepState};

use crate::read_model::{RunMeta, list, stopped};

/// What the words refer to.
pub(super) struct Context<'a> {
    pub(super) meta: &'a RunMeta,
    /// Name of the step; empty for the run.
    pub(super) step: &'a str,
    /// Names of executors.
    pub(super) executor: &'a dyn Fn(Incarnation) -> String,
}

/// The machine-readable name of a blocker; it never changes.
pub(super) fn code(blocker: &Blocker) -> &'static str {
    match blocker {
        Blocker::Upstream { .. } => "UPSTREAM",
        Blocker::Parallelism { .. } => "PARALLELISM",
        Blocker::NamespaceLimit { .. } => "NAMESPACE_LIMIT",
        Blocker::Pacing { .. } => "PACING",
        Blocker::NoExecutor { .. } => "NO_EXECUTOR",
        Blocker::ExecutorDisconnected { .. } => "EXECUTOR_DISCONNECTED",
        Blocker::NoCredit { .. } => "NO_CREDIT",
        Blocker::Queue { .. } => "QUEUE",
        Blocker::NotCreated { .. } => "NOT_CREATED",
        Blocker::Refused { .. } => "REFUSED",
        Blocker::Unschedulable { .. } => "UNSCHEDULABLE",
        Blocker::Preparing { .. } => "PREPARING",
        Blocker::Image { .. } => "IMAGE",
        Blocker::Initialising { .. } => "INITIALISING",
        Blocker::Running { .. } => "RUNNING",
        Blocker::RetryDelay { .. } => "RETRY_DELAY",
        Blocker::ProofOfDeath { .. } => "PROOF_OF_DEATH",
        Blocker::Terminating { .. } => "TERMINATING",
        Blocker::LostContact { .. } => "LOST_CONTACT",
        Blocker::OutOfSight { .. } => "OUT_OF_SIGHT",
        Blocker::RunSecrets => "RUN_SECRETS",
        Blocker::Steps { .. } => "STEPS",
    }
}

impl Context<'_> {
    /// What it waits for.
    pub(super) fn message(&self, blocker: &Blocker) -> String {
        match blocker {
            Blocker::Upstream { steps, count } => format!("waits for {}", self.names(steps, *count)),
            Blocker::Parallelism { limit, running } => {
                format!("{running} steps of this run are live, and maxParallelism allows {limit}")
            }
            Blocker::NamespaceLimit { limit, running } => format!(
                "{running} steps are live in namespace {}, and its limit is {limit}",
                self.meta.header.namespace
            ),
            Blocker::Pacing { .. } => "startInterval of this run has not passed since its last start".to_owned(),
            Blocker::NoExecutor { alias: Some(alias) } => format!("no executor of cluster {alias} is connected"),
            Blocker::NoExecutor { alias: None } => "no executor is connected".to_owned(),
            Blocker::ExecutorDisconnected { executor, .. } => {
                format!(
                    "executor {} has lost its connection; its lease goes on",
                    (self.executor)(*executor)
                )
            }
            Blocker::NoCredit { executor, outstanding } => format!(
                "executor {} takes no more: {outstanding} launches are not acknowledged",
                (self.executor)(*executor)
            ),
            Blocker::Queue { ready } => format!("its turn has not come; {ready} steps of this run are ready"),
            Blocker::NotCreated { executor } => {
                format!(
                    "handed to executor {}, its pod is not there yet",
                    (self.executor)(*executor)
                )
            }
            Blocker::Refused { reason, message } => said("the API server refuses its pod for now", reason, message),
            Blocker::Unschedulable { reason, message } => said("its pod has no node", reason, message),
            Blocker::Preparing { node, reason, message } => {
                let node = node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
                said(&format!("its pod is being set up{node}"), reason, message)
            }
            Blocker::Image { reason, message } => said("its image is being pulled", reason, message),
            Blocker::Initialising { reason, message } => said("it is being initialised", reason, message),
            Blocker::Running { node: Some(node) } => format!("runs on {node}"),
            Blocker::Running { node: None } => "runs".to_owned(),
            Blocker::RetryDelay { failed, class } => match class {
                Some(class) => format!("attempt {failed} failed ({class}); the next one waits for its delay"),
                None => format!("attempt {failed} failed; the next one waits for its delay"),
            },
            Blocker::ProofOfDeath { attempt } => format!(
                "attempt {} failed, but its pod may still live; nothing replaces it before it is known to be dead",
                attempt.number
            ),
            Blocker::Terminating { cause } => format!("is being stopped: {}", stopped(*cause)),
            Blocker::LostContact {
                attempt,
                cause,
                node,
                clock_runs,
            } => {
                let node = node
                    .as_deref()
                    .map(|node| format!(" on node {node}"))
                    .unwrap_or_default();
                let clock = if *clock_runs {
                    ""
                } else {
                    "; the clock of its deadline stands still, because no executor sees the cluster"
                };
                let pod = format!("the pod of attempt {}{node}", attempt.number);
                match cause {
                    LostCause::Unreachable => format!("nobody can say whether {pod} lives{clock}"),
                    LostCause::StopNotObeyed => format!("{pod} was told to stop and was not seen to end{clock}"),
                    LostCause::Vanished => {
                        format!("{pod} is gone from the API server, and its processes may live{clock}")
                    }
                }
            }
            Blocker::OutOfSight { alias } => {
                format!("no executor sees cluster {alias}; clocks stand still and nothing fails for it")
            }
            Blocker::RunSecrets => {
                "the secrets of the run are being made; nothing starts before they are there".to_owned()
            }
            Blocker::Steps { counts, longest } => self.steps(counts, *longest),
        }
    }

    fn steps(&self, counts: &[u32; StepState::SLOTS], longest: Option<StepIndex>) -> String {
        let count = |state: &StepState| {
            (
                counts[usize::from(state.code())],
                state.as_str().to_lowercase().replace('_', " "),
            )
        };
        let open = StepState::ALL.iter().filter(|state| !state.is_terminal()).map(count);
        let parts: Vec<String> = open
            .filter(|(count, _)| *count > 0)
            .map(|(count, state)| format!("{count} {state}"))
            .collect();
        let longest = longest.map(|step| format!("; {} has waited longest", self.meta.definition.step_name(step)));
        format!(
            "waits for its steps: {}{}",
            parts.join(", "),
            longest.unwrap_or_default()
        )
    }

    fn names(&self, steps: &[StepIndex], count: u32) -> String {
        let names: Vec<String> = steps.iter().map(|step| self.meta.definition.step_name(*step)).collect();
        list(&names, count as usize)
    }

    /// What would help; empty when nothing needs to be done.
    pub(super) fn suggestion(&self, blocker: &Blocker) -> String {
        let run = self.meta.header.name.as_str();
        match blocker {
            Blocker::Upstream { steps, .. } => match steps.first() {
                Some(first) => format!("windlass explain {run} {}", self.meta.definition.step_name(*first)),
                None => String::new(),
            },
            Blocker::Parallelism { .. } => "raise maxParallelism in the pipeline, or wait for a step to end".to_owned(),
            Blocker::NamespaceLimit { .. } => {
                "wait for other runs of the namespace, or ask the operator to raise its limit".to_owned()
            }
            Blocker::Pacing { .. } => "lower startInterval in the pipeline to start steps faster".to_owned(),
            Blocker::NoExecutor { alias: Some(alias) } => {
                format!("start an executor for cluster {alias}, or check the pipeline's `cluster`")
            }
            Blocker::NoExecutor { alias: None } => {
                "start an executor (windlass-executor), or check its log for why it cannot connect".to_owned()
            }
            Blocker::ExecutorDisconnected { .. } => {
                "check the executor and its network; it goes on by itself".to_owned()
            }
            Blocker::NoCredit { .. } => "it goes on by itself; start more executors when this lasts".to_owned(),
            Blocker::NotCreated { .. } => "check the executor's log when this lasts".to_owned(),
            Blocker::Refused { .. } => {
                "fix the quota, webhook or rights that the message names; it is tried again by itself".to_owned()
            }
            Blocker::Unschedulable { .. } => {
                "compare the step's resources, nodeSelector and tolerations with the nodes that are there".to_owned()
            }
            Blocker::Preparing { .. } => "check the volumes and secrets that the pod mounts when this lasts".to_owned(),
            Blocker::Image { .. } => "check the image's name and the pull secrets when this lasts".to_owned(),
            Blocker::Initialising { .. } => "check the init containers' logs when this lasts".to_owned(),
            Blocker::RetryDelay { .. } => format!("see why it failed: windlass logs {run} {}", self.step),
            Blocker::ProofOfDeath { .. } | Blocker::LostContact { .. } => {
                format!("if you know that it is dead: windlass confirm-dead {run} {}", self.step)
            }
            Blocker::OutOfSight { .. } => "check the cluster's API server and the executor's access to it".to_owned(),
            Blocker::Steps {
                longest: Some(step), ..
            } => {
                format!("windlass explain {run} {}", self.meta.definition.step_name(*step))
            }
            Blocker::RunSecrets => {
                format!("repeat the submission with its request_id, or cancel it: windlass cancel {run}")
            }
            Blocker::Steps { longest: None, .. }
            | Blocker::Queue { .. }
            | Blocker::Running { .. }
            | Blocker::Terminating { .. } => String::new(),
        }
    }
}

/// A state with Kubernetes' words for it.
fn said(state: &str, reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", "") => state.to_owned(),
        (reason, "") => format!("{state} ({reason})"),
        ("", message) => format!("{state}: {message}"),
        (reason, message) => format!("{state} ({reason}): {message}"),
    }
}
