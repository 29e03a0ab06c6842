//! Secrets from end to end.

mod kept;
mod of_runs;
mod of_schedules;
mod support;
