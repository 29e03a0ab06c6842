//! Random graphs, random orders of events, failing executors: what must always hold (I1, I2, I3, I5, I6).
//!
//! `WINDLASS_PROPTEST_CASES` sets the number of cases of each property; the default is for every build.

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use support::world::{Faults, World};
use support::{Lab, attempt, parameters};
use windlass_ids::StepIndex;
use windlass_scheduling::*;

fn config() -> ProptestConfig {
    let cases = std::env::var("WINDLASS_PROPTEST_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    }
}

/// A step of a random graph: edges from earlier steps as bits, and a policy.
type Row = (u16, u8);

fn graph() -> impl Strategy<Value = Vec<Row>> {
    vec((any::<u16>(), 0_u8..3), 1..9)
}

fn spec_steps(rows: &[Row]) -> Vec<StepSpec> {
    let upstream = |index: usize, bits: u16| {
        let earlier = 0..u32::try_from(index).expect("small");
        earlier
            .filter(|step| bits >> (2 * step % 16) & 3 == 0)
            .map(StepIndex)
            .collect()
    };
    let step = |(index, (bits, policy)): (usize, &Row)| StepSpec {
        policy: u32::from(*policy),
        upstream: upstream(index, *bits),
    };
    rows.iter().enumerate().map(step).collect()
}

/// Conditions by policy; budgets and deadlines short enough to be met.
fn policies(patient: bool) -> Vec<StepPolicy> {
    let policy = |run_if| {
        let mut policy = StepPolicy {
            run_if,
            ..StepPolicy::default()
        };
        policy.user.attempts = 2;
        policy.infrastructure.attempts = 3;
        if patient {
            let year = Duration::from_secs(365 * 86_400);
            policy.deadlines = Deadlines {
                created: year,
                scheduled: year,
                pulling: year,
                initialising: year,
                terminating: year,
            };
        } else {
            policy.timeout = Some(Duration::from_secs(120));
            policy.deadlines.pulling = Duration::from_secs(90);
            policy.deadlines.created = Duration::from_secs(300);
            policy.deadlines.terminating = Duration::from_secs(60);
            policy.lost_contact.deadline = Duration::from_secs(100);
        }
        policy
    };
    vec![policy(RunIf::Succeeded), policy(RunIf::Failed), policy(RunIf::Always)]
}

const MODES: [FailureMode; 3] = [
    FailureMode::ContinueOnFailure,
    FailureMode::StopOnFailure,
    FailureMode::FailFast,
];

fn submit(lab: &mut Lab, run: u8, rows: &[Row], mode: usize, patient: bool) {
    let mut parameters = parameters(run);
    parameters.failure_mode = MODES[mode % 3];
    parameters.max_parallelism = NonZeroU32::new(1 + u32::from(rows[0].1) * 2);
    parameters.start_interval = Duration::from_secs(u64::from(run % 2) * 2);
    parameters.priority = i32::from(run);
    lab.submit(parameters, policies(patient), spec_steps(rows));
}

fn script() -> impl Strategy<Value = Vec<(u8, u8)>> {
    vec((any::<u8>(), any::<u8>()), 0..400)
}

/// What a graph comes to when siblings go on: the naive way, step by step in order.
fn naive_outcome(steps: &[StepSpec], fails: impl Fn(usize) -> bool) -> Vec<StepState> {
    let mut states: Vec<StepState> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let upstream: Vec<StepState> = step.upstream.iter().map(|step| states[step.as_usize()]).collect();
        let runs = match step.policy {
            0 => upstream.iter().all(|state| *state == StepState::Succeeded),
            1 => upstream.contains(&StepState::Failed),
            _ => true,
        };
        states.push(match (runs, fails(index)) {
            (false, _) => StepState::Skipped,
            (true, true) => StepState::Failed,
            (true, false) => StepState::Succeeded,
        });
    }
    states
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn outcomes_are_those_of_the_naive_model(rows in graph(), failing in any::<u16>(), order in vec(any::<u8>(), 20)) {
        let mut lab = Lab::with_executor();
        let steps = spec_steps(&rows);
        let mut policies = policies(true);
        policies.iter_mut().for_each(|policy| policy.user.attempts = 1);
        lab.submit(parameters(1), policies, steps.clone());
        let fails = |index: usize| failing >> index & 1 == 1;
        for pick in order.iter().cycle() {
            let live: Vec<u32> = (0..u32::try_from(steps.len()).expect("small"))
                .filter(|step| lab.state(*step) == StepState::Starting)
                .collect();
            if live.is_empty() {
                break;
            }
            let step = live[usize::from(*pick) % live.len()];
            if fails(step as usize) {
                lab.fails(step, 1, FailureClass::UserError, Some(1));
            } else {
                lab.succeeds(step, 1);
            }
        }
        let states: Vec<StepState> = (0..steps.len()).map(|step| lab.state(u32::try_from(step).expect("small"))).collect();
        let expected = naive_outcome(&steps, fails);
        let failed = expected.contains(&StepState::Failed);
        prop_assert_eq!(states, expected);
        prop_assert_eq!(lab.run().state, if failed { RunState::Failed } else { RunState::Succeeded });
    }

    #[test]
    fn i5_every_run_ends_and_i2_no_step_lives_twice(
        graphs in vec((graph(), 0_usize..3), 1..4),
        script in script(),
        cancelled in any::<bool>(),
        limit in proptest::option::of(1_u32..5),
    ) {
        let faults = Faults { pods: true, services: true, losses: false };
        let config = Config { namespace_limit: limit, ..Config::default() };
        let mut world = World::with(config, faults, 2, 5);
        for (run, (rows, mode)) in (1..).zip(&graphs) {
            submit(&mut world.lab, run, rows, *mode, false);
        }
        for (choice, pick) in script {
            world.act(choice, pick);
        }
        if cancelled {
            world.lab.try_handle(Event::RunCancelled {
                run: support::run_id(1),
                grace: None,
                reason: "".into(),
                by: "".into(),
            }).ok();
        }
        world.lab.assert_replays();
        world.calm_down();
        world.lab.assert_replays();
    }

    #[test]
    fn i3_losing_sight_is_not_failure(rows in graph(), script in script()) {
        let faults = Faults { pods: false, services: true, losses: false };
        let mut world = World::new(faults, 2, 5);
        submit(&mut world.lab, 1, &rows, 0, true);
        for (choice, pick) in script {
            world.act(choice, pick);
        }
        world.calm_down();
        let failed = world.lab.changes.iter().find(|change| matches!(change.kind, ChangeKind::AttemptFailed { .. }));
        prop_assert!(failed.is_none(), "{failed:?}");
        prop_assert_eq!(world.lab.run().state, RunState::Succeeded);
    }

    #[test]
    fn i6_lost_orders_and_reports_are_made_good(rows in graph(), script in script()) {
        let faults = Faults { pods: false, services: false, losses: true };
        let mut world = World::new(faults, 2, 5);
        submit(&mut world.lab, 1, &rows, 0, true);
        for (choice, pick) in script {
            world.act(choice, pick);
        }
        world.calm_down();
        prop_assert_eq!(world.lab.run().state, RunState::Succeeded);
    }

    #[test]
    fn i1_a_snapshot_and_the_changes_after_it_are_the_state(rows in graph(), script in script(), cut in 0_usize..400) {
        let faults = Faults { pods: true, services: true, losses: false };
        let mut world = World::new(faults, 2, 5);
        submit(&mut world.lab, 1, &rows, 0, false);
        let mut stored = None;
        for (index, (choice, pick)) in script.into_iter().enumerate() {
            if index == cut {
                stored = world.lab.snapshots().pop().map(|snapshot| (snapshot, world.lab.changes.len()));
            }
            world.act(choice, pick);
        }
        if let Some((snapshot, changes)) = stored {
            let mut core = Scheduler::new(world.lab.config.clone());
            core.restore(world.lab.specs[&support::run_id(1)].clone(), snapshot).expect("restores");
            for change in &world.lab.changes[changes..] {
                core.apply(change).expect("applies");
            }
            prop_assert_eq!(core.snapshot(support::run_id(1)), world.lab.snapshots().pop());
        }
    }
}

#[test]
fn the_naive_model_is_no_tautology() {
    let steps = spec_steps(&[(0, 0), (0, 0), (0, 1)]);
    let states = naive_outcome(&steps, |index| index == 0);
    assert_eq!(states, [StepState::Failed, StepState::Skipped, StepState::Succeeded]);
    assert_eq!(attempt(1, 0, 1).number, 1);
}
