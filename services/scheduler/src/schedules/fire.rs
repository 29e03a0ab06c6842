//! Preparing the runs of fires, off the driver's task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use windlass_api::journal::v1::ScheduledPipeline;
use windlass_ids::{RunId, ScheduleId, Timestamp};

use super::book::MAX_IN_FLIGHT;
use super::calendar::Calendar;
use super::plan::{Plan, plan};
use crate::admission::{self, Made, Scheduled};
use crate::driver::{Command, Reservation};
use crate::errors::SubmitError;
use crate::grpc::Api;
use crate::store::{DefinitionKind, RunSchedule, Schedule, StoreError};

/// A schedule that is due.
#[derive(Debug)]
pub(crate) struct FireJob {
    /// As it was then.
    pub(crate) schedule: Arc<Schedule>,
    /// When it was found to be due.
    pub(crate) now: Timestamp,
    /// Whether a run that has not ended forbids another one.
    pub(crate) overlaps: bool,
}

/// What was made of it.
#[derive(Debug)]
pub(crate) struct FireOrder {
    pub(crate) schedule: ScheduleId,
    /// The version of the schedule that it was made for.
    pub(crate) version: u64,
    pub(crate) fired: Fired,
}

/// See [`FireOrder`].
#[derive(Debug)]
pub(crate) enum Fired {
    /// Nothing starts.
    Skipped(Plan),
    /// A run of the schedule has not ended.
    Overlapped(Plan),
    /// The pipeline was refused.
    Refused(Plan, String),
    /// A run is ready.
    Ready(Plan, Box<(Made, Reservation)>),
    /// It may work later.
    Later,
}

/// The way to the firer: it holds what may be due at a time, and again what is left of an earlier state.
pub(crate) fn jobs() -> (mpsc::Sender<FireJob>, mpsc::Receiver<FireJob>) {
    mpsc::channel(2 * MAX_IN_FLIGHT)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Firer {
    pub(crate) api: Api,
    pub(crate) jobs: mpsc::Receiver<FireJob>,
}

impl Firer {
    /// Works until `shutdown`, or until nobody asks any more.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut working = JoinSet::new();
        loop {
            let room = working.len() < MAX_IN_FLIGHT;
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(_) = working.join_next() => {}
                job = self.jobs.recv(), if room => match job {
                    Some(job) => drop(working.spawn(fire(self.api.clone(), job))),
                    None => return,
                },
            }
        }
    }
}

async fn fire(api: Api, job: FireJob) {
    let (id, version) = (job.schedule.id, job.schedule.version);
    // A panic is no reason to forget it for good: the driver waits for an answer.
    let prepared = AssertUnwindSafe(prepare(&api, job)).catch_unwind().await;
    let fired = prepared.unwrap_or(Err(Hindrance::Panicked)).unwrap_or_else(|error| {
        tracing::warn!(schedule_id = %id, %error, "a fire could not be prepared, trying again");
        Fired::Later
    });
    let order = FireOrder {
        schedule: id,
        version,
        fired,
    };
    // Nobody is there to take it when the process ends: it fires after the next start.
    api.shared.inbox.send(Command::Fire(Box::new(order))).await.ok();
}

/// Why a fire has to wait.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error(transparent)]
    Calendar(#[from] super::calendar::CalendarError),
    #[error("the state is being read back")]
    Recovering,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the stored pipeline cannot be read")]
    Unreadable,
    #[error(transparent)]
    Submit(SubmitError),
    #[error("what prepares it has panicked")]
    Panicked,
}

async fn prepare(api: &Api, job: FireJob) -> Result<Fired, Hindrance> {
    let FireJob {
        schedule,
        now,
        overlaps,
    } = job;
    let planned = Arc::clone(&schedule);
    // Off this thread: years of missed fires take a moment.
    let work = move || {
        let calendar = Calendar::of(&planned.settings)?;
        Ok::<_, Hindrance>(plan(&calendar, &planned.settings, planned.progress.position, now))
    };
    let work = api.shared.lanes.run(admission::Size::Small, work).await;
    let plan = work.map_err(|_| Hindrance::Unreadable)??;
    let Some(time) = plan.start else {
        return Ok(Fired::Skipped(plan));
    };
    if overlaps {
        return Ok(Fired::Overlapped(plan));
    }
    let of = RunSchedule {
        id: schedule.id,
        name: schedule.name.clone(),
        time: Some(time),
    };
    match run_of(api, &schedule, of, schedule.updated_by.clone(), time).await? {
        Ok(made) => Ok(Fired::Ready(plan, Box::new(made))),
        Err(refused @ (SubmitError::Invalid(_) | SubmitError::ReferencesMissing(_))) => {
            Ok(Fired::Refused(plan, refused.to_string()))
        }
        Err(error) => Err(Hindrance::Submit(error)),
    }
}

async fn run_of(
    api: &Api,
    schedule: &Schedule,
    of: RunSchedule,
    user: String,
    time: Timestamp,
) -> Result<Result<(Made, Reservation), SubmitError>, Hindrance> {
    let store = api.shared.store().map_err(|_| Hindrance::Recovering)?;
    store.admit()?;
    let pipeline = stored_pipeline(store.as_ref(), schedule.id).await?;
    let scheduled = Scheduled {
        namespace: schedule.namespace.clone(),
        labels: schedule.settings.labels.clone(),
        of,
        user,
        traceparent: String::new(),
        time,
        secret: schedule.secret.clone(),
    };
    Ok(admission::scheduled(&api.shared, api.checker(), scheduled, pipeline).await)
}

/// What a schedule runs, as it is stored.
async fn stored_pipeline(
    store: &dyn crate::store::Store,
    schedule: ScheduleId,
) -> Result<ScheduledPipeline, Hindrance> {
    let bytes = store
        .definition(RunId::from_bytes(*schedule.as_bytes()), DefinitionKind::Scheduled)
        .await?;
    let bytes = bytes.ok_or(Hindrance::Unreadable)?;
    prost::Message::decode(bytes.as_slice()).map_err(|_| Hindrance::Unreadable)
}
