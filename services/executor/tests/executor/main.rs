//! The executor against the local cluster, with a scheduler that does what the test says; all over real HTTP.

mod checking;
mod common;
mod connecting;
mod faults;
mod gate;
mod last_words;
mod lifecycle;
mod namespaces;
mod renewing;
mod run_secrets;
mod secrets;
mod session;
