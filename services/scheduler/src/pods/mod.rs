//! Pods as they would be made, looked at field by field: what they use, and where a pipeline asked for it.

mod locate;
mod secrets;
mod walk;

pub(crate) use locate::Written;
pub(crate) use secrets::{SecretUse, secret_uses};
pub(crate) use walk::{Place, each_field};
