//! Executors that come and go: leases, takeover, fences, drains and inventories (I2, I3, I6).

mod support;

use std::time::Duration;

use support::{Lab, attempt, incarnation, pod};
use windlass_scheduling::AttemptPhase::{Absent, Running};
use windlass_scheduling::*;

/// Run 1 with a step on executor 1, which is not heard any more, and executor 2, which has taken over.
fn taken_over() -> Lab {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[]]);
    lab.disconnect(1);
    lab.seconds(10);
    lab.connect(2, 1000);
    lab.effects.clear();
    lab.seconds(20);
    lab
}

fn leased(lab: &Lab) -> Vec<(u8, usize)> {
    let of = |executor: ExecutorView| (executor.incarnation.as_bytes()[0], executor.shards.len());
    lab.core.executors().map(of).collect()
}

#[test]
fn i3_a_broken_stream_is_no_loss_before_the_lease_ends() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[], &[]]);
    lab.sees(0, 1, Running);
    lab.disconnect(1);
    lab.seconds(29);
    assert_eq!(leased(&lab), [(1, 256)]);
    lab.seconds(1);
    assert_eq!(leased(&lab), []);
    lab.seconds(86_400);
    assert_eq!(lab.states(), "RUNNING STARTING");
}

#[test]
fn shards_are_dealt_evenly_and_few_of_them_move() {
    let mut lab = Lab::with_executor();
    lab.connect(2, 1000);
    assert_eq!(leased(&lab), [(1, 128), (2, 128)]);
    lab.connect(3, 1000);
    assert_eq!(leased(&lab), [(1, 86), (2, 85), (3, 85)]);
    lab.handle(Event::ExecutorDraining {
        incarnation: incarnation(1),
    });
    assert_eq!(leased(&lab), [(1, 0), (2, 128), (3, 128)]);
}

#[test]
fn i2_a_takeover_posts_only_what_its_inventory_misses() {
    let mut lab = taken_over();
    assert_eq!(leased(&lab), [(2, 256)]);
    assert!(lab.effects.contains(&Effect::RequestInventory { to: incarnation(2) }));
    assert_eq!(lab.launched(), [], "nothing is posted before it was looked for");
    lab.inventory(2, 0, vec![], vec![]);
    let launches = lab.launches();
    assert_eq!(
        (launches.len(), launches[0].to, launches[0].grant),
        (1, incarnation(2), 2)
    );
    assert_eq!(lab.step(0).number, 1);
    lab.assert_replays();
}

#[test]
fn i2_a_takeover_adopts_what_its_inventory_shows() {
    let mut lab = taken_over();
    let seen = lab.seen(0, 1, Running);
    lab.inventory(2, 0, vec![seen], vec![]);
    assert_eq!(lab.launched(), []);
    assert_eq!(lab.state(0), StepState::Running);
    lab.succeeds_by(2, 0, 1);
    assert_eq!(lab.run().state, RunState::Succeeded);
}

#[test]
fn i2_absence_is_not_concluded_while_a_lost_executor_may_still_create() {
    let mut lab = taken_over();
    lab.cancel();
    lab.inventory(2, 0, vec![], vec![]);
    let fence = lab.config.fence();
    let absent = |lab: &mut Lab| {
        let grant = lab.step(0).attempt.expect("an attempt").grant;
        lab.observe(2, Observation::new(attempt(1, 0, 1), grant, None, Absent));
    };
    absent(&mut lab);
    assert_eq!(lab.state(0), StepState::Starting);
    lab.effects.clear();
    lab.pass(fence);
    let probed = lab.effects.iter().any(|effect| matches!(effect, Effect::Probe { .. }));
    assert!(probed, "it is looked for again when the fence ends");
    absent(&mut lab);
    assert_eq!(lab.state(0), StepState::Cancelled);
}

#[test]
fn i2_the_name_of_a_pod_that_two_executors_were_told_to_create_stays_taken() {
    let mut lab = taken_over();
    lab.inventory(2, 0, vec![], vec![]);
    lab.effects.clear();
    lab.succeeds_by(2, 0, 1);
    let until = lab.effects.iter().find_map(|effect| match effect {
        Effect::AttemptFinished { keep_until, .. } => *keep_until,
        _ => None,
    });
    assert!(until.is_some_and(|until| until > lab.now));
}

#[test]
fn i6_launches_that_an_inventory_does_not_reflect_are_not_posted_again() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[], &[]]);
    assert_eq!(lab.launched().len(), 2);
    lab.inventory(1, 1, vec![], vec![]);
    assert_eq!(lab.launched(), [(1, 0, 1)], "the second launch came later");
    lab.inventory(1, 3, vec![], vec![attempt(1, 0, 1), attempt(1, 1, 1)]);
    assert_eq!(lab.launched(), [], "creates in flight are not missing");
}

#[test]
fn i6_a_lost_stop_is_said_again() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[]]);
    lab.sees(0, 1, Running);
    lab.cancel();
    lab.effects.clear();
    lab.seconds(60);
    let stops = lab
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Stop { .. }))
        .count();
    assert!(stops >= 1);
}

#[test]
fn i1_a_restart_keeps_attempts_and_decides_nothing() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[], &[0]]);
    lab.sees(0, 1, Running);
    lab.restart();
    assert_eq!(lab.states(), "RUNNING WAITING");
    assert_eq!(lab.blocker(0), Blocker::OutOfSight { alias: "prod".into() });
    lab.connect(2, 1000);
    let seen = lab.seen(0, 1, Running);
    lab.inventory(2, 0, vec![seen], vec![]);
    lab.effects.clear();
    lab.succeeds_by(2, 0, 1);
    assert_eq!(lab.launched(), [(1, 1, 1)]);
}

/// behaviours V6
#[test]
fn two_clusters_under_one_alias_are_refused() {
    let mut lab = Lab::with_executor();
    let refused = lab.try_handle(Event::ExecutorConnected {
        incarnation: incarnation(2),
        cluster: "another".into(),
        alias: "prod".into(),
        credit: 1,
        resumed: false,
    });
    assert!(matches!(refused, Err(Rejection::AliasTaken { .. })));
}

#[test]
fn i10_what_a_ready_step_waits_for_is_said() {
    let mut lab = Lab::new();
    lab.submit_plain(&[&[]]);
    assert_eq!(lab.blocker(0), Blocker::NoExecutor { alias: None });
    lab.connect(1, 0);
    assert!(matches!(lab.blocker(0), Blocker::NoCredit { .. }));
    lab.disconnect(1);
    let until = lab.now.saturating_add(Duration::from_secs(30));
    assert_eq!(
        lab.blocker(0),
        Blocker::ExecutorDisconnected {
            executor: incarnation(1),
            until
        }
    );
    assert_eq!(lab.explain(0).then, Some(Consequence::TakenOver));
}

#[test]
fn a_report_of_an_executor_that_was_given_up_is_refused() {
    let mut lab = taken_over();
    let seen = Observation::new(attempt(1, 0, 1), 1, Some(pod(1)), Running);
    let refused = lab.try_handle(Event::AttemptObserved {
        by: incarnation(1),
        observation: seen,
    });
    assert_eq!(
        refused,
        Err(Rejection::UnknownExecutor {
            incarnation: incarnation(1)
        })
    );
}

fn sees(lab: &mut Lab, number: u8, visible: bool) {
    lab.handle(Event::ClusterSightChanged {
        incarnation: incarnation(number),
        visible,
    });
}

/// 40 steps on two executors with room for few launches each; the first is blind from the beginning.
fn half_blind() -> Lab {
    let mut lab = Lab::new();
    lab.connect(1, 1000);
    lab.connect(2, 1000);
    lab.submit_plain(&[&[][..]; 40]);
    lab.effects.clear();
    sees(&mut lab, 1, false);
    lab
}

#[test]
fn i3_the_shards_of_a_blind_executor_go_to_one_that_sees() {
    let mut lab = half_blind();
    lab.seconds(29);
    assert_eq!(leased(&lab), [(1, 128), (2, 128)]);
    lab.seconds(1);
    assert_eq!(leased(&lab), [(1, 0), (2, 256)]);
    assert!(lab.effects.contains(&Effect::RequestInventory { to: incarnation(2) }));
    sees(&mut lab, 1, true);
    assert_eq!(leased(&lab), [(1, 128), (2, 128)]);
}

#[test]
fn i3_a_blind_executor_keeps_its_shards_where_nobody_sees() {
    let mut lab = half_blind();
    sees(&mut lab, 2, false);
    lab.seconds(3600);
    assert_eq!(leased(&lab), [(1, 128), (2, 128)]);
    lab.connect(3, 1000);
    assert_eq!(leased(&lab), [(1, 0), (2, 0), (3, 256)]);
}

#[test]
fn i3_the_clocks_of_a_blind_executors_attempts_stand_still_beside_one_that_sees() {
    let mut lab = half_blind();
    let is_blind = |lab: &Lab, step: u32| matches!(lab.blocker(step), Blocker::OutOfSight { .. });
    let blind: Vec<u32> = (0..40).filter(|step| is_blind(&lab, *step)).collect();
    assert!(!blind.is_empty() && blind.len() < 40, "{blind:?}");
    lab.seconds(30);
    assert!(
        !(0..40).any(|step| is_blind(&lab, step)),
        "the other one answers for them"
    );
    // The time without sight does not count.
    lab.pass(Duration::from_secs(30 * 60 - 30));
    for step in 0..40 {
        let is_late = matches!(lab.blocker(step), Blocker::Terminating { .. });
        assert_eq!(is_late, !blind.contains(&step), "step {step}");
    }
}

#[test]
fn i3_ready_steps_of_a_blind_executor_start_on_another_one() {
    let mut lab = Lab::new();
    lab.connect(1, 1000);
    lab.connect(2, 1000);
    sees(&mut lab, 1, false);
    lab.submit_plain(&[&[][..]; 40]);
    let first = lab.launched().len();
    assert!(first > 0 && first < 40);
    lab.seconds(30);
    assert_eq!(lab.launched().len(), 40 - first);
}
