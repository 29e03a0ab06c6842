//! What these tests share.

mod proxy;

pub(crate) use proxy::{Fate, Proxy, Seen};
pub(crate) use windlass_tests::scene::{PATIENCE, Scene, Turn, has_finalizer, kubelet, repair, signal};
