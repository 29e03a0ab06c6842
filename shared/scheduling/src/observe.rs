//! What executors see of attempts, merged by rank: late and repeated facts change nothing.

use windlass_ids::{AttemptId, Incarnation, PodUid, StepIndex, Timestamp};

use crate::change::{ChangeKind, PhaseDetail};
use crate::effect::Effect;
use crate::event::Observation;
use crate::rejection::Rejection;
use crate::scheduler::{Scheduler, Turn};
use crate::state::{AttemptPhase, LostCause, StepState, StopCause};

impl Scheduler {
    /// Takes one observation in.
    ///
    /// A fact about a pod whose uid is known is taken from any executor of the cluster. That there is no pod (`Refused`, `REJECTED`, `Absent`) is
    /// believed only of the executor that holds the current grant.
    pub(crate) fn observe(
        &mut self,
        turn: &mut Turn<'_>,
        by: Incarnation,
        observation: Observation,
    ) -> Result<(), Rejection> {
        check(&observation)?;
        let id = observation.attempt;
        let Some((slot, step)) = self.current(id) else {
            self.explain_pod(turn, by, &observation);
            return Ok(());
        };
        let Some(attempt) = self.attempt_at(slot, step) else {
            return Ok(());
        };
        let here = self.executors.sessions.get(&by).map(|session| session.cluster);
        if here != Some(attempt.cluster)
            || attempt
                .pod
                .is_some_and(|known| observation.pod.is_some_and(|pod| pod != known))
        {
            unexplained(turn, by, &observation);
            self.probe(turn, slot, step);
            return Ok(());
        }
        let needs_grant = observation.pod.is_none();
        if needs_grant && (observation.grant != attempt.grant || attempt.executor.incarnation != by) {
            if observation.phase == AttemptPhase::Absent {
                self.probe(turn, slot, step);
            }
            return Ok(());
        }
        match observation.phase {
            AttemptPhase::Launched => {}
            AttemptPhase::Absent => self.absent(turn, slot, step, observation),
            AttemptPhase::Ended => self.ended(turn, slot, step, observation),
            AttemptPhase::Unreachable => self.unreachable(turn, slot, step, observation),
            _ => self.progress(turn, slot, step, observation),
        }
        Ok(())
    }

    /// Where the newest attempt of a step is, when this is it and it has not left.
    pub(crate) fn current(&self, id: AttemptId) -> Option<(u32, StepIndex)> {
        let slot = self.slot_of(id.run).ok()?;
        let run = self.run_at(slot)?;
        let known = id.step.as_usize() < run.step_count() && run.number(id.step) == id.number;
        (known && run.attempt(id.step).is_some()).then_some((slot, id.step))
    }

    /// The pod of an attempt that is over may go when it has ended, too, and is stopped when it lives: it may have appeared late. One that nothing
    /// explains is the driver's to judge.
    fn explain_pod(&self, turn: &mut Turn<'_>, by: Incarnation, observation: &Observation) {
        let id = observation.attempt;
        let Some(pod) = observation.pod.filter(|_| observation.phase != AttemptPhase::Absent) else {
            return;
        };
        let run = self.slot_of(id.run).ok().and_then(|slot| self.run_at(slot));
        let is_over = run
            .is_some_and(|run| id.step.as_usize() < run.step_count() && (1..=run.number(id.step)).contains(&id.number));
        let cluster = self
            .executors
            .sessions
            .get(&by)
            .and_then(|session| self.executors.cluster(session.cluster));
        let (Some(cluster), Some(run), true) = (cluster, run, is_over) else {
            return unexplained(turn, by, observation);
        };
        if observation.phase != AttemptPhase::Ended {
            turn.effect(Effect::Stop {
                to: by,
                attempt: id,
                grant: observation.grant,
                pod: Some(pod),
                grace: run.spec.policy(id.step).termination_grace,
                cause: StopCause::Ended,
            });
        }
        // Of one that nobody can reach no end may ever be seen.
        if matches!(observation.phase, AttemptPhase::Ended | AttemptPhase::Unreachable) {
            turn.effect(Effect::AttemptFinished {
                attempt: id,
                pod: Some(pod),
                cluster: cluster.uid.clone(),
                keep_until: Some(cluster.fence_until).filter(|until| *until > turn.now),
            });
        }
    }

    pub(crate) fn created(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, pod: Option<PodUid>) {
        let Some(run) = self.run_at(slot) else { return };
        let number = run.number(step);
        if let Some(pod) = pod
            && run.attempt(step).is_some_and(|attempt| attempt.pod.is_none())
        {
            self.emit(turn, slot, ChangeKind::AttemptCreated { step, number, pod });
        }
    }

    /// The pod exists (or is refused for now) and has not ended.
    fn progress(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, seen: Observation) {
        let Some(run) = self.run_at(slot) else { return };
        let number = run.number(step);
        let Some(attempt) = run.attempt(step) else { return };
        let lost = attempt.lost();
        if attempt.has_ended() || seen.phase < attempt.phase && lost.is_none() && attempt.pod.is_some() {
            return;
        }
        if lost.is_some_and(|lost| lost.cause == LostCause::StopNotObeyed) {
            // That it lives is what is wrong with it.
            return self.created(turn, slot, step, seen.pod);
        }
        let before = (attempt.phase, lost.is_some());
        if lost.is_some() {
            let state = if attempt.has_started() {
                StepState::Running
            } else {
                StepState::Starting
            };
            self.emit(turn, slot, ChangeKind::ContactRegained { step, number, state });
        }
        self.created(turn, slot, step, seen.pod);
        let Some(attempt) = self.attempt_at(slot, step) else {
            return;
        };
        if seen.phase == AttemptPhase::Running {
            if attempt.phase < AttemptPhase::Running {
                let node = seen.node.filter(|node| attempt.node() != Some(&**node));
                let started_at = seen.started_at.unwrap_or(turn.now);
                self.emit(
                    turn,
                    slot,
                    ChangeKind::AttemptRunning {
                        step,
                        number,
                        started_at,
                        node,
                    },
                );
            }
        } else if seen.phase >= attempt.phase {
            let phase = seen.phase;
            // One that is being stopped has nothing new to say of what it waited for.
            let is_silent = attempt.stopping().is_some() && seen.reason.is_empty() && seen.message.is_empty();
            let detail = detail_of(seen);
            let is_news = differs(attempt.detail.as_deref(), detail.as_deref()) && !is_silent;
            if phase > attempt.phase || is_news {
                self.emit(
                    turn,
                    slot,
                    ChangeKind::AttemptProgressed {
                        step,
                        number,
                        phase,
                        detail,
                    },
                );
            }
        }
        let after = self
            .attempt_at(slot, step)
            .map(|attempt| (attempt.phase, attempt.lost().is_some()));
        if after != Some(before) {
            self.clock_after_progress(turn, slot, step, lost.is_some());
        }
    }

    /// The clock of a stop is not started anew, neither by progress nor by contact: it goes on.
    fn clock_after_progress(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, was_lost: bool) {
        let is_stopping = self
            .attempt_at(slot, step)
            .is_some_and(|attempt| attempt.stopping().is_some());
        match (is_stopping, was_lost) {
            (false, _) => self.arm(turn.now, slot, step),
            (true, true) => self.resume_clock(turn.now, slot, step),
            (true, false) => {}
        }
    }

    fn unreachable(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, seen: Observation) {
        self.created(turn, slot, step, seen.pod);
        let detail = detail_of(seen);
        let is_live = self.run_at(slot).is_some_and(|run| run.state_of(step).is_live());
        if is_live
            && self
                .attempt_at(slot, step)
                .is_some_and(|attempt| attempt.lost().is_none())
        {
            self.lose_contact(turn, slot, step, LostCause::Unreachable, detail);
        }
    }

    /// Contact to the pod is lost.
    pub(crate) fn lose_contact(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        step: StepIndex,
        cause: LostCause,
        detail: Option<Box<PhaseDetail>>,
    ) {
        let Some(number) = self.run_at(slot).map(|run| run.number(step)) else {
            return;
        };
        self.emit(
            turn,
            slot,
            ChangeKind::ContactLost {
                step,
                number,
                cause,
                detail,
            },
        );
        self.arm(turn.now, slot, step);
    }

    pub(crate) fn ended(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, seen: Observation) {
        let Some(end) = seen.end else { return };
        if seen.pod.is_none() && self.is_fenced(turn, slot, step) {
            return;
        }
        let Some(attempt) = self.attempt_at(slot, step) else {
            return;
        };
        if attempt.has_ended() {
            if end.proof_of_death && !attempt.is_proven_dead() {
                self.prove_death(turn, slot, step, None);
            }
            return;
        }
        self.created(turn, slot, step, seen.pod);
        self.started_meanwhile(turn, slot, step, seen.started_at);
        self.end_attempt(turn, slot, step, end, seen.terminating);
    }

    /// An end tells when its container started, which nobody may have told before.
    fn started_meanwhile(&mut self, turn: &mut Turn<'_>, slot: u32, step: StepIndex, started_at: Option<Timestamp>) {
        let Some(run) = self.run_at(slot) else { return };
        let number = run.number(step);
        let Some(attempt) = run.attempt(step).filter(|attempt| attempt.lost().is_none()) else {
            return;
        };
        let (Some(started_at), false) = (started_at, attempt.has_started()) else {
            return;
        };
        let node = None;
        self.emit(
            turn,
            slot,
            ChangeKind::AttemptRunning {
                step,
                number,
                started_at,
                node,
            },
        );
    }
}

fn check(observation: &Observation) -> Result<(), Rejection> {
    let problem = match (observation.phase, &observation.end, observation.pod) {
        (AttemptPhase::Ended, None, _) => "phase ENDED without an end",
        (AttemptPhase::Ended | AttemptPhase::Absent, _, _) => return Ok(()),
        (_, Some(_), _) => "an end without phase ENDED",
        (AttemptPhase::Launched | AttemptPhase::Refused, ..) => return Ok(()),
        (_, _, None) => "a pod without a uid",
        _ => return Ok(()),
    };
    Err(Rejection::Malformed {
        attempt: observation.attempt,
        problem,
    })
}

fn unexplained(turn: &mut Turn<'_>, by: Incarnation, observation: &Observation) {
    if let Some(pod) = observation.pod.filter(|_| observation.phase != AttemptPhase::Absent) {
        turn.effect(Effect::PodUnexplained {
            by,
            attempt: observation.attempt,
            pod,
            ended: observation.phase == AttemptPhase::Ended,
        });
    }
}

pub(crate) fn detail_of(seen: Observation) -> Option<Box<PhaseDetail>> {
    if seen.node.is_none() && seen.reason.is_empty() && seen.message.is_empty() {
        return None;
    }
    Some(Box::new(PhaseDetail {
        node: seen.node,
        reason: seen.reason,
        message: seen.message,
    }))
}

/// Whether a newer detail says something else; a node that is not repeated is no difference.
fn differs(known: Option<&PhaseDetail>, new: Option<&PhaseDetail>) -> bool {
    let texts = |detail: Option<&PhaseDetail>| {
        detail.map_or((Box::default(), Box::default()), |detail| {
            (detail.reason.clone(), detail.message.clone())
        })
    };
    let node = new.and_then(|detail| detail.node.as_deref());
    let known_node = known.and_then(|detail| detail.node.as_deref());
    texts(known) != texts(new) || node.is_some() && node != known_node
}
