//! Admission: from a request to a checked run. Everything that costs time is done here, off the core's task.

mod check;
mod inspect;
mod lanes;
mod name;
mod render;
mod retry;
mod scheduled;
mod secrets;
mod shared_secrets;
mod submit;

pub(crate) use check::{Checked, Checker, check};
pub(crate) use lanes::{Lanes, Size};
pub(crate) use name::name_fault;
pub(crate) use render::{RenderedPod, Renderer};
pub(crate) use retry::{Plan, plan, retry};
pub(crate) use scheduled::{SCHEDULE_LABEL, Scheduled, scheduled};
pub(crate) use secrets::form_problems;
pub(crate) use shared_secrets::{Wanted, make as make_secret, wanted as wanted_secret};
pub(crate) use submit::{MAX_REQUEST_ID, Made, Submitter, label_problems, submit};
