//! Applying a batch of commands to the core, and making the commit of what it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_ids::{ClusterAlias, ClusterUid, RunId, Timestamp};
use windlass_scheduling::{ChangeKind, Decision, Event, Explanation, Rejection, Reused, Scheduler, StepState};

use super::ahead::Ahead;
use super::command::{
    ChangeOrder, Command, ConnectOrder, DeleteOrder, Disconnected, ExpireOrder, ExplainOrder, MakeSecretOrder, Refusal,
    Report, Submission,
};
use super::held::{Acknowledgement, Answer, Held};
use crate::definition::RunDefinition;
use crate::errors::SubmitError;
use crate::read_model::{RunEntry, RunMeta, RunRecord};
use crate::run_secrets::Kept;
use crate::schedules::Book;
use crate::store::{
    CommitBatch, Deletion, DeletionCause, DeliveryWrite, HeaderUpdate, NewRun, PackedDefinition, RequestRecord,
    RunHeader, RunSecret, RunSecretWrite, SecretOwner,
};
use crate::webhooks::Webhooks;

/// The core and what belongs to it: discarded together when a commit fails.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) core: Scheduler,
    pub(crate) runs: BTreeMap<RunId, LiveRun>,
    pub(crate) schedules: Book,
    pub(crate) secrets: Kept,
    pub(crate) webhooks: Arc<Webhooks>,
}

/// What the driver keeps of a run beside the core.
#[derive(Debug)]
pub(crate) struct LiveRun {
    pub(crate) definition: Arc<RunDefinition>,
    pub(crate) ahead: Ahead,
    /// Of a run of whose end somebody is told.
    pub(crate) told: Option<Box<RunHeader>>,
}

/// A batch being made.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) now: Timestamp,
    pub(super) decision: Decision,
    pub(super) commit: CommitBatch,
    pub(super) held: Held,
}

impl Batch {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            now,
            decision: Decision::default(),
            commit: CommitBatch {
                time: now,
                ..CommitBatch::default()
            },
            held: Held::default(),
        }
    }

    /// Whether nothing came of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.decision.is_empty() && self.commit.is_empty() && self.held.is_empty()
    }

    /// Lets the core and the schedules look at the time.
    pub(crate) fn tick(&mut self, live: &mut Live) {
        live.core.handle_timeout(self.now, &mut self.decision);
        self.take_due(live);
    }

    /// What a recovered core decided.
    pub(crate) fn recovered(&mut self, live: &mut Live) {
        live.core.recovered(self.now, &mut self.decision);
    }

    /// Applies a command.
    pub(crate) fn apply(&mut self, live: &mut Live, command: Command) {
        match command {
            Command::Submit(submission) => self.submit(live, *submission),
            Command::Change(order) => self.change(live, *order),
            Command::Delete(order) => self.delete(live, *order),
            Command::Expire(order) => self.expire(live, order),
            Command::Delivered(order) => {
                self.commit.deliveries.push(order.write);
                self.held.answers.push(Answer::Done(order.reply));
            }
            Command::Connect(order) => self.connect(live, *order),
            Command::Report(report) => self.report(live, *report),
            Command::Disconnected(gone) => self.disconnected(live, &gone),
            Command::Explain(order) => self.explain(live, order),
            Command::Schedule(order) => self.schedule(live, *order),
            Command::Fire(order) => self.fire(live, *order),
            Command::MakeSecret(order) => self.make_secret(live, order),
            Command::AbandonSecret(id) => self.held.abandoned_secrets.extend(live.secrets.abandon(id)),
            Command::SecretGone((owner, cluster)) => {
                let gone = (owner, cluster.clone());
                self.commit.secrets.push(RunSecretWrite::Delete { owner, cluster });
                self.held.gone_secrets.push(gone);
            }
        }
    }

    fn submit(&mut self, live: &mut Live, submission: Submission) {
        let Submission {
            header,
            definition,
            packed,
            request,
            reused,
            obeys_overlap,
            secrets,
            reservations,
            reply,
        } = submission;
        let of = header.fixed.schedule.clone().map(|of| (of, header.name.clone()));
        let run = header.id;
        let secrets: Vec<_> = secrets.into_iter().map(|cluster| secret_of(&header, cluster)).collect();
        let content = (definition, packed);
        if let Some(shared) = header.fixed.secret.as_ref()
            && !live.secrets.has(shared.id)
        {
            let error = SubmitError::SecretsReplaced {
                schedule: shared.schedule_name.clone(),
            };
            return self.held.answers.push(Answer::SubmissionRefused(reply, error));
        }
        let replaced = match of.as_ref().filter(|_| obeys_overlap) {
            Some((of, _)) => self.make_way(live, of),
            None => Ok(Vec::new()),
        };
        let replaced = match replaced {
            Ok(replaced) => replaced,
            Err(error) => return self.held.answers.push(Answer::SubmissionRefused(reply, error)),
        };
        if let Err(rejection) = self.accept(live, header, content, (reused, !secrets.is_empty()), request) {
            // Ids are random: this is another one of them.
            tracing::warn!(%rejection, "submission refused by the core");
            let error = crate::errors::Unavailable::OutcomeUnknown.into();
            return self.held.answers.push(Answer::SubmissionRefused(reply, error));
        }
        if let Some((of, name)) = of {
            self.replace(live, &of.name, replaced);
            self.triggered(live, &of, (run, name));
        }
        self.held.secrets.extend(secrets.iter().cloned());
        self.commit.secrets.extend(secrets.into_iter().map(RunSecretWrite::Put));
        self.held.answers.push(Answer::Submitted(reply));
        self.held.reservations.extend(reservations);
    }

    /// Takes a run in, one that is to be prepared first or not; nothing happens when the core refuses it.
    pub(super) fn accept(
        &mut self,
        live: &mut Live,
        mut header: RunHeader,
        (definition, packed): (Arc<RunDefinition>, Vec<PackedDefinition>),
        (reused, prepares): (Vec<Reused>, bool),
        mut request: Option<RequestRecord>,
    ) -> Result<(), Rejection> {
        header.created = self.now;
        if let Some(request) = &mut request {
            request.created = self.now;
        }
        let spec = Arc::clone(definition.spec());
        let event = if prepares {
            Event::RunPreparing { spec, reused }
        } else if header.fixed.lineage.is_some() {
            Event::RunRetried { spec, reused }
        } else {
            Event::RunSubmitted { spec }
        };
        live.core.handle(self.now, event, &mut self.decision)?;
        let record = RunRecord::new(definition.len(), self.now);
        let live_run = LiveRun {
            definition: Arc::clone(&definition),
            ahead: Ahead::default(),
            told: live
                .webhooks
                .concern(header.namespace.as_str())
                .then(|| Box::new(header.clone())),
        };
        live.runs.insert(header.id, live_run);
        if let Some(of) = &header.fixed.schedule {
            live.schedules.run_began(of.id, header.id);
        }
        if let Some(secret) = &header.fixed.secret {
            live.secrets.run_uses(secret, header.id);
        }
        let meta = RunMeta {
            header: header.clone(),
            definition,
        };
        self.held.accepted.push(Arc::new(RunEntry::new(meta, record)));
        self.commit.new_runs.push(NewRun {
            header,
            definitions: packed,
            request,
        });
        Ok(())
    }

    fn make_secret(&mut self, live: &mut Live, order: MakeSecretOrder) {
        live.secrets.begin(order.id, order.schedule, self.now);
        self.held.secrets.extend(order.records.iter().cloned());
        self.commit
            .secrets
            .extend(order.records.into_iter().map(RunSecretWrite::Put));
        self.held.answers.push(Answer::Done(order.reply));
    }

    fn change(&mut self, live: &mut Live, order: ChangeOrder) {
        if let Err(rejection) = live.core.handle(self.now, order.event, &mut self.decision) {
            return self.refuse(order.reply, Refusal::Rejected(rejection));
        }
        self.remember(order.request, order.reservation);
        self.held.answers.push(Answer::Done(order.reply));
    }

    fn delete(&mut self, live: &Live, order: DeleteOrder) {
        if live.core.run(order.run).is_some_and(|run| !run.state.is_terminal()) {
            return self.refuse(order.reply, Refusal::NotEnded);
        }
        self.remember(order.request, order.reservation);
        self.delete_run(order.run, DeletionCause::Requested);
        self.held.answers.push(Answer::Done(order.reply));
    }

    fn expire(&mut self, live: &Live, order: ExpireOrder) {
        // A run that the core still has ended a moment ago.
        for run in order.runs.into_iter().filter(|run| live.core.run(*run).is_none()) {
            self.delete_run(run, DeletionCause::Expired);
        }
        self.held.answers.push(Answer::Done(order.reply));
    }

    fn delete_run(&mut self, run: RunId, cause: DeletionCause) {
        let deletion = Deletion { run, cause };
        self.commit.deleted.push(deletion);
        self.held.deleted.push(deletion);
    }

    pub(super) fn remember(
        &mut self,
        request: Option<RequestRecord>,
        reservation: Option<super::reservations::Reservation>,
    ) {
        if let Some(mut request) = request {
            request.created = self.now;
            self.commit.requests.push(request);
        }
        self.held.reservations.extend(reservation);
    }

    fn refuse(&mut self, reply: tokio::sync::oneshot::Sender<Result<(), Refusal>>, refusal: Refusal) {
        // Held back, too: the refusal may rest on changes that are not durable yet.
        self.held.answers.push(Answer::Refused(reply, refusal));
    }

    fn connect(&mut self, live: &mut Live, order: ConnectOrder) {
        if let Err(rejection) = live.core.handle(self.now, order.event, &mut self.decision) {
            return self.refuse(order.reply, Refusal::Rejected(rejection));
        }
        self.held.installed.push(order.session);
        self.held.answers.push(Answer::Done(order.reply));
    }

    fn report(&mut self, live: &mut Live, report: Report) {
        let session = report.session;
        let incarnation = session.incarnation;
        if session.is_retired() {
            return;
        }
        if let Err(rejection) = self.tell(live, Event::ExecutorHeard { incarnation }) {
            // Its lease has ended while its stream was open. Nothing is acknowledged: it says everything again when it comes back.
            tracing::info!(executor_id = %incarnation, %rejection, "executor has to connect anew");
            return session.retire();
        }
        session.hear(report.sent_ms);
        if report.launched > 0 {
            let up_to = report.launched;
            self.tell(live, Event::LaunchesAcknowledged { incarnation, up_to }).ok();
        }
        let mut acknowledgement = Acknowledgement {
            session: Arc::clone(&session),
            sequence: report.sequence,
            inventory: false,
            containers: BTreeMap::new(),
        };
        if report.sequence == 0 || session.take(report.sequence) {
            for event in report.events {
                self.tell(live, event).ok();
            }
            acknowledgement.containers = report.containers;
            if let Some(whole) = report.chunk.and_then(|chunk| session.join(chunk)) {
                let (by, inventory) = (incarnation, Box::new(whole.inventory));
                self.tell(live, Event::InventoryReported { by, inventory }).ok();
                acknowledgement.containers = whole.containers;
                acknowledgement.inventory = true;
            }
        }
        if acknowledgement.sequence > 0 || !acknowledgement.containers.is_empty() {
            self.held.acknowledgements.push(acknowledgement);
        }
    }

    /// A stream ended. Nothing is told when another one began meanwhile.
    fn disconnected(&mut self, live: &mut Live, gone: &Disconnected) {
        let incarnation = gone.session.incarnation;
        if gone.session.is_current(gone.stream) {
            self.tell(live, Event::ExecutorDisconnected { incarnation }).ok();
        }
    }

    /// Tells the core what an executor said. What it refuses is passed over: reports may be late or repeated.
    fn tell(&mut self, live: &mut Live, event: Event) -> Result<(), Rejection> {
        let told = live.core.handle(self.now, event, &mut self.decision);
        told.inspect_err(|rejection| tracing::debug!(%rejection, "report passed over"))
    }

    fn explain(&mut self, live: &Live, order: ExplainOrder) {
        let answer = explanations(&live.core, self.now, &order);
        self.held.answers.push(Answer::Explained(order.reply, answer));
    }

    /// The commit, and what waits for it.
    pub(crate) fn finish(mut self, live: &mut Live) -> (CommitBatch, Held) {
        let (mut followed, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for change in &self.decision.changes {
            if let Some(run) = live.runs.get_mut(&change.run)
                && run.ahead.note(change, &run.definition)
            {
                followed.insert(change.run);
            }
            if matches!(change.kind, ChangeKind::RunEnded { .. }) {
                ended.insert(change.run);
            }
        }
        for run in followed {
            if let (Some(view), Some(live_run)) = (live.core.run(run), live.runs.get(&run)) {
                let progress = live_run.ahead.progress(&view);
                if let Some(header) = live_run.told.as_ref().filter(|_| ended.contains(&run)) {
                    let mut header = RunHeader::clone(header);
                    header.progress = progress.clone();
                    let told = live.webhooks.of_end(&header, self.now).into_iter();
                    self.commit.deliveries.extend(told.map(DeliveryWrite::Put));
                    self.held.told = true;
                }
                self.commit.updates.push(HeaderUpdate { run, progress });
            }
        }
        self.held.changes.clone_from(&self.decision.changes);
        self.held.effects = self.decision.effects;
        self.commit.changes = self.decision.changes;
        (self.commit, self.held)
    }
}

fn secret_of(header: &RunHeader, (cluster, alias): (ClusterUid, ClusterAlias)) -> RunSecret {
    RunSecret {
        owner: SecretOwner::Run(header.id),
        owner_name: header.name.0.clone(),
        cluster,
        alias,
        namespace: header.namespace.clone(),
    }
}

fn explanations(core: &Scheduler, now: Timestamp, order: &ExplainOrder) -> Result<Vec<Explanation>, Refusal> {
    let unknown = Rejection::UnknownRun { run: order.run };
    let first = core
        .explain(now, order.run, order.step)
        .ok_or(Refusal::Rejected(unknown))?;
    let ended = first.run_state.is_terminal();
    let mut all = vec![first];
    if order.step.is_some() || ended {
        return Ok(all);
    }
    let mut step = windlass_ids::StepIndex(0);
    while all.len() <= order.steps {
        let Some(view) = core.step(order.run, step) else {
            break;
        };
        if !view.state.is_terminal() && view.state != StepState::Running {
            all.extend(core.explain(now, order.run, Some(step)));
        }
        step.0 += 1;
    }
    Ok(all)
}
