//! The executor against the local cluster, with a scheduler that does what the test says; all over real HTTP.

mod common;
mod faults;
mod lifecycle;
mod secrets;
mod session;
