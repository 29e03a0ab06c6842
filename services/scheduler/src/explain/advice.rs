//! What a person can do about a step that failed.

use windlass_scheduling::FailureClass;

use crate::read_model::{AttemptRef, end_reason};

/// What would help after this last attempt.
pub(super) fn advice(run: &str, step: &str, attempt: &AttemptRef<'_>) -> String {
    let cell = attempt.cell;
    let output = format!("windlass logs {run} {step}");
    let Some(class) = cell.class else {
        return format!("see its output: {output}");
    };
    let help = match class {
        FailureClass::UserError => return format!("see its output: {output}"),
        FailureClass::OomKilled => "raise pod.resources.limits.memory, or have the step use less".to_owned(),
        FailureClass::Deadline => "raise the bound that the message names, or see where the time went".to_owned(),
        FailureClass::Evicted => again("the cluster put its pod out, which is no fault of the step"),
        FailureClass::Preempted => {
            again("its pod made room for a more important one; give it a pod.priorityClassName of its own")
        }
        FailureClass::NodeLost => again("look after its node"),
        FailureClass::PodDeleted => again("find out who deletes pods of this namespace; it was not Windlass"),
        FailureClass::Image => {
            "correct the image's name, or make it available: pod.imagePullSecrets, pod.imagePullPolicy, the registry"
                .to_owned()
        }
        FailureClass::Config => "correct what the message names: command, environment, files or security context, or \
                                 the Secret or ConfigMap that is meant"
            .to_owned(),
        FailureClass::StartupTimeout => {
            "provide what it waited for, or raise the bound that the message names".to_owned()
        }
        FailureClass::Rejected => rejected(&end_reason(cell.class, attempt.end())).to_owned(),
    };
    match cell.started {
        Some(_) => format!("{help}; its output: {output}"),
        None => help,
    }
}

/// Of a failure that the infrastructure budget pays for.
fn again(help: &str) -> String {
    format!("{help}; raise retries.infrastructure.attempts to have it tried more often")
}

/// By what the API server said.
fn rejected(reason: &str) -> &'static str {
    match reason {
        "NamespaceTerminating" | "NamespaceNotFound" => "create the namespace, or submit to another one (-n)",
        "PolicyDenied" => {
            "change what the message names, or ask whoever runs the cluster's policies; no pod was made, so nothing ran"
        }
        "ExecutorNamespace" => "submit to another namespace (-n)",
        "NameTaken" => "delete the pod that the message names, and submit again",
        _ => "correct what the message names in the pipeline; no pod was made, so nothing ran",
    }
}
