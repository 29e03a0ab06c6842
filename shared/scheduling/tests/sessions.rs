//! Sessions of executors: when they end, and what is said of it.

mod support;

use support::{Lab, incarnation};
use windlass_scheduling::*;

/// Nothing is heard for a part of a lease.
fn silence(lab: &mut Lab, part: u32) {
    lab.now = lab.now.saturating_add(lab.config.lease / part);
    lab.timeout();
}

fn resume(lab: &mut Lab, number: u8) -> Result<(), Rejection> {
    lab.try_handle(Event::ExecutorConnected {
        incarnation: incarnation(number),
        cluster: "uid-prod".into(),
        alias: "prod".into(),
        credit: 1000,
        resumed: true,
    })
}

/// behaviours U20
#[test]
fn i2_a_session_whose_lease_has_ended_is_said_to_have_ended_before_others_lease_its_shards() {
    let mut lab = Lab::with_executor();
    lab.connect(2, 1000);
    lab.effects.clear();
    silence(&mut lab, 2);
    lab.handle(Event::ExecutorHeard {
        incarnation: incarnation(2),
    });
    silence(&mut lab, 2);
    let told: Vec<Effect> = lab
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::SessionEnded { .. } | Effect::LeaseShards { .. }))
        .cloned()
        .collect();
    let ended = Effect::SessionEnded {
        incarnation: incarnation(1),
    };
    let leased = Effect::LeaseShards {
        to: incarnation(2),
        shards: ShardSet::ALL,
    };
    assert_eq!(told, [ended, leased]);
}

#[test]
fn i2_a_session_that_was_given_up_cannot_be_resumed() {
    let mut lab = Lab::with_executor();
    assert_eq!(resume(&mut lab, 1), Ok(()));
    silence(&mut lab, 1);
    let unknown = Rejection::UnknownExecutor {
        incarnation: incarnation(1),
    };
    assert_eq!(resume(&mut lab, 1), Err(unknown));
    lab.connect(1, 1000);
    assert_eq!(resume(&mut lab, 1), Ok(()));
}
