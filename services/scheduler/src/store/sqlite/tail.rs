//! Where the changes of a run are in the journal: an index in memory over what was not folded yet.

use std::collections::{HashMap, VecDeque};

use windlass_ids::RunId;

use crate::store::codec::Span;

/// Bounded by the fold, which keeps the journal short.
#[derive(Debug, Default)]
pub(super) struct Tail {
    runs: HashMap<RunId, VecDeque<Entry>>,
    /// Commits and their sizes.
    commits: VecDeque<(u64, usize)>,
    bytes: usize,
    durable: u64,
    folded: u64,
}

/// Changes of one run in one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) commit_no: u64,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
}

impl Tail {
    /// Of a journal that was folded up to a commit.
    pub(super) fn starting_at(folded: u64) -> Self {
        Self {
            durable: folded,
            folded,
            ..Self::default()
        }
    }

    /// After the commit is durable.
    pub(super) fn push(&mut self, commit_no: u64, bytes: usize, spans: &[Span]) {
        self.durable = commit_no;
        if bytes == 0 {
            return;
        }
        self.commits.push_back((commit_no, bytes));
        self.bytes += bytes;
        for span in spans {
            self.runs.entry(span.run).or_default().push_back(Entry {
                commit_no,
                first_sequence: span.first_sequence,
                last_sequence: span.last_sequence,
            });
        }
    }

    /// After the fold of commits up to `folded`, which had changes of `runs`.
    pub(super) fn trim(&mut self, folded: u64, runs: impl Iterator<Item = RunId>) {
        self.folded = folded;
        while let Some((commit_no, bytes)) = self.commits.front().copied()
            && commit_no <= folded
        {
            self.commits.pop_front();
            self.bytes -= bytes;
        }
        for run in runs {
            let Some(entries) = self.runs.get_mut(&run) else {
                continue;
            };
            while entries.front().is_some_and(|entry| entry.commit_no <= folded) {
                entries.pop_front();
            }
            if entries.is_empty() {
                self.runs.remove(&run);
            }
        }
    }

    /// The commits that have changes of the run from `from` on, at most about `limit` changes.
    pub(super) fn commits_of(&self, run: RunId, from: u64, limit: u64) -> Vec<u64> {
        let entries = self.runs.get(&run).into_iter().flatten();
        let wanted = entries
            .skip_while(|entry| entry.last_sequence < from)
            .take_while(|entry| entry.first_sequence < from.saturating_add(limit));
        let mut commits: Vec<u64> = wanted.map(|entry| entry.commit_no).collect();
        commits.dedup();
        commits
    }

    /// The last commit that the index does not cover because it was folded.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }

    /// Bytes in the journal.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest durable commit.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Starts at a recovered commit.
    pub(super) fn set_durable(&mut self, commit_no: u64) {
        self.durable = commit_no;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId::from_bytes([1; 16]);
    const OTHER: RunId = RunId::from_bytes([2; 16]);

    fn span(run: RunId, first_sequence: u64, last_sequence: u64) -> Span {
        Span {
            run,
            first_sequence,
            last_sequence,
        }
    }

    #[test]
    fn i11_the_index_shrinks_with_the_fold() {
        let mut tail = Tail::default();
        tail.push(1, 10, &[span(RUN, 1, 3), span(OTHER, 1, 1)]);
        tail.push(2, 0, &[]);
        tail.push(3, 20, &[span(RUN, 4, 5)]);
        assert_eq!(tail.commits_of(RUN, 1, 100), [1, 3]);
        assert_eq!(tail.commits_of(RUN, 4, 100), [3]);
        assert_eq!(tail.commits_of(RUN, 1, 2), [1]);
        assert_eq!((tail.bytes(), tail.durable()), (30, 3));
        tail.trim(1, [RUN, OTHER].into_iter());
        assert_eq!(tail.commits_of(RUN, 1, 100), [3]);
        assert!(tail.commits_of(OTHER, 1, 100).is_empty());
        assert_eq!((tail.bytes(), tail.runs.len()), (20, 1));
    }
}
