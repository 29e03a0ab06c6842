//! The graph of a run: adjacency in compressed sparse rows, both ways.

use windlass_ids::StepIndex;

/// Edges of one direction: `targets[offsets[i]..offsets[i + 1]]` belong to step `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    offsets: Vec<u32>,
    targets: Vec<StepIndex>,
}

impl Rows {
    fn of(&self, step: StepIndex) -> &[StepIndex] {
        let start = self.offsets[step.as_usize()] as usize;
        let end = self.offsets[step.as_usize() + 1] as usize;
        &self.targets[start..end]
    }
}

/// A graph without cycles, duplicate edges and edges to nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    upstream: Rows,
    downstream: Rows,
}

/// Why a list of edges is no graph of steps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// More than 2³² − 1 steps or edges.
    #[error("a run has at most 4294967295 steps and edges")]
    TooLarge,
    /// An edge comes from a step that is not there.
    #[error("step {step} has an upstream step {upstream}, which does not exist")]
    UnknownUpstream {
        /// The step.
        step: StepIndex,
        /// What it names.
        upstream: StepIndex,
    },
    /// An edge is there twice.
    #[error("step {step} names its upstream step {upstream} twice")]
    DuplicateUpstream {
        /// The step.
        step: StepIndex,
        /// What it names.
        upstream: StepIndex,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {}", Cycle(steps))]
    Cycle {
        /// One cycle, each step upstream of the next and the last one of the first.
        steps: Vec<StepIndex>,
    },
}

struct Cycle<'a>(&'a [StepIndex]);

impl std::fmt::Display for Cycle<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in self.0 {
            write!(formatter, "{step} -> ")?;
        }
        match self.0.first() {
            Some(first) => write!(formatter, "{first}"),
            None => Ok(()),
        }
    }
}

/// Collects edges, step by step.
#[derive(Clone, Debug, Default)]
pub(crate) struct GraphBuilder {
    upstream: Rows,
}

impl GraphBuilder {
    /// The next step, with its upstream steps.
    pub(crate) fn push(&mut self, upstream: &[StepIndex]) -> Result<(), GraphError> {
        if self.upstream.offsets.is_empty() {
            self.upstream.offsets.push(0);
        }
        self.upstream.targets.extend_from_slice(upstream);
        let end = u32::try_from(self.upstream.targets.len()).map_err(|_| GraphError::TooLarge)?;
        u32::try_from(self.upstream.offsets.len()).map_err(|_| GraphError::TooLarge)?;
        self.upstream.offsets.push(end);
        Ok(())
    }

    /// Checks the edges and turns them round.
    pub(crate) fn build(mut self) -> Result<Graph, GraphError> {
        if self.upstream.offsets.is_empty() {
            self.upstream.offsets.push(0);
        }
        self.upstream.offsets.shrink_to_fit();
        self.upstream.targets.shrink_to_fit();
        let steps = self.upstream.offsets.len() - 1;
        check_edges(&self.upstream, steps)?;
        let graph = Graph {
            downstream: reversed(&self.upstream, steps),
            upstream: self.upstream,
        };
        graph.check_acyclic()?;
        Ok(graph)
    }
}

fn check_edges(upstream: &Rows, steps: usize) -> Result<(), GraphError> {
    // `seen[u]` is the last step that named u, so one array finds duplicates of all steps.
    let mut seen = vec![u32::MAX; steps];
    for step in indices(steps) {
        for from in upstream.of(step) {
            let seen = seen
                .get_mut(from.as_usize())
                .ok_or(GraphError::UnknownUpstream { step, upstream: *from })?;
            if *seen == step.0 {
                return Err(GraphError::DuplicateUpstream { step, upstream: *from });
            }
            *seen = step.0;
        }
    }
    Ok(())
}

fn reversed(rows: &Rows, steps: usize) -> Rows {
    let mut offsets = vec![0_u32; steps + 1];
    for target in &rows.targets {
        offsets[target.as_usize() + 1] += 1;
    }
    for index in 0..steps {
        offsets[index + 1] += offsets[index];
    }
    let mut next = offsets.clone();
    let mut targets = vec![StepIndex(0); rows.targets.len()];
    for step in indices(steps) {
        for target in rows.of(step) {
            let slot = &mut next[target.as_usize()];
            targets[*slot as usize] = step;
            *slot += 1;
        }
    }
    Rows { offsets, targets }
}

fn indices(steps: usize) -> impl Iterator<Item = StepIndex> {
    (0..u32::try_from(steps).unwrap_or(u32::MAX)).map(StepIndex)
}

impl Graph {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.upstream.offsets.len().saturating_sub(1)
    }

    /// Number of edges.
    pub fn edges(&self) -> usize {
        self.upstream.targets.len()
    }

    /// All steps.
    pub fn indices(&self) -> impl Iterator<Item = StepIndex> + use<> {
        indices(self.steps())
    }

    /// What must end before a step.
    pub fn upstream(&self, step: StepIndex) -> &[StepIndex] {
        self.upstream.of(step)
    }

    /// What waits for a step.
    pub fn downstream(&self, step: StepIndex) -> &[StepIndex] {
        self.downstream.of(step)
    }

    /// The steps that fit and before which all steps fit, ascending. Costs O(steps + edges).
    pub fn closed_upwards(&self, fits: impl Fn(StepIndex) -> bool) -> Vec<StepIndex> {
        let mut remaining: Vec<usize> = self.indices().map(|step| self.upstream(step).len()).collect();
        let mut open: Vec<StepIndex> = self.indices().filter(|step| remaining[step.as_usize()] == 0).collect();
        let mut closed = Vec::new();
        while let Some(step) = open.pop() {
            if !fits(step) {
                continue;
            }
            closed.push(step);
            for next in self.downstream(step) {
                let left = &mut remaining[next.as_usize()];
                *left -= 1;
                if *left == 0 {
                    open.push(*next);
                }
            }
        }
        closed.sort_unstable();
        closed
    }

    /// Bytes on the heap.
    pub fn memory_usage(&self) -> usize {
        [&self.upstream, &self.downstream]
            .iter()
            .map(|rows| (rows.offsets.capacity() + rows.targets.capacity()) * size_of::<u32>())
            .sum()
    }

    fn check_acyclic(&self) -> Result<(), GraphError> {
        let mut remaining: Vec<u32> = self
            .indices()
            .map(|step| u32::try_from(self.upstream(step).len()).unwrap_or(u32::MAX))
            .collect();
        let mut open: Vec<StepIndex> = self.indices().filter(|step| remaining[step.as_usize()] == 0).collect();
        let mut ordered = 0;
        while let Some(step) = open.pop() {
            ordered += 1;
            for next in self.downstream(step) {
                let left = &mut remaining[next.as_usize()];
                *left -= 1;
                if *left == 0 {
                    open.push(*next);
                }
            }
        }
        if ordered == self.steps() {
            return Ok(());
        }
        Err(GraphError::Cycle {
            steps: self.cycle(&remaining),
        })
    }

    /// A cycle among the steps that have something remaining: each of them has such an upstream step, so walking up must come round.
    fn cycle(&self, remaining: &[u32]) -> Vec<StepIndex> {
        let blocked = |step: &StepIndex| remaining[step.as_usize()] > 0;
        let mut position = vec![usize::MAX; self.steps()];
        let mut path = Vec::new();
        let mut current = self.indices().find(blocked);
        while let Some(step) = current {
            let seen_at = position[step.as_usize()];
            if seen_at != usize::MAX {
                let mut steps = path.split_off(seen_at);
                steps.reverse();
                return steps;
            }
            position[step.as_usize()] = path.len();
            path.push(step);
            current = self.upstream(step).iter().copied().find(blocked);
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(upstream: &[&[u32]]) -> Result<Graph, GraphError> {
        let mut builder = GraphBuilder::default();
        for row in upstream {
            builder.push(&row.iter().copied().map(StepIndex).collect::<Vec<_>>())?;
        }
        builder.build()
    }

    /// behaviours D2
    #[test]
    fn edges_are_found_from_both_ends() {
        let graph = build(&[&[], &[0], &[0, 1]]).expect("a graph");
        assert_eq!(graph.downstream(StepIndex(0)), [StepIndex(1), StepIndex(2)]);
        assert_eq!(graph.upstream(StepIndex(2)), [StepIndex(0), StepIndex(1)]);
        assert_eq!((graph.steps(), graph.edges()), (3, 3));
    }

    /// behaviours D10, X9
    #[test]
    fn a_cycle_is_refused_and_shown() {
        // behaviours E41, D10: a cyclic graph is an error at submission.
        let error = build(&[&[], &[3, 0], &[1], &[2], &[3]]).expect_err("a cycle");
        assert_eq!(error.to_string(), "steps wait for each other: 2 -> 3 -> 1 -> 2");
        let error = build(&[&[0]]).expect_err("a cycle");
        assert_eq!(error.to_string(), "steps wait for each other: 0 -> 0");
    }

    #[test]
    fn edges_from_nowhere_and_twice_are_refused() {
        assert_eq!(
            build(&[&[7]]),
            Err(GraphError::UnknownUpstream {
                step: StepIndex(0),
                upstream: StepIndex(7)
            })
        );
        assert_eq!(
            build(&[&[], &[0, 0]]),
            Err(GraphError::DuplicateUpstream {
                step: StepIndex(1),
                upstream: StepIndex(0)
            })
        );
    }

    #[test]
    fn what_stands_on_something_that_does_not_fit_does_not_fit() {
        let graph = build(&[&[], &[0], &[1], &[], &[0, 3], &[2, 4]]).expect("a graph");
        let closed = |but: &[u32]| {
            let steps = graph.closed_upwards(|step| !but.contains(&step.0));
            steps.into_iter().map(|step| step.0).collect::<Vec<_>>()
        };
        assert_eq!(closed(&[]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(closed(&[1]), [0, 3, 4]);
        assert_eq!(closed(&[3]), [0, 1, 2]);
        assert_eq!(closed(&[0, 3]), []);
    }

    #[test]
    fn no_steps_are_a_graph() {
        assert_eq!(build(&[]).expect("a graph").steps(), 0);
    }
}
