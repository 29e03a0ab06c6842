//! Everything that is written comes back.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, Incarnation, PodUid, RunId, StepIndex, Timestamp};
use windlass_scheduling::{
    AfterFailure, AttemptEnd, AttemptFailure, AttemptPhase, AttemptSnapshot, Budget, CancelRequest, Change, ChangeKind,
    EndDetail, ExecutorIdentity, FailureClass, LostCause, PhaseDetail, RunReason, RunSnapshot, RunState, SkipReason,
    StepFailure, StepSnapshot, StepState, StopCause,
};

use super::*;

/// How many kinds of changes there are; [`kind_number`] keeps it honest.
const KINDS: usize = 21;

/// A new kind does not compile here until it has a number, and then [`every_kind_is_generated`] asks for its strategy.
fn kind_number(kind: &ChangeKind) -> usize {
    match kind {
        ChangeKind::RunAccepted => 0,
        ChangeKind::RunStarted => 1,
        ChangeKind::CancelRequested(_) => 2,
        ChangeKind::RunEnded { .. } => 3,
        ChangeKind::StepReady { .. } => 4,
        ChangeKind::StepSkipped { .. } => 5,
        ChangeKind::StepCancelled { .. } => 6,
        ChangeKind::StepFailed { .. } => 7,
        ChangeKind::AttemptLaunched { .. } => 8,
        ChangeKind::AttemptRegranted { .. } => 9,
        ChangeKind::AttemptCreated { .. } => 10,
        ChangeKind::AttemptProgressed { .. } => 11,
        ChangeKind::AttemptRunning { .. } => 12,
        ChangeKind::StopRequested { .. } => 13,
        ChangeKind::ContactLost { .. } => 14,
        ChangeKind::ContactRegained { .. } => 15,
        ChangeKind::AttemptSucceeded { .. } => 16,
        ChangeKind::AttemptFailed { .. } => 17,
        ChangeKind::DeathProven { .. } => 18,
        ChangeKind::StepCached { .. } => 19,
        ChangeKind::RunPreparing => 20,
    }
}

fn text() -> impl Strategy<Value = Box<str>> {
    select(vec!["", "a", "Unschedulable", "0/9 nodes have a free GPU", "grün\n\0"]).prop_map(Into::into)
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        8 => 1_700_000_000_000..1_900_000_000_000_i64,
        1 => any::<i64>(),
    ]
    .prop_map(Timestamp::from_millis)
}

fn run() -> impl Strategy<Value = RunId> {
    (0..3_u8).prop_map(|number| RunId::from_bytes([number; 16]))
}

fn step() -> impl Strategy<Value = StepIndex> {
    prop_oneof![0..300_u32, any::<u32>()].prop_map(StepIndex)
}

fn executor() -> impl Strategy<Value = Arc<ExecutorIdentity>> {
    (0..4_u8, text()).prop_map(|(number, alias)| {
        Arc::new(ExecutorIdentity {
            incarnation: Incarnation::from_bytes([number; 16]),
            cluster: ClusterUid(format!("cluster-{number}")),
            alias: ClusterAlias(alias.into()),
        })
    })
}

fn pod() -> impl Strategy<Value = PodUid> {
    any::<[u8; 16]>().prop_map(PodUid::from_bytes)
}

fn cause() -> impl Strategy<Value = StopCause> {
    select(StopCause::ALL)
}

fn cancel() -> impl Strategy<Value = CancelRequest> {
    (cause(), option::of(0..u64::from(u32::MAX)), text(), text()).prop_map(|(cause, grace, reason, by)| CancelRequest {
        cause,
        grace: grace.map(Duration::from_millis),
        reason,
        by,
    })
}

fn phase_detail() -> impl Strategy<Value = Option<Box<PhaseDetail>>> {
    let detail = (option::of(text()), text(), text());
    option::of(detail.prop_map(|(node, reason, message)| Box::new(PhaseDetail { node, reason, message })))
}

fn end_detail() -> impl Strategy<Value = Option<Box<EndDetail>>> {
    let detail = (text(), text(), vec(text(), 0..3), text());
    option::of(detail.prop_map(|(reason, message, evidence, termination_message)| {
        Box::new(EndDetail {
            reason,
            message,
            evidence,
            termination_message,
        })
    }))
}

fn failure() -> impl Strategy<Value = Box<AttemptFailure>> {
    let end = (
        option::of(select(FailureClass::ALL)),
        option::of(any::<i32>()),
        time(),
        any::<bool>(),
        end_detail(),
    );
    let end = end.prop_map(|(class, exit_code, ended_at, proof_of_death, detail)| AttemptEnd {
        class,
        exit_code,
        ended_at,
        proof_of_death,
        detail,
    });
    let retry = (time(), select(Budget::ALL), any::<u32>(), any::<u32>());
    let next = prop_oneof![
        Just(AfterFailure::Failed),
        cause().prop_map(AfterFailure::Cancelled),
        retry.prop_map(|(until, budget, charged, allowed)| AfterFailure::Retry {
            until,
            budget,
            charged,
            allowed
        }),
    ];
    (end, next).prop_map(|(end, next)| Box::new(AttemptFailure { end, next }))
}

fn kind() -> impl Strategy<Value = ChangeKind> {
    prop_oneof![run_kind(), step_kind(), attempt_kind()]
}

fn run_kind() -> impl Strategy<Value = ChangeKind> {
    prop_oneof![
        Just(ChangeKind::RunPreparing),
        Just(ChangeKind::RunAccepted),
        Just(ChangeKind::RunStarted),
        cancel().prop_map(|request| ChangeKind::CancelRequested(Box::new(request))),
        (select(RunState::ALL), select(RunReason::ALL))
            .prop_map(|(state, reason)| ChangeKind::RunEnded { state, reason }),
    ]
}

fn step_kind() -> impl Strategy<Value = ChangeKind> {
    prop_oneof![
        step().prop_map(|step| ChangeKind::StepReady { step }),
        (step(), select(SkipReason::ALL)).prop_map(|(step, reason)| ChangeKind::StepSkipped { step, reason }),
        (step(), cause()).prop_map(|(step, cause)| ChangeKind::StepCancelled { step, cause }),
        (step(), run(), step(), any::<u32>()).prop_map(|(step, run, of, number)| ChangeKind::StepCached {
            step,
            source: AttemptId { run, step: of, number },
        }),
        (step(), any::<u32>(), select(StepFailure::ALL)).prop_map(|(step, number, reason)| ChangeKind::StepFailed {
            step,
            number,
            reason
        }),
    ]
}

fn attempt_kind() -> impl Strategy<Value = ChangeKind> {
    let attempt = || (step(), 1..9_u32);
    prop_oneof![
        (attempt(), executor()).prop_map(|((step, number), executor)| ChangeKind::AttemptLaunched {
            step,
            number,
            executor
        }),
        (attempt(), any::<u32>(), executor()).prop_map(|((step, number), grant, executor)| {
            ChangeKind::AttemptRegranted {
                step,
                number,
                grant,
                executor,
            }
        }),
        (attempt(), pod()).prop_map(|((step, number), pod)| ChangeKind::AttemptCreated { step, number, pod }),
        (attempt(), select(AttemptPhase::ALL), phase_detail()).prop_map(|((step, number), phase, detail)| {
            ChangeKind::AttemptProgressed {
                step,
                number,
                phase,
                detail,
            }
        }),
        (attempt(), time(), option::of(text())).prop_map(|((step, number), started_at, node)| {
            ChangeKind::AttemptRunning {
                step,
                number,
                started_at,
                node,
            }
        }),
        (attempt(), cause(), any::<u32>()).prop_map(|((step, number), cause, grace_ms)| ChangeKind::StopRequested {
            step,
            number,
            cause,
            grace_ms
        }),
        (attempt(), select(LostCause::ALL), phase_detail()).prop_map(|((step, number), cause, detail)| {
            ChangeKind::ContactLost {
                step,
                number,
                cause,
                detail,
            }
        }),
        (attempt(), select(StepState::ALL)).prop_map(|((step, number), state)| ChangeKind::ContactRegained {
            step,
            number,
            state
        }),
        (attempt(), time(), end_detail()).prop_map(|((step, number), ended_at, detail)| {
            ChangeKind::AttemptSucceeded {
                step,
                number,
                ended_at,
                detail,
            }
        }),
        (attempt(), failure()).prop_map(|((step, number), failure)| ChangeKind::AttemptFailed {
            step,
            number,
            failure
        }),
        (attempt(), option::of(text())).prop_map(|((step, number), confirmed_by)| ChangeKind::DeathProven {
            step,
            number,
            confirmed_by
        }),
    ]
}

/// Changes of three runs in any order, each run's numbers ascending, sometimes with a gap.
fn commit() -> impl Strategy<Value = Vec<Change>> {
    let change = (run(), prop_oneof![9 => Just(1), 1 => 2..9_u64], time(), kind());
    vec(change, 0..40).prop_map(|changes| {
        let mut last = std::collections::BTreeMap::new();
        let number = |(run, advance, at, kind)| {
            let sequence: &mut u64 = last.entry(run).or_default();
            *sequence += advance;
            Change {
                run,
                sequence: *sequence,
                at,
                kind,
            }
        };
        changes.into_iter().map(number).collect()
    })
}

fn by_run(changes: &[Change]) -> std::collections::BTreeMap<RunId, Vec<Change>> {
    let mut runs = std::collections::BTreeMap::<_, Vec<Change>>::new();
    for change in changes {
        runs.entry(change.run).or_default().push(change.clone());
    }
    runs
}

fn decoded(groups: &[Group]) -> std::collections::BTreeMap<RunId, Vec<Change>> {
    let mut changes = Vec::new();
    for group in groups {
        group.decode_into(0, u64::MAX, &mut changes).expect("decodes");
    }
    by_run(&changes)
}

proptest! {
    #[test]
    fn every_change_comes_back_from_a_commit_and_from_a_history(changes in commit()) {
        let mut encoder = CommitEncoder::default();
        changes.iter().for_each(|change| encoder.push(change));
        let (bytes, spans) = encoder.finish();
        let groups = decode_commit(bytes).expect("decodes");
        prop_assert_eq!(&groups.iter().map(Group::span).collect::<Vec<_>>(), &spans);
        prop_assert_eq!(decoded(&groups), by_run(&changes));
        for (run, expected) in by_run(&changes) {
            let of_run: Vec<_> = groups.iter().filter(|group| group.run == run).cloned().collect();
            let part = decode_part(run, encode_part(&of_run)).expect("decodes");
            prop_assert_eq!(decoded(&part).remove(&run), Some(expected));
        }
    }

    #[test]
    fn every_snapshot_comes_back(snapshot in snapshot()) {
        let bytes = encode_snapshot(&snapshot);
        prop_assert_eq!(decode_snapshot(snapshot.run, bytes.into()).expect("decodes"), snapshot);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic(
        changes in commit(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut encoder = CommitEncoder::default();
        changes.iter().for_each(|change| encoder.push(change));
        let (mut bytes, _) = encoder.finish();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if cut {
            bytes.truncate(at);
        }
        let mut found = Vec::new();
        for group in decode_commit(bytes).unwrap_or_default() {
            if group.decode_into(0, u64::MAX, &mut found).is_err() {
                break;
            }
        }
        prop_assert!(found.len() <= changes.len() + 1);
    }
}

fn snapshot() -> impl Strategy<Value = RunSnapshot> {
    let times = (time(), option::of(time()), option::of(time()), option::of(time()));
    let head = (
        run(),
        select(RunState::ALL),
        option::of(select(RunReason::ALL)),
        any::<u64>(),
    );
    let body = (
        option::of(cancel()),
        vec(step_snapshot(), 0..20),
        vec(attempt_snapshot(), 0..8),
    );
    (head, times, body).prop_map(
        |((run, state, reason, last_sequence), (accepted_at, started_at, ended_at, last_launch_at), body)| {
            let (cancel, steps, attempts) = body;
            RunSnapshot {
                run,
                state,
                reason,
                last_sequence,
                accepted_at,
                started_at,
                ended_at,
                last_launch_at,
                cancel,
                steps,
                attempts,
            }
        },
    )
}

fn step_snapshot() -> impl Strategy<Value = StepSnapshot> {
    let charged = (any::<u32>(), any::<u32>());
    (select(StepState::ALL), time(), any::<u32>(), charged).prop_map(
        |(state, since, number, (charged_user, charged_infrastructure))| StepSnapshot {
            state,
            since,
            number,
            charged_user,
            charged_infrastructure,
        },
    )
}

fn attempt_snapshot() -> impl Strategy<Value = AttemptSnapshot> {
    let place = (step(), select(AttemptPhase::ALL), time(), any::<u32>(), executor());
    let pod = (any::<bool>(), option::of(pod()), time(), option::of(time()));
    let stop = (
        option::of((cause(), time(), any::<u32>())),
        option::of((select(LostCause::ALL), time())),
        option::of(time()),
        option::of(select(FailureClass::ALL)),
    );
    (place, pod, stop, any::<bool>(), phase_detail()).prop_map(|(place, pod, stop, proof_of_death, detail)| {
        let (step, phase, phase_at, grant, executor) = place;
        let (shared, pod, launched_at, started_at) = pod;
        let (stopping, lost, retry_until, failed_with) = stop;
        AttemptSnapshot {
            step,
            phase,
            phase_at,
            grant,
            executor,
            shared,
            pod,
            launched_at,
            started_at,
            stopping,
            lost,
            retry_until,
            failed_with,
            proof_of_death,
            detail,
        }
    })
}

#[test]
fn every_kind_is_generated() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = [false; KINDS];
    for _ in 0..2_000 {
        let tree = kind().new_tree(&mut runner).expect("a value");
        seen[kind_number(&tree.current())] = true;
    }
    assert!(seen.iter().all(|seen| *seen), "{seen:?}");
}

#[test]
fn an_ordinary_change_takes_few_bytes() {
    let executor = Arc::new(ExecutorIdentity {
        incarnation: Incarnation::from_bytes([3; 16]),
        cluster: ClusterUid::from("1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        alias: ClusterAlias::from("prod"),
    });
    let mut encoder = CommitEncoder::default();
    for sequence in 1..=999 {
        let step = StepIndex(sequence / 3);
        let kind = match sequence % 3 {
            0 => ChangeKind::AttemptLaunched {
                step,
                number: 1,
                executor: Arc::clone(&executor),
            },
            1 => ChangeKind::AttemptCreated {
                step,
                number: 1,
                pod: PodUid::from_bytes([7; 16]),
            },
            _ => ChangeKind::AttemptSucceeded {
                step,
                number: 1,
                ended_at: Timestamp::from_millis(1_790_000_000_000 - 40),
                detail: None,
            },
        };
        encoder.push(&Change {
            run: RunId::from_bytes([1; 16]),
            sequence: sequence.into(),
            at: Timestamp::from_millis(1_790_000_000_000 + i64::from(sequence)),
            kind,
        });
    }
    let (bytes, _) = encoder.finish();
    assert!(bytes.len() / 999 <= 24, "{} bytes a change", bytes.len() / 999);
}

#[test]
fn a_framing_of_a_later_version_is_refused() {
    assert!(matches!(
        decode_commit(vec![9, 1, 2]),
        Err(CodecError::Framing(Some(9)))
    ));
    assert!(matches!(decode_commit(Vec::new()), Err(CodecError::Framing(None))));
}
