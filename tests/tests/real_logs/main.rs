//! I7 on a real Kubernetes with two nodes (`tests/cluster/up.sh --nodes 2`), whose kubelets rotate logs every three seconds.
//!
//! Containers write numbered lines and keep what they wrote; `windlass logs --follow` reads beside them. It must have all, in order, but
//! for what was rotated away, and there a mark must be.

mod cuts;
mod deletions;
mod endings;
mod restarts;
mod rotation;
mod support;
