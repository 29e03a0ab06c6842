//! Random graphs and their policies.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use windlass_ids::StepIndex;
use windlass_scheduling::*;

pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("WINDLASS_PROPTEST_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    }
}

/// A step of a random graph: edges from earlier steps as bits, and a policy.
pub(crate) type Row = (u16, u8);

pub(crate) fn graph() -> impl Strategy<Value = Vec<Row>> {
    vec((any::<u16>(), 0_u8..3), 1..9)
}

pub(crate) fn spec_steps(rows: &[Row]) -> Vec<StepSpec> {
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

/// The steps among `wanted` (as bits) all of whose upstream steps are among them, too.
pub(crate) fn reusable(steps: &[StepSpec], wanted: u16) -> Vec<u32> {
    let mut reused = Vec::new();
    for (step, spec) in (0_u32..).zip(steps) {
        if wanted >> (step % 16) & 1 == 1 && spec.upstream.iter().all(|up| reused.contains(&up.0)) {
            reused.push(step);
        }
    }
    reused
}

/// Conditions by policy; budgets and deadlines short enough to be met.
pub(crate) fn policies(patient: bool) -> Vec<StepPolicy> {
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
                admitted: year,
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

/// All failure modes.
pub(crate) const MODES: [FailureMode; 3] = [
    FailureMode::ContinueOnFailure,
    FailureMode::StopOnFailure,
    FailureMode::FailFast,
];
