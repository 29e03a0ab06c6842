//! A sequence of batches whose whole outcome is a function of their number, so that a test can tell a half commit.
//!
//! Three long runs get one change a batch each. Besides, batch `n` accepts the run `FIRST + n`, ends the one accepted three
//! batches before, and deletes the one accepted six batches before.

use windlass_ids::{RunId, Timestamp};
use windlass_scheduler::store::sqlite::SqliteStore;
use windlass_scheduler::store::{
    CommitBatch, DefinitionKind, HistoryError, MAX_HISTORY, RecoveredRun, RunFilter, RunHeader, Snapshots, Store,
};
use windlass_scheduling::{Change, RunSnapshot, RunState, StepSnapshot, StepState};

use crate::support::{accept, at, change, changes, definition, deletion_of, end, header, new_run, request, run_id};

pub(crate) const LONG: [u64; 3] = [1, 2, 3];
const FIRST: u64 = 1000;

/// The batch `n`, from 1.
pub(crate) fn batch(n: u64) -> CommitBatch {
    let mut batch = accept(FIRST + n);
    batch.time = at(i64::try_from(n).expect("small"));
    if n == 1 {
        batch.new_runs.extend(LONG.map(|run| new_run(header(run), run)));
    }
    batch.changes.extend(LONG.map(|run| change(run, n)));
    if let Some(ended) = n.checked_sub(3).filter(|ended| *ended > 0) {
        let end = end(FIRST + ended, 2);
        batch.changes.extend(end.changes);
        batch.updates.extend(end.updates);
    }
    batch.deleted.extend(
        n.checked_sub(6)
            .filter(|gone| *gone > 0)
            .map(|gone| deletion_of(FIRST + gone)),
    );
    batch
}

/// How many batches are in the store: what was recovered is exactly the state after them.
pub(crate) fn committed(recovered: &[RecoveredRun]) -> u64 {
    let last = |run: &RecoveredRun| {
        let covered = run.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_sequence);
        run.changes.last().map_or(covered, |change| change.sequence)
    };
    let n = recovered.first().map_or(0, last);
    let active: Vec<RunId> = match n {
        0 => Vec::new(),
        _ => LONG
            .into_iter()
            .chain(FIRST + n.saturating_sub(3) + 1..=FIRST + n)
            .map(run_id)
            .collect(),
    };
    let found: Vec<RunId> = recovered.iter().map(|run| run.header.id).collect();
    assert_eq!(found, active, "after {n} batches");
    for run in recovered {
        let number = u64::from_be_bytes(run.header.id.as_bytes()[..8].try_into().expect("8 bytes"));
        let sequence = if number < FIRST { n } else { 1 };
        let covered = run.snapshot.as_ref().map_or(0, |snapshot| snapshot.last_sequence);
        assert_eq!(
            run.changes,
            changes(number, covered + 1..=sequence),
            "run {number} after {n} batches"
        );
        assert_eq!(run.definition, definition(number));
        if let Some(snapshot) = &run.snapshot {
            assert_eq!(*snapshot, snapshot_of(number, covered), "snapshot of run {number}");
        }
    }
    n
}

/// Looks at everything else that the store holds after `n` batches.
pub(crate) async fn check(store: &SqliteStore, n: u64) {
    let page = store.list_runs(&RunFilter::default(), None, 500).await.expect("lists");
    let listed: Vec<RunId> = page.runs.iter().map(|header| header.id).collect();
    let kept = FIRST + n.saturating_sub(6) + 1..=FIRST + n;
    let mut expected: Vec<RunId> = if n == 0 { Vec::new() } else { LONG.map(run_id).to_vec() };
    expected.extend(kept.map(run_id));
    expected.reverse();
    assert_eq!(listed, expected, "after {n} batches");
    for number in LONG.into_iter().filter(|_| n > 0) {
        for first in (1..=n + 1).step_by(MAX_HISTORY) {
            let history = store
                .history(run_id(number), first, MAX_HISTORY)
                .await
                .expect("a history");
            let last = n.min(first + MAX_HISTORY as u64 - 1);
            assert_eq!(history, changes(number, first..=last), "run {number} after {n} batches");
        }
    }
    // All of the newest ones and a sample of the old ones.
    for number in (1..=n).filter(|number| number + 20 > n || number % 97 == 0) {
        check_short(store, number, n).await;
    }
    let unknown = request(FIRST + n + 1);
    let found = store.requests(&[(unknown.namespace, unknown.request_id)]).await;
    assert_eq!(found.expect("reads"), [None]);
}

/// The run that batch `number` accepted.
async fn check_short(store: &SqliteStore, number: u64, n: u64) {
    let run = FIRST + number;
    let request = request(run);
    let found = store
        .requests(&[(request.namespace.clone(), request.request_id.clone())])
        .await;
    assert_eq!(
        found.expect("reads"),
        [Some(request)],
        "request of run {run} after {n} batches"
    );
    let (ended, deleted) = (number + 3 <= n, number + 6 <= n);
    let history = store.history(run_id(run), 1, 10).await;
    let definition = store
        .definition(run_id(run), DefinitionKind::Resolved)
        .await
        .expect("reads");
    assert_eq!(definition.is_none(), deleted);
    if deleted {
        assert!(matches!(history, Err(HistoryError::NotFound)), "{history:?}");
        return;
    }
    assert_eq!(history.expect("a history").len(), if ended { 2 } else { 1 });
    let state = store
        .run(run_id(run))
        .await
        .expect("reads")
        .map(|header| header.progress.state);
    assert_eq!(state, Some(if ended { RunState::Succeeded } else { RunState::Queued }));
}

/// Makes snapshots that say which changes they were made of.
#[derive(Debug)]
pub(crate) struct Tally;

impl Snapshots for Tally {
    fn snapshot(
        &self,
        header: &RunHeader,
        definition: &[u8],
        base: Option<&RunSnapshot>,
        changes: &[Change],
    ) -> Option<RunSnapshot> {
        assert!(!definition.is_empty());
        let mut snapshot = base.cloned().unwrap_or_else(|| empty(header.id));
        for change in changes {
            assert_eq!(change.sequence, snapshot.last_sequence + 1, "no gap after the base");
            snapshot.last_sequence = change.sequence;
            snapshot.steps.push(tally(change.at));
        }
        Some(snapshot)
    }
}

fn snapshot_of(number: u64, sequence: u64) -> RunSnapshot {
    RunSnapshot {
        last_sequence: sequence,
        steps: changes(number, 1..=sequence)
            .iter()
            .map(|change| tally(change.at))
            .collect(),
        ..empty(run_id(number))
    }
}

fn empty(run: RunId) -> RunSnapshot {
    RunSnapshot {
        run,
        state: RunState::Running,
        reason: None,
        last_sequence: 0,
        accepted_at: at(0),
        started_at: None,
        ended_at: None,
        last_launch_at: None,
        cancel: None,
        steps: Vec::new(),
        attempts: Vec::new(),
    }
}

fn tally(since: Timestamp) -> StepSnapshot {
    StepSnapshot {
        state: StepState::Running,
        since,
        number: 1,
        charged_user: 0,
        charged_infrastructure: 0,
    }
}
