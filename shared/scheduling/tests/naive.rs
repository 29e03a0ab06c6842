//! The core against a naive model of what a run comes to: conditions, failure modes, budgets, cancellation, repeated and late events (I5).
//!
//! The model knows neither queues nor counters: it looks at all steps again after every event. Both are compared after each.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::random::{MODES, config, graph, policies, reusable, spec_steps};
use support::{Lab, parameters};
use windlass_scheduling::*;

/// The only exit code that policy 2 retries.
const RETRIED: i32 = 75;
const USER_ATTEMPTS: u32 = 2;
const INFRASTRUCTURE_ATTEMPTS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Waiting,
    Live,
    Delayed,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
    Reused,
}

/// How an attempt ends: class and exit code; success without a class.
type Outcome = (Option<FailureClass>, Option<i32>);

const OUTCOMES: [Outcome; 8] = [
    (None, Some(0)),
    (None, Some(0)),
    (Some(FailureClass::UserError), Some(1)),
    (Some(FailureClass::UserError), Some(RETRIED)),
    (Some(FailureClass::OomKilled), Some(137)),
    (Some(FailureClass::Evicted), None),
    (Some(FailureClass::PodDeleted), Some(143)),
    (Some(FailureClass::Image), None),
];

struct Naive {
    steps: Vec<StepSpec>,
    mode: FailureMode,
    is: Vec<Is>,
    numbers: Vec<u32>,
    charged: Vec<[u32; 2]>,
    stopping: Vec<bool>,
    cancelled: bool,
}

impl Naive {
    fn new(steps: &[StepSpec], mode: FailureMode, reused: &[u32]) -> Self {
        let count = steps.len();
        let mut naive = Self {
            steps: steps.to_vec(),
            mode,
            is: vec![Is::Waiting; count],
            numbers: vec![0; count],
            charged: vec![[0; 2]; count],
            stopping: vec![false; count],
            cancelled: false,
        };
        for step in reused {
            naive.is[*step as usize] = Is::Reused;
        }
        naive.settle();
        naive
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.steps.len()
    }

    fn halted(&self) -> bool {
        self.mode != FailureMode::ContinueOnFailure && self.is.contains(&Is::Failed)
    }

    /// Policy 0 runs after success, 1 after failure, 2 always.
    fn after_success(&self, step: usize) -> bool {
        self.steps[step].policy == 0
    }

    /// Whether a step gets no further attempt.
    fn is_last(&self, step: usize) -> bool {
        self.cancelled || self.mode == FailureMode::FailFast && self.halted() && self.after_success(step)
    }

    fn start(&mut self, step: usize) {
        self.is[step] = Is::Live;
        self.numbers[step] += 1;
    }

    /// Decides until nothing changes any more.
    fn settle(&mut self) {
        while let Some((step, decided)) = self.all().find_map(|step| Some((step, self.decide(step)?))) {
            match decided {
                Is::Live => self.start(step),
                other => self.is[step] = other,
            }
        }
    }

    fn decide(&self, step: usize) -> Option<Is> {
        if self.is[step] != Is::Waiting {
            return None;
        }
        if self.cancelled {
            return Some(Is::Cancelled);
        }
        let upstream: Vec<Is> = self.steps[step]
            .upstream
            .iter()
            .map(|up| self.is[up.as_usize()])
            .collect();
        let open = upstream
            .iter()
            .any(|is| matches!(is, Is::Waiting | Is::Live | Is::Delayed));
        let unsuccessful = upstream
            .iter()
            .any(|is| matches!(is, Is::Failed | Is::Skipped | Is::Cancelled));
        match self.steps[step].policy {
            0 if unsuccessful || self.halted() => Some(Is::Skipped),
            _ if open => None,
            1 if !upstream.contains(&Is::Failed) => Some(Is::Skipped),
            _ => Some(Is::Live),
        }
    }

    fn end(&mut self, step: usize, number: u32, (class, exit_code): Outcome) {
        if self.is[step] != Is::Live || self.numbers[step] != number {
            return;
        }
        let was_halted = self.halted();
        self.is[step] = match class {
            None => Is::Succeeded,
            Some(class) => self.after_failure(step, class, exit_code),
        };
        if self.halted() && !was_halted && self.mode == FailureMode::FailFast && !self.cancelled {
            for other in self
                .all()
                .filter(|other| self.after_success(*other))
                .collect::<Vec<_>>()
            {
                self.stop(other);
            }
        }
        self.settle();
    }

    fn after_failure(&mut self, step: usize, class: FailureClass, exit_code: Option<i32>) -> Is {
        if self.stopping[step] && matches!(class, FailureClass::Evicted | FailureClass::PodDeleted) {
            return Is::Cancelled;
        }
        let infrastructure = match class.budget() {
            None => return Is::Failed,
            Some(budget) => budget == Budget::Infrastructure,
        };
        if self.is_last(step) {
            return if infrastructure { Is::Cancelled } else { Is::Failed };
        }
        let charged = &mut self.charged[step][usize::from(infrastructure)];
        *charged += 1;
        let allowed = if infrastructure {
            INFRASTRUCTURE_ATTEMPTS
        } else {
            USER_ATTEMPTS
        };
        let code_counts = class == FailureClass::UserError && self.steps[step].policy == 2;
        if *charged >= allowed || code_counts && exit_code != Some(RETRIED) {
            return Is::Failed;
        }
        Is::Delayed
    }

    fn stop(&mut self, step: usize) {
        match self.is[step] {
            Is::Live => self.stopping[step] = true,
            Is::Waiting | Is::Delayed => self.is[step] = if self.cancelled { Is::Cancelled } else { self.halt(step) },
            _ => {}
        }
    }

    /// Under FAIL_FAST what has not started is skipped, and what waits for a retry is cancelled.
    fn halt(&self, step: usize) -> Is {
        if self.is[step] == Is::Waiting {
            Is::Skipped
        } else {
            Is::Cancelled
        }
    }

    fn cancel(&mut self) {
        self.cancelled |= self.outcome().is_none();
        if self.cancelled {
            self.all().for_each(|step| self.stop(step));
        }
    }

    /// All delays pass.
    fn wait(&mut self) {
        for step in self.all() {
            if self.is[step] == Is::Delayed {
                self.stopping[step] = false;
                self.start(step);
            }
        }
    }

    fn outcome(&self) -> Option<RunState> {
        let has = |is| self.is.contains(&is);
        if has(Is::Waiting) || has(Is::Live) || has(Is::Delayed) {
            None
        } else if self.cancelled && has(Is::Cancelled) {
            Some(RunState::Cancelled)
        } else if has(Is::Failed) {
            Some(RunState::Failed)
        } else {
            Some(RunState::Succeeded)
        }
    }

    fn live(&self) -> Vec<usize> {
        self.all().filter(|step| self.is[*step] == Is::Live).collect()
    }
}

fn seen(lab: &Lab, step: usize) -> Is {
    match lab.state(u32::try_from(step).expect("small")) {
        StepState::Waiting => Is::Waiting,
        StepState::Starting | StepState::Running => Is::Live,
        StepState::RetryWait => Is::Delayed,
        StepState::Succeeded => Is::Succeeded,
        StepState::Failed => Is::Failed,
        StepState::Skipped => Is::Skipped,
        StepState::Cancelled => Is::Cancelled,
        StepState::Cached => Is::Reused,
        other => panic!("step {step} is {other}"),
    }
}

fn end(lab: &mut Lab, step: usize, number: u32, (class, exit_code): Outcome) {
    let mut end = AttemptEnd::success(lab.now);
    (end.class, end.exit_code) = (class, exit_code);
    lab.ends(u32::try_from(step).expect("small"), number, end);
}

/// A run that reuses what it can of the steps whose bits are set; of none of them it is submitted, not retried.
fn start(rows: &[support::random::Row], mode: FailureMode, wanted: u16) -> (Lab, Naive) {
    let mut lab = Lab::with_executor();
    let steps = spec_steps(rows);
    let mut policies = policies(true);
    for policy in &mut policies {
        policy.user.attempts = USER_ATTEMPTS;
        policy.infrastructure.attempts = INFRASTRUCTURE_ATTEMPTS;
    }
    policies[2].user.exit_codes = vec![RETRIED];
    let mut parameters = parameters(1);
    parameters.failure_mode = mode;
    let reused = reusable(&steps, wanted);
    match reused.as_slice() {
        [] => lab.submit(parameters, policies, steps.clone()),
        reused => lab
            .retry(parameters, policies, steps.clone(), reused)
            .expect("accepted"),
    }
    (lab, Naive::new(&steps, mode, &reused))
}

proptest! {
    #![proptest_config(config())]

    /// behaviours M11, D1, D4, D5
    #[test]
    fn i5_a_run_comes_to_what_the_naive_model_says(
        rows in graph(),
        mode in 0_usize..3,
        script in vec((0_u8..16, any::<u8>(), any::<u8>()), 0..80),
        may_cancel in any::<bool>(),
        wanted in prop_oneof![Just(0), any::<u16>(), Just(u16::MAX)],
    ) {
        let (mut lab, mut naive) = start(&rows, MODES[mode], wanted);
        let mut told: Vec<(usize, u32, Outcome)> = Vec::new();
        for (action, pick, what) in script {
            let (pick, outcome) = (usize::from(pick), OUTCOMES[usize::from(what) % OUTCOMES.len()]);
            let live = naive.live();
            match action {
                0..=9 if !live.is_empty() => {
                    let step = live[pick % live.len()];
                    let number = naive.numbers[step];
                    told.push((step, number, outcome));
                    end(&mut lab, step, number, outcome);
                    naive.end(step, number, outcome);
                }
                // Told once more, or something else of an attempt that has ended.
                10 | 11 if !told.is_empty() => {
                    let (step, number, same) = told[pick % told.len()];
                    let again = if action == 10 { same } else { outcome };
                    end(&mut lab, step, number, again);
                }
                // Late news of an attempt that has ended, or progress of one that has not.
                12 if !told.is_empty() => {
                    let (step, number, _) = told[pick % told.len()];
                    lab.sees(u32::try_from(step).expect("small"), number, AttemptPhase::Running);
                }
                13 if !live.is_empty() => {
                    let step = live[pick % live.len()];
                    lab.sees(u32::try_from(step).expect("small"), naive.numbers[step], AttemptPhase::Running);
                }
                14 if may_cancel && what % 4 == 0 && naive.outcome().is_none() => {
                    lab.cancel();
                    naive.cancel();
                }
                _ => {
                    lab.seconds(400);
                    naive.wait();
                }
            }
            let states: Vec<Is> = naive.all().map(|step| seen(&lab, step)).collect();
            prop_assert_eq!(&states, &naive.is);
            let numbers: Vec<u32> = naive.all().map(|step| lab.step(u32::try_from(step).expect("small")).number).collect();
            prop_assert_eq!(&numbers, &naive.numbers);
            prop_assert_eq!(Some(lab.run().state).filter(|state| state.is_terminal()), naive.outcome());
        }
        lab.assert_replays();
    }
}

#[test]
fn the_naive_model_is_no_tautology() {
    let steps = spec_steps(&[(0, 0), (0, 0), (0, 1)]);
    let mut naive = Naive::new(&steps, FailureMode::FailFast, &[]);
    assert_eq!(naive.is, [Is::Live, Is::Waiting, Is::Waiting]);
    naive.end(0, 1, OUTCOMES[2]);
    assert_eq!(naive.is, [Is::Delayed, Is::Waiting, Is::Waiting]);
    naive.wait();
    naive.end(0, 2, OUTCOMES[2]);
    assert_eq!(naive.is, [Is::Failed, Is::Skipped, Is::Live]);
    naive.cancel();
    naive.end(2, 1, OUTCOMES[6]);
    assert_eq!(naive.outcome(), Some(RunState::Cancelled));
    let naive = Naive::new(&steps, FailureMode::FailFast, &[0]);
    assert_eq!(naive.is, [Is::Reused, Is::Live, Is::Waiting]);
}
