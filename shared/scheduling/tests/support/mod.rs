//! A core with a clock, everything that it ever decided, and short words for events.
#![allow(dead_code, reason = "every test file uses a part of it")]

pub(crate) mod random;
pub(crate) mod world;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use windlass_ids::{AttemptId, ClusterUid, Incarnation, PodUid, RunId, StepIndex, Timestamp};
use windlass_scheduling::*;

/// First time of every test.
pub(crate) const START: i64 = 1_000_000;

pub(crate) struct Lab {
    pub(crate) core: Scheduler,
    pub(crate) config: Config,
    pub(crate) now: Timestamp,
    /// All changes ever.
    pub(crate) changes: Vec<Change>,
    /// Effects since they were last taken.
    pub(crate) effects: Vec<Effect>,
    pub(crate) specs: BTreeMap<RunId, Arc<RunSpec>>,
    shown: usize,
}

pub(crate) fn run_id(number: u8) -> RunId {
    RunId::from_bytes([number; 16])
}

pub(crate) fn incarnation(number: u8) -> Incarnation {
    Incarnation::from_bytes([number; 16])
}

pub(crate) fn pod(number: u8) -> PodUid {
    PodUid::from_bytes([number; 16])
}

pub(crate) fn attempt(run: u8, step: u32, number: u32) -> AttemptId {
    AttemptId {
        run: run_id(run),
        step: StepIndex(step),
        number,
    }
}

/// Steps by their upstream steps, all with policy 0.
pub(crate) fn steps(upstream: &[&[u32]]) -> Vec<StepSpec> {
    let step = |row: &&[u32]| StepSpec {
        policy: 0,
        upstream: row.iter().copied().map(StepIndex).collect(),
    };
    upstream.iter().map(step).collect()
}

pub(crate) fn parameters(run: u8) -> RunParameters {
    RunParameters::new(run_id(run), "team".into())
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            core: Scheduler::new(config.clone()),
            config,
            now: Timestamp::from_millis(START),
            changes: Vec::new(),
            effects: Vec::new(),
            specs: BTreeMap::new(),
            shown: 0,
        }
    }

    /// A lab with executor 1 of the only cluster connected.
    pub(crate) fn with_executor() -> Self {
        let mut lab = Self::new();
        lab.connect(1, 1000);
        lab.effects.clear();
        lab
    }

    pub(crate) fn try_handle(&mut self, event: Event) -> Result<(), Rejection> {
        let mut decision = Decision::default();
        let result = self.core.handle(self.now, event, &mut decision);
        if result.is_err() {
            assert!(decision.changes.is_empty(), "a refused event changed something");
        }
        self.take(decision);
        result
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.try_handle(event).expect("accepted");
    }

    fn take(&mut self, decision: Decision) {
        self.changes.extend(decision.changes);
        self.effects.extend(decision.effects);
        self.core.assert_invariants();
    }

    /// Lets time pass; everything that comes due on the way is done when it does. Connected executors are heard.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now.saturating_add(duration);
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let connected: Vec<Incarnation> = self
                .core
                .executors()
                .filter(|executor| executor.connected)
                .map(|executor| executor.incarnation)
                .collect();
            for incarnation in connected {
                self.handle(Event::ExecutorHeard { incarnation });
            }
            self.timeout();
        }
        self.now = end;
        self.timeout();
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    pub(crate) fn timeout(&mut self) {
        let mut decision = Decision::default();
        self.core.handle_timeout(self.now, &mut decision);
        self.take(decision);
    }

    pub(crate) fn submit(&mut self, parameters: RunParameters, policies: Vec<StepPolicy>, steps: Vec<StepSpec>) {
        let spec = Arc::new(RunSpec::new(parameters, policies, steps).expect("a spec"));
        self.specs.insert(spec.run(), Arc::clone(&spec));
        self.handle(Event::RunSubmitted { spec });
    }

    /// A run that reuses these steps; each from attempt 3 of the same step in run 9.
    pub(crate) fn retry(
        &mut self,
        parameters: RunParameters,
        policies: Vec<StepPolicy>,
        steps: Vec<StepSpec>,
        reused: &[u32],
    ) -> Result<(), Rejection> {
        let spec = Arc::new(RunSpec::new(parameters, policies, steps).expect("a spec"));
        let reused = reused.iter().map(|step| Reused {
            step: StepIndex(*step),
            source: attempt(9, *step, 3),
        });
        let event = Event::RunRetried {
            spec: Arc::clone(&spec),
            reused: reused.collect(),
        };
        self.try_handle(event)?;
        self.specs.insert(spec.run(), spec);
        Ok(())
    }

    /// Run 1 with default policy.
    pub(crate) fn submit_plain(&mut self, upstream: &[&[u32]]) {
        self.submit(parameters(1), vec![StepPolicy::default()], steps(upstream));
    }

    pub(crate) fn connect_to(&mut self, number: u8, cluster: &str, credit: u32) -> Result<(), Rejection> {
        self.try_handle(Event::ExecutorConnected {
            incarnation: incarnation(number),
            cluster: ClusterUid::from(format!("uid-{cluster}")),
            alias: cluster.into(),
            credit,
            resumed: false,
        })
    }

    pub(crate) fn connect(&mut self, number: u8, credit: u32) {
        self.connect_to(number, "prod", credit).expect("accepted");
    }

    pub(crate) fn disconnect(&mut self, number: u8) {
        self.handle(Event::ExecutorDisconnected {
            incarnation: incarnation(number),
        });
    }

    pub(crate) fn observe(&mut self, by: u8, observation: Observation) {
        self.handle(Event::AttemptObserved {
            by: incarnation(by),
            observation,
        });
    }

    /// Executor 1 sees a phase of attempt `number` of a step of run 1; its pod is `10 * step + number`.
    pub(crate) fn sees(&mut self, step: u32, number: u32, phase: AttemptPhase) {
        let seen = self.seen(step, number, phase);
        self.observe(1, seen);
    }

    pub(crate) fn seen(&self, step: u32, number: u32, phase: AttemptPhase) -> Observation {
        let uid = u8::try_from(10 * step + number).expect("small");
        let mut seen = Observation::new(attempt(1, step, number), 0, Some(pod(uid)), phase);
        seen.started_at = (phase == AttemptPhase::Running).then_some(self.now);
        seen
    }

    pub(crate) fn succeeds(&mut self, step: u32, number: u32) {
        let end = AttemptEnd::success(self.now);
        self.ends(step, number, end);
    }

    /// Another executor sees an attempt succeed.
    pub(crate) fn succeeds_by(&mut self, by: u8, step: u32, number: u32) {
        let mut seen = self.seen(step, number, AttemptPhase::Ended);
        seen.end = Some(AttemptEnd::success(self.now));
        self.observe(by, seen);
    }

    pub(crate) fn fails(&mut self, step: u32, number: u32, class: FailureClass, exit_code: Option<i32>) {
        let end = AttemptEnd::failure(class, exit_code, self.now);
        self.ends(step, number, end);
    }

    pub(crate) fn ends(&mut self, step: u32, number: u32, end: AttemptEnd) {
        let mut seen = self.seen(step, number, AttemptPhase::Ended);
        seen.end = Some(end);
        self.observe(1, seen);
    }

    pub(crate) fn cancel(&mut self) {
        self.handle(Event::RunCancelled {
            run: run_id(1),
            grace: None,
            reason: "enough".into(),
            by: "ana".into(),
        });
    }

    pub(crate) fn inventory(
        &mut self,
        by: u8,
        reflects: u64,
        observations: Vec<Observation>,
        in_flight: Vec<AttemptId>,
    ) {
        let inventory = Inventory {
            shards: ShardSet::ALL,
            reflects,
            observations,
            in_flight,
        };
        self.handle(Event::InventoryReported {
            by: incarnation(by),
            inventory: Box::new(inventory),
        });
    }

    pub(crate) fn state(&self, step: u32) -> StepState {
        self.step(step).state
    }

    pub(crate) fn step(&self, step: u32) -> StepView {
        self.core.step(run_id(1), StepIndex(step)).expect("a step")
    }

    pub(crate) fn states(&self) -> String {
        let count = self.specs[&run_id(1)].steps();
        let states = (0..count).map(|step| self.state(u32::try_from(step).expect("small")).as_str());
        states.collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn run(&self) -> RunView {
        self.core.run(run_id(1)).expect("a run")
    }

    pub(crate) fn explain(&self, step: u32) -> Explanation {
        self.core
            .explain(self.now, run_id(1), Some(StepIndex(step)))
            .expect("an explanation")
    }

    pub(crate) fn blocker(&self, step: u32) -> Blocker {
        let explanation = self.explain(step);
        let blocker = explanation.blocker.clone();
        blocker.unwrap_or_else(|| panic!("step {step} waits for nothing: {explanation:?}"))
    }

    pub(crate) fn launches(&mut self) -> Vec<Launch> {
        let effects = std::mem::take(&mut self.effects);
        let launch = |effect| match effect {
            Effect::Launch(launch) => Some(launch),
            _ => None,
        };
        effects.into_iter().filter_map(launch).collect()
    }

    /// `run/step/number` of the launches since last time.
    pub(crate) fn launched(&mut self) -> Vec<(u8, u32, u32)> {
        let of = |launch: Launch| {
            (
                launch.attempt.run.as_bytes()[0],
                launch.attempt.step.0,
                launch.attempt.number,
            )
        };
        self.launches().into_iter().map(of).collect()
    }

    /// The changes since last time, a line each.
    pub(crate) fn news(&mut self) -> String {
        let mut text = String::new();
        for change in &self.changes[self.shown..] {
            let after = change.at.as_millis() - START;
            writeln!(text, "{} +{after} {}", change.sequence, describe(&change.kind)).expect("a string");
        }
        self.shown = self.changes.len();
        text
    }

    /// The durable state of all runs.
    pub(crate) fn snapshots(&self) -> Vec<RunSnapshot> {
        let runs: Vec<RunId> = self.core.runs().collect();
        runs.into_iter().filter_map(|run| self.core.snapshot(run)).collect()
    }

    /// A fresh core that has applied all changes.
    pub(crate) fn replayed(&self) -> Scheduler {
        let mut core = Scheduler::new(self.config.clone());
        for spec in self.specs.values() {
            core.load(Arc::clone(spec)).expect("loads");
        }
        for change in &self.changes {
            core.apply(change).expect("applies");
        }
        core
    }

    /// I1: what is stored is what is: a fresh core that applies all changes has the same durable state.
    pub(crate) fn assert_replays(&self) {
        let replayed = self.replayed();
        for snapshot in self.snapshots() {
            assert_eq!(replayed.snapshot(snapshot.run).as_ref(), Some(&snapshot));
        }
    }

    /// Kills the core and brings it back from what is stored.
    pub(crate) fn restart(&mut self) {
        self.core = self.replayed();
        let mut decision = Decision::default();
        self.core.recovered(self.now, &mut decision);
        assert!(decision.changes.is_empty(), "recovery decided: {:?}", decision.changes);
        self.take(decision);
    }
}

/// A change in a few words.
pub(crate) fn describe(kind: &ChangeKind) -> String {
    match kind {
        ChangeKind::RunPreparing => "run preparing".into(),
        ChangeKind::RunAccepted => "run accepted".into(),
        ChangeKind::RunStarted => "run started".into(),
        ChangeKind::CancelRequested(request) => format!("cancel requested: {}", request.cause),
        ChangeKind::RunEnded { state, reason } => format!("run ended: {state} {reason}"),
        ChangeKind::StepReady { step } => format!("{step} ready"),
        ChangeKind::StepSkipped { step, reason } => format!("{step} skipped: {reason}"),
        ChangeKind::StepCached { step, source } => format!("{step} cached from {}/{}", source.step, source.number),
        ChangeKind::StepCancelled { step, cause } => format!("{step} cancelled: {cause}"),
        ChangeKind::StepFailed { step, number, reason } => format!("{step}/{number} step failed: {reason}"),
        ChangeKind::AttemptLaunched { step, number, .. } => format!("{step}/{number} launched"),
        ChangeKind::AttemptRegranted {
            step, number, grant, ..
        } => format!("{step}/{number} grant {grant}"),
        ChangeKind::AttemptCreated { step, number, .. } => format!("{step}/{number} created"),
        ChangeKind::AttemptProgressed {
            step,
            number,
            phase,
            detail,
        } => {
            let reason = detail.as_ref().map_or("", |detail| &detail.reason);
            format!("{step}/{number} {phase} {reason}").trim_end().into()
        }
        ChangeKind::AttemptRunning { step, number, .. } => format!("{step}/{number} running"),
        ChangeKind::StopRequested {
            step,
            number,
            cause,
            grace_ms,
        } => format!("{step}/{number} stop requested: {cause} {grace_ms} ms"),
        ChangeKind::ContactLost {
            step, number, cause, ..
        } => format!("{step}/{number} contact lost: {cause}"),
        ChangeKind::ContactRegained { step, number, state } => format!("{step}/{number} contact regained: {state}"),
        ChangeKind::AttemptSucceeded { step, number, .. } => format!("{step}/{number} succeeded"),
        ChangeKind::AttemptFailed { step, number, failure } => {
            let class = failure.end.class.map_or("-", FailureClass::as_str);
            let next = match failure.next {
                AfterFailure::Failed => "FAILED".into(),
                AfterFailure::Cancelled(cause) => format!("CANCELLED {cause}"),
                AfterFailure::Retry {
                    budget,
                    charged,
                    allowed,
                    ..
                } => {
                    format!("RETRY {budget} {charged}/{allowed}")
                }
            };
            format!("{step}/{number} {class} -> {next}")
        }
        ChangeKind::DeathProven { step, number, .. } => format!("{step}/{number} death proven"),
    }
}
