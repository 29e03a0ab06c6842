//! The session with the scheduler: sequence numbers, acknowledgements, resume, lease.

pub(crate) mod convert;
mod lease;
mod outbox;
mod session;

pub(crate) use lease::Lease;
pub(crate) use outbox::Outbox;
pub(crate) use session::{Introduction, Session, Welcome, deadline, duration};
