//! The scheduler as clients, executors and log relays meet it: real ports, a real store, the real protocols.

mod changes;
mod clusters;
mod executor;
mod explaining;
mod layers;
mod lists;
mod one_step;
mod policy;
mod references;
mod relay;
mod relays;
mod rendering;
mod restarts;
mod retention;
mod retrying;
mod run_secrets;
mod scheduling;
mod secrets;
mod sessions;
mod settings;
mod submitting;
mod support;
mod takeover;
mod watching;
