//! Faults that come from outside of a pod, and the invariants that they attack, on a real Kubernetes with two nodes
//! (`tests/cluster/up.sh --nodes 2`): dead nodes, dead control planes, lost replies, several executors, other people's deletions.
//!
//! Each test has a whole installation of its own, as processes. Tests that disturb the cluster run alone.

mod api_server;
mod creates;
mod letting_go;
mod nodes;

mod purge;
mod support;
