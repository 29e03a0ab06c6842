//! What these tests share.

mod proxy;
mod scene;
mod turns;

pub(crate) use proxy::{Fate, Proxy, Seen};
pub(crate) use scene::{PATIENCE, Scene, has_finalizer, kubelet, signal};
pub(crate) use turns::{Turn, repair};
