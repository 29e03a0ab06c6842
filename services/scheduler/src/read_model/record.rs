//! The durable state of one run, made by applying its changes; compact, since a run may have a million steps (performance P11).

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_ids::{AttemptId, PodUid, StepIndex, Timestamp};
use windlass_scheduling::{
    AfterFailure, AttemptEnd, AttemptPhase, Change, ChangeKind, EndDetail, ExecutorIdentity, FailureClass, PhaseDetail,
    RunReason, RunState, SkipReason, StepFailure, StepState, StopCause,
};

/// At most this many failed steps are kept for a run's header.
pub(crate) const MAX_FAILED_STEPS: usize = 10;

const NONE: u32 = u32::MAX;

/// A run's state; see the module.
#[derive(Clone, Debug)]
pub(crate) struct RunRecord {
    pub(crate) state: RunState,
    pub(crate) started: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) reason: Option<RunReason>,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) last_sequence: u64,
    pub(crate) last_at: Timestamp,
    /// The first steps that failed for good.
    pub(crate) failed: Vec<StepIndex>,
    counts: [u32; StepState::SLOTS],
    steps: Vec<StepCell>,
    attempts: Vec<AttemptCell>,
    texts: BTreeMap<u32, Box<Texts>>,
    /// Attempts of earlier runs whose work is used.
    reused: BTreeMap<StepIndex, AttemptId>,
    executors: Vec<Arc<ExecutorIdentity>>,
    nodes: Vec<Box<str>>,
}

/// Why a run is being cancelled.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) reason: Box<str>,
    pub(crate) by: Box<str>,
}

#[derive(Clone, Copy, Debug)]
struct StepCell {
    since: Timestamp,
    last: u32,
    state: StepState,
    why: Why,
}

/// Why a step is where it is, when no attempt says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Nothing,
    Skipped(SkipReason),
    Stopped(StopCause),
    Failed(StepFailure),
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptCell {
    pub(crate) number: u32,
    previous: u32,
    pub(crate) launched: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) phase_since: Timestamp,
    /// When the next attempt may start.
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) pod: Option<PodUid>,
    pub(crate) exit_code: Option<i32>,
    node: u32,
    executor: u32,
    pub(crate) grant: u32,
    pub(crate) phase: AttemptPhase,
    pub(crate) class: Option<FailureClass>,
    pub(crate) stopping: Option<StopCause>,
}

/// Texts of an attempt; most attempts have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    pub(crate) waiting: Option<PhaseDetail>,
    pub(crate) end: Option<EndDetail>,
}

/// A step with its newest attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepRef<'a> {
    pub(crate) index: StepIndex,
    pub(crate) state: StepState,
    pub(crate) since: Timestamp,
    pub(crate) why: Why,
    pub(crate) attempt: Option<AttemptRef<'a>>,
    /// The attempt of an earlier run whose work it uses.
    pub(crate) reused: Option<AttemptId>,
}

/// An attempt with its texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptRef<'a> {
    record: &'a RunRecord,
    index: u32,
    pub(crate) cell: &'a AttemptCell,
}

impl<'a> AttemptRef<'a> {
    /// The node, when it has one.
    pub(crate) fn node(&self) -> &'a str {
        self.record.nodes.get(self.cell.node as usize).map_or("", |node| node)
    }

    /// The executor that has its grant.
    pub(crate) fn executor(&self) -> &'a ExecutorIdentity {
        &self.record.executors[self.cell.executor as usize]
    }

    /// Its texts, when there are any.
    pub(crate) fn texts(&self) -> Option<&'a Texts> {
        self.record.texts.get(&self.index).map(Box::as_ref)
    }

    /// Texts of its end, when there are any.
    pub(crate) fn end(&self) -> Option<&'a EndDetail> {
        self.texts().and_then(|texts| texts.end.as_ref())
    }

    /// The attempt before it.
    pub(crate) fn previous(&self) -> Option<Self> {
        self.record.attempt(self.cell.previous)
    }
}

impl RunRecord {
    /// A run that was just accepted.
    pub(crate) fn new(steps: usize, at: Timestamp) -> Self {
        let cell = StepCell {
            since: at,
            last: NONE,
            state: StepState::Waiting,
            why: Why::Nothing,
        };
        let mut counts = [0; StepState::SLOTS];
        counts[usize::from(StepState::Waiting.code())] = u32::try_from(steps).unwrap_or(u32::MAX);
        Self {
            state: RunState::Queued,
            started: None,
            ended: None,
            reason: None,
            cancel: None,
            last_sequence: 0,
            last_at: at,
            failed: Vec::new(),
            counts,
            steps: vec![cell; steps],
            attempts: Vec::new(),
            texts: BTreeMap::new(),
            reused: BTreeMap::new(),
            executors: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Bytes of a step without an attempt, and of an attempt.
    #[cfg(test)]
    pub(crate) fn bytes() -> (usize, usize) {
        (size_of::<StepCell>(), size_of::<AttemptCell>())
    }

    /// How many steps are in which state, without empty ones.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (StepState, u32)> + '_ {
        let count = |state: &StepState| (*state, self.counts[usize::from(state.code())]);
        StepState::ALL.iter().map(count).filter(|(_, count)| *count > 0)
    }

    /// Steps whose work an earlier run has done, with its attempts.
    pub(crate) fn reused(&self) -> &BTreeMap<StepIndex, AttemptId> {
        &self.reused
    }

    /// Number of steps.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// A step, when it exists.
    pub(crate) fn step(&self, index: StepIndex) -> Option<StepRef<'_>> {
        let cell = self.steps.get(index.as_usize())?;
        Some(StepRef {
            index,
            state: cell.state,
            since: cell.since,
            why: cell.why,
            attempt: self.attempt(cell.last),
            reused: self.reused.get(&index).copied(),
        })
    }

    fn attempt(&self, index: u32) -> Option<AttemptRef<'_>> {
        let cell = self.attempts.get(index as usize)?;
        Some(AttemptRef {
            record: self,
            index,
            cell,
        })
    }

    /// Applies a durable change; those of other runs or out of order are the caller's mistake.
    pub(crate) fn apply(&mut self, change: &Change) {
        let at = change.at;
        self.last_sequence = change.sequence;
        self.last_at = at;
        match &change.kind {
            ChangeKind::RunPreparing => self.state = RunState::Preparing,
            ChangeKind::RunAccepted => self.state = RunState::Queued,
            ChangeKind::RunStarted => {
                self.state = RunState::Running;
                self.started = Some(at);
            }
            ChangeKind::CancelRequested(request) => {
                self.state = RunState::Cancelling;
                self.cancel = Some(Cancel {
                    reason: request.reason.clone(),
                    by: request.by.clone(),
                });
            }
            ChangeKind::RunEnded { state, reason } => {
                self.state = *state;
                self.reason = Some(*reason);
                self.ended = Some(at);
            }
            ChangeKind::StepReady { step } => self.enter(*step, StepState::Ready, at),
            ChangeKind::StepSkipped { step, reason } => {
                self.leave(*step, StepState::Skipped, Why::Skipped(*reason), at)
            }
            ChangeKind::StepCached { step, source } => {
                self.reused.insert(*step, *source);
                self.enter(*step, StepState::Cached, at);
            }
            ChangeKind::StepCancelled { step, cause } => {
                self.leave(*step, StepState::Cancelled, Why::Stopped(*cause), at);
            }
            ChangeKind::StepFailed { step, reason, .. } => {
                self.leave(*step, StepState::Failed, Why::Failed(*reason), at);
            }
            ChangeKind::AttemptLaunched { step, number, executor } => self.launch(*step, *number, executor, at),
            ChangeKind::AttemptRegranted {
                step, grant, executor, ..
            } => {
                let executor = self.executor(executor);
                self.edit(*step, |attempt| {
                    attempt.grant = *grant;
                    attempt.executor = executor;
                    attempt.phase = AttemptPhase::Launched;
                    attempt.phase_since = at;
                });
            }
            ChangeKind::AttemptCreated { step, pod, .. } => self.edit(*step, |attempt| {
                attempt.pod = Some(*pod);
                attempt.phase = attempt.phase.max(AttemptPhase::Created);
                attempt.phase_since = at;
            }),
            ChangeKind::AttemptProgressed {
                step, phase, detail, ..
            } => self.progress(*step, *phase, detail.as_deref(), at),
            ChangeKind::AttemptRunning {
                step, started_at, node, ..
            } => self.run(*step, *started_at, node.as_deref(), at),
            ChangeKind::StopRequested { step, cause, .. } => {
                self.edit(*step, |attempt| attempt.stopping = Some(*cause));
            }
            ChangeKind::ContactLost {
                step, cause, detail, ..
            } => {
                self.enter(*step, StepState::LostContact, at);
                let why = PhaseDetail {
                    reason: cause.as_str().into(),
                    ..PhaseDetail::default()
                };
                self.wait_for(*step, detail.as_deref().or(Some(&why)));
            }
            ChangeKind::ContactRegained { step, state, .. } => {
                self.enter(*step, *state, at);
                self.wait_for(*step, None);
            }
            ChangeKind::AttemptSucceeded {
                step, ended_at, detail, ..
            } => {
                self.end(*step, &AttemptEnd::success(*ended_at), detail.as_deref());
                self.leave(*step, StepState::Succeeded, Why::Nothing, at);
            }
            ChangeKind::AttemptFailed { step, failure, .. } => {
                self.end(*step, &failure.end, failure.end.detail.as_deref());
                self.fail(*step, failure.next, at);
            }
            ChangeKind::DeathProven { .. } => {}
        }
    }

    fn launch(&mut self, step: StepIndex, number: u32, executor: &Arc<ExecutorIdentity>, at: Timestamp) {
        let executor = self.executor(executor);
        let Some(cell) = self.steps.get_mut(step.as_usize()) else {
            return;
        };
        let attempt = AttemptCell {
            number,
            previous: cell.last,
            launched: at,
            started: None,
            ended: None,
            phase_since: at,
            retry_at: None,
            pod: None,
            exit_code: None,
            node: NONE,
            executor,
            grant: 1,
            phase: AttemptPhase::Launched,
            class: None,
            stopping: None,
        };
        cell.last = u32::try_from(self.attempts.len()).unwrap_or(NONE);
        self.attempts.push(attempt);
        self.enter(step, StepState::Starting, at);
    }

    fn progress(&mut self, step: StepIndex, phase: AttemptPhase, detail: Option<&PhaseDetail>, at: Timestamp) {
        self.edit(step, |attempt| {
            if attempt.phase != phase {
                attempt.phase = phase;
                attempt.phase_since = at;
            }
        });
        self.wait_for(step, detail);
    }

    fn run(&mut self, step: StepIndex, started: Timestamp, node: Option<&str>, at: Timestamp) {
        let node = node.map(|node| self.node(node));
        self.edit(step, |attempt| {
            attempt.started = Some(started);
            attempt.phase = AttemptPhase::Running;
            attempt.phase_since = at;
            attempt.node = node.unwrap_or(attempt.node);
        });
        self.wait_for(step, None);
        self.enter(step, StepState::Running, at);
    }

    fn end(&mut self, step: StepIndex, end: &AttemptEnd, detail: Option<&EndDetail>) {
        self.edit(step, |attempt| {
            attempt.ended = Some(end.ended_at);
            attempt.exit_code = end.exit_code;
            attempt.class = end.class;
            attempt.phase = AttemptPhase::Ended;
        });
        let last = self.steps.get(step.as_usize()).map_or(NONE, |cell| cell.last);
        match detail {
            Some(detail) => {
                let texts = self.texts.entry(last).or_default();
                texts.waiting = None;
                texts.end = Some(detail.clone());
            }
            None => drop(self.texts.remove(&last)),
        }
    }

    fn fail(&mut self, step: StepIndex, next: AfterFailure, at: Timestamp) {
        match next {
            AfterFailure::Failed => self.leave(step, StepState::Failed, Why::Nothing, at),
            AfterFailure::Cancelled(cause) => self.leave(step, StepState::Cancelled, Why::Stopped(cause), at),
            AfterFailure::Retry { until, .. } => {
                self.edit(step, |attempt| attempt.retry_at = Some(until));
                self.enter(step, StepState::RetryWait, at);
            }
        }
    }

    fn leave(&mut self, step: StepIndex, state: StepState, why: Why, at: Timestamp) {
        self.enter(step, state, at);
        if let Some(cell) = self.steps.get_mut(step.as_usize()) {
            cell.why = why;
        }
        if state == StepState::Failed && self.failed.len() < MAX_FAILED_STEPS {
            self.failed.push(step);
        }
    }

    fn enter(&mut self, step: StepIndex, state: StepState, at: Timestamp) {
        let Some(cell) = self.steps.get_mut(step.as_usize()) else {
            return;
        };
        let (before, after) = (usize::from(cell.state.code()), usize::from(state.code()));
        self.counts[before] = self.counts[before].saturating_sub(1);
        self.counts[after] += 1;
        cell.state = state;
        cell.since = at;
    }

    fn edit(&mut self, step: StepIndex, change: impl FnOnce(&mut AttemptCell)) {
        let last = self.steps.get(step.as_usize()).map_or(NONE, |cell| cell.last);
        if let Some(attempt) = self.attempts.get_mut(last as usize) {
            change(attempt);
        }
    }

    /// Keeps what the newest attempt waits for; reasons only, since most attempts have none.
    fn wait_for(&mut self, step: StepIndex, detail: Option<&PhaseDetail>) {
        let last = self.steps.get(step.as_usize()).map_or(NONE, |cell| cell.last);
        if let Some(node) = detail.and_then(|detail| detail.node.as_deref()) {
            let node = self.node(node);
            self.edit(step, |attempt| attempt.node = node);
        }
        let waiting = detail.filter(|detail| !detail.reason.is_empty() || !detail.message.is_empty());
        match (waiting, self.texts.get_mut(&last)) {
            (Some(detail), _) => self.texts.entry(last).or_default().waiting = Some(detail.clone()),
            (None, Some(texts)) => texts.waiting = None,
            (None, None) => {}
        }
    }

    /// Number of an executor; there are few, and the newest is the likeliest.
    fn executor(&mut self, executor: &Arc<ExecutorIdentity>) -> u32 {
        let known = self
            .executors
            .iter()
            .rposition(|known| Arc::ptr_eq(known, executor) || known == executor);
        let index = known.unwrap_or_else(|| {
            self.executors.push(Arc::clone(executor));
            self.executors.len() - 1
        });
        u32::try_from(index).unwrap_or(NONE)
    }

    fn node(&mut self, node: &str) -> u32 {
        let known = self.nodes.iter().rposition(|known| known.as_ref() == node);
        let index = known.unwrap_or_else(|| {
            self.nodes.push(node.into());
            self.nodes.len() - 1
        });
        u32::try_from(index).unwrap_or(NONE)
    }
}
