//! Random graphs, random orders of events, failing executors: what must always hold (I1, I2, I3, I5, I6).
//!
//! `WINDLASS_PROPTEST_CASES` sets the number of cases of each property; the default is for every build.

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use support::random::{MODES, Row, config, graph, policies, reusable, spec_steps};
use support::world::{Faults, World};
use support::{Lab, parameters};
use windlass_scheduling::*;

fn submit(lab: &mut Lab, run: u8, rows: &[Row], mode: usize, patient: bool) {
    retry(lab, run, rows, mode, patient, 0);
}

/// Reuses what can be reused of the steps whose bits are set.
fn retry(lab: &mut Lab, run: u8, rows: &[Row], mode: usize, patient: bool, wanted: u16) {
    let mut parameters = parameters(run);
    parameters.failure_mode = MODES[mode % 3];
    parameters.max_parallelism = NonZeroU32::new(1 + u32::from(rows[0].1) * 2);
    parameters.start_interval = Duration::from_secs(u64::from(run % 2) * 2);
    parameters.priority = i32::from(run);
    let steps = spec_steps(rows);
    let reused = reusable(&steps, wanted);
    lab.retry(parameters, policies(patient), steps, &reused)
        .expect("accepted");
}

fn script() -> impl Strategy<Value = Vec<(u8, u8)>> {
    vec((any::<u8>(), any::<u8>()), 0..400)
}

proptest! {
    #![proptest_config(config())]

    /// behaviours M11, E3, E4: also with a pause between starts and several parents, no step is left over, and no pod is created twice.
    #[test]
    fn i5_every_run_ends_and_i2_no_step_lives_twice(
        graphs in vec((graph(), 0_usize..3, any::<u16>()), 1..4),
        script in script(),
        cancelled in any::<bool>(),
        limit in proptest::option::of(1_u32..5),
    ) {
        let faults = Faults { pods: true, services: true, losses: false };
        let config = Config { namespace_limit: limit, ..Config::default() };
        let mut world = World::with(config, faults, 2, 5);
        for (run, (rows, mode, wanted)) in (1..).zip(&graphs) {
            retry(&mut world.lab, run, rows, *mode, false, *wanted);
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
    fn i1_a_snapshot_and_the_changes_after_it_are_the_state(rows in graph(), wanted in any::<u16>(), script in script(), cut in 0_usize..400) {
        let faults = Faults { pods: true, services: true, losses: false };
        let mut world = World::new(faults, 2, 5);
        retry(&mut world.lab, 1, &rows, 0, false, wanted);
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
