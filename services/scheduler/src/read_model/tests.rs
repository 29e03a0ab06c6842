//! The record follows changes, and the messages follow the record.

use std::sync::Arc;

use prost::Message as _;
use windlass_api::run::v1 as wire;
use windlass_ids::StepIndex;
use windlass_scheduling::{
    AfterFailure, AttemptEnd, AttemptFailure, AttemptPhase, Budget, CancelRequest, ChangeKind, EndDetail, FailureClass,
    LostCause, PhaseDetail, RunReason, RunState, SkipReason, StepState, StopCause,
};

use super::render::{self, StepDetail};
use super::{RunEntry, RunMeta, RunRecord, WithRun, event};
use crate::testing::{RUN, at, changes, executor, meta, pod};

const FILE: &str = "
name: churn
defaults: {image: 'churn:v3', command: ['true']}
steps:
  - {name: extract, timeout: 45m}
  - {name: train, upstream: [extract], retries: {user: {attempts: 2}}}
  - {name: report, upstream: [train]}
";

const EXTRACT: StepIndex = StepIndex(0);
const TRAIN: StepIndex = StepIndex(1);
const REPORT: StepIndex = StepIndex(2);

fn launched(step: StepIndex, number: u32) -> ChangeKind {
    ChangeKind::AttemptLaunched {
        step,
        number,
        executor: executor(),
    }
}

fn running(step: StepIndex, number: u32) -> ChangeKind {
    ChangeKind::AttemptRunning {
        step,
        number,
        started_at: at(100),
        node: Some("gpu-4".into()),
    }
}

fn failed(step: StepIndex, number: u32, next: AfterFailure) -> ChangeKind {
    let mut end = AttemptEnd::failure(FailureClass::OomKilled, Some(137), at(200));
    end.detail = Some(Box::new(EndDetail {
        termination_message: "allocating 3.1 GiB".into(),
        ..EndDetail::default()
    }));
    ChangeKind::AttemptFailed {
        step,
        number,
        failure: Box::new(AttemptFailure { end, next }),
    }
}

/// A run in which training fails twice.
fn story() -> Vec<ChangeKind> {
    let retry = AfterFailure::Retry {
        until: at(500),
        budget: Budget::User,
        charged: 1,
        allowed: 2,
    };
    let succeeded = ChangeKind::AttemptSucceeded {
        step: EXTRACT,
        number: 1,
        ended_at: at(150),
        detail: None,
    };
    vec![
        ChangeKind::RunAccepted,
        ChangeKind::StepReady { step: EXTRACT },
        ChangeKind::RunStarted,
        launched(EXTRACT, 1),
        ChangeKind::AttemptCreated {
            step: EXTRACT,
            number: 1,
            pod: pod(1),
        },
        running(EXTRACT, 1),
        succeeded,
        ChangeKind::StepReady { step: TRAIN },
        launched(TRAIN, 1),
        running(TRAIN, 1),
        failed(TRAIN, 1, retry),
        ChangeKind::StepReady { step: TRAIN },
        launched(TRAIN, 2),
        running(TRAIN, 2),
        failed(TRAIN, 2, AfterFailure::Failed),
        ChangeKind::StepSkipped {
            step: REPORT,
            reason: SkipReason::UpstreamNotSucceeded,
        },
        ChangeKind::RunEnded {
            state: RunState::Failed,
            reason: RunReason::StepFailed,
        },
    ]
}

fn after(kinds: impl IntoIterator<Item = ChangeKind>) -> (RunMeta, RunRecord) {
    let meta = meta(FILE);
    let mut record = RunRecord::new(meta.definition.len(), at(0));
    for change in changes(kinds) {
        record.apply(&change);
    }
    (meta, record)
}

fn step(meta: &RunMeta, record: &RunRecord, index: StepIndex) -> wire::Step {
    render::step(meta, record, &record.step(index).expect("a step"), StepDetail::Full)
}

#[test]
fn i5_a_failed_run_says_what_failed_and_why() {
    let (meta, record) = after(story());
    let run = render::run(&meta, &record);
    assert_eq!(
        (run.state(), run.reason.as_str()),
        (wire::RunState::Failed, "STEP_FAILED")
    );
    assert_eq!(run.message, "failed: train");
    assert_eq!(run.last_sequence, 17);
    let failed = &run.failed_steps[0];
    assert_eq!(
        (failed.step.as_str(), failed.attempt, failed.exit_code),
        ("train", 2, Some(137))
    );
    assert_eq!(
        (failed.reason.as_str(), failed.message.as_str()),
        ("OOM_KILLED", "killed for its memory limit")
    );
    let counts: Vec<_> = run
        .step_counts
        .iter()
        .map(|count| (count.state(), count.count))
        .collect();
    let expected = [
        wire::StepState::Succeeded,
        wire::StepState::Failed,
        wire::StepState::Skipped,
    ];
    assert_eq!(counts, expected.map(|state| (state, 1)));

    let train = step(&meta, &record, TRAIN);
    assert_eq!(train.attempts.len(), 2);
    assert_eq!(train.attempts[0].termination_message, "allocating 3.1 GiB");
    assert_eq!(
        (train.attempts[1].node.as_str(), train.attempts[1].cluster.as_str()),
        ("gpu-4", "prod")
    );
    assert_eq!((train.max_attempts, train.upstream[0].as_str()), (2, "extract"));
    assert_eq!(step(&meta, &record, REPORT).message, "an upstream step did not succeed");
}

#[test]
fn i10_a_waiting_step_says_what_for_and_until_when() {
    let (meta, record) = after(story().into_iter().take(6));
    let extract = step(&meta, &record, EXTRACT);
    assert_eq!(extract.state(), wire::StepState::Running);
    let deadline = extract.deadline.expect("the timeout of the attempt").seconds;
    assert_eq!(deadline, at(100).as_millis() / 1_000 + 45 * 60);
    let report = step(&meta, &record, REPORT);
    assert_eq!(
        (report.reason.as_str(), report.message.as_str()),
        ("UPSTREAM", "after train")
    );

    let pulling = ChangeKind::AttemptProgressed {
        step: EXTRACT,
        number: 1,
        phase: AttemptPhase::Pulling,
        detail: Some(Box::new(PhaseDetail {
            node: Some("gpu-4".into()),
            reason: "ErrImagePull".into(),
            message: "churn:v3 not found".into(),
        })),
    };
    let (meta, record) = after(story().into_iter().take(5).chain([pulling]));
    let extract = step(&meta, &record, EXTRACT);
    assert_eq!(
        (extract.reason.as_str(), extract.message.as_str()),
        ("ErrImagePull", "churn:v3 not found")
    );
    assert!(extract.deadline.is_some());
    assert_eq!(extract.attempts[0].node, "gpu-4");
}

#[test]
fn a_retry_shows_the_failure_and_the_time_of_the_next_attempt() {
    let (meta, record) = after(story().into_iter().take(11));
    let train = step(&meta, &record, TRAIN);
    assert_eq!(train.state(), wire::StepState::RetryWait);
    assert_eq!(
        (train.reason.as_str(), train.message.as_str()),
        ("OOM_KILLED", "killed for its memory limit")
    );
    assert_eq!(train.deadline.expect("a time").seconds, at(500).as_millis() / 1_000);
}

#[test]
fn contact_comes_and_goes() {
    let lost = ChangeKind::ContactLost {
        step: EXTRACT,
        number: 1,
        cause: LostCause::Unreachable,
        detail: None,
    };
    let regained = ChangeKind::ContactRegained {
        step: EXTRACT,
        number: 1,
        state: StepState::Running,
    };
    let (meta, record) = after(story().into_iter().take(6).chain([lost.clone()]));
    assert_eq!(step(&meta, &record, EXTRACT).state(), wire::StepState::LostContact);
    let (meta, record) = after(story().into_iter().take(6).chain([lost, regained]));
    assert_eq!(step(&meta, &record, EXTRACT).state(), wire::StepState::Running);
}

#[test]
fn a_cancelled_run_says_who_and_why() {
    let request = CancelRequest {
        cause: StopCause::RunCancelled,
        grace: None,
        reason: "wrong data".into(),
        by: "ana".into(),
    };
    let (meta, record) = after([ChangeKind::RunAccepted, ChangeKind::CancelRequested(Box::new(request))]);
    let run = render::run(&meta, &record);
    assert_eq!(
        (run.state(), run.message.as_str()),
        (wire::RunState::Cancelling, "cancelled by ana: wrong data")
    );
}

#[test]
fn an_event_carries_the_run_only_where_it_says_something_new() {
    let meta = meta(FILE);
    let mut record = RunRecord::new(meta.definition.len(), at(0));
    let story = changes(story());
    record.apply(&story[0]);
    let accepted = event(&meta, &record, &story[0], WithRun::IfChanged);
    assert!(accepted.run.is_some() && accepted.step.is_none());
    record.apply(&story[1]);
    let ready = event(&meta, &record, &story[1], WithRun::IfChanged);
    assert!(ready.run.is_none());
    assert_eq!(
        (ready.r#type.as_str(), ready.step.expect("the step").name.as_str()),
        ("STEP_READY", "extract")
    );
    assert!(event(&meta, &record, &story[1], WithRun::Yes).run.is_some());
}

#[tokio::test]
async fn only_a_watched_run_makes_events() {
    let meta = meta(FILE);
    let record = RunRecord::new(meta.definition.len(), at(0));
    let entry = Arc::new(RunEntry::new(meta, record));
    let story = changes(story());
    entry.apply(&story[..4]);
    let mut watching = {
        let (record, watching) = entry.watch();
        assert_eq!(record.last_sequence, 4);
        watching
    };
    entry.apply(&story[4..]);
    assert_eq!(watching.wait_after(4).await.sequence, 17);
    let super::More::Events(events) = watching.events_after(4, 100) else {
        panic!("they are kept");
    };
    let sequences: Vec<u64> = events.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, (5..=17).collect::<Vec<_>>());
    let last = wire::WatchRunResponse::decode(events[12].1.clone()).expect("a message");
    let Some(wire::watch_run_response::Message::Event(last)) = last.message else {
        panic!("an event: {last:?}");
    };
    assert_eq!(super::resume_sequence(&last.resume_token, RUN), Some(17));
    let run = last.event.and_then(|event| event.run);
    assert!(run.is_some(), "counts come with the last event of a commit");
}

#[test]
fn i11_a_step_with_many_upstream_steps_and_attempts_is_shown_in_a_bounded_message() {
    let file = "
name: churn
defaults: {image: i}
steps:
  - {name: first}
  - name: many
    matrix: [{name: A, values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}, {name: B, values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}, {name: C, values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}]
  - {name: few, matrix: [{name: A, values: [0, 1, 2]}]}
  - {name: last, upstream: [first, many, few.1], retries: {user: {attempts: 1000}}}
  - {name: after, upstream: [few]}
";
    let meta = meta(file);
    let last = StepIndex(1 + 1_100 + 3);
    let mut record = RunRecord::new(meta.definition.len(), at(0));
    let shown = |record: &RunRecord, index: StepIndex| {
        let step = record.step(index).expect("a step");
        render::step(&meta, record, &step, StepDetail::Full)
    };
    let step = shown(&record, last);
    assert_eq!(step.upstream, ["first", "many", "few.1"]);
    assert_eq!(
        (step.upstream_count, step.message.as_str()),
        (1_102, "after first, many.0, many.1 and more")
    );
    let after = shown(&record, StepIndex(last.0 + 1));
    assert_eq!(after.upstream, ["few.0", "few.1", "few.2"]);
    assert_eq!(after.message, "after few.0, few.1, few.2");

    let mut story = vec![ChangeKind::RunAccepted];
    for number in 1..=200 {
        story.extend([launched(last, number), running(last, number)]);
        let next = AfterFailure::Retry {
            budget: Budget::User,
            until: at(300),
            charged: number,
            allowed: 1000,
        };
        let mut change = failed(last, number, next);
        if let ChangeKind::AttemptFailed { failure, .. } = &mut change {
            failure.end.detail = Some(Box::new(EndDetail {
                termination_message: "x".repeat(4096).into(),
                ..EndDetail::default()
            }));
        }
        story.push(change);
    }
    for change in changes(story) {
        record.apply(&change);
    }
    let step = shown(&record, last);
    let numbers: Vec<u32> = step.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers.last(), Some(&200));
    assert!((50..100).contains(&numbers.len()), "{numbers:?}");
    assert!(step.encoded_len() < 300_000, "{}", step.encoded_len());
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was_and_costs_no_copy_while_nothing_changes() {
    let meta = meta(FILE);
    let record = RunRecord::new(meta.definition.len(), at(0));
    let entry = RunEntry::new(meta, record);
    let story = changes(story());
    entry.apply(&story[..4]);
    let snapshots = [Arc::clone(&entry.record()), Arc::clone(&entry.record())];
    assert!(Arc::ptr_eq(&snapshots[0], &snapshots[1]));
    entry.apply(&story[4..]);
    assert_eq!(snapshots[0].last_sequence, 4);
    assert_eq!(entry.record().last_sequence, 17);
}

/// behaviours E22
#[test]
fn i11_a_step_takes_few_bytes() {
    // performance P11: 300 bytes a step for all that the scheduler keeps.
    let (waiting, started) = RunRecord::bytes();
    assert!(waiting <= 16, "{waiting}");
    assert!(started <= 128, "{started}");
}
