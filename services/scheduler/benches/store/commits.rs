//! Performance P10 and the store's part of P8.

use std::collections::VecDeque;
use std::time::Instant;

use windlass_scheduler::store::{CommitBatch, CommitTicket, Store};

use crate::work::{Bare, change, executor, run_id, start, submission};
use crate::{HALF, Half, PAIRS, repeat, report};

/// Batches in flight: one is written while the next is made.
const PIPELINED: usize = 2;

/// Bytes of a change in the journal, for the bare half.
const CHANGE_BYTES: usize = 24;

/// Bytes of a submission: header, definitions, request id, change.
const SUBMISSION_BYTES: usize = 1_000;

/// Commits of `group` changes, pipelined.
pub(crate) async fn changes(group: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = start(folder.path()).await;
    accept(&store).await;
    let (mut next, executor) = (2, executor());
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let half = pipelined(&store, PIPELINED, || {
            let sequences = next..next + group;
            next += group;
            CommitBatch {
                changes: sequences
                    .map(|sequence| change(run_id(0), sequence, &executor))
                    .collect(),
                ..CommitBatch::default()
            }
        });
        let done = half.await;
        ours.push(done.half.rate() * to_f64(group));
        // Batches that queue up are committed together: the bare half gets groups of the same mean size.
        let mean = group * done.half.operations / done.commits.max(1);
        let mut bare = Bare::new(folder.path(), usize::try_from(mean).expect("small") * CHANGE_BYTES);
        let appended = repeat(|| {
            bare.append();
            mean
        });
        floor.push(appended.rate());
    }
    let name = format!("P10 commits of {group} changes");
    report(&name, ">= 0.25", "changes/s", ours, floor);
}

/// Submissions, so many in flight, each in a batch of its own.
pub(crate) async fn submissions(in_flight: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = start(folder.path()).await;
    let mut next = 0;
    let (mut ours, mut floor, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let done = pipelined(&store, in_flight, || {
            next += 1;
            submission(next)
        });
        let done = done.await;
        let group = (done.half.operations / done.commits.max(1)).max(1);
        groups.push(group);
        ours.push(done.half.rate());
        let bytes = usize::try_from(group).expect("small") * SUBMISSION_BYTES;
        let mut bare = Bare::new(folder.path(), bytes);
        let appended = repeat(|| {
            bare.append();
            group
        });
        floor.push(appended.rate());
    }
    groups.sort_unstable();
    let name = format!("P8 submissions, {in_flight} in flight, {} a commit", groups[PAIRS / 2]);
    report(&name, "none of its own", "runs/s", ours, floor);
}

/// What a pipelined half did, and in how many transactions.
struct Done {
    half: Half,
    commits: u64,
}

async fn pipelined(store: &impl Store, in_flight: usize, mut make: impl FnMut() -> CommitBatch) -> Done {
    let began = Instant::now();
    let mut tickets: VecDeque<CommitTicket> = VecDeque::new();
    let (mut operations, mut first, mut last) = (0, None, 0);
    loop {
        let open = began.elapsed() < HALF;
        while open && tickets.len() < in_flight {
            tickets.push_back(store.commit(make()).await.expect("queued"));
        }
        let Some(ticket) = tickets.pop_front() else { break };
        last = ticket.await.expect("commits").commit_no;
        first.get_or_insert(last);
        operations += 1;
    }
    Done {
        half: Half {
            operations,
            elapsed: began.elapsed(),
        },
        commits: last + 1 - first.unwrap_or(last),
    }
}

async fn accept(store: &impl Store) {
    let ticket = store.commit(submission(0)).await.expect("queued");
    ticket.await.expect("commits");
}

#[expect(clippy::cast_precision_loss, reason = "a statistic")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
