//! Snapshots made by the core: recovery from one gives the same run as its whole history.

use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{ClusterAlias, ClusterUid, Incarnation, Namespace, PodUid, RunId, StepIndex, Timestamp};
use windlass_scheduler::store::sqlite::SqliteOptions;
use windlass_scheduler::store::{CommitBatch, Replay, Snapshots, Store};
use windlass_scheduling::{
    AttemptEnd, AttemptPhase, Change, Config, Decision, Effect, Event, FailureClass, Observation, RunParameters,
    RunSnapshot, RunSpec, Scheduler, StepPolicy, StepSpec,
};

use crate::support::{at, commit, header, new_run, options, run_id, start};

const EXECUTOR: Incarnation = Incarnation::from_bytes([5; 16]);

fn spec(run: RunId) -> Arc<RunSpec> {
    let step = |index: u32| StepSpec {
        policy: 0,
        upstream: index.checked_sub(3).map(StepIndex).into_iter().collect(),
    };
    let parameters = RunParameters::new(run, Namespace::from("default"));
    Arc::new(RunSpec::new(parameters, vec![StepPolicy::default()], (0..12).map(step)).expect("a spec"))
}

/// A run of twelve steps through the core: launched, running, ended, one evicted and retried; the last steps are not begun.
fn history() -> (Vec<Change>, RunSnapshot) {
    let mut core = Scheduler::new(Config::default());
    let mut all = Vec::new();
    let mut handle = |core: &mut Scheduler, now: Timestamp, event: Event| {
        let mut decision = Decision::default();
        core.handle(now, event, &mut decision).expect("accepted");
        all.extend(decision.changes);
        decision.effects
    };
    let connected = Event::ExecutorConnected {
        incarnation: EXECUTOR,
        cluster: ClusterUid::from("uid"),
        alias: ClusterAlias::from("prod"),
        credit: 100,
        resumed: false,
    };
    handle(&mut core, at(0), connected);
    let mut effects = handle(&mut core, at(1), Event::RunSubmitted { spec: spec(run_id(1)) });
    for round in 1..4 {
        let now = at(round * 100);
        let launched = effects.iter().filter_map(|effect| match effect {
            Effect::Launch(launch) => Some(launch.attempt),
            _ => None,
        });
        let launched: Vec<_> = launched.collect();
        effects.clear();
        for attempt in launched {
            let pod = PodUid::from_bytes([u8::try_from(attempt.step.0).expect("small"); 16]);
            for phase in [AttemptPhase::Created, AttemptPhase::Running, AttemptPhase::Ended] {
                let mut seen = Observation::new(attempt, 1, Some(pod), phase);
                seen.started_at = (phase != AttemptPhase::Created).then_some(now);
                seen.end = (phase == AttemptPhase::Ended).then(|| match attempt.step.0 {
                    4 => AttemptEnd::failure(FailureClass::Evicted, Some(143), now),
                    _ => AttemptEnd::success(now),
                });
                let observed = Event::AttemptObserved {
                    by: EXECUTOR,
                    observation: seen,
                };
                effects.extend(handle(&mut core, now, observed));
            }
        }
    }
    let snapshot = core.snapshot(run_id(1)).expect("the run");
    (all, snapshot)
}

#[test]
fn a_snapshot_and_the_rest_are_the_whole_history() {
    let (changes, expected) = history();
    assert!(changes.len() > 30, "{changes:?}");
    let replay = Replay::new(|header, _| Some(spec(header.id)));
    for split in 1..changes.len() {
        let base = replay
            .snapshot(&header(1), b"", None, &changes[..split])
            .expect("a snapshot");
        assert_eq!(base.last_sequence, split as u64);
        let rest = replay.snapshot(&header(1), b"", Some(&base), &changes[split..]);
        assert_eq!(rest.as_ref(), Some(&expected), "split at {split}");
    }
}

#[tokio::test]
async fn the_fold_writes_the_snapshot_that_the_core_makes() {
    let (changes, expected) = history();
    let folder = tempfile::tempdir().expect("a folder");
    let options = SqliteOptions {
        fold_idle: Duration::from_secs(3600),
        snapshot_changes: 1,
        snapshots: Some(Arc::new(Replay::new(|header, _| Some(spec(header.id))))),
        ..options(folder.path())
    };
    let (store, _, _) = start(options.clone()).await;
    let accepted = CommitBatch {
        new_runs: vec![new_run(header(1), 1)],
        ..CommitBatch::default()
    };
    commit(&store, accepted).await.expect("commits");
    for changes in changes.chunks(7) {
        let batch = CommitBatch {
            changes: changes.to_vec(),
            ..CommitBatch::default()
        };
        commit(&store, batch).await.expect("commits");
        store.fold().await.expect("folds");
    }
    drop(store);
    let (_store, _, mut runs) = start(options).await;
    let run = runs.pop().expect("the run has not ended");
    assert_eq!(run.changes, []);
    assert_eq!(run.snapshot, Some(expected));
}
