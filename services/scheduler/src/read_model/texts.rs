//! What people read about states: one sentence each, without the state's name.

use windlass_ids::{AttemptId, StepIndex};
use windlass_scheduling::{
    AttemptPhase, EndDetail, FailureClass, RunReason, RunState, SkipReason, StepFailure, StepState, StopCause,
};

use super::meta::RunMeta;
use super::record::{AttemptRef, Cancel, RunRecord, StepRef, Why};

/// At most this many names stand in a sentence.
const MAX_NAMES: usize = 3;

/// At most this many upstream steps are looked at for the sentence of a waiting one.
const MAX_LOOKED_AT: usize = 1_000;

/// What a run's message is made of.
pub(crate) struct RunSummary<'a> {
    pub(crate) state: RunState,
    pub(crate) reason: Option<RunReason>,
    pub(crate) cancel: Option<&'a Cancel>,
    /// Names of the first failed steps.
    pub(crate) failed: Vec<String>,
    pub(crate) failed_count: u32,
}

impl RunSummary<'_> {
    /// Why the run is where it is.
    pub(crate) fn message(&self) -> String {
        match (self.state, self.reason) {
            (RunState::Preparing, _) => "its secrets are being made".to_owned(),
            (_, Some(RunReason::NotPrepared)) => "its secrets were not made in time, so nothing of it ran".to_owned(),
            (RunState::Cancelling, _) | (_, Some(RunReason::CancelledByClient)) => cancelled(self.cancel),
            (_, Some(RunReason::StepFailed)) => {
                format!("failed: {}", list(&self.failed, self.failed_count as usize))
            }
            (_, Some(RunReason::RunTimeout)) => "took longer than the pipeline's timeout".to_owned(),
            (_, Some(RunReason::Completed) | None) => String::new(),
        }
    }
}

fn cancelled(cancel: Option<&Cancel>) -> String {
    match cancel.map(|cancel| (&*cancel.by, &*cancel.reason)) {
        None | Some(("", "")) => "cancelled".to_owned(),
        Some(("", reason)) => reason.to_owned(),
        Some((by, "")) => format!("cancelled by {by}"),
        Some((by, reason)) => format!("cancelled by {by}: {reason}"),
    }
}

/// Why a run is where it is.
pub(crate) fn run_message(meta: &RunMeta, record: &RunRecord) -> String {
    let failed = record.counts().find(|(state, _)| *state == StepState::Failed);
    let summary = RunSummary {
        state: record.state,
        reason: record.reason,
        cancel: record.cancel.as_ref(),
        failed: record
            .failed
            .iter()
            .map(|step| meta.definition.step_name(*step))
            .collect(),
        failed_count: failed.map_or(0, |(_, count)| count),
    };
    summary.message()
}

fn failed_for_good(reason: StepFailure) -> &'static str {
    match reason {
        StepFailure::NoProofOfDeath => "its pod may still live, so nothing may replace it",
        StepFailure::NotAdmitted => "no executor served its cluster in time (deadlines.admitted)",
    }
}

/// Reason and message of a step's state.
pub(crate) fn step_reason(meta: &RunMeta, record: &RunRecord, step: &StepRef<'_>) -> (String, String) {
    let pair = |reason: &str, message: String| (reason.to_owned(), message);
    match (step.state, step.why) {
        (_, Why::Skipped(reason)) => pair(reason.as_str(), skipped(reason).to_owned()),
        (StepState::Cancelled, Why::Stopped(cause)) => pair(cause.as_str(), stopped(cause).to_owned()),
        (StepState::Failed, Why::Failed(reason)) => pair(reason.as_str(), failed_for_good(reason).to_owned()),
        (StepState::Waiting, _) if record.state == RunState::Preparing => {
            pair("RUN_SECRETS", "after the secrets of the run".to_owned())
        }
        (StepState::Waiting, _) => pair("UPSTREAM", waiting(meta, record, step)),
        (StepState::Starting | StepState::LostContact, _) => {
            step.attempt.map_or_else(Default::default, |attempt| starting(&attempt))
        }
        (StepState::Running, _) => {
            let cause = step.attempt.and_then(|attempt| attempt.cell.stopping);
            cause.map_or_else(Default::default, |cause| {
                pair(cause.as_str(), format!("being stopped: {}", stopped(cause)))
            })
        }
        (StepState::RetryWait | StepState::Failed, _) => {
            step.attempt.map_or_else(Default::default, |attempt| end_pair(&attempt))
        }
        (StepState::Cached, _) => pair(
            "REUSED",
            step.reused.map(|source| reused(meta, source)).unwrap_or_default(),
        ),
        (StepState::Ready | StepState::Succeeded | StepState::Skipped | StepState::Cancelled, _) => Default::default(),
    }
}

/// Where the work of a reused step was done.
fn reused(meta: &RunMeta, source: AttemptId) -> String {
    let run = meta.source_name(source.run);
    match source.number {
        1 => format!("reused from {run}"),
        number => format!("reused from {run}, attempt {number}"),
    }
}

fn waiting(meta: &RunMeta, record: &RunRecord, step: &StepRef<'_>) -> String {
    let definition = &meta.definition;
    let is_open = |upstream: &StepIndex| record.step(*upstream).is_some_and(|step| !step.state.is_terminal());
    let (mut names, mut open) = (Vec::new(), 0);
    for upstream in definition.upstream(step.index).take(MAX_LOOKED_AT).filter(is_open) {
        if names.len() < MAX_NAMES {
            names.push(definition.step_name(upstream));
        }
        open += 1;
    }
    match definition.upstream_count(step.index) {
        ..=MAX_LOOKED_AT => format!("after {}", list(&names, open)),
        all if names.is_empty() => format!("after {all} steps"),
        _ => format!("after {} and more", names.join(", ")),
    }
}

/// The first names, and how many more of `total` there are.
pub(crate) fn list(names: &[String], total: usize) -> String {
    let shown = names.len().min(MAX_NAMES);
    let text = names[..shown].join(", ");
    match total.saturating_sub(shown) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn starting(attempt: &AttemptRef<'_>) -> (String, String) {
    let waiting = attempt.texts().and_then(|texts| texts.waiting.as_ref());
    let (reason, message) = waiting.map_or(("", ""), |waiting| (&*waiting.reason, &*waiting.message));
    if let Some(cause) = attempt.cell.stopping {
        return (cause.as_str().to_owned(), format!("being stopped: {}", stopped(cause)));
    }
    let phase = phase(attempt.cell.phase);
    let text = match (reason, message) {
        ("", "") => phase.to_owned(),
        (reason, "") => format!("{phase}: {reason}"),
        (_, message) => message.to_owned(),
    };
    let reason = if reason.is_empty() {
        attempt.cell.phase.as_str()
    } else {
        reason
    };
    (reason.to_owned(), text)
}

fn phase(phase: AttemptPhase) -> &'static str {
    match phase {
        AttemptPhase::Launched => "handed to an executor",
        AttemptPhase::Refused => "the API server refuses its pod for now",
        AttemptPhase::Created => "its pod waits for a node",
        AttemptPhase::Scheduled => "its pod is being set up on its node",
        AttemptPhase::Pulling => "pulling its image",
        AttemptPhase::Initialising => "its init containers run",
        AttemptPhase::Running => "running",
        AttemptPhase::Unreachable => "its node does not answer",
        AttemptPhase::Ended => "ended",
        AttemptPhase::Absent => "its pod is missing",
    }
}

/// The machine-readable reason of an attempt's end.
pub(crate) fn end_reason(class: Option<FailureClass>, detail: Option<&EndDetail>) -> String {
    match (detail.map_or("", |detail| &*detail.reason), class) {
        ("", Some(class)) => class.as_str().to_owned(),
        (reason, _) => reason.to_owned(),
    }
}

/// Why an attempt ended, for people.
pub(crate) fn end_message(class: Option<FailureClass>, exit_code: Option<i32>, detail: Option<&EndDetail>) -> String {
    let message = detail.map_or("", |detail| &*detail.message);
    if !message.is_empty() {
        return message.to_owned();
    }
    match (class, exit_code) {
        (Some(FailureClass::UserError), Some(code)) => format!("exit code {code}"),
        (Some(class), _) => failed(class).to_owned(),
        (None, _) => String::new(),
    }
}

fn end_pair(attempt: &AttemptRef<'_>) -> (String, String) {
    let (cell, detail) = (attempt.cell, attempt.end());
    (
        end_reason(cell.class, detail),
        end_message(cell.class, cell.exit_code, detail),
    )
}

fn failed(class: FailureClass) -> &'static str {
    match class {
        FailureClass::UserError => "its main container failed",
        FailureClass::OomKilled => "killed for its memory limit",
        FailureClass::Evicted => "its pod was evicted",
        FailureClass::Preempted => "its pod made room for one of higher priority",
        FailureClass::NodeLost => "its node is gone",
        FailureClass::Image => "its image cannot be had",
        FailureClass::Config => "its configuration cannot work",
        FailureClass::StartupTimeout => "it did not start in time",
        FailureClass::Deadline => "it ran longer than its timeout",
        FailureClass::PodDeleted => "somebody deleted its pod",
        FailureClass::Rejected => "the API server refused its pod",
    }
}

/// Why something is being stopped.
pub(crate) fn stopped(cause: StopCause) -> &'static str {
    match cause {
        StopCause::RunCancelled => "the run was cancelled",
        StopCause::RunTimeout => "the run took longer than its timeout",
        StopCause::FailFast => "another step failed (failureMode: FAIL_FAST)",
        StopCause::Timeout => "it ran longer than its timeout",
        StopCause::NotCreated => "its pod was not created in time",
        StopCause::NotScheduled => "its pod got no node in time",
        StopCause::NotPulled => "its image or its volumes were not there in time",
        StopCause::NotInitialised => "its main container did not start in time",
        StopCause::ImagePull => "its image cannot be pulled",
        StopCause::NotPrepared => "the secrets of the run were not made in time",
        StopCause::Ended => "its main container has ended",
    }
}

fn skipped(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::UpstreamNotSucceeded => "an upstream step did not succeed",
        SkipReason::NoUpstreamFailed => "no upstream step failed (runIf: FAILED)",
        SkipReason::FailureMode => "another step failed, and nothing new starts after that",
    }
}
