//! The run of a schedule: checked, named and built like a submission.

use std::collections::BTreeMap;

use windlass_api::journal::v1::ScheduledPipeline;
use windlass_ids::{Namespace, Timestamp};
use windlass_pipeline::{EnvVar, ResolvedPipeline};

use super::check::{Checked, Checker, Unchecked, no_pipeline};
use super::lanes::Size;
use super::shared_secrets;
use super::submit::{Content, Made, Request, Submitter, is_broken};
use crate::driver::Reservation;
use crate::errors::{SubmitError, Unavailable};
use crate::run_secrets::Values;
use crate::secrets::references;
use crate::shared::Shared;
use crate::store::{Operation, RunSchedule, ScheduleSecret};

/// The environment variable that tells a step when its fire was due.
const SCHEDULED_TIME: &str = "WINDLASS_SCHEDULED_TIME";
/// The label by which the runs of a schedule are listed.
pub(crate) const SCHEDULE_LABEL: &str = windlass_manifest::Label::SCHEDULE;

/// Which run is to be made, but for its pipeline.
#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(crate) namespace: Namespace,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) of: RunSchedule,
    pub(crate) user: String,
    pub(crate) traceparent: String,
    /// What its steps are told.
    pub(crate) time: Timestamp,
    /// The secrets of the schedule.
    pub(crate) secret: Option<ScheduleSecret>,
}

/// Makes a run whose name is reserved.
///
/// # Errors
/// When its pipeline is refused, or the store cannot be read.
pub(crate) async fn scheduled(
    shared: &Shared,
    checker: Checker,
    scheduled: Scheduled,
    pipeline: ScheduledPipeline,
) -> Result<(Made, Reservation), SubmitError> {
    let Some(wire) = pipeline.pipeline else {
        return Err(SubmitError::Invalid(no_pipeline()));
    };
    let Scheduled {
        namespace,
        mut labels,
        of,
        user,
        traceparent,
        time,
        secret,
    } = scheduled;
    labels.insert(SCHEDULE_LABEL.to_owned(), of.name.clone());
    let request = Request {
        size: Size::of(&wire),
        // It has no request of its own: a fire is known by its schedule and time.
        operation: Operation::Submit,
        namespace,
        request_id: String::new(),
        name: String::new(),
        labels,
        secrets: Values::default(),
    };
    let size = request.size;
    let parameters = pipeline.parameters;
    let read = shared.lanes.run(size, move || Unchecked::read(wire, parameters));
    let unchecked = read.await.map_err(is_broken)?;
    let level = checker.check_references;
    let checked = request
        .check(shared, checker, unchecked)
        .await
        .map_err(SubmitError::Invalid)?;
    let looks = (&shared.executors, &shared.fire_looks);
    let (references, is_fire) = (&checked.references, of.time.is_some());
    references::check_scheduled(looks, &request.namespace, level, references, is_fire).await?;
    let Checked {
        pipeline, mut resolved, ..
    } = checked;
    let secret = shared_secrets::of_run(&pipeline, &mut resolved, (of.id, &of.name), secret.as_ref())?;
    let mut content = Content {
        secret,
        ..Content::of(&pipeline, resolved)
    };
    tell(&mut content.resolved, time);
    let store = shared.store().map_err(|_| Unavailable::Recovering)?;
    let (name, reservation) = request.name(shared, store.as_ref(), &of.name).await?;
    let now = shared.clock.now();
    let submitter = Submitter { user, traceparent };
    let work = move || request.make(now, name, submitter, content);
    let mut made = shared.lanes.run(size, work).await.map_err(is_broken)??;
    made.header.fixed.schedule = Some(of);
    Ok((made, reservation))
}

/// Names that begin with `WINDLASS_` are refused in pipelines, so that it stands nowhere yet.
fn tell(resolved: &mut ResolvedPipeline, time: Timestamp) {
    let time = jiff::Timestamp::from_millisecond(time.as_millis()).unwrap_or_default();
    for template in &mut resolved.templates {
        std::sync::Arc::make_mut(template).merged.env.push(EnvVar {
            name: SCHEDULED_TIME.to_owned(),
            value: Some(time.to_string()),
            value_from: None,
        });
    }
}
