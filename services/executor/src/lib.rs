//! The executor service: every Kubernetes operation.
//!
//! It pulls its orders from the scheduler (`connect`), acts on one cluster (`kubernetes`), and reports what it sees of attempts, judged
//! by a pure core ([`attempts`]). It keeps nothing: any number of executors may run, and one that dies is replaced by a list. It
//! decides neither readiness nor retries nor order; the log relay's readers (`feed`) are the only other ones that it talks to.

mod agent;
pub mod attempts;
pub mod checks;
mod config;
mod connect;
mod feed;
pub mod kubernetes;
pub mod metrics;
mod secrets;
pub mod server;

pub use config::{Config, ConfigError, NamespacePolicy};
