//! What a person can do about a step that failed.

use windlass_scheduling::FailureClass;

use crate::read_model::{AttemptRef, end_reason};

/// What would help after this last attempt.
pub(super) fn after(run: &str, step: &str, attempt: &AttemptRef<'_>) -> String {
    let cell = attempt.cell;
    let reason = end_reason(cell.class, attempt.end());
    // Without a container that ran there is no output.
    let output = match (cell.started, cell.class) {
        (Some(_), _) => Some(format!("windlass logs {run} {step}")),
        (None, Some(class)) if reason == "InitContainerFailed" && class != FailureClass::Config => {
            Some(format!("windlass logs {run} {step} --container '*'"))
        }
        (None, _) => None,
    };
    match (cell.class, output) {
        (Some(FailureClass::UserError) | None, Some(output)) => format!("see its output: {output}"),
        (Some(class), Some(output)) => format!("{}; its output: {output}", help(class, &reason)),
        (Some(class), None) => help(class, &reason),
        (None, None) => String::new(),
    }
}

/// What would help against a class.
fn help(class: FailureClass, reason: &str) -> String {
    match class {
        FailureClass::UserError => "see the termination message, and correct the program or its arguments".to_owned(),
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
        FailureClass::Rejected => rejected(reason).to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_something_that_helps() {
        let mut texts: Vec<String> = FailureClass::ALL.iter().map(|class| help(*class, "")).collect();
        assert!(texts.iter().all(|text| text.len() > 10), "{texts:#?}");
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), FailureClass::ALL.len(), "each its own: {texts:#?}");
    }

    #[test]
    fn what_the_infrastructure_budget_pays_for_may_be_tried_more_often() {
        let more = "retries.infrastructure.attempts";
        for class in FailureClass::ALL {
            let is_paid = class.budget() == Some(windlass_scheduling::Budget::Infrastructure);
            // A startup that lasts too long is not helped by another one.
            let expected = is_paid && *class != FailureClass::StartupTimeout;
            assert_eq!(help(*class, "").contains(more), expected, "{class}");
        }
    }
}
