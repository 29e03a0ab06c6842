//! Runs from their submission to their end: readiness, conditions, failure modes, cancellation.

mod support;

use std::time::Duration;

use support::{Lab, START, attempt, parameters, run_id, steps};
use windlass_scheduling::AttemptPhase::{Absent, Created, Running};
use windlass_scheduling::*;

/// behaviours D4, D6
#[test]
fn a_diamond_runs_in_order() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[], &[0], &[0], &[1, 2]]);
    assert_eq!(lab.launched(), [(1, 0, 1)]);
    lab.sees(0, 1, Created);
    lab.sees(0, 1, Running);
    lab.succeeds(0, 1);
    assert_eq!(lab.launched(), [(1, 1, 1), (1, 2, 1)]);
    lab.succeeds(1, 1);
    assert_eq!(lab.launched(), []);
    lab.succeeds(2, 1);
    lab.succeeds(3, 1);
    insta::assert_snapshot!(lab.news(), @r"
    1 +0 run accepted
    2 +0 0 ready
    3 +0 run started
    4 +0 0/1 launched
    5 +0 0/1 created
    6 +0 0/1 running
    7 +0 0/1 succeeded
    8 +0 1 ready
    9 +0 2 ready
    10 +0 1/1 launched
    11 +0 2/1 launched
    12 +0 1/1 created
    13 +0 1/1 succeeded
    14 +0 2/1 created
    15 +0 2/1 succeeded
    16 +0 3 ready
    17 +0 3/1 launched
    18 +0 3/1 created
    19 +0 3/1 succeeded
    20 +0 run ended: SUCCEEDED COMPLETED
    ");
    assert_eq!(lab.run().state, RunState::Succeeded);
    lab.assert_replays();
}

/// behaviours E21, X10: what comes next is decided with the news of what was before, and waits for no tick.
#[test]
fn a_chain_of_steps_takes_no_time_of_its_own() {
    let upstream: Vec<Vec<u32>> = (0..25_u32)
        .map(|step| step.checked_sub(1).into_iter().collect())
        .collect();
    let upstream: Vec<&[u32]> = upstream.iter().map(Vec::as_slice).collect();
    let mut lab = Lab::with_executor();
    lab.submit_plain(&upstream);
    for step in 0..25 {
        assert_eq!(lab.launched(), [(1, step, 1)], "with the end of the step before");
        lab.succeeds(step, 1);
    }
    assert_eq!(lab.run().state, RunState::Succeeded);
    assert!(
        lab.news().lines().all(|line| line.split(' ').nth(1) == Some("+0")),
        "no time has passed"
    );
}

/// behaviours D8, E1, U6
#[test]
fn a_failed_step_fails_the_run_and_skips_what_needs_it() {
    // behaviours D8, E1: siblings go on, descendants are skipped, the outcome is typed.
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[], &[0], &[1], &[], &[1, 3]]);
    lab.fails(0, 1, FailureClass::UserError, Some(2));
    assert_eq!(lab.states(), "FAILED SKIPPED SKIPPED STARTING SKIPPED");
    assert_eq!(lab.run().state, RunState::Running);
    lab.succeeds(3, 1);
    assert_eq!(
        (lab.run().state, lab.run().reason),
        (RunState::Failed, Some(RunReason::StepFailed))
    );
    lab.assert_replays();
}

fn policies() -> Vec<StepPolicy> {
    let run_if = |run_if| StepPolicy {
        run_if,
        ..StepPolicy::default()
    };
    vec![run_if(RunIf::Succeeded), run_if(RunIf::Failed), run_if(RunIf::Always)]
}

/// 0 and 1 are roots; 2, 3, 4 wait for both, if they succeeded, failed, in any case; 5 waits for 4.
fn submit_conditions(lab: &mut Lab, failure_mode: FailureMode) {
    let mut steps = steps(&[&[], &[], &[0, 1], &[0, 1], &[0, 1], &[4]]);
    steps[3].policy = 1;
    steps[4].policy = 2;
    let mut parameters = parameters(1);
    parameters.failure_mode = failure_mode;
    lab.submit(parameters, policies(), steps);
    lab.effects.clear();
}

/// behaviours D1, D4
#[test]
fn conditions_look_at_all_upstream_steps() {
    let mut lab = Lab::with_executor();
    submit_conditions(&mut lab, FailureMode::ContinueOnFailure);
    lab.succeeds(0, 1);
    lab.succeeds(1, 1);
    assert_eq!(lab.states(), "SUCCEEDED SUCCEEDED STARTING SKIPPED STARTING WAITING");

    let mut lab = Lab::with_executor();
    submit_conditions(&mut lab, FailureMode::ContinueOnFailure);
    lab.fails(0, 1, FailureClass::UserError, Some(1));
    assert_eq!(lab.states(), "FAILED STARTING SKIPPED WAITING WAITING WAITING");
    lab.succeeds(1, 1);
    assert_eq!(lab.states(), "FAILED SUCCEEDED SKIPPED STARTING STARTING WAITING");
    lab.succeeds(3, 1);
    lab.succeeds(4, 1);
    lab.succeeds(5, 1);
    assert_eq!(lab.run().state, RunState::Failed);
    lab.assert_replays();
}

#[test]
fn a_skipped_upstream_step_is_no_failure_and_no_success() {
    let mut lab = Lab::with_executor();
    let mut steps = steps(&[&[], &[0], &[1], &[1], &[1]]);
    steps[1].policy = 1;
    steps[3].policy = 1;
    steps[4].policy = 2;
    lab.submit(parameters(1), policies(), steps);
    lab.succeeds(0, 1);
    assert_eq!(lab.states(), "SUCCEEDED SKIPPED SKIPPED SKIPPED STARTING");
    lab.succeeds(4, 1);
    assert_eq!(lab.run().state, RunState::Succeeded);
}

/// behaviours U6
#[test]
fn stop_on_failure_starts_nothing_new_but_what_is_there_for_failures() {
    let mut lab = Lab::with_executor();
    submit_conditions(&mut lab, FailureMode::StopOnFailure);
    lab.fails(0, 1, FailureClass::UserError, Some(1));
    assert_eq!(lab.states(), "FAILED STARTING SKIPPED WAITING WAITING SKIPPED");
    lab.succeeds(1, 1);
    assert_eq!(lab.states(), "FAILED SUCCEEDED SKIPPED STARTING STARTING SKIPPED");
}

#[test]
fn stop_on_failure_lets_a_started_step_retry() {
    let mut lab = Lab::with_executor();
    submit_conditions(&mut lab, FailureMode::StopOnFailure);
    lab.fails(1, 1, FailureClass::Evicted, None);
    lab.fails(0, 1, FailureClass::UserError, Some(1));
    assert_eq!(lab.state(1), StepState::RetryWait);
    lab.seconds(20);
    assert_eq!(lab.launched(), [(1, 1, 2)]);
}

/// behaviours U6
#[test]
fn fail_fast_stops_what_runs_and_still_cleans_up() {
    let mut lab = Lab::with_executor();
    submit_conditions(&mut lab, FailureMode::FailFast);
    lab.sees(1, 1, Running);
    lab.news();
    lab.fails(0, 1, FailureClass::UserError, Some(1));
    insta::assert_snapshot!(lab.news(), @r"
    9 +0 0/1 created
    10 +0 0/1 USER_ERROR -> FAILED
    11 +0 1/1 stop requested: FAIL_FAST 30000 ms
    12 +0 2 skipped: FAILURE_MODE
    13 +0 5 skipped: FAILURE_MODE
    ");
    assert!(matches!(
        lab.effects[..],
        [
            Effect::Stop {
                cause: StopCause::FailFast,
                ..
            },
            Effect::AttemptFinished { .. }
        ]
    ));
    lab.fails(1, 1, FailureClass::PodDeleted, Some(143));
    assert_eq!(lab.states(), "FAILED CANCELLED SKIPPED STARTING STARTING SKIPPED");
    lab.succeeds(3, 1);
    lab.succeeds(4, 1);
    assert_eq!(lab.run().reason, Some(RunReason::StepFailed));
    lab.assert_replays();
}

#[test]
fn a_cancelled_run_starts_nothing_and_ends_with_what_runs() {
    // behaviours X7, E37: a stop reaches what is starting, too, and somebody records how it ends.
    let mut lab = Lab::with_executor();
    submit_conditions(&mut lab, FailureMode::ContinueOnFailure);
    lab.sees(0, 1, Running);
    lab.news();
    lab.cancel();
    assert_eq!(lab.run().state, RunState::Cancelling);
    let mut gone = Observation::new(attempt(1, 1, 1), 1, None, Absent);
    gone.terminating = true;
    lab.observe(1, gone);
    lab.fails(0, 1, FailureClass::PodDeleted, Some(143));
    insta::assert_snapshot!(lab.news(), @r"
    9 +0 cancel requested: RUN_CANCELLED
    10 +0 0/1 stop requested: RUN_CANCELLED 30000 ms
    11 +0 1/1 stop requested: RUN_CANCELLED 30000 ms
    12 +0 2 cancelled: RUN_CANCELLED
    13 +0 3 cancelled: RUN_CANCELLED
    14 +0 4 cancelled: RUN_CANCELLED
    15 +0 5 cancelled: RUN_CANCELLED
    16 +0 1/1 POD_DELETED -> CANCELLED RUN_CANCELLED
    17 +0 0/1 POD_DELETED -> CANCELLED RUN_CANCELLED
    18 +0 run ended: CANCELLED CANCELLED_BY_CLIENT
    ");
    assert_eq!(
        lab.try_handle(Event::RunCancelled {
            run: run_id(1),
            grace: None,
            reason: "again".into(),
            by: "ana".into()
        }),
        Err(Rejection::RunEnded {
            run: run_id(1),
            state: RunState::Cancelled
        })
    );
    lab.assert_replays();
}

/// behaviours X8, U2
#[test]
fn a_step_that_ended_before_its_stop_keeps_its_outcome() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[], &[]]);
    lab.cancel();
    lab.succeeds(0, 1);
    lab.fails(1, 1, FailureClass::UserError, Some(3));
    assert_eq!(lab.states(), "SUCCEEDED FAILED");
    assert_eq!(lab.run().state, RunState::Failed, "nothing was cancelled");
}

#[test]
fn cancelling_again_with_less_grace_is_sooner() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[]]);
    let cancel = |grace: Option<u64>| Event::RunCancelled {
        run: run_id(1),
        grace: grace.map(Duration::from_secs),
        reason: "".into(),
        by: "ana".into(),
    };
    lab.handle(cancel(Some(20)));
    lab.news();
    lab.handle(cancel(Some(60)));
    lab.handle(cancel(None));
    assert_eq!(lab.news(), "");
    lab.handle(cancel(Some(0)));
    insta::assert_snapshot!(lab.news(), @r"
    7 +0 cancel requested: RUN_CANCELLED
    8 +0 0/1 stop requested: RUN_CANCELLED 0 ms
    ");
}

/// behaviours S2
#[test]
fn a_run_that_takes_too_long_fails() {
    let mut lab = Lab::with_executor();
    let mut parameters = parameters(1);
    parameters.timeout = Some(Duration::from_secs(3600));
    lab.submit(parameters, vec![StepPolicy::default()], steps(&[&[], &[0]]));
    assert_eq!(lab.run().deadline.map(|at| at.as_millis()), Some(START + 3_600_000));
    lab.sees(0, 1, Running);
    lab.seconds(3599);
    assert_eq!(lab.run().state, RunState::Running);
    lab.seconds(1);
    assert_eq!(lab.run().state, RunState::Cancelling);
    lab.fails(0, 1, FailureClass::PodDeleted, Some(143));
    assert_eq!(
        (lab.run().state, lab.run().reason),
        (RunState::Failed, Some(RunReason::RunTimeout))
    );
    lab.assert_replays();
}

#[test]
fn reused_steps_count_as_done_from_the_start() {
    let mut lab = Lab::with_executor();
    let mut steps = steps(&[&[], &[], &[0], &[1, 2], &[0, 1]]);
    steps[4].policy = 1;
    lab.retry(parameters(1), policies(), steps, &[0, 2]).expect("accepted");
    assert_eq!(lab.states(), "CACHED STARTING CACHED WAITING WAITING");
    assert_eq!(lab.launched(), [(1, 1, 1)]);
    lab.restart();
    lab.connect(1, 1000);
    lab.succeeds(1, 1);
    assert_eq!(lab.states(), "CACHED SUCCEEDED CACHED STARTING SKIPPED");
    lab.succeeds(3, 1);
    let news = lab.news();
    let begin: Vec<&str> = news.lines().take(6).collect();
    insta::assert_snapshot!(begin.join("\n"), @r"
    1 +0 run accepted
    2 +0 0 cached from 0/3
    3 +0 2 cached from 2/3
    4 +0 1 ready
    5 +0 run started
    6 +0 1/1 launched
    ");
    assert_eq!(
        (lab.run().state, lab.run().count(StepState::Cached)),
        (RunState::Succeeded, 2)
    );
    lab.assert_replays();
}

#[test]
fn a_run_that_reuses_everything_has_ended() {
    let mut lab = Lab::new();
    lab.retry(parameters(1), policies(), steps(&[&[], &[0]]), &[0, 1])
        .expect("accepted");
    assert_eq!(
        (lab.run().state, lab.run().reason),
        (RunState::Succeeded, Some(RunReason::Completed))
    );
    lab.assert_replays();
}

#[test]
fn a_reused_step_is_not_cancelled() {
    let mut lab = Lab::with_executor();
    lab.retry(parameters(1), policies(), steps(&[&[], &[0], &[1]]), &[0])
        .expect("accepted");
    lab.cancel();
    lab.fails(1, 1, FailureClass::PodDeleted, Some(143));
    assert_eq!(lab.states(), "CACHED CANCELLED CANCELLED");
    assert_eq!(lab.run().state, RunState::Cancelled);
}

#[test]
fn a_step_is_reused_only_with_all_steps_before_it() {
    let mut lab = Lab::with_executor();
    let mut refused = |reused: &[u32]| match lab.retry(parameters(1), policies(), steps(&[&[], &[0], &[1]]), reused) {
        Err(Rejection::BadReuse { step, problem, .. }) => format!("{step}: {problem}"),
        other => format!("{other:?}"),
    };
    assert_eq!(refused(&[1]), "1: an upstream step of it runs again");
    assert_eq!(refused(&[0, 2]), "2: an upstream step of it runs again");
    assert_eq!(refused(&[0, 0]), "0: it is named twice");
    assert_eq!(refused(&[3]), "3: it does not exist");
    let spec = RunSpec::new(parameters(9), policies(), steps(&[&[]])).expect("a spec");
    let reused = vec![Reused {
        step: windlass_ids::StepIndex(0),
        source: attempt(9, 0, 1),
    }];
    let own = lab.try_handle(Event::RunRetried {
        spec: std::sync::Arc::new(spec),
        reused,
    });
    assert!(matches!(own, Err(Rejection::BadReuse { .. })), "{own:?}");
}

#[test]
fn unknown_and_repeated_runs_are_refused() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[]]);
    let spec = lab.specs[&run_id(1)].clone();
    assert_eq!(
        lab.try_handle(Event::RunSubmitted { spec }),
        Err(Rejection::RunExists { run: run_id(1) })
    );
    let unknown = lab.try_handle(Event::RunCancelled {
        run: run_id(2),
        grace: None,
        reason: "".into(),
        by: "".into(),
    });
    assert_eq!(unknown, Err(Rejection::UnknownRun { run: run_id(2) }));
}

#[test]
fn an_ended_run_is_forgotten_and_its_place_used_again() {
    let mut lab = Lab::with_executor();
    lab.submit_plain(&[&[]]);
    assert!(!lab.core.forget(run_id(1)), "it has not ended");
    lab.effects.clear();
    lab.succeeds(0, 1);
    assert!(lab.effects.contains(&Effect::RunFinished { run: run_id(1) }));
    assert!(lab.core.forget(run_id(1)));
    assert_eq!(lab.core.run(run_id(1)), None);
    lab.submit(parameters(2), vec![StepPolicy::default()], steps(&[&[]]));
    lab.effects.clear();
    lab.succeeds(0, 1);
    assert!(matches!(lab.effects[..], [Effect::PodUnexplained { ended: true, .. }]));
}
