//! Messages from records: what clients see of runs, steps and attempts.

use windlass_api::convert::{timestamp_to_proto, value_from_json};
use windlass_api::run::v1 as wire;
use windlass_ids::{AttemptId, RunId, StepIndex, Timestamp};
use windlass_scheduling::{AttemptPhase, FailureClass, RunState, StepState};

use super::meta::RunMeta;
use super::record::{AttemptRef, RunRecord, StepRef};
use super::texts;
use crate::admission::SCHEDULE_LABEL;
use crate::store::{FailedStep, RunHeader, RunProgress};

/// Most names of upstream steps of one step.
const MAX_UPSTREAM: usize = 256;
/// Most attempts of one step, and most bytes of them.
const MAX_ATTEMPTS: usize = 100;
const MAX_ATTEMPT_BYTES: usize = 256 * 1024;

/// How much of a step is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepDetail {
    /// With its newest attempt.
    Newest,
    /// With all attempts and the names of its upstream steps.
    Full,
}

/// `namespaces/{namespace}/runs/{run}`.
pub(crate) fn run_resource(namespace: &str, run: &str) -> String {
    format!("namespaces/{namespace}/runs/{run}")
}

/// A run from its live record.
pub(crate) fn run(meta: &RunMeta, record: &RunRecord) -> wire::Run {
    let mut run = fixed(meta);
    run.state = run_state(record.state).into();
    run.start_time = record.started.map(timestamp_to_proto);
    run.end_time = record.ended.map(timestamp_to_proto);
    run.step_counts = record.counts().map(count).collect();
    run.reason = record
        .reason
        .map(|reason| reason.as_str().to_owned())
        .unwrap_or_default();
    run.message = texts::run_message(meta, record);
    run.failed_steps = failed_steps(meta, record).iter().map(failed_step).collect();
    run.last_sequence = record.last_sequence;
    run
}

/// A run from its stored header.
pub(crate) fn run_from_header(header: &RunHeader) -> wire::Run {
    let progress = &header.progress;
    wire::Run {
        resource_name: run_resource(header.namespace.as_str(), header.name.as_str()),
        id: header.id.to_string(),
        name: header.name.0.clone(),
        namespace: header.namespace.0.clone(),
        pipeline: header.pipeline.clone(),
        state: run_state(progress.state).into(),
        submitted_by: header.submitted_by.clone(),
        priority: header.fixed.priority,
        labels: header.fixed.labels.clone(),
        parameters: header
            .fixed
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), value_from_json(value)))
            .collect(),
        create_time: Some(timestamp_to_proto(header.created)),
        start_time: progress.started.map(timestamp_to_proto),
        end_time: progress.ended.map(timestamp_to_proto),
        step_counts: progress.counts.iter().copied().map(count).collect(),
        reason: progress.reason.clone(),
        message: progress.message.clone(),
        failed_steps: progress.failed_steps.iter().map(failed_step).collect(),
        cluster: header.fixed.cluster.clone(),
        last_sequence: progress.last_sequence,
        retry_of: header.fixed.lineage.as_ref().map(|lineage| {
            let (run, name) = &lineage.retry_of;
            run_reference(*run, &name.0)
        }),
        schedule: schedule(header),
        scheduled_time: header
            .fixed
            .schedule
            .as_ref()
            .and_then(|of| of.time)
            .map(timestamp_to_proto),
    }
}

/// The schedule of a run, and of one that is a retry of such a run: its label is kept, and nobody else may set it.
fn schedule(header: &RunHeader) -> String {
    let of = header.fixed.schedule.as_ref().map(|of| &of.name);
    let of = of.or_else(|| header.fixed.labels.get(SCHEDULE_LABEL));
    of.cloned().unwrap_or_default()
}

fn fixed(meta: &RunMeta) -> wire::Run {
    run_from_header(&RunHeader {
        progress: RunProgress::new(RunState::Queued, 0),
        ..meta.header.clone()
    })
}

fn failed_steps(meta: &RunMeta, record: &RunRecord) -> Vec<FailedStep> {
    let steps = record.failed.iter().filter_map(|index| record.step(*index));
    steps
        .map(|step| {
            let attempt = step.attempt;
            let (reason, message) = texts::step_reason(meta, record, &step);
            FailedStep {
                step: meta.definition.step_name(step.index),
                class: attempt.and_then(|attempt| attempt.cell.class),
                reason,
                message,
                exit_code: attempt.and_then(|attempt| attempt.cell.exit_code),
                attempt: attempt.map_or(0, |attempt| attempt.cell.number),
            }
        })
        .collect()
}

fn failed_step(step: &FailedStep) -> wire::FailedStep {
    wire::FailedStep {
        step: step.step.clone(),
        failure_class: step.class.map_or(0, |class| failure_class(class).into()),
        reason: step.reason.clone(),
        message: step.message.clone(),
        exit_code: step.exit_code,
        attempt: step.attempt,
    }
}

fn count((state, count): (StepState, u32)) -> wire::StepCount {
    wire::StepCount {
        state: step_state(state).into(),
        count,
    }
}

/// A step.
pub(crate) fn step(meta: &RunMeta, record: &RunRecord, step: &StepRef<'_>, detail: StepDetail) -> wire::Step {
    let definition = &meta.definition;
    let name = definition.step_name(step.index);
    let resource_name = format!("{}/steps/{name}", meta.resource_name());
    let (reason, message) = texts::step_reason(meta, record, step);
    wire::Step {
        name,
        index: step.index.0,
        state: step_state(step.state).into(),
        upstream: upstream(meta, step.index, detail),
        upstream_count: match detail {
            StepDetail::Newest => 0,
            StepDetail::Full => u32::try_from(definition.upstream_count(step.index)).unwrap_or(u32::MAX),
        },
        attempts: attempts(meta, step, &resource_name, detail),
        state_time: Some(timestamp_to_proto(step.since)),
        deadline: deadline(meta, step).map(timestamp_to_proto),
        reason,
        message,
        max_attempts: definition.max_attempts(step.index),
        source_step: definition.source_step(step.index).to_owned(),
        reused_from: step.reused.map(|source| reused_attempt(meta, source)),
        resource_name,
    }
}

fn run_reference(run: RunId, name: &str) -> wire::RunReference {
    wire::RunReference {
        name: name.to_owned(),
        id: run.to_string(),
    }
}

/// An attempt of an earlier run of the same pipeline in the same namespace.
fn reused_attempt(meta: &RunMeta, source: AttemptId) -> wire::ReusedAttempt {
    let run = meta.source_name(source.run);
    let resource = run_resource(meta.header.namespace.as_str(), &run);
    wire::ReusedAttempt {
        resource_name: format!(
            "{resource}/steps/{}/attempts/{}",
            meta.definition.step_name(source.step),
            source.number
        ),
        run: Some(run_reference(source.run, &run)),
        attempt: source.number,
    }
}

fn upstream(meta: &RunMeta, step: StepIndex, detail: StepDetail) -> Vec<String> {
    match detail {
        StepDetail::Newest => Vec::new(),
        StepDetail::Full => meta.definition.upstream_names(step, MAX_UPSTREAM),
    }
}

fn attempts(meta: &RunMeta, step: &StepRef<'_>, resource_name: &str, detail: StepDetail) -> Vec<wire::Attempt> {
    let newest = std::iter::successors(step.attempt, AttemptRef::previous);
    let shown = match detail {
        StepDetail::Newest => 1,
        StepDetail::Full => MAX_ATTEMPTS,
    };
    let mut room = MAX_ATTEMPT_BYTES;
    let mut attempts = Vec::new();
    for of in newest.take(shown) {
        let attempt = attempt(meta, step.index, &of, resource_name);
        let bytes = prost::Message::encoded_len(&attempt);
        if bytes > room && !attempts.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes);
        attempts.push(attempt);
    }
    attempts.reverse();
    attempts
}

fn attempt(meta: &RunMeta, step: StepIndex, attempt: &AttemptRef<'_>, step_resource: &str) -> wire::Attempt {
    let cell = attempt.cell;
    let texts = attempt.texts();
    let end = attempt.end();
    let waiting = texts.and_then(|texts| texts.waiting.as_ref());
    let id = AttemptId {
        run: meta.header.id,
        step,
        number: cell.number,
    };
    wire::Attempt {
        resource_name: format!("{step_resource}/attempts/{}", cell.number),
        number: cell.number,
        cluster: attempt.executor().alias.0.clone(),
        pod_name: meta.pod_name(id),
        pod_uid: cell.pod.map(|pod| pod.to_string()).unwrap_or_default(),
        node: attempt.node().to_owned(),
        launch_time: Some(timestamp_to_proto(cell.launched)),
        start_time: cell.started.map(timestamp_to_proto),
        end_time: cell.ended.map(timestamp_to_proto),
        exit_code: cell.exit_code,
        failure_class: cell.class.map_or(0, |class| failure_class(class).into()),
        reason: match (end, waiting) {
            (Some(end), _) => end.reason.to_string(),
            (None, Some(waiting)) => waiting.reason.to_string(),
            (None, None) => String::new(),
        },
        message: if cell.ended.is_some() {
            texts::end_message(cell.class, cell.exit_code, end)
        } else {
            waiting.map(|waiting| waiting.message.to_string()).unwrap_or_default()
        },
        evidence: end
            .map(|end| end.evidence.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        termination_message: end.map(|end| end.termination_message.to_string()).unwrap_or_default(),
    }
}

/// When the bound on a step's present state passes, as far as its record can say it.
fn deadline(meta: &RunMeta, step: &StepRef<'_>) -> Option<Timestamp> {
    let cell = step.attempt?.cell;
    let bounds = meta.definition.bounds(step.index);
    match step.state {
        StepState::RetryWait => cell.retry_at,
        StepState::Running => bounds
            .timeout
            .map(|timeout| cell.started.unwrap_or(step.since).saturating_add(timeout)),
        StepState::LostContact => bounds.lost_contact.map(|bound| step.since.saturating_add(bound)),
        StepState::Starting => {
            let bound = match cell.phase {
                AttemptPhase::Launched | AttemptPhase::Refused => bounds.created,
                AttemptPhase::Created => bounds.scheduled,
                AttemptPhase::Scheduled | AttemptPhase::Pulling => bounds.pulling,
                AttemptPhase::Initialising => bounds.initialising,
                AttemptPhase::Running | AttemptPhase::Unreachable | AttemptPhase::Ended | AttemptPhase::Absent => {
                    return None;
                }
            };
            Some(cell.phase_since.saturating_add(bound))
        }
        StepState::Waiting
        | StepState::Ready
        | StepState::Succeeded
        | StepState::Failed
        | StepState::Skipped
        | StepState::Cancelled
        | StepState::Cached => None,
    }
}

/// The wire form of a run's state.
pub(crate) fn run_state(state: RunState) -> wire::RunState {
    match state {
        RunState::Preparing => wire::RunState::Preparing,
        RunState::Queued => wire::RunState::Queued,
        RunState::Running => wire::RunState::Running,
        RunState::Cancelling => wire::RunState::Cancelling,
        RunState::Succeeded => wire::RunState::Succeeded,
        RunState::Failed => wire::RunState::Failed,
        RunState::Cancelled => wire::RunState::Cancelled,
    }
}

/// The wire form of a step's state.
pub(crate) fn step_state(state: StepState) -> wire::StepState {
    match state {
        StepState::Waiting => wire::StepState::Waiting,
        StepState::Ready => wire::StepState::Ready,
        StepState::Starting => wire::StepState::Starting,
        StepState::Running => wire::StepState::Running,
        StepState::LostContact => wire::StepState::LostContact,
        StepState::RetryWait => wire::StepState::RetryWait,
        StepState::Succeeded => wire::StepState::Succeeded,
        StepState::Failed => wire::StepState::Failed,
        StepState::Skipped => wire::StepState::Skipped,
        StepState::Cancelled => wire::StepState::Cancelled,
        StepState::Cached => wire::StepState::Cached,
    }
}

/// The wire form of a failure class.
pub(crate) fn failure_class(class: FailureClass) -> wire::FailureClass {
    match class {
        FailureClass::UserError => wire::FailureClass::UserError,
        FailureClass::OomKilled => wire::FailureClass::OomKilled,
        FailureClass::Evicted => wire::FailureClass::Evicted,
        FailureClass::Preempted => wire::FailureClass::Preempted,
        FailureClass::NodeLost => wire::FailureClass::NodeLost,
        FailureClass::Image => wire::FailureClass::Image,
        FailureClass::Config => wire::FailureClass::Config,
        FailureClass::StartupTimeout => wire::FailureClass::StartupTimeout,
        FailureClass::Deadline => wire::FailureClass::Deadline,
        FailureClass::PodDeleted => wire::FailureClass::PodDeleted,
        FailureClass::Rejected => wire::FailureClass::Rejected,
    }
}
