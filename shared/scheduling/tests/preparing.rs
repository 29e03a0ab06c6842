//! Runs whose secrets are made before they are queued (behaviours E31, T7).

mod support;

use std::sync::Arc;
use std::time::Duration;

use windlass_ids::StepIndex;
use windlass_scheduling::*;

use support::{Lab, START, attempt, parameters, run_id, steps};

impl Lab {
    fn prepare(&mut self, upstream: &[&[u32]], reused: Vec<Reused>) {
        let mut parameters = parameters(1);
        parameters.timeout = Some(Duration::from_secs(60));
        let spec = RunSpec::new(parameters, vec![StepPolicy::default()], steps(upstream)).expect("a spec");
        let spec = Arc::new(spec);
        self.specs.insert(spec.run(), Arc::clone(&spec));
        self.handle(Event::RunPreparing { spec, reused });
    }

    fn prepared(&mut self) -> Result<(), Rejection> {
        self.try_handle(Event::RunPrepared { run: run_id(1) })
    }
}

#[test]
fn e31_nothing_starts_before_the_secrets_are_there() {
    let mut lab = Lab::with_executor();
    lab.prepare(&[&[], &[0]], Vec::new());
    // Not by anything that happens meanwhile: time, another run, a restart.
    lab.seconds(61);
    lab.connect(2, 10);
    lab.restart();
    assert_eq!(
        (lab.run().state, lab.states().as_str()),
        (RunState::Preparing, "WAITING WAITING")
    );
    assert_eq!(lab.launched(), []);
    assert_eq!(lab.blocker(0), Blocker::RunSecrets);
    let explained = lab.core.explain(lab.now, run_id(1), None).expect("an explanation");
    assert_eq!(explained.until.map(|until| until.as_millis()), Some(START + 300_000));
    assert_eq!(explained.then, Some(Consequence::NotPrepared));

    lab.connect(1, 1000);
    lab.prepared().expect("it is prepared");
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    // The timeout counts from now on. And that it is said again changes nothing.
    lab.seconds(59);
    lab.prepared().expect("known");
    assert_eq!(lab.run().state, RunState::Running);
    insta::assert_snapshot!(lab.news(), @r"
    1 +0 run preparing
    2 +61000 run accepted
    3 +61000 0 ready
    4 +61000 run started
    5 +61000 0/1 launched
    ");
    lab.assert_replays();
}

#[test]
fn i5_i10_a_run_that_nobody_prepares_ends_in_time_and_stays_ended() {
    let mut lab = Lab::with_executor();
    lab.prepare(&[&[], &[0]], Vec::new());
    lab.seconds(299);
    assert_eq!(lab.run().state, RunState::Preparing);
    lab.restart();
    lab.seconds(1);
    assert_eq!(
        (lab.run().state, lab.run().reason),
        (RunState::Failed, Some(RunReason::NotPrepared))
    );
    assert_eq!(lab.states(), "CANCELLED CANCELLED");
    assert!(lab.effects.contains(&Effect::RunFinished { run: run_id(1) }));
    let late = lab.prepared();
    assert_eq!(
        late,
        Err(Rejection::RunEnded {
            run: run_id(1),
            state: RunState::Failed
        })
    );
    assert_eq!(lab.launched(), []);
    lab.assert_replays();
}

#[test]
fn a_run_that_is_being_prepared_is_cancelled_like_any_other() {
    let mut lab = Lab::with_executor();
    lab.prepare(&[&[], &[0]], Vec::new());
    lab.cancel();
    assert_eq!(
        (lab.run().state, lab.run().reason),
        (RunState::Cancelled, Some(RunReason::CancelledByClient))
    );
    lab.prepared().expect_err("it has ended");
    lab.seconds(600);
    assert_eq!(lab.launched(), []);
    lab.assert_replays();
}

#[test]
fn reused_steps_are_cached_while_the_others_wait_for_the_secrets() {
    let mut lab = Lab::with_executor();
    let reused = vec![Reused {
        step: StepIndex(0),
        source: attempt(9, 0, 3),
    }];
    lab.prepare(&[&[], &[0]], reused);
    assert_eq!(lab.states(), "CACHED WAITING");
    assert_eq!(lab.launched(), []);
    lab.prepared().expect("it is prepared");
    assert_eq!(lab.launched(), [(1, 1, 1)]);
    lab.succeeds(1, 1);
    assert_eq!(lab.run().state, RunState::Succeeded);
    lab.assert_replays();
}
