//! Admission: from a request to a checked run. Everything that costs time is done here, off the core's task.

mod check;
mod lanes;
mod name;
mod render;
mod retry;
mod submit;

pub(crate) use check::{Checker, check};
pub(crate) use lanes::{Lanes, Size};
pub(crate) use name::name_fault;
pub(crate) use render::{RenderedPod, Renderer};
pub(crate) use retry::{Plan, plan, retry};
pub(crate) use submit::{Submitter, submit};
