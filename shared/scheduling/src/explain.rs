//! What a run or step waits for, since when, until when, and what follows (I10).

use windlass_ids::{RunId, StepIndex, Timestamp};

use crate::attempt::Attempt;
use crate::change::PhaseDetail;
use crate::deadlines::{Due, run_deadline};
use crate::dispatch::paced_until;
use crate::policy::LostContactAction;
use crate::run::Run;
use crate::scheduler::Scheduler;
use crate::state::{AttemptPhase, FailureClass, RunState, StepState, StopCause};
use crate::view::{Blocker, Consequence, Explanation};

const STEPS_SHOWN: usize = 10;

impl Scheduler {
    /// What a run (without `step`) or a step waits for. None when the core does not hold it.
    pub fn explain(&self, now: Timestamp, run: RunId, step: Option<StepIndex>) -> Option<Explanation> {
        let slot = self.slot_of(run).ok()?;
        let run = self.run_at(slot)?;
        match step {
            None => Some(self.explain_run(run)),
            Some(step) if step.as_usize() < run.step_count() => Some(self.explain_step(now, run, step)),
            Some(_) => None,
        }
    }

    fn explain_step(&self, now: Timestamp, run: &Run, step: StepIndex) -> Explanation {
        let state = run.state_of(step);
        let mut explanation = Explanation {
            step: Some(step),
            step_state: Some(state),
            run_state: run.state,
            blocker: None,
            since: run.since(step),
            until: None,
            then: None,
        };
        match (state, run.attempt(step)) {
            _ if run.state == RunState::Preparing && !state.is_terminal() => {
                self.explain_preparing(run, &mut explanation);
            }
            (StepState::Waiting, _) => explanation.blocker = Some(upstream(run, step)),
            (StepState::Ready, _) => self.explain_ready(now, run, step, &mut explanation),
            (_, Some(attempt)) => self.explain_attempt(now, run, attempt, &mut explanation),
            _ => {}
        }
        let is_unbounded = explanation.until.is_none() && !state.is_terminal() && run.cancel.is_none();
        if let Some(deadline) = run_deadline(run).filter(|_| is_unbounded) {
            explanation.until = Some(deadline);
            explanation.then = Some(Consequence::RunFails);
        }
        explanation
    }

    fn explain_run(&self, run: &Run) -> Explanation {
        let mut explanation = explain_active(run);
        if run.state == RunState::Preparing {
            self.explain_preparing(run, &mut explanation);
        }
        explanation
    }

    fn explain_preparing(&self, run: &Run, explanation: &mut Explanation) {
        explanation.blocker = Some(Blocker::RunSecrets);
        explanation.since = run.accepted_at;
        explanation.until = self.preparing_deadline(run);
        explanation.then = Some(Consequence::NotPrepared);
    }

    fn explain_ready(&self, now: Timestamp, run: &Run, step: StepIndex, explanation: &mut Explanation) {
        let blocker = self.ready_blocker(now, run, step);
        match &blocker {
            Blocker::Pacing { until } => {
                explanation.until = Some(*until);
                explanation.then = Some(Consequence::Starts);
            }
            Blocker::ExecutorDisconnected { until, .. } => {
                explanation.until = Some(*until);
                explanation.then = Some(Consequence::TakenOver);
            }
            Blocker::NoExecutor { .. } => {
                explanation.until = self.admission_deadline(run, step);
                explanation.then = explanation.until.map(|_| Consequence::NotAdmitted);
            }
            _ => {}
        }
        explanation.blocker = Some(blocker);
    }

    fn ready_blocker(&self, now: Timestamp, run: &Run, step: StepIndex) -> Blocker {
        if let Some(limit) = run
            .spec
            .parameters()
            .max_parallelism
            .filter(|limit| run.live() >= limit.get())
        {
            let running = run.live();
            return Blocker::Parallelism {
                limit: limit.get(),
                running,
            };
        }
        let load = &self.namespaces[run.queues.namespace as usize];
        if let Some(limit) = load.limit.filter(|limit| load.live >= *limit) {
            let running = load.live;
            return Blocker::NamespaceLimit { limit, running };
        }
        if let Some(until) = paced_until(run).filter(|until| *until > now) {
            return Blocker::Pacing { until };
        }
        self.executor_blocker(run, step).unwrap_or(Blocker::Queue {
            ready: run.count(StepState::Ready),
        })
    }

    /// Why no executor takes a ready step; none when one would.
    fn executor_blocker(&self, run: &Run, step: StepIndex) -> Option<Blocker> {
        let alias = run.spec.policy(step).cluster.as_ref();
        let mut next = run.attempt_id(step);
        next.number += 1;
        let nobody = Blocker::NoExecutor { alias: alias.cloned() };
        let mut blocker = nobody;
        for index in self.executors.clusters_for(alias) {
            let Some(cluster) = self.executors.cluster(index) else {
                continue;
            };
            let Some(session) = cluster
                .owner(next)
                .and_then(|owner| self.executors.sessions.get(&owner))
            else {
                continue;
            };
            let executor = session.identity.incarnation;
            if !session.connected {
                let until = session.heard_at.saturating_add(self.config.lease);
                blocker = Blocker::ExecutorDisconnected { executor, until };
            } else if session.blind_since.is_some() {
                let alias = cluster.alias.clone();
                blocker = Blocker::OutOfSight { alias };
            } else if session.room() == 0 {
                let outstanding = session.outstanding();
                blocker = Blocker::NoCredit { executor, outstanding };
            } else {
                return None;
            }
        }
        Some(blocker)
    }

    fn explain_attempt(&self, now: Timestamp, run: &Run, attempt: &Attempt, explanation: &mut Explanation) {
        let policy = run.spec.policy(attempt.step);
        let id = run.attempt_id(attempt.step);
        let cluster = self.executors.cluster(attempt.cluster);
        let clock_runs = cluster.is_some_and(|cluster| cluster.sight(id).is_visible());
        let blocker = if let Some(lost) = attempt.lost() {
            Blocker::LostContact {
                attempt: id,
                cause: lost.cause,
                node: attempt.node().map(Into::into),
                clock_runs,
            }
        } else if attempt.has_ended() && !attempt.is_proven_dead() {
            Blocker::ProofOfDeath { attempt: id }
        } else if attempt.has_ended() {
            let class = attempt.trouble.as_ref().and_then(|trouble| trouble.failed_with);
            Blocker::RetryDelay {
                failed: id.number,
                class,
            }
        } else if !clock_runs {
            let alias = attempt.executor.alias.clone();
            Blocker::OutOfSight { alias }
        } else if let Some(stop) = attempt.stopping() {
            Blocker::Terminating { cause: stop.cause }
        } else {
            explanation.since = attempt.phase_at;
            phase_blocker(attempt)
        };
        explanation.blocker = Some(blocker);
        if let Some((until, due)) = self.wake(now, run, attempt) {
            explanation.until = Some(until);
            explanation.then = consequence(due);
        } else if attempt.lost().is_some() && policy.lost_contact.then == LostContactAction::Wait {
            explanation.then = Some(Consequence::WaitsForConfirmation);
        }
    }
}

fn explain_active(run: &Run) -> Explanation {
    let active = |step: &StepIndex| {
        let state = run.state_of(*step);
        !state.is_terminal() && !matches!(state, StepState::Waiting | StepState::Running)
    };
    let longest = run
        .spec
        .graph()
        .indices()
        .filter(active)
        .min_by_key(|step| (run.since(*step), *step));
    let is_over = run.state.is_terminal();
    let until = run_deadline(run).filter(|_| !is_over && run.cancel.is_none());
    Explanation {
        step: None,
        step_state: None,
        run_state: run.state,
        blocker: (!is_over).then_some(Blocker::Steps {
            counts: run.counts,
            longest,
        }),
        since: run.ended_at.or(run.started_at).unwrap_or(run.accepted_at),
        until,
        then: until.map(|_| Consequence::RunFails),
    }
}

fn upstream(run: &Run, step: StepIndex) -> Blocker {
    let open = |step: &&StepIndex| !run.state_of(**step).is_terminal();
    let upstream = run.spec.graph().upstream(step);
    Blocker::Upstream {
        steps: upstream.iter().filter(open).take(STEPS_SHOWN).copied().collect(),
        count: run.remaining(step),
    }
}

fn phase_blocker(attempt: &Attempt) -> Blocker {
    let (node, reason, message) = match attempt.detail.as_deref() {
        Some(PhaseDetail { node, reason, message }) => (node.clone(), reason.clone(), message.clone()),
        None => Default::default(),
    };
    match attempt.phase {
        AttemptPhase::Launched => Blocker::NotCreated {
            executor: attempt.executor.incarnation,
        },
        AttemptPhase::Refused => Blocker::Refused { reason, message },
        AttemptPhase::Created => Blocker::Unschedulable { reason, message },
        AttemptPhase::Scheduled => Blocker::Preparing { node, reason, message },
        AttemptPhase::Pulling => Blocker::Image { reason, message },
        AttemptPhase::Initialising => Blocker::Initialising { reason, message },
        _ => Blocker::Running { node },
    }
}

fn consequence(due: Due) -> Option<Consequence> {
    Some(match due {
        Due::Stop(StopCause::Timeout) => Consequence::AttemptFails(FailureClass::Deadline),
        Due::Stop(StopCause::ImagePull) => Consequence::AttemptFails(FailureClass::Image),
        Due::Stop(_) => Consequence::AttemptFails(FailureClass::StartupTimeout),
        Due::LoseContact => Consequence::ContactLost,
        Due::GiveUp => Consequence::StepFails,
        Due::Retry => Consequence::Starts,
        Due::Recheck => return None,
    })
}
