//! What the driver is asked to do, and how it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use windlass_ids::{AttemptId, ClusterAlias, ClusterUid, RunId, ScheduleId, ScheduleSecretId, StepIndex};
use windlass_scheduling::{Event, Explanation, Rejection, Reused};

use super::reservations::Reservation;
use crate::definition::RunDefinition;
use crate::errors::{SubmitError, Unavailable};
use crate::executors::{InventoryChunk, Session};
use crate::run_secrets::SecretKey;
use crate::schedules::{Changed, FireOrder};
use crate::store::{DeliveryWrite, PackedDefinition, RequestRecord, RunHeader, RunSecret, Schedule};

/// A command; those of executors and of people share a lane, submissions have one of their own.
#[derive(Debug)]
pub(crate) enum Command {
    /// A checked submission.
    Submit(Box<Submission>),
    /// Something that the core decides on.
    Change(Box<ChangeOrder>),
    /// An ended run is to go.
    Delete(Box<DeleteOrder>),
    /// Runs whose time is over are to go.
    Expire(ExpireOrder),
    /// Something became of a message to another system.
    Delivered(DeliveredOrder),
    /// An executor opened a stream.
    Connect(Box<ConnectOrder>),
    /// An executor said something.
    Report(Box<Report>),
    /// A stream of an executor ended.
    Disconnected(Disconnected),
    /// Somebody asks what a run or step waits for.
    Explain(ExplainOrder),
    /// A schedule is to be made, changed or deleted.
    Schedule(Box<ScheduleOrder>),
    /// A fire of a schedule was prepared.
    Fire(Box<FireOrder>),
    /// Secrets of a schedule are about to be made.
    MakeSecret(MakeSecretOrder),
    /// Secrets of a schedule that is to be made or changed could not be made.
    AbandonSecret(ScheduleSecretId),
    /// A Secret that nothing needed is gone from a cluster.
    SecretGone(SecretKey),
}

/// Why the driver did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The core refused it; nothing changed.
    Rejected(Rejection),
    /// The run has not ended.
    NotEnded,
    /// See [`Unavailable`].
    Unavailable(Unavailable),
}

/// A checked submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) header: RunHeader,
    pub(crate) definition: Arc<RunDefinition>,
    pub(crate) packed: Vec<PackedDefinition>,
    pub(crate) request: Option<RequestRecord>,
    /// Steps of a retried run that do not run again.
    pub(crate) reused: Vec<Reused>,
    /// Whether the overlap policy of its schedule decides.
    pub(crate) obeys_overlap: bool,
    /// Clusters in which its secrets are to be made before it is queued.
    pub(crate) secrets: BTreeMap<ClusterUid, ClusterAlias>,
    /// Kept until the commit is durable or has failed.
    pub(crate) reservations: Vec<Reservation>,
    pub(crate) reply: oneshot::Sender<Result<(), SubmitError>>,
}

/// Something that the core decides on, for a person.
#[derive(Debug)]
pub(crate) struct ChangeOrder {
    pub(crate) event: Event,
    pub(crate) request: Option<RequestRecord>,
    pub(crate) reservation: Option<Reservation>,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// An ended run is to go.
#[derive(Debug)]
pub(crate) struct DeleteOrder {
    pub(crate) run: RunId,
    pub(crate) request: Option<RequestRecord>,
    pub(crate) reservation: Option<Reservation>,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// Runs whose time is over are to go; those that have not left the core stay.
#[derive(Debug)]
pub(crate) struct ExpireOrder {
    pub(crate) runs: Vec<RunId>,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// Something became of a message to another system.
#[derive(Debug)]
pub(crate) struct DeliveredOrder {
    pub(crate) write: DeliveryWrite,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// A schedule is to be made, changed or deleted.
#[derive(Debug)]
pub(crate) struct ScheduleOrder {
    pub(crate) change: ScheduleChange,
    pub(crate) request: Option<RequestRecord>,
    pub(crate) reservation: Option<Reservation>,
    /// The schedule afterwards; the last one of one that was deleted.
    pub(crate) reply: oneshot::Sender<Result<Arc<Schedule>, ScheduleRefusal>>,
}

/// Secrets of a schedule are about to be made, before it is made or changed.
#[derive(Debug)]
pub(crate) struct MakeSecretOrder {
    pub(crate) id: ScheduleSecretId,
    pub(crate) schedule: ScheduleId,
    /// A record for each cluster.
    pub(crate) records: Vec<RunSecret>,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// See [`ScheduleOrder`].
#[derive(Debug)]
pub(crate) enum ScheduleChange {
    /// A new one.
    Create {
        schedule: Box<Schedule>,
        definition: PackedDefinition,
    },
    /// What a person set anew; its generation follows that of the one that was looked at.
    Update {
        schedule: Box<Schedule>,
        definition: Option<PackedDefinition>,
        /// Whether fires count from its own progress; otherwise they go on where they are.
        retimed: bool,
    },
    /// It goes.
    Delete { id: ScheduleId },
}

impl ScheduleChange {
    /// The secrets that the schedule is to have.
    pub(super) fn secret(&self) -> Option<ScheduleSecretId> {
        match self {
            Self::Create { schedule, .. } | Self::Update { schedule, .. } => {
                schedule.secret.as_ref().map(|secret| secret.id)
            }
            Self::Delete { .. } => None,
        }
    }
}

/// Why the driver did not change a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleRefusal {
    /// Nothing changed.
    Refused(Changed),
    /// See [`Unavailable`].
    Unavailable(Unavailable),
}

/// An executor opened a stream; `session` takes the place of an older one unless the stream resumes it.
#[derive(Debug)]
pub(crate) struct ConnectOrder {
    pub(crate) event: Event,
    pub(crate) session: Arc<Session>,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// A stream of an executor ended.
#[derive(Debug)]
pub(crate) struct Disconnected {
    pub(crate) session: Arc<Session>,
    /// Number of the stream in the session: another one may have begun.
    pub(crate) stream: u64,
}

/// An executor said something. Events that the core refuses are passed over: reports may be late or repeated.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) session: Arc<Session>,
    /// To be acknowledged once the events are durable; 0 for what is not numbered.
    pub(crate) sequence: u64,
    /// When it was sent, on the executor's clock.
    pub(crate) sent_ms: u64,
    /// The newest launch that the executor has taken over; 0 when nothing new is known.
    pub(crate) launched: u64,
    /// What the message says, unless it was taken in before.
    pub(crate) events: Vec<Event>,
    /// A part of an inventory.
    pub(crate) chunk: Option<InventoryChunk>,
    /// Containers whose logs can be read.
    pub(crate) containers: BTreeMap<AttemptId, Vec<String>>,
    /// Its room in the lane.
    room: Option<OwnedSemaphorePermit>,
}

impl Report {
    /// A frame that says nothing.
    pub(crate) fn new(session: Arc<Session>, sequence: u64) -> Self {
        Self {
            session,
            sequence,
            sent_ms: 0,
            launched: 0,
            events: Vec::new(),
            chunk: None,
            containers: BTreeMap::new(),
            room: None,
        }
    }
}

/// Somebody asks what a run, or one step, waits for.
#[derive(Debug)]
pub(crate) struct ExplainOrder {
    pub(crate) run: RunId,
    pub(crate) step: Option<StepIndex>,
    /// With the run: the steps that wait, too, at most this many.
    pub(crate) steps: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<Explanation>, Refusal>>,
}

/// Bounds of the driver's queues and batches (I11).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Submissions that wait; more are refused.
    pub(crate) submissions: usize,
    /// Other commands that wait; senders wait with them.
    pub(crate) reports: usize,
    /// Bytes of executors' reports that wait; their streams wait with them.
    pub(crate) report_bytes: usize,
    /// Submissions of one batch.
    pub(crate) batch_submissions: usize,
    /// Other commands of one batch.
    pub(crate) batch_reports: usize,
    /// Batches that are being committed at a time.
    pub(crate) depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            submissions: 4_096,
            reports: 8_192,
            report_bytes: 256 * 1024 * 1024,
            batch_submissions: 512,
            batch_reports: 4_096,
            depth: 4,
        }
    }
}

/// Where commands go in.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    submissions: mpsc::Sender<Command>,
    reports: mpsc::Sender<Command>,
    /// Room for the bytes of reports, in units of [`ROOM_UNIT`].
    room: Arc<Semaphore>,
    most_room: u32,
}

/// Bytes of a report that count as one.
const ROOM_UNIT: usize = 1024;

/// Where commands come out.
#[derive(Debug)]
pub(crate) struct Outlet {
    submissions: mpsc::Receiver<Command>,
    reports: mpsc::Receiver<Command>,
    limits: Limits,
}

/// An inbox of two lanes.
pub(crate) fn inbox(limits: Limits) -> (Inbox, Outlet) {
    let (submissions, submissions_out) = mpsc::channel(limits.submissions);
    let (reports, reports_out) = mpsc::channel(limits.reports);
    let outlet = Outlet {
        submissions: submissions_out,
        reports: reports_out,
        limits,
    };
    let most_room = u32::try_from(limits.report_bytes.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
    let inbox = Inbox {
        submissions,
        reports,
        room: Arc::new(Semaphore::new(most_room as usize)),
        most_room,
    };
    (inbox, outlet)
}

impl Inbox {
    /// Queues a submission, or refuses it when too many wait.
    pub(crate) fn submit(&self, submission: Box<Submission>) -> Result<(), SubmitError> {
        self.submissions
            .try_send(Command::Submit(submission))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SubmitError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => Unavailable::ShuttingDown.into(),
            })
    }

    /// Queues a report of `bytes` bytes, after waiting for room for it. One that is larger than the whole lane waits until it has it alone.
    pub(crate) async fn report(&self, mut report: Report, bytes: usize) -> Result<(), Unavailable> {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(units.min(self.most_room));
        report.room = Some(room.await.map_err(|_| Unavailable::ShuttingDown)?);
        self.send(Command::Report(Box::new(report))).await
    }

    /// Queues a command, after waiting for room.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Unavailable> {
        self.reports.send(command).await.map_err(|_| Unavailable::ShuttingDown)
    }
}

impl Outlet {
    /// How many submissions and how many other commands wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.submissions.len(), self.reports.len())
    }

    /// Waits for commands and adds a batch of them, reports first; false when nobody can send any more.
    pub(crate) async fn receive(&mut self, batch: &mut Vec<Command>) -> bool {
        let Limits {
            batch_submissions,
            batch_reports,
            ..
        } = self.limits;
        let first = tokio::select! {
            biased;
            first = self.reports.recv() => first,
            first = self.submissions.recv() => first,
        };
        let Some(first) = first else {
            return false;
        };
        batch.push(first);
        // What waits in both lanes joins the commit: a flood in one lane delays the other by a batch at most.
        take(&mut self.reports, batch, batch_reports);
        take(&mut self.submissions, batch, batch_submissions);
        true
    }
}

/// Takes what waits in a lane.
fn take(lane: &mut mpsc::Receiver<Command>, batch: &mut Vec<Command>, most: usize) {
    for _ in 0..most {
        match lane.try_recv() {
            Ok(command) => batch.push(command),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_ids::RunId;

    use super::*;

    fn explain() -> (Command, oneshot::Receiver<Result<Vec<Explanation>, Refusal>>) {
        let (reply, answer) = oneshot::channel();
        let order = ExplainOrder {
            run: RunId::from_bytes([1; 16]),
            step: None,
            steps: 0,
            reply,
        };
        (Command::Explain(order), answer)
    }

    #[tokio::test]
    async fn i11_a_flood_in_the_submission_lane_does_not_delay_reports() {
        let limits = Limits {
            submissions: 8,
            batch_submissions: 2,
            ..Limits::default()
        };
        let (inbox, mut outlet) = inbox(limits);
        // The lanes do not look at what they carry.
        for _ in 0..8 {
            inbox.submissions.try_send(explain().0).expect("room");
        }
        assert!(inbox.submissions.try_send(explain().0).is_err(), "the lane is bounded");
        inbox.send(explain().0).await.expect("open");
        let mut batch = Vec::new();
        assert!(outlet.receive(&mut batch).await);
        assert_eq!(batch.len(), 3, "the report and a bounded number of submissions");
    }
}
