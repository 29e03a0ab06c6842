//! Schedules: when they fire, and what is done about it.
//!
//! The driver owns the [`Book`], as it owns the core: it says which schedules are due, the [`Firer`] makes their runs off the driver's
//! task, and the driver commits run and schedule together. A fire is known by its schedule and its time. What was prepared for a version of a
//! schedule that is no longer the present one is dropped, so that no fire can have two runs.

mod book;
mod calendar;
mod fire;
mod model;
mod plan;
mod settings;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use book::{Book, Changed, RETRY};
pub(crate) use calendar::Calendar;
pub(crate) use fire::{FireJob, FireOrder, Fired, Firer, jobs};
pub(crate) use model::{ScheduleKey, ScheduleModel};
pub(crate) use plan::Plan;
pub(crate) use settings::{settings_from_proto, settings_to_proto};

/// Most schedules of a namespace.
pub(crate) const MAX_SCHEDULES: usize = 1_000;

/// Who cancels a run whose schedule says REPLACE.
pub(crate) fn actor(schedule: &str) -> String {
    format!("schedule {schedule}")
}
