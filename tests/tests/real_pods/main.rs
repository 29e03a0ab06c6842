//! Each way in which a pod can end or fail to start, by real containers on a real Kubernetes, through the whole installation: what the
//! command line says of it, and that a person could act on it.
//!
//! `docs/failures.md` has the table; `failures_table.rs` keeps it in step with these tests.

mod support;

mod admission;
mod companions;
mod configuration;
mod disturbances;
mod exits;
mod images;
mod namespaces;
mod scheduling;
mod stops;
