//! The scheduler service: run state, readiness, retries and limits; the only writer of the store.
//!
//! One task, the driver, owns the core (`windlass-scheduling`); it commits a batch of decisions before anything follows from them.
//! Readers see the read model and the store's history, never the core. Sessions of executors and log relays are volatile: what is
//! lost with them is derived again from the store and from inventories.
//!
//! It never talks to Kubernetes. A secret's value passes through it on its way to an executor, and is neither looked at nor kept.

mod admission;
mod clusters;
mod config;
mod definition;
mod driver;
pub mod errors;
mod executors;
mod explain;
mod grpc;
mod history;
mod lookup;
mod metric;
mod pods;
mod policy;
mod read_model;
mod relays;
mod retention;
mod run_secrets;
mod schedules;
mod secrets;
pub mod server;
mod shared;
pub mod store;
#[cfg(test)]
mod testing;
mod webhooks;

pub use config::Config;
pub use retention::RunRetention;
pub use secrets::references::ReferenceCheck;
