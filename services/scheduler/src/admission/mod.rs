//! Admission: from a request to a checked run. Everything that costs time is done here, off the core's task.

mod check;
mod name;
mod render;
mod submit;

pub(crate) use check::{Checker, check};
pub(crate) use name::name_fault;
pub(crate) use render::{RenderedPod, render};
pub(crate) use submit::{Submitter, submit};
