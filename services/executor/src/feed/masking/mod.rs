//! Keeps values of Secrets out of logs, before a line leaves the process.

mod known;
mod masks;

pub(crate) use known::Known;
pub(crate) use masks::Masks;
pub(super) use masks::mask;
