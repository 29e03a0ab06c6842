//! The pure core: from what Kubernetes says about pods and nodes to what is reported about attempts.
//!
//! It knows no client, no protocol and no clock; times come in through arguments.

pub mod assess;
mod classify;
pub mod fleet;
pub mod identity;
pub mod model;
pub mod nodes;
mod recent;
mod secret_uses;
mod waits;
pub mod wire;

pub use fleet::Fleet;
pub use model::{End, FailureClass, NodeHealth, Phase, Policy, Sight};
pub use secret_uses::SecretUse;
pub(crate) use secret_uses::secret_uses;

#[cfg(test)]
mod tests;
